"""A small run that memorises, groks and collapses, made up without training anything."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from grokscope.phases import judge
from grokscope.store.records import ArrayReading, Cost, Reading
from grokscope.store.trace import Trace

STEPS = (0, 1, 3, 10, 30, 100, 200, 300, 400, 500, 1000, 2000, 3000, 4000, 6000, 8000, 12000, 20000)


def _story(step: int) -> tuple[float, float, float]:
    """Train accuracy, test accuracy, consistency: memorised at 100, grokked at 1,000, then lost."""
    if step < 100:
        return 0.1 + 0.004 * step, 0.1, 0.1
    if step < 1000:
        return 1.0, 0.2, 0.3
    if step < 4000:
        return 1.0, 0.9, 0.95
    return 1.0, 0.6, 0.92


def build_trace(
    steps: tuple[int, ...] = STEPS,
    layers: tuple[str, ...] = ("fc1", "fc2"),
    test_data: bool = True,
    spectral: bool = True,
    neighbourhood: bool = True,
) -> Trace:
    rng = np.random.default_rng(3)
    trace = Trace()
    for step in steps:
        train, test, near = _story(step)
        seen: list[Reading | ArrayReading] = [
            Reading(step, "loss", "train", 1.0 / (1 + step)),
            Reading(step, "accuracy", "train", train),
            Reading(step, "weights.l2_norm", "model", 60.0 + 1e-3 * step),
        ]
        if test_data:
            seen.append(Reading(step, "accuracy", "test", test))
        if neighbourhood:
            seen.append(Reading(step, "neighbourhood.mixture", "train", near))
            seen.append(Reading(step, "neighbourhood.noise_0.1", "train", near))
        for layer in layers if spectral else ():
            alpha, note = (7.0 - step / 4000, "") if step != 10 else (math.nan, "tail of 3 values")
            w = rng.standard_normal((60, 90))
            raw = np.sort(np.linalg.eigvalsh(w @ w.T / 90))
            seen += [
                Reading(step, "htsr.alpha", layer, alpha, note),
                Reading(step, "spectrum.size", layer, 60.0),
                Reading(step, "spectrum.spectral_norm", layer, math.sqrt(90 * raw[-1])),
                Reading(step, "marchenko_pastur.scale", layer, 1.0),
                Reading(step, "traps.count", layer, step / 4000),
                Reading(step, "traps.count_std", layer, 0.25),
                Reading(step, "traps.ratio", layer, 1.0 + step / 4000),
                ArrayReading(step, "spectrum.eigenvalues", layer, raw),
                ArrayReading(step, "spectrum.shuffled_eigenvalues", layer, np.stack([raw, raw])),
            ]
        costs = [Cost(step, "training", 0.3), Cost(step, "spectral", 0.1)]
        trace.add(seen, costs=costs)
        trace.add(verdicts=judge(trace))
    return trace


MANIFEST: dict[str, Any] = {
    "experiment": "my-own",
    "preset": "none",
    "status": "finished",
    "config": {"steps": 20000, "seed": 7, "hidden": [100, 100]},
}
