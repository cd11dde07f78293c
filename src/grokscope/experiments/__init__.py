"""The published systems, one file each."""

from __future__ import annotations

from grokscope.errors import unknown
from grokscope.experiments import anti_grokking
from grokscope.experiments.experiment import Claim, Experiment, Finding, Preset
from grokscope.store.run_directory import RunDirectory
from grokscope.store.trace import Trace

EXPERIMENTS: dict[str, Experiment] = {
    experiment.id: experiment for experiment in (anti_grokking.EXPERIMENT,)
}


def get_experiment(name: str) -> Experiment:
    """Return an experiment by its name.

    Raises:
        UsageError: If there is none of that name; the message suggests the nearest.
    """
    if name not in EXPERIMENTS:
        raise unknown("experiment", name, EXPERIMENTS)
    return EXPERIMENTS[name]


def evaluate_run(run: RunDirectory, trace: Trace) -> list[tuple[Claim, Finding]]:
    """Return the claims of a run with their findings; none where its experiment is not known."""
    manifest = run.manifest
    experiment = EXPERIMENTS.get(manifest["experiment"])
    if experiment is None or manifest["preset"] not in experiment.presets:
        return []
    return experiment.evaluate(trace, manifest["preset"], manifest["config"])


__all__ = [
    "EXPERIMENTS",
    "Claim",
    "Experiment",
    "Finding",
    "Preset",
    "evaluate_run",
    "get_experiment",
]
