"""The phases of a run as stretches of steps, and how far two rules agree on them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from grokscope.phases.rules import THRESHOLDS
from grokscope.store.records import Verdict
from grokscope.store.trace import Trace


@dataclass(frozen=True)
class Span:
    """An unbroken stretch of observations in one phase.

    Attributes:
        phase: What the rule said.
        start: Step of its first observation.
        end: Step of the first observation after it; of the last one of the run if it is the last.
    """

    phase: str
    start: int
    end: int


def phase_spans(trace: Trace, rule: str) -> list[Span]:
    """Return the recorded verdicts of one rule as spans, in order, without gaps."""
    spans: list[Span] = []
    for verdict in (v for v in trace.verdicts if v.rule == rule):
        if spans and spans[-1].phase == verdict.phase:
            spans[-1] = Span(verdict.phase, spans[-1].start, verdict.step)
        else:
            if spans:
                spans[-1] = Span(spans[-1].phase, spans[-1].start, verdict.step)
            spans.append(Span(verdict.phase, verdict.step, verdict.step))
    return spans


def agreement(trace: Trace, rule: str) -> float:
    """Return the share of log-time in which a rule agrees with the observed one on collapse.

    Both are reduced to the question that an alarm answers: anti-grokking, or not. An alarm while
    the network is still fitting is a wrong one. Each observation at which neither rule abstains
    counts once; observations are log-spaced.

    Returns:
        A share in [0, 1]; ``nan`` if the two never both had an opinion.
    """
    said = {v.step: v.phase for v in trace.verdicts if v.rule == rule}
    true = {v.step: v.phase for v in trace.verdicts if v.rule == "observed"}
    both = [s for s in said if s in true and "not-determined" not in (said[s], true[s])]
    if not both:
        return float("nan")
    same = sum((said[s] == "anti-grokking") == (true[s] == "anti-grokking") for s in both)
    return same / len(both)


def lasting_alarm(verdicts: Iterable[Verdict], rule: str) -> int | None:
    """Return where the first lasting alarm of ``rule`` begins, None if there is none.

    An alarm is the phase ``anti-grokking``; it lasts if it is said at five observations in a row,
    or from some observation on up to the last one.
    """
    row: list[int] = []
    for verdict in (v for v in verdicts if v.rule == rule):
        row = [*row, verdict.step] if verdict.phase == "anti-grokking" else []
        if len(row) == THRESHOLDS.evaluations:
            break
    return row[0] if row else None
