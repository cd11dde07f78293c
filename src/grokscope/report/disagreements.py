"""Where a test-free rule and the observed phase part ways over whether the network collapsed."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

from grokscope.store.trace import Trace

ALARM = "anti-grokking"

Wrong = Literal["", "false alarm", "missed"]


@dataclass(frozen=True)
class Stretch:
    """An unbroken stretch of observations on which a rule says one thing, and is right or wrong.

    Attributes:
        phase: What the rule says.
        wrong: ``false alarm`` (it sees a collapse where test accuracy shows none), ``missed``
            (the other way round), or empty.
        start: Step of its first observation.
        end: Step of the first observation after it; of the last one of the run if it is the last.
    """

    phase: str
    wrong: Wrong
    start: int
    end: int


def stretches(trace: Trace, rule: str, truth: str = "observed") -> list[Stretch]:
    """Return the verdicts of ``rule`` as stretches, in order, without gaps.

    A rule that abstains is not wrong, and where ``truth`` abstains no rule can be.
    """
    true = {v.step: v.phase for v in trace.verdicts if v.rule == truth}
    found: list[Stretch] = []
    for verdict in (v for v in trace.verdicts if v.rule == rule):
        wrong = _wrong(verdict.phase, true.get(verdict.step, "not-determined"))
        if found:
            found[-1] = replace(found[-1], end=verdict.step)
        if not found or (found[-1].phase, found[-1].wrong) != (verdict.phase, wrong):
            found.append(Stretch(verdict.phase, wrong, verdict.step, verdict.step))
    return found


def _wrong(said: str, true: str) -> Wrong:
    if "not-determined" in (said, true) or (said == ALARM) == (true == ALARM):
        return ""
    return "false alarm" if said == ALARM else "missed"
