"""Run an experiment: build its system, train it under watch, and go on where it stopped."""

from __future__ import annotations

import signal
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Any, Literal

import torch
from pydantic import BaseModel

from grokscope.errors import InputError, MissingResource, RunFailed
from grokscope.experiments.experiment import Experiment
from grokscope.store.checkpoints import latest_checkpoint, prune_checkpoints, save_checkpoint
from grokscope.store.config import config_differences
from grokscope.store.environment import capture_environment
from grokscope.store.run_directory import RunDirectory
from grokscope.training.loop import train
from grokscope.training.system import System
from grokscope.watch import Watch, log_spaced

Status = Literal["finished", "interrupted", "failed"]


@dataclass(frozen=True)
class Progress:
    """Where a run stands, for showing.

    Attributes:
        step: Steps taken.
        stop: Steps to take in all.
        watch: The watch, with its trace and verdicts.
    """

    step: int
    stop: int
    watch: Watch


@dataclass(frozen=True)
class Result:
    """How a run ended.

    Attributes:
        run: Its folder.
        status: ``finished``; ``interrupted`` by a signal; or ``failed``, training having diverged.
        message: What to tell the user of it; empty if there is nothing.
        signal: Number of the signal that interrupted it, 0 if none did.
    """

    run: RunDirectory
    status: Status
    message: str = ""
    signal: int = 0


def choose_device(name: str) -> str:
    """Resolve ``"auto"`` and check that the device is there.

    Raises:
        MissingResource: If CUDA is asked for and is not to be had.
    """
    if name == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    if name == "cuda" and not torch.cuda.is_available():
        raise MissingResource("no CUDA device is available here; use --device cpu.")
    return name


def run_experiment(
    experiment: Experiment,
    run: RunDirectory,
    config: BaseModel,
    *,
    data_dir: Path | None = None,
    device: str = "auto",
    checkpoint_seconds: float = 30.0,
    progress: Callable[[Progress], None] = lambda _: None,
    say: Callable[[str], None] = lambda _: None,
) -> Result:
    """Train one system to its last step, from wherever the run folder stands.

    Args:
        experiment: What to run.
        run: Its folder, created for this configuration.
        config: The resolved configuration.
        data_dir: Folder of the user's own copy of the data.
        device: ``"auto"``, ``"cpu"`` or ``"cuda"``.
        checkpoint_seconds: Wall time between checkpoints; at every change of the observed phase
            there is one besides, which is kept.
        progress: Called several times a second.
        say: Called with messages for the user.

    Returns:
        How it ended. A run that was finished before is returned as it is.

    Raises:
        GrokscopeError: For data, disk, lock or damage; what was recorded stays.
    """
    if device == "auto" and "device" in run.manifest:
        device = str(run.manifest["device"])  # where it began: only there it goes on bit for bit
    device = choose_device(device)
    with run.lock(), _one_thread(), _signals() as caught:
        if run.manifest["status"] == "finished":
            say(f"{run.path} is finished already; nothing to do.")
            return Result(run, "finished")
        settings = config.model_dump()
        stop = int(settings["steps"])
        schedule = log_spaced(stop, int(settings["observations"]))
        system = experiment.build(config, data_dir, device)
        _same_data(run, system)
        if system.provenance["split"]:
            say(f"Data: {system.provenance['split']}")
        _restore(run, system, schedule, say)
        with Watch(
            system.model,
            probes=experiment.probes(config),
            data=system.data,
            run=run,
            budget=None,
            seed=int(settings["seed"]),
        ) as watch:
            seen = max(watch.trace.steps(), default=-1)
            if system.step:
                watch.note(system.step, "resumed", _resumed(run, system, device))
            run.update(status="running", device=device, data=dict(system.provenance), message="")

            def observe() -> None:
                before = watch.trace.verdict("observed")
                watch.observe(system.step, **system.scalars())
                if watch.recording_error is not None:
                    raise watch.recording_error
                now = watch.trace.verdict("observed")
                if now is not None and (before is None or before.phase != now.phase):
                    _save(run, system, watch)

            try:
                done = train(
                    system,
                    stop_step=stop,
                    observe_at=[step for step in schedule if step > seen],
                    observe=observe,
                    checkpoint=lambda: _save(run, system, watch),
                    checkpoint_seconds=checkpoint_seconds,
                    stopping=lambda: bool(caught),
                    progress=lambda: progress(Progress(system.step, stop, watch)),
                )
            except RunFailed as error:
                watch.note(system.step, "failed", str(error))
                run.update(status="failed", reached_step=system.step, message=str(error))
                return Result(run, "failed", str(error))
            if done:
                run.update(status="finished", reached_step=system.step)
                return Result(run, "finished")
            watch.note(system.step, "interrupted", f"stopped at step {system.step:,}")
            run.update(status="interrupted", reached_step=system.step)
            return Result(run, "interrupted", signal=caught[0])


def _resumed(run: RunDirectory, system: System, device: str) -> str:
    """Say where a run goes on, and what is not as it was when it began."""
    then = {**run.manifest["environment"], "device": run.manifest.get("device", device)}
    now = {**capture_environment(), "device": device}
    changed = [
        difference
        for difference in config_differences(then, now)
        if not difference.startswith("argv")
    ]
    words = f"resumed at step {system.step:,}"
    return f"{words}; not bit for bit, since {', '.join(changed)}" if changed else words


def _same_data(run: RunDirectory, system: System) -> None:
    known = run.manifest.get("data")
    now = dict(system.provenance)
    if known and dict(known) != now:
        raise InputError(
            f"{run.path} was trained on other data ({'; '.join(config_differences(known, now))}). "
            "Restore the data, or start anew with --out."
        )


def _restore(
    run: RunDirectory, system: System, schedule: Sequence[int], say: Callable[[str], None]
) -> None:
    """Bring system and trace back to the newest good checkpoint, or to the start without one."""
    checkpoint, damaged = latest_checkpoint(run.path)
    for message in damaged:
        say(f"Passed over a damaged checkpoint: {message}")
    with run.trace(readonly=False) as database:
        recorded = set(database.load().steps().tolist())
        if checkpoint is not None:
            if checkpoint.state["config_hash"] != run.manifest["config_hash"]:
                raise InputError(f"{checkpoint.path} belongs to a run of another configuration.")
            if recorded >= {step for step in schedule if step <= checkpoint.step}:
                system.restore(checkpoint.step, checkpoint.tensors, checkpoint.state["numbers"])
                database.truncate_after(checkpoint.step)
                say(f"Resuming {run.path} at step {checkpoint.step:,}.")
                return
            say("The trace lacks observations from before the newest checkpoint.")
    if recorded - {0}:
        kept = run.set_trace_aside()
        say(f"No checkpoint can be used: starting over. What was recorded is kept in {kept}.")
    elif checkpoint is not None or damaged:
        say("No checkpoint can be used: starting over.")
    with run.trace(readonly=False) as database:
        database.truncate_after(-1)


def _save(run: RunDirectory, system: System, watch: Watch) -> None:
    tensors, numbers = system.state()
    state = {"config_hash": run.manifest["config_hash"], "numbers": numbers}
    save_checkpoint(run.path, system.step, tensors, state)
    turns = {v.since for v in watch.trace.verdicts if v.rule == "observed"}
    prune_checkpoints(run.path, system.step, keep_last=2, keep_steps=frozenset(turns))
    run.update(reached_step=system.step)


@contextmanager
def _one_thread() -> Iterator[None]:
    """Use one thread: faster for matrices of this size, and the same bits on every machine load."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


@contextmanager
def _signals() -> Iterator[list[int]]:
    """Collect the first SIGINT or SIGTERM; a second one acts as it always does."""
    caught: list[int] = []
    before: dict[int, Any] = {}

    def restore() -> None:
        for number, handler in before.items():
            signal.signal(number, handler)

    def catch(number: int, _frame: FrameType | None) -> None:
        caught.append(number)
        restore()

    try:
        for number in (signal.SIGINT, signal.SIGTERM):
            before[number] = signal.signal(number, catch)
    except ValueError:
        pass  # not the main thread: signals are somebody else's business
    try:
        yield caught
    finally:
        restore()
