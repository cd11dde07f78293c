"""Each claim on traces for which the answer is known, and can be the other one."""

from __future__ import annotations

import math

import numpy as np
import pytest

from grokscope.experiments import get_experiment
from grokscope.phases import judge
from grokscope.store.records import Reading
from grokscope.store.trace import Trace

STEPS = np.unique(np.round(np.geomspace(1, 100_000, 120)).astype(int)).tolist()
LAYERS = ("fc1", "fc2")

# What a run that behaves as published would record: values at these steps, linear in log step.
PUBLISHED: dict[tuple[str, str], dict[int, float]] = {
    ("accuracy", "train"): {1: 0.1, 1000: 1.0},
    ("accuracy", "test"): {1: 0.1, 1000: 0.2, 8000: 0.2, 25_000: 0.9, 30_000: 0.9, 90_000: 0.5},
    ("neighbourhood.mixture", "train"): {1: 0.1, 8000: 0.5, 25_000: 0.99, 90_000: 0.7},
    ("neighbourhood.noise_0.1", "train"): {1: 0.1, 8000: 0.4, 25_000: 0.99, 90_000: 0.7},
    ("weights.l2_norm", "model"): {1: 93.67, 100_000: 400.0},
    ("golechha.activation_sparsity", "fc1"): {1: 0.7, 100_000: 0.99},
    ("golechha.absolute_weight_entropy", "fc1"): {1: 4e4, 100_000: -1e4},
    ("golechha.absolute_weight_entropy", "model"): {1: 4e4, 100_000: -1e4},
    ("golechha.local_circuit_complexity", "model"): {1: 14.0, 25_000: 0.1, 100_000: 0.0},
}
for layer, pre, grok, end in (("fc1", 5.0, 3.6, 1.1), ("fc2", 2.9, 2.3, 1.3)):
    PUBLISHED["htsr.alpha", layer] = {1: 7.0, 9000: pre, 28_000: grok, 34_000: 1.9, 90_000: end}
    PUBLISHED["traps.count", layer] = {1: 0.0, 40_000: 0.0, 41_000: 5.0}
    PUBLISHED["traps.ratio", layer] = {1: 1.0, 40_000: 1.0, 41_000: 2.0}
    PUBLISHED["spectrum.size", layer] = {1: 200.0}


def trace_of(changes: dict[tuple[str, str], dict[int, float]] | None = None) -> Trace:
    trace = Trace()
    for step in [0, *STEPS]:
        trace.add(
            Reading(
                step,
                measure,
                subject,
                float(
                    np.interp(
                        math.log(max(step, 1)),
                        [math.log(s) for s in points],
                        list(points.values()),
                    )
                ),
            )
            for (measure, subject), points in {**PUBLISHED, **(changes or {})}.items()
        )
        trace.add(verdicts=judge(trace))
    return trace


def outcomes(trace: Trace, preset: str = "mnist", **settings: object) -> dict[str, str]:
    experiment = get_experiment("anti-grokking")
    config = {**experiment.presets[preset].config.model_dump(mode="json"), **settings}
    config["steps"] = settings.get("steps", 100_000)
    found = experiment.evaluate(trace, preset, config)
    return {claim.id: finding.outcome for claim, finding in found}


@pytest.fixture(scope="module")
def as_published() -> dict[str, str]:
    return outcomes(trace_of())


def test_a_run_as_published_fulfils_every_published_claim(as_published: dict[str, str]) -> None:
    assert {name: o for name, o in as_published.items() if o != "holds"} == {}
    assert len(as_published) >= 14


TEST = ("accuracy", "test")
STAYS = {1: 0.1, 1000: 0.2, 8000: 0.2, 25_000: 0.9}
FALLING = {1: 0.1, 8000: 0.5, 25_000: 0.99, 40_000: 0.7}


@pytest.mark.parametrize(
    ("claim", "changes", "outcome"),
    [
        ("delayed-generalisation", {TEST: {1: 0.1, 900: 0.3, 1500: 0.9}}, "fails"),
        ("late-collapse", {TEST: STAYS}, "fails"),
        ("late-collapse", {TEST: {**STAYS, 30_000: 0.9, 90_000: 0.83}}, "inconclusive"),
        ("alpha-fc1", {("htsr.alpha", "fc1"): {9000: 3.0, 28_000: 3.6, 90_000: 1.1}}, "fails"),
        ("alpha-fc2", {("htsr.alpha", "fc2"): {1: 7.0, 28_000: 3.0, 90_000: 2.3}}, "fails"),
        ("alpha-fc1", {TEST: STAYS}, "inconclusive"),
        ("traps", {("traps.count", "fc2"): {1: 0.0}}, "fails"),
        ("traps", {("traps.count", "fc1"): {1: 2.0}}, "fails"),
        ("alpha-warns", {("htsr.alpha", la): {1: 7.0, 70_000: 2.1} for la in LAYERS}, "fails"),
        (
            "traps-warn",
            {("traps.count", "fc1"): {1: 3.0}, ("traps.ratio", "fc1"): {1: 2.0}},
            "fails",
        ),
        ("blind-norm", {("weights.l2_norm", "model"): {1: 93, 28_000: 200, 90_000: 9}}, "fails"),
        ("htsr-alarms", {("traps.count", la): {1: 0.0} for la in LAYERS}, "fails"),
        ("neighbourhood-alarms", {("neighbourhood.mixture", "train"): STAYS}, "fails"),
        ("neighbourhood-follows", {TEST: STAYS}, "inconclusive"),
        (
            "htsr-alarms",  # an alarm while test accuracy still rises
            {("htsr.alpha", la): {1: 1.5} for la in LAYERS}
            | {("traps.count", la): {1: 5.0} for la in LAYERS}
            | {("traps.ratio", la): {1: 2.0} for la in LAYERS},
            "fails",
        ),
        (
            "blind-complexity",  # a turn too small to mark anything
            {("golechha.local_circuit_complexity", "model"): {1: 14, 25_000: 0.1, 90_000: 0.2}},
            "holds",
        ),
        (
            "blind-complexity",
            {("golechha.local_circuit_complexity", "model"): {1: 14, 25_000: 0.1, 90_000: 9}},
            "fails",
        ),
        (
            "neighbourhood-follows",
            {("neighbourhood.mixture", "train"): {1: 0.1, 8000: 0.5, 90_000: 0.9}},
            "fails",
        ),
        ("initial-norm", {("weights.l2_norm", "model"): {1: 46.8}}, "fails"),
    ],
)  # fmt: skip
def test_each_claim_can_come_out_otherwise(
    claim: str, changes: dict[tuple[str, str], dict[int, float]], outcome: str
) -> None:
    assert outcomes(trace_of(changes))[claim] == outcome


def test_golechhas_claims() -> None:
    plateau = {("golechha.activation_sparsity", "fc1"): {1: 0.2, 4000: 0.6, 10_000: 0.6, 30_000: 1}}
    falling = {
        ("golechha.absolute_weight_entropy", "model"): {1: 4e4, 9000: 4e4, 25_000: 5e3},
        ("golechha.local_circuit_complexity", "model"): {1: 14.0, 9000: 14.0, 25_000: 0.1},
    }
    found = outcomes(trace_of({**plateau, **falling}), "golechha")
    names = ("sparsity-plateau", "entropy-falls", "complexity-falls")
    assert [found[name] for name in names] == ["holds"] * 3
    rising = {("golechha.activation_sparsity", "fc1"): {1: 0.0, 1000: 0.0, 30_000: 1.0}}
    flat = {(measure, subject): {1: 5.0} for measure, subject in falling}
    found = outcomes(trace_of({**rising, **flat}), "golechha")
    assert [found[name] for name in names] == ["fails"] * 3


def test_a_run_that_just_began_decides_nothing_it_cannot_know() -> None:
    trace = Trace()
    trace.add([Reading(0, "accuracy", "train", 0.1), Reading(0, "accuracy", "test", 0.1)])
    trace.add(verdicts=judge(trace))
    for preset in get_experiment("anti-grokking").presets:
        assert set(outcomes(trace, preset).values()) == {"inconclusive"}, preset
    assert outcomes(Trace()) == {}


def test_before_the_last_step_nothing_is_decided_but_the_beginning() -> None:
    found = outcomes(trace_of(), steps=200_000)
    assert found.pop("initial-norm") == "holds"
    assert set(found.values()) == {"inconclusive"}


def test_a_figure_is_compared_at_the_settings_it_belongs_to() -> None:
    at_04 = {("weights.l2_norm", "model"): {1: 46.8}}
    assert outcomes(trace_of(at_04), init_scale=4.0)["initial-norm"] == "inconclusive"
    assert outcomes(trace_of(at_04), lr=1.0)["initial-norm"] == "fails"
    good = {("accuracy", "test"): {1: 0.1, 1000: 0.2, 8000: 0.2, 25_000: 0.9}}
    assert outcomes(trace_of(good), "omnigrok")["final-accuracy"] == "holds"
    assert outcomes(trace_of(), "omnigrok")["final-accuracy"] == "fails"
    assert outcomes(trace_of(good), "omnigrok", lr=1.0)["final-accuracy"] == "inconclusive"


def test_what_was_not_read_decides_nothing() -> None:
    names = ("htsr.alpha", "traps.count", "traps.ratio", "spectrum.size")
    spectral = {(measure, layer): {1: math.nan} for measure in names for layer in LAYERS}
    blind = {key: {1: math.nan} for key in PUBLISHED if key[0].startswith("golechha")}
    found = outcomes(trace_of({**spectral, **blind}))
    for claim in (
        "alpha-fc1", "alpha-fc2", "traps", "alpha-warns", "traps-warn", "htsr-alarms",
        "blind-sparsity", "blind-entropy", "blind-complexity",
    ):  # fmt: skip
        assert found[claim] == "inconclusive", claim


def test_controls_have_their_own_claim() -> None:
    stays, falls = (
        outcomes(trace_of({TEST: STAYS}), "mnist-decay"),
        outcomes(trace_of(), "mnist-decay"),
    )
    assert (stays["control-keeps"], falls["control-keeps"]) == ("holds", "fails")
    assert "late-collapse" not in stays
    assert stays["traps-warn"] == "inconclusive"
    assert stays["htsr-silent"] == "fails"  # an alarm, and nothing collapsed
    assert stays["neighbourhood-silent"] == "fails"
    assert falls["htsr-silent"] == "inconclusive"
    quiet = {("traps.count", la): {1: 0.0} for la in LAYERS}
    assert outcomes(trace_of({TEST: STAYS, **quiet}), "mnist-decay")["htsr-silent"] == "holds"
    permuted = {TEST: {1: 0.1}, ("neighbourhood.mixture", "train"): FALLING}
    assert outcomes(trace_of(permuted), "digits-permuted")["neighbourhood-silent"] == "fails"
