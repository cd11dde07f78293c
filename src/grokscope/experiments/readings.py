"""Small questions that claims ask of a trace."""

from __future__ import annotations

import numpy as np

from grokscope.phases.rules import THRESHOLDS
from grokscope.store.trace import Series, Trace


def around(trace: Trace, measure: str, subject: str, step: int) -> float:
    """Return the median of the five finite readings around ``step``; nan without any.

    Single observations jump, in the collapse above all; the figures of papers are means over runs.
    At either end of the run there are only three.
    """
    series = trace.series(measure, subject).finite()
    if not len(series):
        return float("nan")
    nearest = int(np.argmin(np.abs(series.steps - step)))
    reach = THRESHOLDS.evaluations // 2
    return float(np.median(series.values[max(0, nearest - reach) : nearest + reach + 1]))


def rank_correlation(a: Series, b: Series, since: int) -> float:
    """Return Spearman's rank correlation of two series over the steps both were read at.

    Args:
        a: One series.
        b: The other.
        since: Readings before this step are left out.

    Returns:
        A number in [-1, 1]; nan with fewer than five common readings or a constant series.
    """
    from scipy.stats import spearmanr  # a second to import; claims are evaluated rarely

    a, b = a.finite(), b.finite()
    steps, in_a, in_b = np.intersect1d(a.steps, b.steps, return_indices=True)
    x, y = a.values[in_a][steps >= since], b.values[in_b][steps >= since]
    if len(x) < THRESHOLDS.evaluations or np.ptp(x) == 0 or np.ptp(y) == 0:
        return float("nan")
    return float(spearmanr(x, y).statistic)


def trend(series: Series, start: int, stop: int) -> float:
    """Return Spearman's rank correlation of a series with the step, from ``start`` to ``stop``."""
    kept = (series.steps >= start) & (series.steps <= stop)
    steps, values = series.steps[kept], series.values[kept]
    notes = ("",) * len(steps)
    clock = Series(steps, steps.astype(np.float64), notes)
    return rank_correlation(Series(steps, values, notes), clock, start)
