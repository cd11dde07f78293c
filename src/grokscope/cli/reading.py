"""The commands that read a run: report, export and plot. None of them imports torch."""

from __future__ import annotations

import io
import sys
from pathlib import Path

import typer

from grokscope.cli.outcome import show
from grokscope.errors import InputError, UsageError
from grokscope.report import write_figure, write_report
from grokscope.store.atomic import write_atomically, writing
from grokscope.store.export import export_readings
from grokscope.store.run_directory import RunDirectory
from grokscope.store.trace import Trace


def _open(folder: Path) -> tuple[RunDirectory, Trace]:
    run = RunDirectory.open(folder)
    with run.trace(readonly=True) as database:
        trace = database.load()
    if not len(trace.steps()):
        raise InputError(f"{folder} holds no observation yet.")
    return run, trace


def write_page(folder: Path, *, check: bool, as_json: bool) -> None:
    """Write the page and print the outcome."""
    run, trace = _open(folder)
    write_report(run)
    if show(run, trace, as_json) and check:
        raise typer.Exit(1)


def export_run(folder: Path, fmt: str, out: Path | None) -> None:
    """Write the readings to a file or to standard output."""
    _, trace = _open(folder)
    if out is None:
        if fmt == "parquet" and sys.stdout.isatty():
            raise UsageError("parquet is binary; name a file with --out, or redirect.")
        with writing(Path("standard output")):
            export_readings(trace, fmt, sys.stdout.buffer)
            sys.stdout.buffer.flush()
        return
    table = io.BytesIO()
    export_readings(trace, fmt, table)
    write_atomically(out, table.getvalue())


def draw(folder: Path, out: Path) -> None:
    """Draw the main figure."""
    run, trace = _open(folder)
    write_figure(trace, run.manifest, out)
    print(out)
