"""The commands that train: run and resume."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import typer
from pydantic import BaseModel, ValidationError
from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    TextColumn,
    TimeRemainingColumn,
)
from rich.progress import (
    Progress as Bar,
)

from grokscope.cli.outcome import show
from grokscope.errors import GrokscopeError, InputError, UsageError, unknown
from grokscope.experiments import Experiment, get_experiment
from grokscope.experiments.settings import resolve
from grokscope.store.config import config_hash
from grokscope.store.run_directory import RunDirectory

if TYPE_CHECKING:
    from grokscope.experiments.run import Progress


def start(
    name: str,
    *,
    preset: str | None,
    seed: int | None,
    changes: Sequence[str],
    steps: int | None,
    out: Path | None,
    data_dir: Path | None,
    device: str,
    check: bool,
    as_json: bool,
) -> None:
    """Resolve the configuration, open the folder, and train."""
    experiment = get_experiment(name)
    preset = experiment.default if preset is None else preset
    if preset not in experiment.presets:
        raise unknown(f"preset of {name},", preset, experiment.presets)
    standard = experiment.presets[preset].config
    named = {"seed": seed, "steps": steps}
    for key in (key for key, value in named.items() if value is not None):
        if any(change.partition("=")[0].strip() == key for change in changes):
            raise UsageError(f"--{key} and --set {key}=... contradict each other; give one.")
    config = resolve(standard, changes, **named)
    values = config.model_dump(mode="json")
    if out is None:
        out = _default_folder(experiment, preset, standard, config)
    ours = not out.exists()
    run = RunDirectory.open_or_create(out, experiment=experiment.id, preset=preset, config=values)
    try:
        _train(experiment, run, config, data_dir, device, check, as_json)
    except GrokscopeError:
        if ours:
            run.discard_if_unused()  # or it would stand in the way of the corrected command
        raise


def go_on(folder: Path, *, data_dir: Path | None, device: str, check: bool, as_json: bool) -> None:
    """Open a run folder, and train on with the configuration that it holds."""
    run = RunDirectory.open(folder)
    name = str(run.manifest["experiment"])
    try:
        experiment = get_experiment(name)
    except UsageError as error:
        raise InputError(f"{folder} cannot be resumed from the command line: {error}") from None
    standard = experiment.presets[experiment.default].config
    try:
        config = type(standard).model_validate(run.manifest["config"])
    except ValidationError as error:
        raise InputError(
            f"the configuration in {folder / 'run.json'} is not one of {name}: "
            f"{error.error_count()} fields do not fit. It may come from another version."
        ) from None
    _train(experiment, run, config, data_dir, device, check, as_json)


def _default_folder(
    experiment: Experiment, preset: str, standard: BaseModel, config: BaseModel
) -> Path:
    values, given = config.model_dump(mode="json"), standard.model_dump(mode="json")
    name = f"{experiment.id}-{preset}-seed{values['seed']}"
    if {**values, "seed": 0} != {**given, "seed": 0}:
        name += f"-{config_hash(values)[:8]}"
    return Path("runs") / name


def _train(
    experiment: Experiment,
    run: RunDirectory,
    config: BaseModel,
    data_dir: Path | None,
    device: str,
    check: bool,
    as_json: bool,
) -> None:
    from grokscope.experiments.run import run_experiment
    from grokscope.report import write_report

    console = Console(stderr=True, highlight=False)

    def say(message: str) -> None:
        console.print(message, markup=False, soft_wrap=True)

    with _progress(console) as progress:
        result = run_experiment(
            experiment,
            run,
            config,
            data_dir=data_dir,
            device=device,
            progress=progress,
            say=say,
        )
    if result.status == "interrupted":
        say(f"Interrupted and saved. Go on with: grokscope resume {run.path}")
    failed = False
    with run.trace(readonly=True) as database:
        trace = database.load()
    if len(trace.steps()):
        write_report(run)
        failed = show(run, trace, as_json)
    if result.status == "failed":
        say(f"grokscope: the run failed: {result.message}")
        raise typer.Exit(4)
    if result.status == "interrupted":
        raise typer.Exit(128 + result.signal)
    if check and failed:
        raise typer.Exit(1)


@contextmanager
def _progress(console: Console) -> Iterator[Callable[[Progress], None]]:
    """Show a bar on a terminal, and a line at each change of phase elsewhere."""
    if not console.is_terminal:
        said = ""

        def lines(progress: Progress) -> None:
            nonlocal said
            verdict = progress.watch.trace.verdict("observed")
            if verdict is not None and verdict.phase != said:
                said = verdict.phase
                print(f"step {progress.step:,}: {said} ({verdict.evidence})", file=sys.stderr)

        yield lines
        return
    bar = Bar(
        TextColumn("[bold]{task.fields[phase]}"),
        BarColumn(bar_width=None),
        MofNCompleteColumn(),
        TextColumn("{task.fields[rate]}"),
        TimeRemainingColumn(compact=True),
        console=console,
        transient=True,
    )
    with bar:
        task = bar.add_task("train", total=None, phase="starting", rate="")

        def show_bar(progress: Progress) -> None:
            verdict = progress.watch.trace.verdict("observed")
            speed = bar.tasks[0].speed
            bar.update(
                task,
                total=progress.stop,
                completed=progress.step,
                phase="starting" if verdict is None else verdict.phase,
                rate=f"{speed:,.0f}/s" if speed else "",
            )

        yield show_bar
