"""Correlation traps: eigenvalues that stand out of the bulk even after a shuffle."""

from __future__ import annotations

import math
from dataclasses import dataclass

from torch import Tensor

from grokscope.measures._spectra import trap_thresholds


@dataclass(frozen=True, slots=True)
class CorrelationTraps:
    """What stands out of the shuffled spectra of one matrix. All nan where ``reason`` says why.

    Attributes:
        count_mean: Mean number of traps per shuffle.
        count_std: Standard deviation of that number over the shuffles (divided by R; 0 for one).
        count_min: Least number of traps in a shuffle.
        count_max: Greatest number of traps in a shuffle.
        fraction: Share of the shuffles with at least one trap.
        ratio: Largest eigenvalue over the threshold, mean over the shuffles.
        scale: Variance of the entries that the bulk shows, mean over the shuffles.
        threshold: Mean threshold, in units of eigenvalues of ``W^T W / N``.
        bulk_energy: ``scale`` over the mean squared entry: about 1 without outliers, less the more
            of the squared norm outliers hold.
        reason: Why all of these are nan; empty if they are not.
    """

    count_mean: float
    count_std: float
    count_min: float
    count_max: float
    fraction: float
    ratio: float
    scale: float
    threshold: float
    bulk_energy: float
    reason: str = ""


def correlation_traps(
    shuffled: Tensor, shape: tuple[int, int], *, quantile: float = 0.999
) -> CorrelationTraps:
    """Count the eigenvalues of shuffled matrices above the edge that pure noise would have.

    Each shuffle has its own threshold: the Tracy-Widom ``quantile`` of the largest eigenvalue of
    Gaussian noise (`tracy_widom.edge_threshold`) whose variance is the robust one of that
    shuffle's bulk (`marchenko_pastur.scale_from_median`). A shuffle of Gaussian noise shows a trap
    with a chance of about ``1 - quantile``, more as the scale is estimated: at the default, 0.005
    for matrices with sides of 100 or more, up to 0.03 for smaller and nearly square ones. Entries
    with heavier tails raise it, to 0.05 for Laplace entries. One trap is thus no alarm.

    Differs from the published count (WeightWatcher, used by arXiv:2506.04434), which fits the
    scale to a smoothed density, takes the square root of the Tracy-Widom width, and adds up the
    shuffles of small layers instead of averaging.

    Source: the notion is of Prakash & Martin, arXiv:2506.04434 and 2602.02859; the edge, Johnstone
    (2001), Ann. Statist. 29:295.

    Args:
        shuffled: `shuffled_spectrum.shuffled_eigenvalues` of one matrix, shape ``(R, M)``.
        shape: Shape of that matrix, either orientation.
        quantile: Tracy-Widom quantile of the threshold, in (0, 1).

    Returns:
        Counts, ratio and scale. Missing if the matrix is empty, not finite, zero or a single entry,
        or if more than half of the shuffled eigenvalues are zero to rounding.

    Raises:
        ValueError: If the eigenvalues do not belong to shuffles of a matrix of that shape, or
            ``quantile`` is out of range.
    """
    scales, thresholds, reason = trap_thresholds(shuffled, shape, quantile)
    if reason:
        nan = math.nan
        return CorrelationTraps(nan, nan, nan, nan, nan, nan, nan, nan, nan, reason)
    values = shuffled.cpu().numpy()
    counts = (values > thresholds[:, None]).sum(axis=1)
    return CorrelationTraps(
        count_mean=float(counts.mean()),
        count_std=float(counts.std()),
        count_min=float(counts.min()),
        count_max=float(counts.max()),
        fraction=float((counts > 0).mean()),
        ratio=float((values[:, -1] / thresholds).mean()),
        scale=float(scales.mean()),
        threshold=float(thresholds.mean()),
        # The mean eigenvalue of W^T W / N is the mean squared entry, the same for every shuffle.
        bulk_energy=float(scales.mean() / values.mean()),
    )
