"""The presets at full length: what the README and docs/findings.md say of them. Minutes long."""

from __future__ import annotations

from pathlib import Path

import pytest

from grokscope.experiments import evaluate_run, get_experiment
from grokscope.experiments.run import run_experiment
from grokscope.store.run_directory import RunDirectory
from grokscope.store.trace import Trace

pytestmark = [pytest.mark.slow, pytest.mark.timeout(1800)]


def whole_run(preset: str, folder: Path) -> tuple[RunDirectory, Trace]:
    experiment = get_experiment("anti-grokking")
    config = experiment.presets[preset].config
    run = RunDirectory.create(
        folder,
        experiment=experiment.id,
        preset=preset,
        config=config.model_dump(mode="json"),
    )
    assert run_experiment(experiment, run, config).status == "finished"
    with run.trace(readonly=True) as database:
        return run, database.load()


def phase(trace: Trace, rule: str) -> str:
    verdict = trace.verdict(rule)
    assert verdict is not None
    return verdict.phase


def test_digits_memorises_groks_and_collapses(tmp_path: Path) -> None:
    run, trace = whole_run("digits", tmp_path / "run")
    assert phase(trace, "observed") == "anti-grokking"
    outcome = {claim.id: finding.outcome for claim, finding in evaluate_run(run, trace)}
    for claim in ("delayed-generalisation", "late-collapse", "alpha-fc1", "neighbourhood-alarms"):
        assert outcome[claim] == "holds", claim


def test_the_control_keeps_what_it_learnt_and_htsr_cries_wolf(tmp_path: Path) -> None:
    run, trace = whole_run("digits-decay", tmp_path / "run")
    assert phase(trace, "observed") == "generalised"
    outcome = {claim.id: finding.outcome for claim, finding in evaluate_run(run, trace)}
    assert outcome["control-keeps"] == "holds"
    assert outcome["htsr-silent"] == "fails"
    assert outcome["neighbourhood-silent"] == "holds"


def test_permuted_labels_never_generalise(tmp_path: Path) -> None:
    _, trace = whole_run("digits-permuted", tmp_path / "run")
    assert phase(trace, "observed") == "pre-grokking"
    assert trace.series("accuracy", "test").values.max() < 0.25
