"""Watching a training run: when to look, at what price, and without leaving a trace."""

from grokscope.watch.schedule import log_spaced
from grokscope.watch.watch import Watch, default_probes

__all__ = ["Watch", "default_probes", "log_spaced"]
