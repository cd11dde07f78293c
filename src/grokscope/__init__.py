"""grokscope: an instrument for the late phase of neural-network training.

The names here are loaded when they are first used, so that ``import grokscope`` stays light.
"""

from typing import TYPE_CHECKING

from grokscope._version import __version__

if TYPE_CHECKING:
    from grokscope.probes.view import ProbeData as ProbeData
    from grokscope.watch.watch import Watch as Watch

_LAZY = {
    "ProbeData": "grokscope.probes.view",
    "Watch": "grokscope.watch.watch",
}

__all__ = ["ProbeData", "Watch", "__version__"]


def __getattr__(name: str) -> object:
    if name not in _LAZY:
        raise AttributeError(f"module 'grokscope' has no attribute {name!r}")
    from importlib import import_module

    return getattr(import_module(_LAZY[name]), name)
