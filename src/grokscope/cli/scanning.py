"""The command that scans checkpoints."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import math
import os
import re
import shlex
import signal
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any, Literal

import platformdirs
import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn, TimeRemainingColumn

from grokscope._text import visible
from grokscope.cli.scan_table import print_scan
from grokscope.errors import MissingResource, UsageError, unknown
from grokscope.probes.matrices import Heads
from grokscope.scan import Limits, Settings, scan
from grokscope.scan.export import layers_parquet, require_pyarrow
from grokscope.scan.findings import FINDINGS
from grokscope.store.atomic import write_atomically

_SUFFIXES = (".html", ".json", ".parquet")
_ANY = "any"
_DRIVERS = ("/dev/nvidiactl", "/dev/dxg", "/dev/kfd")
_SHUFFLES = Settings().shuffles
_MOST_MEMORY = 2.0**20  # GiB; infinity is no number of bytes
_PATIENCE = 10.0  # seconds between lines of progress where there is no terminal


def scan_checkpoint(
    path: Path,
    *,
    base: Path | None,
    layers: str | None,
    convention: Literal["corrected", "weightwatcher"],
    shuffles: int,
    seed: int | None,
    bootstrap: int,
    heads: str | None,
    key: str | None,
    allow_globals: Sequence[str],
    follow_symlinks: bool,
    limits: Sequence[str],
    memory: float | None,
    workers: int | None,
    device: str,
    cache: bool,
    fail_on: Sequence[str],
    out: Sequence[Path],
    show_all: bool,
    as_json: bool,
) -> None:
    """Scan, print the outcome, and write what was asked for."""
    for name in fail_on:
        if name not in FINDINGS and name != _ANY:
            raise unknown("finding", name, [*FINDINGS, _ANY])
    for file in out:
        _check_writable(file)
    console = Console(stderr=True, highlight=False)
    with _interruptible(cache), _progress(console) as progress:
        result = scan(
            path,
            base=base,
            settings=Settings(
                convention=convention, shuffles=shuffles, seed=seed, bootstrap=bootstrap
            ),
            layers=layers,
            heads=_heads(heads),
            key=key,
            allow_globals=allow_globals,
            follow_symlinks=follow_symlinks,
            limits=_limits(limits),
            memory=None if memory is None else int(min(memory, _MOST_MEMORY) * 2**30),
            workers=workers,
            device=_device(device),
            cache=platformdirs.user_cache_path("grokscope") / "scans" if cache else None,
            progress=progress,
        )
    document = result.document
    if as_json:
        print(json.dumps(document, indent=1, allow_nan=False))
    else:
        command = None
        if not out:
            given = {
                "base": base,
                "layers": layers,
                "convention": None if convention == "corrected" else convention,
                "shuffles": None if shuffles == _SHUFFLES else shuffles,
                "seed": seed,
                "bootstrap": bootstrap or None,
                "heads": heads,
                "key": key,
            }
            command = _page_command(path, given, allow_globals, follow_symlinks)
        print_scan(document, Console(highlight=False), show_all=show_all, page_command=command)
    for file in out:
        write_atomically(file, _written(file, document, result.spectra))
        print(f"Written: {file}", file=sys.stderr)
    # Of a run, its newest checkpoint is judged; the older ones are its history.
    newest = document["layers"][-1]["step"] if document["layers"] else None
    found = {each["finding"] for each in document["findings"] if each["step"] == newest}
    if found & set(fail_on) or (found and _ANY in fail_on):
        raise typer.Exit(1)


def _page_command(
    path: Path,
    given: Mapping[str, object],
    allow_globals: Sequence[str],
    follow_symlinks: bool,
) -> str:
    """Return the command that draws this scan."""
    words = ["grokscope", "scan", str(path)]
    for name, value in given.items():
        words += [] if value is None else [f"--{name}", str(value)]
    for name in allow_globals:
        words += ["--allow-global", name]
    words += ["--follow-symlinks"] if follow_symlinks else []
    return visible(shlex.join([*words, "--out", "scan.html"]), 4000)


def _check_writable(file: Path) -> None:
    """Refuse a file that cannot be written, before anything is measured."""
    if file.suffix not in _SUFFIXES:
        raise unknown("kind of file", file.suffix or str(file), _SUFFIXES)
    if file.is_dir():
        raise UsageError(f"--out {file} is a folder; name a file in it.")
    if not os.access(file.absolute().parent, os.W_OK | os.X_OK):
        raise MissingResource(f"--out {file}: its folder is not there, or cannot be written to.")
    if file.suffix == ".parquet":
        require_pyarrow()


def _written(file: Path, document: dict[str, Any], spectra: Sequence[dict[str, Any]]) -> bytes:
    match file.suffix:
        case ".html":
            from grokscope.report.scan_page import build_scan_page

            return build_scan_page(document, spectra).encode()
        case ".parquet":
            return layers_parquet(document)
        case _:
            return json.dumps(document, indent=1, allow_nan=False).encode()


def _heads(text: str | None) -> Heads | Literal["auto"] | None:
    if text is None:
        return None
    if text == "auto":
        return "auto"
    found = re.fullmatch(r"([1-9]\d{0,3})(?:/([1-9]\d{0,3}))?", text)
    if found:
        with contextlib.suppress(ValueError):  # queries that keys cannot share evenly
            return Heads(int(found[1]), int(found[2] or found[1]))
    raise UsageError(f"--heads {text!r}: expected 32, 32/8 (queries/keys) or auto.")


def _limits(changes: Sequence[str]) -> Limits:
    limits = Limits()
    known = dataclasses.asdict(limits)
    for change in changes:
        name, _, text = change.partition("=")
        if name not in known:
            raise unknown("limit", name, known)
        try:
            value = type(known[name])(text)
        except ValueError:
            value = -1
        if not 0 < value < math.inf:
            raise UsageError(f"--limit {change}: expected {name}=NUMBER, above 0.")
        limits = dataclasses.replace(limits, **{name: value})
    return limits


def _device(name: str) -> Literal["cpu", "cuda"]:
    if name == "auto" and not any(Path(driver).exists() for driver in _DRIVERS):
        return "cpu"  # known without torch, which takes a second to import
    from grokscope.experiments.run import choose_device

    return "cuda" if choose_device(name) == "cuda" else "cpu"


@contextmanager
def _interruptible(cache: bool) -> Iterator[None]:
    """Turn Ctrl-C and SIGTERM into a sentence and their exit codes."""
    received = [signal.SIGINT]

    def stop(number: int, frame: FrameType | None) -> None:
        received[0] = signal.Signals(number)
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    except KeyboardInterrupt:
        kept = " What was measured is kept: the same command goes on from there." if cache else ""
        print(f"Interrupted.{kept}", file=sys.stderr)
        raise typer.Exit(128 + received[0]) from None
    finally:
        signal.signal(signal.SIGTERM, before)


@contextmanager
def _progress(console: Console) -> Iterator[Callable[[str, float], None]]:
    """Show a bar on a terminal; elsewhere a line now and then of what takes long."""
    if not console.is_terminal:
        said = time.monotonic()

        def lines(stage: str, share: float) -> None:
            nonlocal said
            if time.monotonic() - said >= _PATIENCE:
                said = time.monotonic()
                print(f"{stage}: {share:.0%}", file=sys.stderr)

        yield lines
        return
    bar = Progress(
        TextColumn("[bold]{task.description}"),
        BarColumn(bar_width=None),
        TaskProgressColumn(),
        TimeRemainingColumn(compact=True),
        console=console,
        transient=True,
    )
    with bar:
        tasks: dict[str, Any] = {}

        def show_bar(stage: str, share: float) -> None:
            if stage not in tasks:
                for task in tasks.values():
                    bar.update(task, visible=False)
                tasks[stage] = bar.add_task(stage, total=1.0)
            bar.update(tasks[stage], completed=share)

        yield show_bar
