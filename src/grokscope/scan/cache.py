"""Results by what they were made from, so that a scan that was interrupted goes on.

One small file per matrix, named by a digest of everything that its result depends on: the bytes of
the tensors, the cut, the settings, the code that measures. Nothing here is ever out of date.
"""

from __future__ import annotations

import functools
import hashlib
import importlib.metadata
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from grokscope.errors import GrokscopeError
from grokscope.store.atomic import write_atomically


def cache_key(made_from: Mapping[str, Any]) -> str:
    """Return the name of a result: SHA-256 of ``made_from`` and of the code that measures.

    Args:
        made_from: Everything else that decides the result, plain JSON.
    """
    text = json.dumps([_code(), made_from], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


@functools.cache
def _code() -> str:
    """Return the SHA-256 of the source files that a record comes from, and of the libraries."""
    package = Path(__file__).parent.parent
    digest = hashlib.sha256()
    for pattern in ("measures/*.py", "probes/*.py", "scan/*.py", "data/seeds.py"):
        for file in sorted(package.glob(pattern)):
            digest.update(file.read_bytes())
    for library in ("torch", "numpy", "scipy"):
        digest.update(importlib.metadata.version(library).encode())
    return digest.hexdigest()


class Cache:
    """Results in a folder; a faulty or unwritable folder only costs the time it would have saved.

    Attributes:
        fault: Why results are no longer kept; empty while they are.
    """

    def __init__(self, folder: Path | None) -> None:
        """Name the folder; it is made when the first result arrives.

        Args:
            folder: Where results lie; None keeps none.
        """
        self._folder = folder
        self.fault = ""

    def get(self, key: str) -> dict[str, Any] | None:
        """Return a result that was kept, None if there is none that can be read."""
        if self._folder is None:
            return None
        try:
            found = json.loads(self._path(key).read_bytes())
        except (OSError, ValueError, RecursionError):
            return None
        return found if isinstance(found, dict) else None

    def put(self, key: str, result: Mapping[str, Any]) -> None:
        """Keep a result, plain JSON with nan and infinity as Python writes them."""
        if self._folder is None or self.fault:
            return
        path = self._path(key)
        try:
            path.parent.mkdir(parents=True, exist_ok=True)
            write_atomically(path, json.dumps(result).encode())
        except (OSError, GrokscopeError):
            self.fault = f"{self._folder} cannot be written"

    def _path(self, key: str) -> Path:
        assert self._folder is not None
        return self._folder / key[:2] / f"{key[2:]}.json"
