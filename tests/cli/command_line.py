"""Run the command line in this process, as a user would in theirs."""

from __future__ import annotations

import contextlib
import io
from dataclasses import dataclass
from pathlib import Path

from grokscope.cli import main

# A network small enough for a second, through the same code as the large ones.
SMALL = (
    "--steps", "1500",
    "--set", "n_train=60",
    "--set", "hidden=16,12",
    "--set", "batch_size=30",
    "--set", "observations=30",
)  # fmt: skip


@dataclass(frozen=True)
class Outcome:
    code: int
    out: str
    err: str


def invoke(*arguments: str | Path) -> Outcome:
    out, err = io.TextIOWrapper(io.BytesIO(), "utf-8"), io.StringIO()
    code: object = 0
    with contextlib.redirect_stdout(out), contextlib.redirect_stderr(err):
        try:
            main([str(argument) for argument in arguments])
        except SystemExit as stop:
            code = stop.code
    out.flush()
    assert code is None or isinstance(code, int)
    return Outcome(code or 0, out.buffer.getvalue().decode(), err.getvalue())  # type: ignore[attr-defined]
