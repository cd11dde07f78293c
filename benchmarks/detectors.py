"""How well signals without test data follow test accuracy, pooled over finished runs.

    python benchmarks/detectors.py runs/*

For every run: where test accuracy peaks and ends, from which step each test-free rule raises a
lasting alarm, and whether it should. Then, pooled over the runs, Spearman's rank correlation of
each signal with test accuracy, from memorisation on and from the peak on. Rules are applied anew to
the recorded readings, so that runs recorded under other thresholds compare. Pooling mixes two
questions: which network is better, and when a network is better. So the correlation within each run
from its peak on is given as well, as the mean over runs that collapse and over those that do not.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from scipy.stats import spearmanr

from grokscope.experiments.readings import around, rank_correlation
from grokscope.phases import find_milestones, judge, lasting_alarm
from grokscope.store.records import Reading, Verdict
from grokscope.store.run_directory import RunDirectory
from grokscope.store.trace import Series, Trace

SIGNALS = (
    ("mixture", "neighbourhood.mixture", "train"),
    ("noise 0.1", "neighbourhood.noise_0.1", "train"),
    ("shift", "neighbourhood.shift", "train"),
    ("l2 norm", "weights.l2_norm", "model"),
    ("alpha fc1", "htsr.alpha", "fc1"),
    ("alpha fc2", "htsr.alpha", "fc2"),
    ("traps fc1", "traps.count", "fc1"),
    ("traps fc2", "traps.count", "fc2"),
    ("sparsity fc1", "golechha.activation_sparsity", "fc1"),
    ("entropy", "golechha.absolute_weight_entropy", "model"),
    ("complexity", "golechha.local_circuit_complexity", "model"),
)


def judged_anew(trace: Trace) -> list[Verdict]:
    """Apply the rules to each observation in turn."""
    replay = Trace()
    for step in trace.steps().tolist():
        replay.add(
            Reading(step, measure, subject, series.values[at[0]])
            for measure, subject in trace.keys()  # noqa: SIM118 - a method, not a dict
            for series in [trace.series(measure, subject)]
            if len(at := np.flatnonzero(series.steps == step))
        )
        replay.add(verdicts=judge(replay))
    return replay.verdicts


def common(a: Series, b: Series, since: int) -> tuple[np.ndarray, np.ndarray]:
    """Return the values of two series at the steps, from ``since`` on, that both were read at."""
    a, b = a.finite(), b.finite()
    steps, in_a, in_b = np.intersect1d(a.steps, b.steps, return_indices=True)
    return a.values[in_a][steps >= since], b.values[in_b][steps >= since]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("runs", nargs="+", type=Path)
    pooled: dict[str, dict[str, list[tuple[float, float]]]] = {"memorised": {}, "peak": {}}
    within: dict[bool, dict[str, list[float]]] = {True: {}, False: {}}
    head = f"{'run':28} {'peak':>12} {'end':>6} {'collapse':>9} {'htsr':>9} {'neighb.':>9}"
    print(head)
    for path in parser.parse_args().runs:
        with RunDirectory.open(path).trace(readonly=True) as database:
            trace = database.load()
        at, verdicts = find_milestones(trace), judged_anew(trace)
        test = trace.series("accuracy", "test")
        alarms = [lasting_alarm(verdicts, rule) for rule in ("htsr", "neighbourhood")]
        top, end = (around(trace, "accuracy", "test", s or at.end) for s in (at.peak, at.end))
        peak = "never" if at.peak is None else f"{top:.3f}@{at.peak:,}"
        cells = ["-" if step is None else f"{step:,}" for step in (at.collapsed, *alarms)]
        print(f"{path.name:28} {peak:>12} {end:6.3f} " + " ".join(f"{c:>9}" for c in cells))
        if at.peak is None or at.memorised is None:
            continue
        for name, measure, subject in SIGNALS:
            series = trace.series(measure, subject)
            for start, since in (("memorised", at.memorised), ("peak", at.peak)):
                a, b = common(series, test, since)
                pooled[start].setdefault(name, []).extend(zip(a, b, strict=True))
            own = rank_correlation(series, test, at.peak)
            within[at.collapsed is not None].setdefault(name, []).append(own)
    print(
        f"\n{'Spearman with test accuracy':28} {'pooled, from':>14} {'pooled, from':>13} "
        f"{'within, collapsing':>20} {'within, others':>16}\n"
        f"{'':28} {'memorised on':>14} {'peak on':>13} {'peak on':>20} {'peak on':>16}"
    )
    for name, _, _ in SIGNALS:
        early, late = (
            float(spearmanr(*zip(*pooled[start][name], strict=True)).statistic)
            for start in ("memorised", "peak")
        )
        own = [float(np.nanmean(within[kind].get(name, [np.nan]))) for kind in (True, False)]
        print(f"{name:28} {early:14.2f} {late:13.2f} {own[0]:20.2f} {own[1]:16.2f}")


if __name__ == "__main__":
    main()
