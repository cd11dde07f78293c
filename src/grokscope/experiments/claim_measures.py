"""What the claims about late phases measure: delay, collapse, exponents, traps, alarms.

Each function takes a trace and its milestones and returns a finding; those that need a parameter
return such a function. They are shared by all experiments whose claims are of this kind.
"""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from grokscope.experiments.experiment import Finding, Outcome
from grokscope.experiments.readings import around, rank_correlation, trend
from grokscope.phases import Milestones, lasting_alarm
from grokscope.phases.rules import (
    THRESHOLDS,
    first_lasting,
    has_traps,
    judged_layers,
    neighbourhood_score,
    running_median,
)
from grokscope.store.trace import Trace

Measure = Callable[[Trace, Milestones], Finding]

_NO_PEAK = Finding("inconclusive", "the network never generalised in this run", {})
_NO_COLLAPSE = "no collapse in this run"
_NEVER_SPOKE = Finding("inconclusive", "the rule never had what it needs", {})
_NO_LAYERS = Finding("inconclusive", "no layer is large enough for its spectrum to be judged", {})


def _decide(holds: bool, measured: str, **values: float) -> Finding:
    if not all(np.isfinite(value) for value in values.values()):
        return Finding("inconclusive", f"{measured}: a reading is missing", values)
    return Finding("holds" if holds else "fails", measured, values)


def delay(trace: Trace, at: Milestones) -> Finding:
    """Measure how much later test accuracy rises than train accuracy saturates, as a ratio."""
    train = trace.series("accuracy", "train").finite()
    full = train.steps[train.values >= THRESHOLDS.memorised]
    if at.onset is None or not len(full):
        return _NO_PEAK
    saturated = max(1, int(full[0]))
    ratio = at.onset / saturated
    words = (
        f"train from step {saturated:,}, test rises from step {at.onset:,} and is there by "
        f"{at.grokked:,}: {ratio:.1f} times as many"
    )
    return _decide(ratio >= 3, words, ratio=ratio)


def collapse(trace: Trace, at: Milestones) -> Finding:
    """Measure the fall of test accuracy from its maximum while train accuracy stays full."""
    if at.peak is None:
        return _NO_PEAK
    peak = around(trace, "accuracy", "test", at.peak)
    end = around(trace, "accuracy", "test", at.end)
    train = around(trace, "accuracy", "train", at.end)
    words = f"test {peak:.3f} at step {at.peak:,}, {end:.3f} at the end; train {train:.3f}"
    values = {"peak": peak, "end": end, "fall": peak - end, "train": train}
    if train < THRESHOLDS.memorised:
        return Finding("fails", words, values)
    if peak - end >= 0.10:
        return Finding("holds", words, values)
    # A fall that is there, yet smaller than the criterion, is neither.
    outcome: Outcome = "inconclusive" if peak - end >= THRESHOLDS.observed_fall else "fails"
    return Finding(outcome, words, values)


def keeps(trace: Trace, at: Milestones) -> Finding:
    """Measure whether test accuracy stays near its maximum: the control of `collapse`."""
    if at.peak is None:
        return _NO_PEAK
    peak = around(trace, "accuracy", "test", at.peak)
    end = around(trace, "accuracy", "test", at.end)
    words = f"test {peak:.3f} at step {at.peak:,}, {end:.3f} at the end"
    return _decide(peak - end < 0.10, words, peak=peak, end=end)


def alpha_falls(layer: str) -> Measure:
    """Measure whether the exponent of ``layer`` falls over the phases, to below 2."""

    def measure(trace: Trace, at: Milestones) -> Finding:
        if at.peak is None or at.onset is None:
            return _NO_PEAK
        alphas = [around(trace, "htsr.alpha", layer, s) for s in (at.onset, at.peak, at.end)]
        words = " -> ".join(f"{alpha:.2f}" for alpha in alphas)
        values = dict(zip(("pre", "grok", "end"), alphas, strict=True))
        if at.collapsed is None:
            return Finding("inconclusive", f"{words}; {_NO_COLLAPSE}", values)
        falls = alphas[0] > alphas[1] > alphas[2]
        return _decide(falls and alphas[2] < THRESHOLDS.alpha_overfit, words, **values)

    return measure


def traps_only_in_collapse(trace: Trace, at: Milestones) -> Finding:
    """Measure the traps of every judged layer at the right edge of each phase."""
    if at.peak is None or at.onset is None:
        return _NO_PEAK
    layers = judged_layers(trace)
    if not layers:
        return _NO_LAYERS
    counts = {
        (layer, edge): around(trace, "traps.count", layer, step)
        for layer in layers
        for edge, step in (("pre", at.onset), ("grok", at.peak), ("end", at.end))
    }
    words = "; ".join(
        f"{layer}: " + " / ".join(f"{counts[layer, edge]:.1f}" for edge in ("pre", "grok", "end"))
        for layer in layers
    )
    values = {f"{layer} {edge}": count for (layer, edge), count in counts.items()}
    if at.collapsed is None:
        return Finding("inconclusive", f"{words}; {_NO_COLLAPSE}", values)
    before = all(counts[layer, edge] < 0.5 for layer in layers for edge in ("pre", "grok"))
    after = all(counts[layer, "end"] >= 0.5 for layer in layers)
    return _decide(before and after, words, **values)


def _first_alpha(trace: Trace) -> int | None:
    firsts: list[int] = []
    for layer in judged_layers(trace):
        series = trace.series("htsr.alpha", layer).finite()
        found = first_lasting(series.values < THRESHOLDS.alpha_overfit)
        firsts += [] if found is None else [int(series.steps[found])]
    return min(firsts, default=None)


def _first_trap(trace: Trace) -> int | None:
    firsts: list[int] = []
    for layer in judged_layers(trace):
        count, ratio = trace.series("traps.count", layer), trace.series("traps.ratio", layer)
        trapped = np.array(
            [has_traps(c, r) for c, r in zip(count.values, ratio.values, strict=True)]
        )
        found = first_lasting(trapped)
        firsts += [] if found is None else [int(count.steps[found])]
    return min(firsts, default=None)


def alpha_before_collapse(trace: Trace, at: Milestones) -> Finding:
    """Measure whether some exponent falls below 2 before test accuracy has collapsed."""
    if not judged_layers(trace):
        return _NO_LAYERS
    first = _first_alpha(trace)
    if at.collapsed is None:
        return Finding("inconclusive", _NO_COLLAPSE, {} if first is None else {"sign": first})
    if first is None:
        return _decide(
            False, f"never below 2 five times in a row; collapse from step {at.collapsed:,}"
        )
    words = (
        f"below 2, five times in a row, from step {first:,}; collapse from step {at.collapsed:,}"
    )
    return _decide(first < at.collapsed, words, sign=first, collapse=at.collapsed)


def traps_after_peak(trace: Trace, at: Milestones) -> Finding:
    """Measure whether the first lasting traps come no earlier than the test maximum."""
    first = _first_trap(trace)
    if at.peak is None:
        return _NO_PEAK
    if first is None:
        return Finding("inconclusive", f"no lasting traps; test maximum at step {at.peak:,}", {})
    words = f"traps from step {first:,}; test maximum at step {at.peak:,}"
    if at.collapsed is None:
        return Finding("inconclusive", f"{words}; {_NO_COLLAPSE}", {"sign": first})
    return _decide(first >= at.peak, words, sign=first, peak=at.peak)


def does_not_turn(measure: str, subject: str) -> Measure:
    """Test that a measure does not tell collapse from generalisation: it does not turn round."""

    def finding(trace: Trace, at: Milestones) -> Finding:
        if at.peak is None or at.onset is None:
            return _NO_PEAK
        series = trace.series(measure, subject).finite()
        rise, fall = trend(series, at.onset, at.peak), trend(series, at.peak, at.end)
        levels = [around(trace, measure, subject, s) for s in (at.onset, at.peak, at.end)]
        words = " -> ".join(f"{level:.4g}" for level in levels)
        words += f", trend {rise:+.2f} while generalising, {fall:+.2f} after the peak"
        values = {"generalising": rise, "after": fall}
        if at.collapsed is None:
            return Finding("inconclusive", f"{words}; {_NO_COLLAPSE}", values)
        steady = rise * fall < 0 and min(abs(rise), abs(fall)) >= 0.5
        large = abs(levels[2] - levels[1]) >= 0.1 * abs(levels[1] - levels[0])
        return _decide(not (steady and large), words, **values)

    return finding


def alarms(rule: str) -> Measure:
    """Measure whether a rule alarms, after the test maximum, where test accuracy collapses."""

    def finding(trace: Trace, at: Milestones) -> Finding:
        alarm = lasting_alarm(trace.verdicts, rule)
        if at.peak is None or at.collapsed is None:
            return Finding("inconclusive", _NO_COLLAPSE, {})
        if _never_spoke(trace, rule):
            return _NEVER_SPOKE
        words = "no lasting alarm" if alarm is None else f"alarm from step {alarm:,}"
        words += f"; test maximum at step {at.peak:,}, collapse from step {at.collapsed:,}"
        return _decide(alarm is not None and alarm >= at.peak, words)

    return finding


def silent(rule: str) -> Measure:
    """Measure whether a rule raises no alarm where nothing collapses: the control of `alarms`."""

    def finding(trace: Trace, at: Milestones) -> Finding:
        alarm = lasting_alarm(trace.verdicts, rule)
        if at.collapsed is not None:
            words = f"test accuracy collapsed from step {at.collapsed:,}: not a control after all"
            return Finding("inconclusive", words, {})
        if _never_spoke(trace, rule):
            return _NEVER_SPOKE
        words = "no lasting alarm" if alarm is None else f"alarm from step {alarm:,}"
        return _decide(alarm is None, f"{words}; no collapse")

    return finding


def _never_spoke(trace: Trace, rule: str) -> bool:
    return {v.phase for v in trace.verdicts if v.rule == rule} <= {"not-determined"}


def neighbourhood_follows(trace: Trace, at: Milestones) -> Finding:
    """Measure how test-free signals rank the network after the test maximum."""
    if at.peak is None:
        return _NO_PEAK
    test = trace.series("accuracy", "test")
    ours = rank_correlation(neighbourhood_score(trace), test, at.peak)
    values = {"neighbourhood": ours}
    for layer in judged_layers(trace):
        for name, measure in (("alpha", "htsr.alpha"), ("traps", "traps.count")):
            series = trace.series(measure, layer)
            values[f"{name} {layer}"] = rank_correlation(series, test, at.peak)
    words = ", ".join(f"{name} {value:+.2f}" for name, value in values.items())
    if at.collapsed is None:
        return Finding("inconclusive", f"{words}; {_NO_COLLAPSE}", values)
    decided = _decide(ours >= 0.5, words, neighbourhood=ours)
    return Finding(decided.outcome, decided.measured, values)


def initial_norm(trace: Trace, at: Milestones) -> Finding:
    """Measure the initial norm against that of the 784-200-200-10 network at scale 8."""
    norm = trace.series("weights.l2_norm").at(0)
    return _decide(abs(norm / 93.67 - 1) <= 0.01, f"{norm:.2f}", norm=norm)


def final_accuracy(trace: Trace, at: Milestones) -> Finding:
    """Measure test accuracy at the end of the run."""
    end = around(trace, "accuracy", "test", at.end)
    return _decide(abs(end - 0.898) <= 0.03, f"{end:.3f}", end=end)


def falls_while_generalising(measure: str, subject: str, share: float) -> Measure:
    """Measure whether a reading falls by ``share`` of itself or more."""

    def finding(trace: Trace, at: Milestones) -> Finding:
        if at.peak is None or at.onset is None:
            return _NO_PEAK
        before = around(trace, measure, subject, at.onset)
        after = around(trace, measure, subject, at.peak)
        words = f"{before:.4g} before grokking, {after:.4g} at the peak"
        fallen = before - after >= share * abs(before)
        return _decide(fallen, words, before=before, after=after)

    return finding


def plateau_before_grokking(trace: Trace, at: Milestones) -> Finding:
    """Measure how flat the sparsity of the first layer is before grokking."""
    if at.onset is None or at.memorised is None:
        return _NO_PEAK
    series = trace.series("golechha.activation_sparsity", "fc1").finite()
    before = series.values[(series.steps >= at.onset / 2) & (series.steps <= at.onset)]
    if len(before) < 2:
        return Finding("inconclusive", "too few readings before grokking", {})
    spread, whole = float(np.ptp(before)), float(np.ptp(running_median(series.values, 5)))
    words = f"varies by {spread:.3f} in the octave before grokking, by {whole:.3f} over the run"
    return _decide(spread <= 0.1 * whole, words, before=spread, run=whole)
