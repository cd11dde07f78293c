"""A trace in memory: every reading of one run, as series over steps."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from grokscope.store.records import ArrayReading, Cost, Event, Reading, Verdict


@dataclass(frozen=True)
class Series:
    """One measure of one subject over time.

    Attributes:
        steps: int64, strictly increasing, shape (n,).
        values: float64, shape (n,); ``nan`` where a value is missing.
        notes: Why a value is missing or qualified, n strings.
    """

    steps: np.ndarray
    values: np.ndarray
    notes: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.steps)

    def finite(self) -> Series:
        """Return the series without its missing values."""
        keep = np.isfinite(self.values)
        notes = tuple(note for note, kept in zip(self.notes, keep, strict=True) if kept)
        return Series(self.steps[keep], self.values[keep], notes)

    def at(self, step: int) -> float:
        """Return the value seen at exactly ``step``, ``nan`` if there is none."""
        found = np.flatnonzero(self.steps == step)
        return float(self.values[found[0]]) if len(found) else float("nan")


_EMPTY = Series(np.empty(0, np.int64), np.empty(0), ())


class Trace:
    """Readings, arrays, verdicts, events and costs of one run, in the order of their steps.

    Grows by `add`, which a live watch calls once per observation; the rules, claims and charts
    only read it.
    """

    def __init__(self) -> None:
        self._series: dict[tuple[str, str], tuple[list[int], list[float], list[str]]] = {}
        self._arrays: dict[tuple[str, str], dict[int, np.ndarray]] = {}
        self.verdicts: list[Verdict] = []
        self.events: list[Event] = []
        self.costs: list[Cost] = []

    def add(
        self,
        readings: Iterable[Reading | ArrayReading] = (),
        verdicts: Iterable[Verdict] = (),
        events: Iterable[Event] = (),
        costs: Iterable[Cost] = (),
    ) -> None:
        """Append one observation. Steps of one series must come in increasing order."""
        for reading in readings:
            key = (reading.measure, reading.subject)
            if isinstance(reading, ArrayReading):
                self._arrays.setdefault(key, {})[reading.step] = reading.values
                continue
            steps, values, notes = self._series.setdefault(key, ([], [], []))
            if steps and reading.step <= steps[-1]:
                raise ValueError(
                    f"{reading.measure} of {reading.subject}: step {reading.step} after step "
                    f"{steps[-1]}; a trace only grows. Count steps over the run, not per epoch."
                )
            steps.append(reading.step)
            values.append(reading.value)
            notes.append(reading.note)
        self.verdicts.extend(verdicts)
        self.events.extend(events)
        self.costs.extend(costs)

    def series(self, measure: str, subject: str = "model") -> Series:
        """Return one series; an empty one if nothing of that name was recorded."""
        found = self._series.get((measure, subject))
        if found is None:
            return _EMPTY
        steps, values, notes = found
        return Series(np.array(steps, np.int64), np.array(values, np.float64), tuple(notes))

    def keys(self) -> list[tuple[str, str]]:
        """Return (measure, subject) of every series, in the order of their first reading."""
        return list(self._series)

    def subjects(self, measure: str) -> list[str]:
        """Return the subjects that ``measure`` was read on, in the order of their first reading."""
        return [subject for name, subject in self._series if name == measure]

    def steps(self) -> np.ndarray:
        """Return the steps of all observations, increasing, int64."""
        seen: set[int] = set()
        for steps, _, _ in self._series.values():
            seen.update(steps)
        return np.array(sorted(seen), np.int64)

    def array(self, measure: str, subject: str, step: int) -> np.ndarray | None:
        """Return the array recorded at exactly ``step``, or None."""
        return self._arrays.get((measure, subject), {}).get(step)

    def array_steps(self, measure: str, subject: str) -> list[int]:
        """Return the steps at which an array was recorded, increasing."""
        return sorted(self._arrays.get((measure, subject), {}))

    def verdict(self, rule: str) -> Verdict | None:
        """Return the newest verdict of ``rule``, or None."""
        return next((v for v in reversed(self.verdicts) if v.rule == rule), None)
