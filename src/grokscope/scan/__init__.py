"""Reading untrusted checkpoints, weights only: the table of layers, and what deserves a look."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from grokscope.scan.document import Scan, scan
    from grokscope.scan.limits import Limits
    from grokscope.scan.settings import Settings

__all__ = ["Limits", "Scan", "Settings", "scan"]

_HOMES = {"Limits": "limits", "Scan": "document", "Settings": "settings", "scan": "document"}


def __getattr__(name: str) -> Any:
    """Import what is asked for: a child process that checks files does without torch."""
    if name in _HOMES:
        return getattr(importlib.import_module(f"grokscope.scan.{_HOMES[name]}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
