"""The rules on traces whose phase is plain to see."""

from __future__ import annotations

import math

import numpy as np
import pytest

from grokscope.phases import (
    PHASES,
    RULES,
    Thresholds,
    agreement,
    find_milestones,
    judge,
    phase_spans,
)
from grokscope.phases.rules import first_lasting, running_median
from grokscope.store.records import ArrayReading, Reading, Verdict
from grokscope.store.trace import Trace

STEPS = [0, *np.unique(np.round(np.geomspace(1, 100_000, 150)).astype(int)).tolist()]


def curve(points: dict[int, float], step: int) -> float:
    """Piecewise linear in log step."""
    x = [math.log(max(s, 0.5)) for s in points]
    return float(np.interp(math.log(max(step, 0.5)), x, list(points.values())))


def judged(
    train: dict[int, float],
    test: dict[int, float] | None,
    neighbourhood: dict[int, float] | None = None,
    alpha: dict[int, float] | None = None,
    traps: dict[int, float] | None = None,
    until: int = 100_000,
) -> Trace:
    trace = Trace()
    for step in (s for s in STEPS if s <= until):
        readings: list[Reading | ArrayReading] = [
            Reading(step, "accuracy", "train", curve(train, step))
        ]
        if test is not None:
            readings.append(Reading(step, "accuracy", "test", curve(test, step)))
        if neighbourhood is not None:
            value = curve(neighbourhood, step)
            readings += [
                Reading(step, f"neighbourhood.{kind}", "train", value)
                for kind in ("mixture", "noise_0.1")
            ]
        for layer, size in (("fc1", 100), ("head", 10)):
            if alpha is not None:
                value = curve(alpha, step) if layer == "fc1" else 1.1
                count = curve(traps or {0: 0.0}, step)
                readings += [
                    Reading(step, "htsr.alpha", layer, value),
                    Reading(step, "traps.count", layer, count),
                    Reading(step, "traps.ratio", layer, 2.0 if count else 1.0),
                    Reading(step, "spectrum.size", layer, size),
                ]
        trace.add(readings)
        trace.add(verdicts=judge(trace))
    return trace


FULL = {0: 0.1, 1000: 1.0}
GROK_AND_COLLAPSE = {0: 0.1, 500: 0.25, 5000: 0.28, 25_000: 0.9, 40_000: 0.9, 100_000: 0.7}
GROK_AND_STAY = {0: 0.1, 500: 0.25, 5000: 0.28, 25_000: 0.9, 100_000: 0.88}
NEVER = {0: 0.1, 500: 0.25, 100_000: 0.29}


def last(trace: Trace, rule: str) -> Verdict:
    verdict = trace.verdict(rule)
    assert verdict is not None
    return verdict


def phases(trace: Trace, rule: str) -> list[str]:
    return [span.phase for span in phase_spans(trace, rule)]


def test_observed_tells_the_whole_story_in_order() -> None:
    trace = judged(FULL, GROK_AND_COLLAPSE)
    assert phases(trace, "observed") == [
        "fitting",
        "pre-grokking",
        "grokking",
        "generalised",
        "anti-grokking",
    ]
    verdict = last(trace, "observed")
    assert 40_000 < verdict.since < 70_000
    assert "down from 90.0 %" in verdict.evidence
    assert "train accuracy is 100.0 %" in verdict.evidence


@pytest.mark.parametrize(
    ("test", "until", "phase"),
    [
        (GROK_AND_STAY, 100_000, "generalised"),
        (NEVER, 100_000, "pre-grokking"),
        (GROK_AND_COLLAPSE, 4000, "pre-grokking"),
        (GROK_AND_COLLAPSE, 18_000, "grokking"),
        ({0: 0.1, 1000: 0.97}, 100_000, "generalised"),  # no delay at all
    ],
)
def test_observed_phase_at_the_end(test: dict[int, float], until: int, phase: str) -> None:
    assert last(judged(FULL, test, until=until), "observed").phase == phase


def test_a_collapse_of_training_too_is_unstable_not_anti_grokking() -> None:
    trace = judged({0: 0.1, 1000: 1.0, 40_000: 1.0, 60_000: 0.3}, GROK_AND_COLLAPSE)
    assert last(trace, "observed").phase == "unstable"
    assert "train accuracy fell to" in last(trace, "observed").evidence


def test_a_single_bad_observation_is_no_collapse() -> None:
    test = dict(GROK_AND_STAY)
    test |= {79_000: 0.88, 80_000: 0.3, 81_000: 0.88}
    trace = judged(FULL, test)
    assert "anti-grokking" not in phases(trace, "observed")


def test_neighbourhood_needs_no_test_data_and_observed_abstains_without() -> None:
    trace = judged(FULL, None, neighbourhood=GROK_AND_COLLAPSE)
    assert last(trace, "neighbourhood").phase == "anti-grokking"
    assert last(trace, "observed").phase == "not-determined"
    assert "neither may be missing" in last(trace, "observed").evidence
    assert math.isnan(agreement(trace, "neighbourhood"))


def test_neighbourhood_does_not_look_at_test_accuracy() -> None:
    a = judged(FULL, GROK_AND_COLLAPSE, neighbourhood=GROK_AND_STAY)
    b = judged(FULL, NEVER, neighbourhood=GROK_AND_STAY)
    assert phases(a, "neighbourhood") == phases(b, "neighbourhood")
    assert "anti-grokking" not in phases(a, "neighbourhood")


@pytest.mark.parametrize(
    ("alpha", "traps", "phase"),
    [
        (3.5, 0.0, "generalised"),
        (7.0, 0.0, "pre-grokking"),
        (1.5, 3.0, "anti-grokking"),
        (1.5, 0.0, "generalised"),
        (3.0, 3.0, "generalised"),
        (float("nan"), 0.0, "not-determined"),
    ],
)
def test_htsr_reads_large_layers_only(alpha: float, traps: float, phase: str) -> None:
    trace = judged(FULL, None, alpha={0: alpha}, traps={0: traps})
    verdict = last(trace, "htsr")
    assert verdict.phase == phase
    assert "head" not in verdict.evidence


def test_since_is_where_the_unbroken_stretch_began() -> None:
    trace = judged(FULL, GROK_AND_STAY, alpha={0: 7.0, 1000: 7.0, 1001: 3.0})
    verdict = last(trace, "htsr")
    first = next(v.step for v in trace.verdicts if v.rule == "htsr" and v.phase == "generalised")
    assert verdict.since == first


def test_agreement_counts_a_false_alarm_against_a_rule() -> None:
    true = judged(FULL, GROK_AND_COLLAPSE, neighbourhood=GROK_AND_COLLAPSE)
    assert agreement(true, "neighbourhood") > 0.9
    false = judged(FULL, GROK_AND_STAY, alpha={0: 4.0, 20_000: 3.0, 20_001: 1.5}, traps={0: 3.0})
    assert phases(false, "htsr")[-1] == "anti-grokking"
    assert agreement(false, "htsr") < 0.85


def test_every_phase_a_rule_says_is_a_known_one_and_thresholds_are_used() -> None:
    trace = judged(FULL, GROK_AND_STAY, neighbourhood=NEVER, alpha={0: 4.0})
    assert {v.phase for v in trace.verdicts} <= set(PHASES)
    assert [v.rule for v in trace.verdicts[:3]] == list(RULES)
    strict = judge(trace, Thresholds(observed_fall=0.01))
    assert strict[0].phase == "anti-grokking"


def test_milestones_of_a_collapse() -> None:
    at = find_milestones(judged(FULL, GROK_AND_COLLAPSE))
    assert (at.start, at.end) == (0, 100_000)
    assert at.memorised is not None
    assert 900 <= at.memorised <= 1100
    assert at.onset is not None
    assert 5000 < at.onset < 12_000
    assert at.grokked is not None
    assert at.peak is not None
    assert at.collapsed is not None
    assert at.onset < at.grokked <= at.peak < at.collapsed < at.end
    assert at.moments() == {
        "start": 0,
        "memorised": at.memorised,
        "generalised": at.peak,
        "collapsed": 100_000,
    }


def test_milestones_that_never_came_are_none() -> None:
    at = find_milestones(judged(FULL, NEVER))
    assert (at.onset, at.grokked, at.peak, at.collapsed) == (None, None, None, None)
    stays = find_milestones(judged(FULL, GROK_AND_STAY))
    assert stays.peak is not None
    assert stays.collapsed is None
    assert "collapsed" not in stays.moments()
    with pytest.raises(ValueError, match="the trace holds no observation"):
        find_milestones(Trace())


def test_overfitting_while_the_last_points_are_learnt_is_not_anti_grokking() -> None:
    # Label noise: the test maximum comes long before the training set is fitted.
    train = {1: 0.1, 100: 0.6, 10_000: 1.0}
    test = {1: 0.1, 200: 0.8, 10_000: 0.5, 100_000: 0.4}
    trace = judged(train, test)
    assert "anti-grokking" not in phases(trace, "observed")
    assert find_milestones(trace).collapsed is None


def test_a_deep_collapse_does_not_move_the_onset() -> None:
    shallow = {0: 0.1, 500: 0.45, 5000: 0.45, 25_000: 0.9, 40_000: 0.9, 100_000: 0.8}
    deep = {**shallow, 100_000: 0.1}
    expected = find_milestones(judged(FULL, shallow))
    found = find_milestones(judged(FULL, deep))
    assert expected.onset is not None
    assert expected.onset > 4000
    assert (found.onset, found.peak) == (expected.onset, expected.peak)


def test_a_network_that_is_good_from_the_first_look_on_is_generalised() -> None:
    trace = Trace()
    for step in range(1000, 21_000, 1000):
        trace.add(
            [
                Reading(step, "accuracy", "train", 1.0),
                Reading(step, "accuracy", "test", 0.97 + 0.003 * math.sin(step)),
            ]
        )
        trace.add(verdicts=judge(trace))
    assert last(trace, "observed").phase == "generalised"


@pytest.mark.parametrize(
    "missing", ["htsr.alpha", "traps.count", "accuracy", "neighbourhood.mixture"]
)
def test_a_rule_abstains_when_an_input_was_not_read_this_time(missing: str) -> None:
    trace = judged(FULL, GROK_AND_STAY, GROK_AND_STAY, {0: 1.5}, {0: 3.0})
    before = {verdict.rule: verdict.phase for verdict in judge(trace)}
    assert "not-determined" not in before.values()
    step = 200_000
    trace.add(
        Reading(step, measure, subject, float(trace.series(measure, subject).values[-1]))
        for measure, subject in trace.keys()  # noqa: SIM118 - a method, not a dict
        if measure != missing
    )
    after = {verdict.rule: verdict.phase for verdict in judge(trace)}
    silent = {rule for rule, phase in after.items() if phase == "not-determined"}
    expected = {
        "htsr.alpha": {"htsr"},
        "traps.count": {"htsr"},
        "accuracy": {"observed", "neighbourhood"},
        "neighbourhood.mixture": {"neighbourhood"},
    }
    assert silent == expected[missing]


def test_running_median_and_first_lasting_by_their_definitions() -> None:
    values = np.array([3.0, 1.0, 2.0, 9.0, 0.0, 4.0, 4.0])
    naive = [np.median(values[max(0, i - 2) : i + 1]) for i in range(7)]
    assert running_median(values, 3).tolist() == naive
    assert running_median(values[:2], 5).tolist() == [3.0, 2.0]
    assert len(running_median(values[:0], 5)) == 0
    condition = np.array([True, False, True, True, True, False])
    assert first_lasting(condition, 3) == 2
    assert first_lasting(condition, 4) is None
    assert first_lasting(condition[:2], 3) is None
