"""What a report tells in words and tables: verdicts, costs, missing readings, configuration."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from grokscope.phases import RULES, THRESHOLDS, agreement
from grokscope.report import words
from grokscope.report.disagreements import ALARM, Mistake, mistakes
from grokscope.store.records import Verdict
from grokscope.store.trace import Trace


@dataclass(frozen=True)
class Opinion:
    """What one rule says, and how far it can be trusted.

    Attributes:
        verdict: The newest one.
        meaning: What the phase is, one sentence.
        basis: What the rule looks at.
        stance: How it stands to the observed verdict, in words; empty for the observed rule.
        differs: Whether the two differ on whether the network has collapsed.
        record: The same over the whole run, in words; empty for the observed rule.
        alarms: Where it raised false alarms, in words; empty if nowhere.
        missed: Where it missed a collapse, in words; empty if nowhere.
    """

    verdict: Verdict
    meaning: str
    basis: str
    stance: str = ""
    differs: bool = False
    record: str = ""
    alarms: str = ""
    missed: str = ""


def opinions(trace: Trace) -> dict[str, Opinion]:
    """Return the newest opinion of every rule that has one, the observed one first."""
    found = {}
    for rule in RULES:
        verdict = trace.verdict(rule)
        if verdict is not None:
            found[rule] = _opinion(trace, verdict)
    return found


def leading_rule(opinions: Mapping[str, Opinion]) -> str:
    """Return the rule to head the page: the observed one, or else the first that is determined."""
    for rule in ("observed", "neighbourhood", "htsr"):
        if rule in opinions and opinions[rule].verdict.phase != "not-determined":
            return rule
    return "observed"


def _opinion(trace: Trace, verdict: Verdict) -> Opinion:
    rule = verdict.rule
    meaning, basis = words.PHASE_MEANINGS[verdict.phase], words.RULE_MEANINGS[rule]
    observed = trace.verdict("observed")
    if rule == "observed" or observed is None:
        return Opinion(verdict, meaning, basis)
    differs = False
    if "not-determined" in (verdict.phase, observed.phase):
        stance = "cannot be compared with the observed verdict"
    elif verdict.phase == observed.phase:
        stance = "agrees with the observed verdict"
    elif ALARM not in (verdict.phase, observed.phase):
        stance = "agrees that nothing has collapsed"
    else:
        stance, differs = "disagrees with the observed verdict", True
    share = agreement(trace, rule)
    record = "The two never both had an opinion, so nothing can be said of its reliability."
    if np.isfinite(share):
        record = f"Right about collapse at {words.percent(share)} of the observations."
    wrong = mistakes(trace, rule)
    alarms = _told([mistake for mistake in wrong if mistake.kind == "false alarm"])
    missed = _told([mistake for mistake in wrong if mistake.kind == "missed"])
    return Opinion(verdict, meaning, basis, stance, differs, record, alarms, missed)


def _told(wrong: Sequence[Mistake]) -> str:
    """Name the lasting mistakes, and sum up the short ones in one clause."""
    parts = []
    if lasting := [words.steps(one.start, one.end) for one in wrong if one.lasting]:
        parts.append(words.listing(lasting))
    if short := [one for one in wrong if not one.lasting]:
        few = f"fewer than {THRESHOLDS.evaluations} observations"
        first = words.steps(short[0].start, short[0].end)
        more = f"{len(short)} short ones ({few} each), the first {first}"
        parts.append(more if len(short) > 1 else f"a short one ({few}), {first}")
    return "; and ".join(parts)


@dataclass(frozen=True)
class CostRow:
    """What one part of the run took.

    Attributes:
        part: ``training`` (everything between observations), ``recording`` or a probe.
        seconds: Wall time in all.
        share: Of all that is counted.
        each: Seconds an observation; nan for training.
    """

    part: str
    seconds: float
    share: float
    each: float


def cost_rows(trace: Trace) -> list[CostRow]:
    """Return the cost of training, then of recording and probes, the dearest first."""
    totals: dict[str, float] = {}
    steps: dict[str, set[int]] = {}
    for cost in trace.costs:
        totals[cost.part] = totals.get(cost.part, 0.0) + cost.seconds
        steps.setdefault(cost.part, set()).add(cost.step)
    whole = sum(totals.values())
    if not whole > 0:
        return []
    rows = [
        CostRow(
            part,
            seconds,
            seconds / whole,
            float("nan") if part == "training" else seconds / len(steps[part]),
        )
        for part, seconds in totals.items()
    ]
    return sorted(rows, key=lambda row: (row.part != "training", -row.seconds))


@dataclass(frozen=True)
class NoteRow:
    """Readings of one measure with one remark.

    Attributes:
        measure: Its name.
        subjects: What it was read on.
        note: The remark; numbers in it are those of the last reading concerned.
        count: Readings concerned.
        total: Readings of these subjects in all.
        first: Step of the first one concerned.
        last: Step of the last one.
    """

    measure: str
    subjects: tuple[str, ...]
    note: str
    count: int
    total: int
    first: int
    last: int


def note_rows(trace: Trace, *, missing: bool) -> list[NoteRow]:
    """Group readings that are missing, or that are there with a remark.

    Reasons that differ in their numbers only are one group.
    """
    groups: dict[tuple[str, str], list[tuple[int, str, str]]] = {}
    for measure, subject in trace.keys():  # noqa: SIM118 (a trace is no mapping)
        series = trace.series(measure, subject)
        for step, value, note in zip(series.steps, series.values, series.notes, strict=True):
            if np.isfinite(value) != missing and (missing or note):
                kind = re.sub(r"\d+([.,]\d+)*(e-?\d+)?", "#", note)
                groups.setdefault((measure, kind), []).append((int(step), subject, note))
    rows = []
    for (measure, _), seen in groups.items():
        subjects = tuple(dict.fromkeys(subject for _, subject, _ in seen))
        total = sum(len(trace.series(measure, subject)) for subject in subjects)
        steps = [step for step, _, _ in seen]
        latest = max(seen)[2] or "no reason was recorded"
        rows.append(NoteRow(measure, subjects, latest, len(seen), total, min(steps), max(steps)))
    return rows


def flattened(values: Mapping[str, Any], prefix: str = "") -> Iterable[tuple[str, str]]:
    """Yield nested settings as dotted names and readable values; empty texts are left out."""
    for key, value in values.items():
        if isinstance(value, Mapping):
            yield from flattened(value, f"{prefix}{key}.")
        elif key == "argv":
            yield f"{prefix}{key}", shlex.join(value)
        elif value != "":
            yield f"{prefix}{key}", _shown(value)


def _shown(value: Any) -> str:
    if value is None:
        return "not set"
    if isinstance(value, (list, tuple)):
        return ", ".join(_shown(item) for item in value) or "none"
    if isinstance(value, (int, float)):
        return words.number(value)
    return str(value)
