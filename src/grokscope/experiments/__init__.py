"""The published systems, one file each."""

from __future__ import annotations

from grokscope.errors import unknown
from grokscope.experiments import anti_grokking
from grokscope.experiments.experiment import Claim, Experiment, Finding, Preset

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


__all__ = ["EXPERIMENTS", "Claim", "Experiment", "Finding", "Preset", "get_experiment"]
