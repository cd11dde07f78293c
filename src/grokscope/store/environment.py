"""What a run was made with: the software and the machine, as far as they decide its numbers."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import sys
from typing import Any

from grokscope._version import __version__

_PACKAGES = ("torch", "numpy", "safetensors")


def capture_environment() -> dict[str, Any]:
    """Describe this process, without host name and environment variables (they may be secret).

    Returns:
        Plain JSON values: versions of grokscope, Python and the packages that compute (None where
        one is not installed), platform, machine, number of CPUs, and the command line.
    """
    return {
        "grokscope": __version__,
        "python": platform.python_version(),
        "packages": {name: _version(name) for name in _PACKAGES},
        "platform": platform.platform(),
        "machine": platform.machine(),
        "cpu_count": os.cpu_count(),
        "argv": list(sys.argv),
    }


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None
