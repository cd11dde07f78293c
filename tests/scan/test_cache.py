"""Results that are kept, and what a damaged folder does."""

from __future__ import annotations

from pathlib import Path

from grokscope.scan import cache
from grokscope.scan.cache import Cache, cache_key


def test_what_is_put_comes_back_and_nothing_else(tmp_path: Path) -> None:
    kept = Cache(tmp_path / "new" / "folder")
    key = cache_key({"tensors": ["a"], "seed": 0})
    assert kept.get(key) is None
    kept.put(key, {"record": {"alpha": 2.5}})
    assert kept.get(key) == {"record": {"alpha": 2.5}}
    assert Cache(tmp_path / "new" / "folder").get(key) == {"record": {"alpha": 2.5}}
    assert kept.get(cache_key({"tensors": ["a"], "seed": 1})) is None


def test_a_key_depends_on_content_and_code_not_on_order(monkeypatch) -> None:
    key = cache_key({"a": 1, "b": 2})
    assert key == cache_key({"b": 2, "a": 1})
    monkeypatch.setattr(cache, "_code", lambda: "another")
    assert key != cache_key({"a": 1, "b": 2})


def test_a_damaged_result_is_measured_again(tmp_path: Path) -> None:
    kept = Cache(tmp_path)
    key = cache_key({})
    kept.put(key, {"record": {}})
    (file,) = tmp_path.rglob("*.json")
    for damaged in (b"", b"{", b"[]", b"\xff", b"[" * 100_000):
        file.write_bytes(damaged)
        assert kept.get(key) is None
    kept.put(key, {"record": {}})
    assert kept.get(key) == {"record": {}}


def test_a_folder_that_cannot_be_written_is_said_once_and_stops_nothing(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    kept = Cache(tmp_path / "file" / "cache")
    kept.put(cache_key({}), {"record": {}})
    assert "file" in kept.fault
    assert kept.get(cache_key({})) is None


def test_without_a_folder_nothing_is_kept() -> None:
    kept = Cache(None)
    kept.put(cache_key({}), {"record": {}})
    assert kept.get(cache_key({})) is None
    assert not kept.fault
