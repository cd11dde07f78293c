"""Spikes: eigenvalues of a matrix that stand out of its own Marchenko-Pastur bulk."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from torch import Tensor

from grokscope.measures._spectra import require_shape, unfit
from grokscope.measures.marchenko_pastur import edges, scale_from_median
from grokscope.measures.tracy_widom import edge_threshold

_EPS = np.finfo(np.float64).eps


@dataclass(frozen=True, slots=True)
class SpectralSpikes:
    """A spectrum split into bulk and spikes. All nan where ``reason`` says why.

    Eigenvalues are those of ``W^T W / N``.

    Attributes:
        count: Number of spikes: eigenvalues above ``threshold``.
        scale: Variance of the entries of the noise that the bulk shows.
        threshold: Tracy-Widom quantile of the largest eigenvalue of that noise.
        bulk_min: Lower edge of the Marchenko-Pastur law of that noise.
        bulk_max: Upper edge.
        softrank: ``bulk_max`` over the largest eigenvalue: about 1 for noise, less the farther the
            first spike stands out.
        reason: Why all of these are nan; empty if they are not.
    """

    count: float
    scale: float
    threshold: float
    bulk_min: float
    bulk_max: float
    softrank: float
    reason: str = ""


def spectral_spikes(
    eigenvalues: Tensor, shape: tuple[int, int], *, quantile: float = 0.999
) -> SpectralSpikes:
    """Count the eigenvalues of a matrix above the edge that noise of its own bulk would have.

    The variance of the noise comes from the median eigenvalue
    (`marchenko_pastur.scale_from_median`), the threshold is the Tracy-Widom ``quantile`` of the
    largest eigenvalue of such noise. Spikes raise the median of a spectrum; so, once ``k`` of them
    are found, variance and threshold are taken anew from the ``M - k`` other eigenvalues, as those
    of an ``(N - k) x (M - k)`` noise matrix, until none is added. This changes nothing where no
    spike is found at first. With a spike for every tenth eigenvalue of a 200x200 matrix, it takes
    the error of the variance from 11 to 2 percent. Where more than half of all eigenvalues are
    spikes of about equal size, they pass for the bulk.

    Gaussian noise shows a spike with a chance of about ``1 - quantile``, more as the variance is
    estimated: at the default 0.002 for 784x200 and 10x200, 0.004 for 200x200. Entries with heavier
    tails raise it.

    A trained layer need not be noise plus spikes: where its spectrum is heavy-tailed throughout,
    the count is large and tells that the law does not fit, not how many directions were learned.

    Differs from WeightWatcher 0.7.7 (``mp_fit``), which fits the variance to a smoothed density,
    takes the square root of the Tracy-Widom width and, for square matrices, holds the edge at a
    fixed place.

    Source: Marchenko-Pastur fits of layers, Martin & Mahoney, arXiv:1810.01075; the edge, Johnstone
    (2001), Ann. Statist. 29:295; noise that remains beside k signals, Kritchman & Nadler (2009),
    IEEE Trans. Signal Process. 57:3930.

    Args:
        eigenvalues: `spectrum.eigenvalues` of the matrix, shape ``(M,)``.
        shape: Shape of the matrix, either orientation.
        quantile: Tracy-Widom quantile of the threshold, in (0, 1).

    Returns:
        Spikes and bulk. Missing if the matrix is empty, not finite, zero or a single entry, or if
        more than half of the eigenvalues that are no spikes are zero to rounding.

    Raises:
        ValueError: If the eigenvalues do not belong to one matrix of that shape, or ``quantile`` is
            out of range.
    """
    require_shape("spectral_spikes", eigenvalues, shape)
    if eigenvalues.ndim != 1:
        raise ValueError(
            f"spectral_spikes: expected eigenvalues of shape (M,), got {tuple(eigenvalues.shape)}."
        )
    n, m = max(shape), min(shape)
    reason = unfit(eigenvalues)
    if not reason and n < 2:
        reason = "the matrix is a single entry"
    if reason:
        return _no_bulk(reason)
    values = np.sort(eigenvalues.cpu().double().numpy())
    removed = 0
    while True:
        rest = (n - removed, m - removed)
        stretch = n / rest[0]  # to eigenvalues over the longer side of the rest
        scale = stretch * float(scale_from_median(values[: rest[1]], rest[1] / rest[0]))
        threshold = edge_threshold(rest, scale, quantile) / stretch
        count = int((values > threshold).sum())
        if count <= removed or n - count < 2:
            break
        removed = count
    if scale <= n * _EPS * values[-1]:
        return _no_bulk("no bulk: more than half of the eigenvalues that are no spikes are zero")
    bulk_min, bulk_max = edges(m / n, scale)
    return SpectralSpikes(
        count=float(count),
        scale=scale,
        threshold=threshold,
        bulk_min=bulk_min,
        bulk_max=bulk_max,
        softrank=bulk_max / float(values[-1]),
    )


def _no_bulk(reason: str) -> SpectralSpikes:
    nan = math.nan
    return SpectralSpikes(nan, nan, nan, nan, nan, nan, reason)
