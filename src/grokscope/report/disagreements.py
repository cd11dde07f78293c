"""Where a test-free rule and the observed phase part ways over whether the network collapsed."""

from __future__ import annotations

from dataclasses import dataclass, replace
from itertools import groupby
from typing import Literal

from grokscope.phases import THRESHOLDS
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
        observations: How many it covers.
    """

    phase: str
    wrong: Wrong
    start: int
    end: int
    observations: int


def stretches(trace: Trace, rule: str, truth: str = "observed") -> list[Stretch]:
    """Return the verdicts of ``rule`` as stretches, in order, without gaps.

    A rule that abstains is not wrong, and where ``truth`` abstains no rule can be. As in
    `grokscope.phases.agreement`, an alarm while the network is still fitting is a false one.
    """
    true = {v.step: v.phase for v in trace.verdicts if v.rule == truth}
    found: list[Stretch] = []
    for verdict in (v for v in trace.verdicts if v.rule == rule):
        wrong = _wrong(verdict.phase, true.get(verdict.step, "not-determined"))
        if found:
            found[-1] = replace(found[-1], end=verdict.step)
        if not found or (found[-1].phase, found[-1].wrong) != (verdict.phase, wrong):
            found.append(Stretch(verdict.phase, wrong, verdict.step, verdict.step, 0))
        found[-1] = replace(found[-1], observations=found[-1].observations + 1)
    return found


@dataclass(frozen=True)
class Mistake:
    """An unbroken stretch of observations on which a rule is wrong in one way.

    Attributes:
        kind: ``false alarm`` or ``missed``.
        start: Step of its first observation.
        end: As of `Stretch`.
        lasting: Whether it is what `grokscope.phases.lasting_alarm` calls lasting: five
            observations or more, or up to the last one.
    """

    kind: Wrong
    start: int
    end: int
    lasting: bool


def mistakes(trace: Trace, rule: str) -> list[Mistake]:
    """Return where ``rule`` is wrong about a collapse, in order, whatever else it says there."""
    alike = [list(group) for _, group in groupby(stretches(trace, rule), lambda s: s.wrong)]
    return [
        Mistake(
            group[0].wrong,
            group[0].start,
            group[-1].end,
            group is alike[-1] or sum(s.observations for s in group) >= THRESHOLDS.evaluations,
        )
        for group in alike
        if group[0].wrong
    ]


def _wrong(said: str, true: str) -> Wrong:
    if "not-determined" in (said, true) or (said == ALARM) == (true == ALARM):
        return ""
    return "false alarm" if said == ALARM else "missed"
