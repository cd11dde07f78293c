from __future__ import annotations

from pathlib import Path

import pytest


@pytest.fixture(autouse=True)
def no_user_data(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Keep tests away from the data, the cache and the network of whoever runs them."""
    monkeypatch.delenv("GROKSCOPE_DATA", raising=False)
    monkeypatch.setenv("no_proxy", "*")
    monkeypatch.setattr("grokscope.data.mnist.user_cache_path", lambda name: tmp_path / "cache")
    monkeypatch.setattr("grokscope.data.mnist.MIRRORS", ())
