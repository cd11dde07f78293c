"""Probes bind measures to a live model: which tensors feed which measure, and at what cost.

A probe is added by one file: a frozen dataclass with a `name`, what it `needs`, what it costs, and
`observe`, which yields readings. See `grokscope.probes.probe.Probe`.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from grokscope.probes.golechha import Golechha
    from grokscope.probes.logits import Logits
    from grokscope.probes.neighbourhood import Neighbourhood
    from grokscope.probes.norms import Norms
    from grokscope.probes.performance import Performance
    from grokscope.probes.probe import Probe
    from grokscope.probes.spectral import Spectral
    from grokscope.probes.view import ProbeData, View

__all__ = [
    "Golechha",
    "Logits",
    "Neighbourhood",
    "Norms",
    "Performance",
    "Probe",
    "ProbeData",
    "Spectral",
    "View",
]


def __getattr__(name: str) -> object:
    """Import what is asked for: `grokscope.probes.matrices` plans without torch."""
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module = "view" if name == "ProbeData" else name.lower()
    return getattr(import_module(f"{__name__}.{module}"), name)
