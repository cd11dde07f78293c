"""One small finished run to look at, and a copy of it to damage."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from command_line import SMALL, Outcome, invoke


@pytest.fixture
def grokscope() -> Callable[..., Outcome]:
    return invoke


@pytest.fixture(scope="session")
def finished_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("runs") / "small"
    outcome = invoke("run", "anti-grokking", *SMALL, "--out", folder)
    assert outcome.code == 0, outcome.err
    return folder


@pytest.fixture
def small_run(finished_run: Path, tmp_path: Path) -> Path:
    """A private copy of the finished run, to be damaged."""
    return Path(shutil.copytree(finished_run, tmp_path / "small"))
