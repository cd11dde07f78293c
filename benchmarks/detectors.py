"""How well signals without test data follow test accuracy, pooled over finished runs.

    python benchmarks/detectors.py runs/*

For every run: where test accuracy peaks and ends, from which step each test-free rule raises a
lasting alarm, and whether it should. Then, pooled over the runs, Spearman's rank correlation of
each signal with test accuracy, from memorisation on and from the peak on. Rules are applied anew to
the recorded readings, so that runs recorded under other thresholds compare.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from scipy.stats import spearmanr

from grokscope.phases import find_milestones, judge, lasting_alarm
from grokscope.store.records import Reading, Verdict
from grokscope.store.run_directory import RunDirectory
from grokscope.store.trace import Trace

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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("runs", nargs="+", type=Path)
    pooled: dict[str, dict[str, list[tuple[float, float]]]] = {"memorised": {}, "peak": {}}
    head = f"{'run':28} {'peak':>12} {'end':>6} {'collapse':>9} {'htsr':>9} {'neighb.':>9}"
    print(head)
    for path in parser.parse_args().runs:
        with RunDirectory.open(path).trace(readonly=True) as database:
            trace = database.load()
        at, verdicts = find_milestones(trace), judged_anew(trace)
        test = trace.series("accuracy", "test")
        alarms = [lasting_alarm(verdicts, rule) for rule in ("htsr", "neighbourhood")]
        peak = "never" if at.peak is None else f"{test.at(at.peak):.3f}@{at.peak:,}"
        cells = ["-" if step is None else f"{step:,}" for step in (at.collapsed, *alarms)]
        print(
            f"{path.name:28} {peak:>12} {test.values[-1]:6.3f} "
            + " ".join(f"{c:>9}" for c in cells)
        )
        for start, since in (("memorised", at.memorised), ("peak", at.peak)):
            if since is None or at.peak is None:
                continue
            for name, measure, subject in SIGNALS:
                series = trace.series(measure, subject).finite()
                common, a, b = np.intersect1d(series.steps, test.steps, return_indices=True)
                kept = common >= since
                pairs = zip(series.values[a][kept], test.values[b][kept], strict=True)
                pooled[start].setdefault(name, []).extend(pairs)
    print(f"\n{'Spearman with test accuracy':28} {'memorised on':>14} {'peak on':>10}")
    for name, _, _ in SIGNALS:
        early, late = (
            float(spearmanr(*zip(*pooled[start][name], strict=True)).statistic)
            for start in ("memorised", "peak")
        )
        print(f"{name:28} {early:14.2f} {late:10.2f}")


if __name__ == "__main__":
    main()
