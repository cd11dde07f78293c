"""The columns of WeightWatcher 0.7.7, for comparison with published and existing tables.

For anything else use the measures that these columns descend from (`spectrum`, `power_law`,
`correlation_traps`), whose defaults mend the defects that are reproduced here.
"""
# ruff: noqa: N815  Fields have the names of the package's columns.

from __future__ import annotations

import math
from dataclasses import dataclass, replace

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.special import kl_div
from torch import Tensor

from grokscope.measures._spectra import unfit
from grokscope.measures._weightwatcher_mp import fit_marchenko_pastur
from grokscope.measures.power_law import fit_power_law

Array = NDArray[np.float64]

_FEW = 100  # a layer with fewer eigenvalues than this is shuffled several times
_SHUFFLES_OF_FEW = 5
_WEAK = 1e-6
_ENTROPY_OFFSET = 1e-10
_OVER_TRAINED, _UNDER_TRAINED = 2.0, 6.0

_EPS = float(np.finfo(np.float64).eps)
_GRAM_DIGITS = math.sqrt(_EPS)  # smallest over largest eigenvalue that a Gram matrix gives to 1e-6
_NAN = math.nan


@dataclass(frozen=True, slots=True)
class WeightWatcherColumns:
    """One row of WeightWatcher's table, under its own names. Eigenvalues are those of ``W^T W``.

    Numbers are nan where a reason below says why. Counts are floats, to hold nan.

    Attributes:
        M: Shorter side of the matrix, or of one slice.
        N: Longer side.
        Q: ``N / M``.
        rf: Number of slices; 1 for a matrix.
        num_evals: Number of eigenvalues, all slices together.
        alpha: Exponent of the power law.
        D: Kolmogorov-Smirnov distance of the tail to it.
        xmin: Eigenvalue where the tail begins.
        xmax: Largest eigenvalue, if the fit succeeds.
        sigma: Standard error of ``alpha``.
        num_pl_spikes: Number of eigenvalues in the tail.
        status: ``"success"`` or ``"failed"``, of the power law.
        warning: ``"over-trained"`` for alpha below 2, ``"under-trained"`` above 6, else ``""``.
        norm: Sum of the eigenvalues.
        log_norm: Its decimal logarithm, as all logarithms here.
        spectral_norm: Largest eigenvalue: the *square* of the largest singular value.
        log_spectral_norm: Its logarithm.
        lambda_max: Largest eigenvalue again.
        alpha_weighted: ``alpha * log_spectral_norm``.
        log_alpha_norm: Logarithm of the sum of the eigenvalues to the power ``alpha``.
        stable_rank: ``norm / spectral_norm``.
        sv_max: Largest singular value.
        sv_min: The *largest*, over the slices, of the smallest singular value.
        matrix_rank: Number of singular values above ``N * eps`` times the largest.
        rank_loss: Number of those that are not, slice by slice.
        weak_rank_loss: Number of eigenvalues below 1e-6.
        entropy: Of the eigenvalues as shares of their sum, over the logarithm of the rank.
        detX_num: Size of the smallest upper tail of the eigenvalues, scaled to mean 1, whose
            product is below 1; all of them if there is none, 0 if all are equal.
        num_ERG_spikes: The same.
        ERG_gap: ``detX_num - num_pl_spikes``.
        detX_val: Eigenvalue where that tail begins.
        detX_val_unrescaled: The same, scaled to mean 1 (the package exchanges the names).
        num_spikes: Eigenvalues above the edge of the fitted Marchenko-Pastur law by a margin.
        sigma_mp: Its scale, and
        mp_softrank: its upper edge over the largest eigenvalue.
        W_scale: Square root of the factor that brings the eigenvalues to mean 1.
        bulk_max: Upper edge, in units of the eigenvalues.
        bulk_min: Lower edge.
        max_rand_eval: Largest eigenvalue of the shuffled matrix; over all five shuffles of a layer
            with fewer than 100 eigenvalues.
        rand_distance: Jensen-Shannon distance between the *sorted eigenvalues* and those of a
            further shuffle, both over their sum.
        ww_softrank: Largest eigenvalue of that shuffle over the largest one.
        ww_maxdist: Largest eigenvalue less that of the shuffle.
        rand_num_spikes: As ``num_spikes``, for the shuffled matrix; the *sum* over five shuffles
            of a layer with fewer than 100 eigenvalues.
        num_traps: The same.
        rand_sigma_mp: As ``sigma_mp``, for the shuffled matrix.
        rand_mp_softrank: As ``mp_softrank``.
        rand_W_scale: As ``W_scale``.
        rand_bulk_max: As ``bulk_max``.
        rand_bulk_min: As ``bulk_min``.
        reason: Why there is no power law, or no column but the shape at all; empty if there is.
        mp_reason: Why there is no Marchenko-Pastur fit; empty if there is.
        rand_mp_reason: Why there is no Marchenko-Pastur fit to a shuffle; empty if there is.
    """

    M: int
    N: int
    Q: float
    rf: int
    num_evals: int
    alpha: float = _NAN
    D: float = _NAN
    xmin: float = _NAN
    xmax: float = _NAN
    sigma: float = _NAN
    num_pl_spikes: float = _NAN
    status: str = "failed"
    warning: str = ""
    norm: float = _NAN
    log_norm: float = _NAN
    spectral_norm: float = _NAN
    log_spectral_norm: float = _NAN
    lambda_max: float = _NAN
    alpha_weighted: float = _NAN
    log_alpha_norm: float = _NAN
    stable_rank: float = _NAN
    sv_max: float = _NAN
    sv_min: float = _NAN
    matrix_rank: float = _NAN
    rank_loss: float = _NAN
    weak_rank_loss: float = _NAN
    entropy: float = _NAN
    detX_num: float = _NAN
    num_ERG_spikes: float = _NAN
    ERG_gap: float = _NAN
    detX_val: float = _NAN
    detX_val_unrescaled: float = _NAN
    num_spikes: float = _NAN
    sigma_mp: float = _NAN
    mp_softrank: float = _NAN
    W_scale: float = _NAN
    bulk_max: float = _NAN
    bulk_min: float = _NAN
    max_rand_eval: float = _NAN
    rand_distance: float = _NAN
    ww_softrank: float = _NAN
    ww_maxdist: float = _NAN
    rand_num_spikes: float = _NAN
    num_traps: float = _NAN
    rand_sigma_mp: float = _NAN
    rand_mp_softrank: float = _NAN
    rand_W_scale: float = _NAN
    rand_bulk_max: float = _NAN
    rand_bulk_min: float = _NAN
    reason: str = ""
    mp_reason: str = ""
    rand_mp_reason: str = ""


def weightwatcher(
    weight: Tensor, *, random_state: np.random.RandomState | None = None
) -> WeightWatcherColumns:
    r"""Return what WeightWatcher 0.7.7 computes for one layer, defects included.

    That is ``WeightWatcher().analyze(mp_fit=True, randomize=True, detX=True)`` on a machine without
    GPU. Weights are rounded to float32 first. The power law is `fit_power_law` in its
    ``"weightwatcher"`` convention, with an absolute cut, and the Marchenko-Pastur law
    `fit_marchenko_pastur`.

    Where the package differs, all of it on purpose:

    * A fit that fails is nan with a reason. The package writes -1, calls the layer over-trained
      and lets the -1 into the columns and averages that depend on it; of equal eigenvalues it has
      an infinite exponent. All columns of a matrix that is zero or not finite are nan.
    * Of the power law to fewer than 8 eigenvalues ``sigma`` is its standard error; the package has
      a negative number.
    * The package exchanges ``N`` and ``M`` of a convolution with fewer output than input channels
      and an even number of kernel positions.
    * ``detX_num`` adds logarithms. The package's products leave the range of floats in layers of
      more than about 4000 eigenvalues.

    Source: Martin & Mahoney, arXiv:1810.01075 and 2002.06716, with the package's choices.

    Args:
        weight: Real floating-point matrix, shape ``(rows, columns)``, or the slices of a
            convolution, one for each kernel position, shape ``(positions, rows, columns)``: their
            eigenvalues are pooled and, as the package has it, halved. Any device; computed on the
            CPU. Not mutated.
        random_state: Draws the shuffles, one layer after the other exactly as the package draws
            them from numpy's global generator after ``numpy.random.seed`` with the same seed. It
            advances equally for every layer of the same shape, fit or not. None: no shuffles.

    Returns:
        The columns.

    Raises:
        ValueError: If ``weight`` is empty, of another shape or not real floating point.
    """
    if weight.ndim not in (2, 3) or weight.numel() == 0 or not weight.is_floating_point():
        raise ValueError(
            f"weightwatcher: expected a real floating-point matrix or a stack of them, not empty, "
            f"got {weight.dtype} of shape {tuple(weight.shape)}."
        )
    slices = weight.detach().to("cpu", torch.float32).to(torch.float64).numpy()
    if weight.ndim == 2:
        slices = slices[None]
    else:
        # Tall, as the shuffles go through the entries of the package's slices.
        slices = math.sqrt(0.5) * (slices if _is_tall(slices) else slices.swapaxes(1, 2))
    positions, long, short = len(slices), max(slices.shape[1:]), min(slices.shape[1:])
    spectra = _eigenvalues(slices)
    values = np.sort(spectra, axis=None)
    shuffled = None
    if random_state is not None:
        pooled = _SHUFFLES_OF_FEW if values.size < _FEW else 1
        shuffled = _shuffled_eigenvalues(slices, pooled + 1, random_state)
    row = WeightWatcherColumns(short, long, long / short, positions, values.size)
    reason = unfit(torch.from_numpy(values))
    if reason:
        return replace(row, reason=reason, mp_reason=reason, rand_mp_reason=reason)

    row = _with_power_law(row, values)
    row = _with_norms(row, values, spectra)
    row = _with_determinant(row, values)
    row = _with_marchenko_pastur(row, values)
    if shuffled is not None:
        pool = np.sort(shuffled[:-1], axis=None)
        row = _with_shuffles(row, values, pool, shuffled[-1])
        row = _with_shuffled_marchenko_pastur(row, pool)
    return row


def _with_power_law(row: WeightWatcherColumns, values: Array) -> WeightWatcherColumns:
    fit = fit_power_law(torch.from_numpy(values), convention="weightwatcher")
    if fit.reason:
        return replace(row, reason=fit.reason)
    warning = ""
    if fit.alpha < _OVER_TRAINED:
        warning = "over-trained"
    elif fit.alpha > _UNDER_TRAINED:
        warning = "under-trained"
    largest = values[-1]
    weighted = fit.alpha * math.log10(largest)
    return replace(
        row,
        alpha=fit.alpha,
        D=fit.ks_distance,
        xmin=fit.xmin,
        xmax=float(largest),
        sigma=fit.sigma,
        num_pl_spikes=fit.tail_size,
        status="success",
        warning=warning,
        alpha_weighted=weighted,
        # Powers of shares, which do not overflow as those of the eigenvalues would.
        log_alpha_norm=weighted + math.log10(((values / largest) ** fit.alpha).sum()),
    )


def _with_norms(row: WeightWatcherColumns, values: Array, spectra: Array) -> WeightWatcherColumns:
    norm, largest = float(values.sum()), float(values[-1])
    singular = np.sqrt(spectra)  # shape (positions, M)
    lost = singular <= singular[:, -1:] * row.N * _EPS
    rank = int((np.sqrt(values) > math.sqrt(largest) * row.N * _EPS).sum())
    shares = values / norm + _ENTROPY_OFFSET
    return replace(
        row,
        norm=norm,
        log_norm=math.log10(norm),
        spectral_norm=largest,
        log_spectral_norm=math.log10(largest),
        lambda_max=largest,
        stable_rank=norm / largest,
        sv_max=math.sqrt(largest),
        sv_min=float(singular[:, 0].max()),
        matrix_rank=rank,
        rank_loss=int(lost.sum()),
        weak_rank_loss=int((values < _WEAK).sum()),
        entropy=float(-(shares @ np.log(shares)) / math.log(rank + _ENTROPY_OFFSET)),
    )


def _with_determinant(row: WeightWatcherColumns, values: Array) -> WeightWatcherColumns:
    n = len(values)
    scaled = values * (n / values.sum())
    size, start = 0, 0
    if values[0] < values[-1]:
        # The package looks at all tails but the whole, and where none will do it reports the size
        # of the whole with the beginning of the longest tail.
        size, start = n, 1
        with np.errstate(divide="ignore"):
            below = np.cumsum(np.log(scaled[:0:-1])) < 0.0
        if below.any():
            size = int(below.argmax()) + 1
            start = n - size
    return replace(
        row,
        detX_num=size,
        num_ERG_spikes=size,
        ERG_gap=size - row.num_pl_spikes,
        detX_val=float(values[start]),
        detX_val_unrescaled=float(scaled[start]),
    )


def _with_marchenko_pastur(row: WeightWatcherColumns, values: Array) -> WeightWatcherColumns:
    fit = fit_marchenko_pastur(values, row.N, row.M)
    return replace(
        row,
        num_spikes=fit.num_spikes,
        sigma_mp=fit.sigma_mp,
        mp_softrank=fit.mp_softrank,
        W_scale=fit.W_scale,
        bulk_max=fit.bulk_max,
        bulk_min=fit.bulk_min,
        mp_reason=fit.reason,
    )


def _with_shuffled_marchenko_pastur(row: WeightWatcherColumns, pool: Array) -> WeightWatcherColumns:
    fit = fit_marchenko_pastur(pool, row.N, row.M)
    return replace(
        row,
        rand_num_spikes=fit.num_spikes,
        num_traps=fit.num_spikes,
        rand_sigma_mp=fit.sigma_mp,
        rand_mp_softrank=fit.mp_softrank,
        rand_W_scale=fit.W_scale,
        rand_bulk_max=fit.bulk_max,
        rand_bulk_min=fit.bulk_min,
        rand_mp_reason=fit.reason,
    )


def _with_shuffles(
    row: WeightWatcherColumns, values: Array, pool: Array, single: Array
) -> WeightWatcherColumns:
    p, q = values / values.sum(), single / single.sum()
    middle = (p + q) / 2
    divergence = float(kl_div(p, middle).sum() + kl_div(q, middle).sum()) / 2
    return replace(
        row,
        max_rand_eval=float(pool[-1]),
        rand_distance=math.sqrt(divergence),
        ww_softrank=float(single[-1] / values[-1]),
        ww_maxdist=float(values[-1] - single[-1]),
    )


def _eigenvalues(slices: Array) -> Array:
    """Return the eigenvalues of ``W^T W`` of each slice, ascending, shape ``(positions, M)``."""
    found = _gram_eigenvalues(slices)
    if (found[:, 0] < _GRAM_DIGITS * found[:, -1]).any():
        found = torch.linalg.svdvals(torch.from_numpy(slices)).flip(-1).square().numpy()
    return found


def _shuffled_eigenvalues(
    slices: Array, shuffles: int, random_state: np.random.RandomState
) -> Array:
    """Return the eigenvalues of all slices, ascending, after each shuffle, a row for each."""
    copy = np.empty(slices.shape)
    spectra = np.empty((shuffles, len(slices) * min(slices.shape[1:])))
    for row in spectra:
        copy[:] = slices
        for entries in copy.reshape(len(copy), -1):
            random_state.shuffle(entries)
        row[:] = np.sort(_gram_eigenvalues(copy), axis=None)
    return spectra


def _gram_eigenvalues(slices: Array) -> Array:
    """Return eigenvalues as `spectrum.eigenvalues` does, but times N, and always on the CPU.

    There, numpy's product of a matrix with its own transpose takes half of the time of torch's.
    """
    turned = slices.swapaxes(1, 2)
    with np.errstate(invalid="ignore"):  # said below
        gram = turned @ slices if _is_tall(slices) else slices @ turned
    if not np.isfinite(gram.trace(axis1=1, axis2=2)).all():
        return np.full(gram.shape[:2], np.nan)
    found: Array = np.linalg.eigvalsh(gram).clip(min=0.0)
    return found


def _is_tall(slices: Array) -> bool:
    _, rows, columns = slices.shape
    return bool(rows >= columns)
