"""Watch: look at a model in training, record what is seen, and judge it.

The promise: training with a watch is bit-identical to training without one; no fault of the watch
ever stops it; and the share of wall time that watching takes stays under its budget.
"""

from __future__ import annotations

import contextlib
import logging
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from types import TracebackType

from torch import Tensor, nn

from grokscope.errors import InputError
from grokscope.phases import judge
from grokscope.probes import (
    Golechha,
    Logits,
    Neighbourhood,
    Norms,
    Performance,
    Probe,
    ProbeData,
    Spectral,
    View,
)
from grokscope.probes.view import undisturbed, unwrapped
from grokscope.store.records import ArrayReading, Cost, Event, Reading, Verdict
from grokscope.store.run_directory import RunDirectory
from grokscope.store.trace import Trace
from grokscope.store.trace_database import TraceDatabase
from grokscope.watch.budget import Budget
from grokscope.watch.schedule import LogSchedule

_log = logging.getLogger("grokscope")

# A probe that fails this often in a row rests for the remainder of the run.
_PATIENCE = 3


def default_probes(data: ProbeData | None) -> list[Probe]:
    """Return the probes that a watch with this data can run."""
    everything: list[Probe] = [
        Performance(),
        Norms(),
        Logits(),
        Spectral(),
        Golechha(),
        Neighbourhood(),
    ]
    return [probe for probe in everything if data is not None or probe.needs <= {"weights"}]


class Watch:
    """Observes any PyTorch training loop.

    ::

        watch = Watch(model, data=ProbeData(inputs, labels), run="runs/mine")
        for step in range(1, steps + 1):
            ...  # your step
            watch.step(step, loss=loss)
        print(watch.verdict())
        watch.close()

    Given a folder, it holds that run until it is closed, and says in ``run.json`` how it ended. As
    a context manager it closes itself, and tells a loop that failed from one that finished.

    Attributes:
        trace: Everything seen so far.
        recording_error: Why recording stopped, None while it works.
    """

    def __init__(
        self,
        model: nn.Module,
        *,
        probes: Sequence[Probe] | None = None,
        data: ProbeData | None = None,
        run: str | Path | RunDirectory | None = None,
        schedule: Callable[[int], bool] | None = None,
        budget: float | None = 0.02,
        seed: int = 0,
        strict: bool = False,
    ) -> None:
        """Set up; the model is not touched.

        Args:
            model: The model, compiled or wrapped or not.
            probes: What to look with; all that the data allows by default.
            data: Points that probes may look at. Without it only weights are seen.
            run: Folder of a new run to record into; or an open run, whose lock and status are the
                caller's business; None keeps the trace in memory.
            schedule: Whether to look at a step; about 30 looks per tenfold of steps by default.
            budget: Largest share of wall time to spend; None for no limit.
            seed: Root of the private random generators.
            strict: Raise the errors of probes rather than contain them, for tests.

        Raises:
            ValueError: If a probe needs data that is not given.
            InputError: If the folder is not empty: a watch begins a run and cannot continue one.
            MissingResource: If the disk refuses, or another process holds the folder.
        """
        self._model = unwrapped(model)
        self._data = data
        self._probes = list(default_probes(data) if probes is None else probes)
        for probe in self._probes:
            missing = probe.needs - _given(data)
            if missing:
                raise ValueError(
                    f"probe {probe.name!r} needs {', '.join(sorted(missing))}; "
                    "pass it to Watch(..., data=ProbeData(...)), or leave the probe out."
                )
        self._due = LogSchedule().due if schedule is None else schedule
        self._budget = Budget(budget)
        self._seed = seed
        self._strict = strict
        self._failures: dict[str, int] = {}
        self._resting: list[str] = []
        self._passed_over = 0
        self._reached = 0
        self._closed = False
        self._last_end = time.perf_counter()
        self._recording_seconds = 0.0
        self.recording_error: Exception | None = None
        self.trace = Trace()
        self._database: TraceDatabase | None = None
        self._own_run: RunDirectory | None = None
        with contextlib.ExitStack() as held:
            if isinstance(run, str | Path):
                names = [probe.name for probe in self._probes]
                config = {"probes": names, "budget": budget, "seed": seed}
                run = self._own_run = _new_run(Path(run), config)
                held.enter_context(run.lock())
            if run is not None:
                self._database = run.trace(readonly=False)
                held.callback(self._database.close)
                self.trace = self._database.load()
            self._held = held.pop_all()

    def step(self, step: int, **scalars: float | Tensor) -> bool:
        """Look at the model if the schedule says so; call this after every optimiser step.

        Args:
            step: Optimiser steps taken.
            scalars: Readings of the loop's own, recorded under their names when it looks. Tensors
                of one element are read only then.

        Returns:
            Whether a look was due; after `close` none is.
        """
        if self._closed or not self._due(step):
            return False
        self.observe(step, **scalars)
        return True

    def observe(self, step: int, **scalars: float | Tensor) -> None:
        """Look at the model now, whatever the schedule says, as far as the budget reaches.

        Where it reaches for no probe at all nothing is recorded, the scalars neither; the next
        look, or `close`, says how many were passed over. After `close` nothing happens.

        Args:
            step: Optimiser steps taken.
            scalars: As for `step`.
        """
        if self._closed:
            return
        begin = time.perf_counter()
        self._reached = step
        awake = [p for p in self._probes if self._failures.get(p.name, 0) < _PATIENCE]
        chosen = self._budget.affordable(awake)
        if awake and not chosen:
            self._passed_over += 1
            return
        costs = [Cost(step, "training", begin - self._last_end)]
        costs.append(Cost(step, "recording", self._recording_seconds))
        events = self._skipped(step, [probe.name for probe in awake if probe not in chosen])
        readings: list[Reading | ArrayReading] = []
        taken: list[Reading | ArrayReading] = []  # what the trace in memory refuses is not recorded
        verdicts: list[Verdict] = []
        try:
            readings += [
                Reading(step, name, "model", float(v.detach() if isinstance(v, Tensor) else v))
                for name, v in scalars.items()
            ]
            with undisturbed(self._model):
                view = View(self._model, step, self._data, self._seed)
                for probe in chosen:
                    readings += self._ask(probe, view, events, costs)
            self.trace.add(readings)
            taken = readings
            verdicts = judge(self.trace) if taken else []
        except Exception as error:
            message = f"observation at step {step} failed: {type(error).__name__}: {error}"
            events.append(Event(step, "observation-failed", message))
            self._contain(error, message)
        self.trace.add(verdicts=verdicts, events=events, costs=costs)
        observed = time.perf_counter()
        self._record(taken, verdicts, events, costs)
        self._last_end = time.perf_counter()
        self._recording_seconds = self._last_end - observed
        prices = {cost.part: cost.seconds for cost in costs[2:]}
        self._budget.spend(self._last_end - begin - sum(prices.values()), prices)

    def verdict(self, rule: str | None = None) -> Verdict | None:
        """Return the newest verdict of a rule, None before the first look.

        Args:
            rule: ``"observed"``, ``"htsr"`` or ``"neighbourhood"``; by default the first of
                observed, neighbourhood and htsr that is determined.
        """
        if rule is not None:
            return self.trace.verdict(rule)
        found = [self.trace.verdict(name) for name in ("observed", "neighbourhood", "htsr")]
        known = [verdict for verdict in found if verdict is not None]
        determined = [verdict for verdict in known if verdict.phase != "not-determined"]
        return next(iter(determined or known), None)

    @property
    def cost(self) -> float:
        """The share of wall time that watching took so far."""
        return self._budget.share_spent()

    def note(self, step: int, kind: str, message: str) -> None:
        """Record an event of the loop's own; after `close` nothing happens."""
        if self._closed:
            return
        event = Event(step, kind, message)
        self.trace.add(events=[event])
        self._record([], [], [event], [])

    def close(self) -> None:
        """Finish the record; from then on nothing more is looked at or recorded.

        A run that the watch made itself is marked as finished at the last step that a look was due
        at, and let go. What was seen stays in `trace`.
        """
        self._finish("finished")

    def __enter__(self) -> Watch:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        if error is None:
            self._finish("finished")
        elif isinstance(error, Exception):
            self._finish("failed", message=f"{type(error).__name__}: {error}")
        else:  # KeyboardInterrupt, SystemExit
            self._finish("interrupted")

    def _finish(self, status: str, **fields: str) -> None:
        if self._closed:
            return
        with self._held:
            if self._passed_over:
                words = f"over the budget at {self.cost:.1%} of wall time; "
                words += f"the last {self._passed_over} observations were passed over"
                self.note(self._reached, "skipped", words)
            self._closed = True
            if self._own_run is None:
                return
            try:
                self._own_run.update(status=status, reached_step=int(self._reached), **fields)
            except Exception as error:
                self._contain(error, f"how the run ended could not be recorded: {error}")

    def _skipped(self, step: int, resting: list[str]) -> list[Event]:
        """Say which probes the budget leaves out, whenever that changes."""
        if resting == self._resting and not self._passed_over:
            return []
        words = f"over the budget at {self.cost:.1%} of wall time; left out: "
        words += ", ".join(resting) or "nothing any more"
        if self._passed_over:
            words += f"; {self._passed_over} observations passed over since the last"
        self._resting, self._passed_over = resting, 0
        return [Event(step, "skipped", words)]

    def _ask(
        self, probe: Probe, view: View, events: list[Event], costs: list[Cost]
    ) -> list[Reading | ArrayReading]:
        begin = time.perf_counter()
        readings: list[Reading | ArrayReading] = []
        try:
            readings = list(probe.observe(view))
            self._failures.pop(probe.name, None)
        except Exception as error:
            failures = self._failures[probe.name] = self._failures.get(probe.name, 0) + 1
            rests = "; it rests from now on" if failures == _PATIENCE else ""
            message = f"probe {probe.name} failed: {type(error).__name__}: {error}{rests}"
            events.append(Event(view.step, "probe-failed", message))
            self._contain(error, message)
        seconds = time.perf_counter() - begin
        costs.append(Cost(view.step, probe.name, seconds))
        return readings

    def _record(
        self,
        readings: Sequence[Reading | ArrayReading],
        verdicts: Sequence[Verdict],
        events: Sequence[Event],
        costs: Sequence[Cost],
    ) -> None:
        if self._database is None or self.recording_error is not None:
            return
        try:
            self._database.record(readings, verdicts, events, costs)
        except Exception as error:
            self.recording_error = error
            self._contain(error, f"nothing more is recorded: {error}")

    def _contain(self, error: Exception, message: str) -> None:
        if self._strict:
            raise error
        _log.warning("%s", message)


def _new_run(path: Path, config: Mapping[str, object]) -> RunDirectory:
    try:
        return RunDirectory.create(path, experiment="watch", preset="", config=config)
    except InputError as error:
        there = "holds a run already" if (path / "run.json").is_file() else "is not an empty folder"
        raise InputError(
            f"{path} {there}, and a watch cannot continue one. Choose another folder: "
            'Watch(..., run="...").'
        ) from error


def _given(data: ProbeData | None) -> set[str]:
    return {"weights"} if data is None else {"weights", "train inputs", "train labels"}
