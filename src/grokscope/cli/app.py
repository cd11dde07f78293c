"""The commands and what they take. Each imports what it needs when it is called.

`grokscope --help` must stay fast, and reading a finished run must not import torch.
"""

from __future__ import annotations

import signal
import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated

import typer

from grokscope._text import visible
from grokscope._version import __version__
from grokscope.errors import GrokscopeError

app = typer.Typer(
    name="grokscope",
    help="See what a network does after its training loss has gone quiet: memorising, grokking, "
    "generalised, or collapsing.",
    epilog="Begin with: grokscope run anti-grokking",
    no_args_is_help=True,
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


class Device(StrEnum):
    """Where to train."""

    auto = "auto"
    cpu = "cpu"
    cuda = "cuda"


class ExportFormat(StrEnum):
    """How to write readings."""

    csv = "csv"
    jsonl = "jsonl"
    parquet = "parquet"


class Convention(StrEnum):
    """How spectra are read."""

    corrected = "corrected"
    weightwatcher = "weightwatcher"


class Listing(StrEnum):
    """What to list."""

    experiments = "experiments"
    measures = "measures"
    runs = "runs"


_READING = frozenset({"report", "export", "plot", "list"})

RunFolder = Annotated[Path, typer.Argument(metavar="RUN", help="Folder of a run.")]
AsJson = Annotated[bool, typer.Option("--json", help="Print one JSON document and nothing else.")]
DataDir = Annotated[
    Path | None,
    typer.Option(help="Folder with the original data files.", envvar="GROKSCOPE_DATA"),
]
Where = Annotated[Device, typer.Option("--device", help="Where to train.")]
Check = Annotated[bool, typer.Option("--check", help="Exit with 1 if a claim fails.")]


def _version(wanted: bool) -> None:
    if wanted:
        print(f"grokscope {__version__}")
        raise typer.Exit


@app.callback()
def _root(
    version: Annotated[
        bool,
        typer.Option("--version", callback=_version, is_eager=True, help="Show the version."),
    ] = False,
) -> None:
    pass


@app.command()
def run(
    experiment: Annotated[str, typer.Argument(help="Name; see: grokscope list experiments")],
    preset: Annotated[str | None, typer.Option(help="Setting of the experiment.")] = None,
    seed: Annotated[int | None, typer.Option(help="Root of all randomness.")] = None,
    changes: Annotated[
        list[str] | None, typer.Option("--set", metavar="KEY=VALUE", help="Change one setting.")
    ] = None,
    steps: Annotated[int | None, typer.Option(help="Optimiser steps.")] = None,
    out: Annotated[
        Path | None, typer.Option(help="Folder of the run; one under ./runs by default.")
    ] = None,
    data_dir: DataDir = None,
    device: Where = Device.auto,
    check: Check = False,
    as_json: AsJson = False,
) -> None:
    """Train a published system and watch it: verdict, claims, and a page to look at."""
    from grokscope.cli.training import start

    start(
        experiment,
        preset=preset,
        seed=seed,
        changes=changes or [],
        steps=steps,
        out=out,
        data_dir=data_dir,
        device=device.value,
        check=check,
        as_json=as_json,
    )


@app.command()
def resume(
    run: RunFolder,
    data_dir: DataDir = None,
    device: Where = Device.auto,
    check: Check = False,
    as_json: AsJson = False,
) -> None:
    """Go on with a run that stopped, bit for bit as if it had not."""
    from grokscope.cli.training import go_on

    go_on(run, data_dir=data_dir, device=device.value, check=check, as_json=as_json)


@app.command()
def report(run: RunFolder, check: Check = False, as_json: AsJson = False) -> None:
    """Write the page of a run anew from its folder."""
    from grokscope.cli.reading import write_page

    write_page(run, check=check, as_json=as_json)


@app.command()
def export(
    run: RunFolder,
    fmt: Annotated[ExportFormat, typer.Option("--format", help="How to write.")],
    out: Annotated[Path | None, typer.Option(help="File; standard output by default.")] = None,
) -> None:
    """Write every reading of a run, one per line or row."""
    from grokscope.cli.reading import export_run

    export_run(run, fmt.value, out)


@app.command()
def plot(
    run: RunFolder,
    out: Annotated[Path, typer.Option(help="File that ends in .png, .svg or .pdf.")],
) -> None:
    """Draw the main figure of a run."""
    from grokscope.cli.reading import draw

    draw(run, out)


@app.command()
def scan(
    path: Annotated[
        Path,
        typer.Argument(
            metavar="PATH",
            help="A safetensors or torch file, a Hugging Face folder, a run or its checkpoint.",
        ),
    ],
    base: Annotated[
        Path | None, typer.Option(help="Model to subtract first: what has training changed?")
    ] = None,
    layers: Annotated[
        str | None, typer.Option(metavar="PATTERN", help="Regular expression for names of layers.")
    ] = None,
    convention: Annotated[
        Convention, typer.Option(help="Our definitions, or the columns of WeightWatcher 0.7.7.")
    ] = Convention.corrected,
    shuffles: Annotated[
        int, typer.Option(min=0, help="Shuffles that traps are looked for in.")
    ] = 10,
    seed: Annotated[
        int | None, typer.Option(min=0, help="Root of the shuffles; a run has its own, else 0.")
    ] = None,
    bootstrap: Annotated[
        int, typer.Option(min=0, help="Synthetic spectra behind a p-value of the power law.")
    ] = 0,
    heads: Annotated[
        str | None,
        typer.Option(help="Cut attention by head: 32, 32/8 (queries/keys), or auto."),
    ] = None,
    out: Annotated[
        list[Path] | None,
        typer.Option(help="Write a file too: .html (with spectra), .json or .parquet."),
    ] = None,
    fail_on: Annotated[
        list[str] | None,
        typer.Option(metavar="FINDING", help="Exit with 1 if there is one; any for all kinds."),
    ] = None,
    show_all: Annotated[bool, typer.Option("--all", help="Show every layer.")] = False,
    device: Annotated[Device, typer.Option(help="Where spectra are computed.")] = Device.auto,
    workers: Annotated[
        int | None, typer.Option(min=1, help="Processes; one for each core by default.")
    ] = None,
    memory: Annotated[
        float | None, typer.Option(min=0.1, help="GiB for all of them; half of what is there.")
    ] = None,
    cache: Annotated[
        bool, typer.Option("--cache/--no-cache", help="Keep results, so that a scan can go on.")
    ] = True,
    key: Annotated[
        str | None, typer.Option(help="Where in a torch file the weights lie: ema.model.")
    ] = None,
    allow_global: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME", help="Let a torch file hold this harmless thing besides."),
    ] = None,
    follow_symlinks: Annotated[
        bool, typer.Option("--follow-symlinks", help="Open links, as in a hub's cache.")
    ] = False,
    limit: Annotated[
        list[str] | None,
        typer.Option(metavar="NAME=VALUE", help="Raise a cap on what a file may hold."),
    ] = None,
    as_json: AsJson = False,
) -> None:
    """Measure every weight matrix of any checkpoint, without running or trusting it."""
    from grokscope.cli.scanning import scan_checkpoint

    scan_checkpoint(
        path,
        base=base,
        layers=layers,
        convention=convention.value,
        shuffles=shuffles,
        seed=seed,
        bootstrap=bootstrap,
        heads=heads,
        key=key,
        allow_globals=allow_global or [],
        follow_symlinks=follow_symlinks,
        limits=limit or [],
        memory=memory,
        workers=workers,
        device=device.value,
        cache=cache,
        fail_on=fail_on or [],
        out=out or [],
        show_all=show_all,
        as_json=as_json,
    )


@app.command("list")
def list_(
    what: Annotated[Listing, typer.Argument(help="What to list.")],
    folder: Annotated[Path, typer.Option("--in", help="Where runs are looked for.")] = Path("runs"),
    as_json: AsJson = False,
) -> None:
    """List experiments with their presets, measures, or runs."""
    from grokscope.cli.listing import list_experiments, list_measures, list_runs

    if what is Listing.experiments:
        list_experiments(as_json)
    elif what is Listing.measures:
        list_measures(as_json)
    else:
        list_runs(folder, as_json)


def main(arguments: list[str] | None = None) -> None:
    """Run the command line and exit with the documented code.

    Args:
        arguments: What follows the program's name; `sys.argv` by default.
    """
    if (
        arguments is None
        and sys.argv[1:2]
        and sys.argv[1] in _READING
        and hasattr(signal, "SIGPIPE")
    ):
        # As every tool that is read by `head`: end quietly when the reader has gone away.
        signal.signal(signal.SIGPIPE, signal.SIG_DFL)
    try:
        app(args=arguments, prog_name="grokscope")
    except GrokscopeError as error:
        # A message may quote names out of a hostile file or folder.
        lines = [visible(line, 4000) for line in str(error).splitlines()]
        print("grokscope: " + "\n".join(lines), file=sys.stderr)
        sys.exit(error.exit_code)
