"""What correlation traps are made of: where in the matrix they sit, and alpha without them."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.sparse.linalg import LinearOperator, eigsh
from torch import Tensor

from grokscope.measures._shuffles import permutations
from grokscope.measures._spectra import require_shape, trap_thresholds
from grokscope.measures.power_law import fit_power_law
from grokscope.measures.spectrum import eigenvalues

_SAME_EIGENVALUE = 1e-6  # relative; far above rounding, far below what another shuffle would give


@dataclass(frozen=True, slots=True)
class Line:
    """A row or a column of a matrix.

    Attributes:
        index: Which one, from 0.
        share: Its share of the squared norm of the traps.
    """

    index: int
    share: float


@dataclass(frozen=True, slots=True)
class Entry:
    """An entry of a matrix.

    Attributes:
        row: From 0.
        column: From 0.
        weight: Its value in the matrix, in units of the weights.
        share: Its share of the squared norm of the traps.
    """

    row: int
    column: int
    weight: float
    share: float


@dataclass(frozen=True, slots=True)
class TrapModes:
    """Size and place of the traps of one matrix. Nan and empty where ``reason`` says why.

    Attributes:
        count_mean: Mean number of traps per shuffle; that of `correlation_traps`.
        ratios: Eigenvalue over its shuffle's threshold of the largest trap, the second, and so on,
            each a mean over the shuffles that have so many.
        mean_share: Share of the squared norm of the trap modes that their mean holds: 1 if the trap
            is a shift of all entries alike, 0 if it is entries that stand out.
        rows: Rows with the largest shares, in descending order.
        columns: Columns likewise.
        entries: Entries likewise.
        top_5_mass: Share of the 5 percent largest entries in the sum of absolute values. A single
            outlier leaves it low: the modes also carry what noise it meets in a shuffle.
        top_10_mass: Same for 10 percent.
        alpha_detrapped: Power-law exponent of the matrix without its trap modes, mean over the
            shuffles; a shuffle without a trap counts with alpha itself.
        alpha_detrapped_std: Standard deviation of that over the shuffles (divided by R).
        alpha_below_edge: Exponent refitted to the eigenvalues of the matrix itself up to the mean
            threshold of its shuffles. That also discards what the layer has learned above it: it
            says whether the bulk alone is heavy-tailed.
        detrapped_reason: Why the two before the last are nan; empty if they are not.
        below_edge_reason: Same for the last.
        reason: Why all of these are nan or empty; empty if they are not.
    """

    count_mean: float
    ratios: tuple[float, ...]
    mean_share: float
    rows: tuple[Line, ...]
    columns: tuple[Line, ...]
    entries: tuple[Entry, ...]
    top_5_mass: float
    top_10_mass: float
    alpha_detrapped: float
    alpha_detrapped_std: float
    alpha_below_edge: float
    detrapped_reason: str = ""
    below_edge_reason: str = ""
    reason: str = ""


def trap_modes(
    weight: Tensor,
    spectrum: Tensor,
    shuffled: Tensor,
    *,
    generator: torch.Generator,
    quantile: float = 0.999,
    top: int = 5,
    min_tail: int = 10,
) -> TrapModes:
    """Locate the correlation traps of a matrix, and fit its spectrum without them.

    A trap is an eigenvalue of a shuffled matrix above its threshold, exactly as `correlation_traps`
    counts them. Its mode ``s u v^T`` is put back where the entries came from; for each shuffle the
    sum of these modes is one matrix in the place of ``weight``. Rows, columns, entries and
    masses are shares of the mean of their absolute values over the shuffles: what stays in place
    adds up, what depends on the shuffle is spread over the matrix. The exponent without traps is
    that of ``weight`` minus that matrix, with nothing put in its place (a mode also carries some
    of the noise that its entries met in the shuffle, which is thereby spread thinly over
    ``weight``).

    Costs nothing if no shuffle has a trap. Otherwise, for every shuffle that has one: the modes, by
    a Lanczos iteration on the matrix (a small share of the cost of its spectrum), and one
    more spectrum. Holds about seven float64 copies of the matrix. Computed on the CPU.

    Source: Prakash & Martin, arXiv:2506.04434 and 2602.02859 (traps and their removal, there with
    noise in their place); the two masses are those of WeightWatcher 0.8, there of one shuffle.

    Args:
        weight: Real floating-point matrix, shape ``(rows, columns)``, any device. Not mutated.
        spectrum: `spectrum.eigenvalues` of it, shape ``(M,)``.
        shuffled: `shuffled_spectrum.shuffled_eigenvalues` of it, shape ``(R, M)``.
        generator: CPU generator in the state that ``shuffled`` was drawn from, so that it gives the
            same permutations. It is left alone if no shuffle has a trap.
        quantile: Tracy-Widom quantile of the threshold, in (0, 1), as in `correlation_traps`.
        top: Most ratios, rows, columns and entries to name, at least 1.
        min_tail: Of `fit_power_law`.

    Returns:
        Sizes, places and exponents. Missing where `correlation_traps` is, and if there are no
        traps.

    Raises:
        ValueError: If ``weight`` is no real floating-point matrix, the eigenvalues do not belong
            to one of its shape, ``shuffled`` not to the shuffles that ``generator`` gives, or an
            option is out of range.
    """
    if weight.ndim != 2 or not weight.is_floating_point():
        raise ValueError(
            f"trap_modes: expected one real floating-point matrix of shape (rows, columns), "
            f"got {weight.dtype} of shape {tuple(weight.shape)}."
        )
    if top < 1:
        raise ValueError(f"trap_modes: expected top of at least 1, got {top}.")
    rows, columns = weight.shape
    shape = (rows, columns)
    require_shape("trap_modes", spectrum, shape)
    _, thresholds, reason = trap_thresholds(shuffled, shape, quantile)
    if reason:
        return _missing(reason)
    values = shuffled.cpu().numpy()
    counts = (values > thresholds[:, None]).sum(axis=1)
    if not counts.any():
        return _missing("no traps")

    w = weight.detach().to("cpu", torch.float64).contiguous()
    raw = fit_power_law(spectrum, min_tail=min_tail)
    below = fit_power_law(spectrum[spectrum <= float(thresholds.mean())], min_tail=min_tail)
    fits = []
    mean_size = torch.zeros_like(w)
    constant_square = total_square = 0.0
    orders = permutations(w.numel(), len(shuffled), generator)
    for order, found, count in zip(orders, values, counts, strict=True):
        if count == 0:
            fits.append(raw)
            continue
        matrix = w.view(-1).index_select(0, order).view(shape)
        modes = torch.empty_like(w)
        modes.view(-1).scatter_(0, order.long(), _modes(matrix, found[-count:]).view(-1))
        constant_square += float(modes.sum()) ** 2 / w.numel()
        total_square += float(torch.linalg.vector_norm(modes)) ** 2
        fits.append(fit_power_law(eigenvalues(w - modes), min_tail=min_tail))
        mean_size.add_(modes.abs_(), alpha=1.0 / len(shuffled))

    alphas = np.array([fit.alpha for fit in fits])
    top_5_mass, top_10_mass = _masses(mean_size, (5, 10))
    share = mean_size.square_()
    share /= share.sum()
    return TrapModes(
        count_mean=float(counts.mean()),
        ratios=_mean_ratios(values / thresholds[:, None], counts, top),
        mean_share=constant_square / total_square,
        rows=tuple(Line(*found) for found in _largest(share.sum(dim=1), top)),
        columns=tuple(Line(*found) for found in _largest(share.sum(dim=0), top)),
        entries=tuple(
            Entry(*divmod(place, columns), float(w.view(-1)[place]), part)
            for place, part in _largest(share.view(-1), top)
        ),
        top_5_mass=top_5_mass,
        top_10_mass=top_10_mass,
        alpha_detrapped=float(alphas.mean()),
        alpha_detrapped_std=float(alphas.std()),
        alpha_below_edge=below.alpha,
        detrapped_reason=next((fit.reason for fit in fits if fit.reason), ""),
        below_edge_reason=below.reason,
    )


def _missing(reason: str) -> TrapModes:
    nan = math.nan
    return TrapModes(nan, (), nan, (), (), (), nan, nan, nan, nan, nan, reason, reason, reason)


def _modes(matrix: Tensor, expected: NDArray[np.float64]) -> Tensor:
    """Return the sum of the largest singular modes ``s u v^T`` of a matrix.

    Args:
        matrix: float64 on the CPU, shape ``(rows, columns)``.
        expected: The eigenvalues of ``W^T W / N`` that belong to the modes, ascending.

    Returns:
        Same shape as ``matrix``.

    Raises:
        ValueError: If those are not the eigenvalues.
    """
    tall = matrix if matrix.shape[0] >= matrix.shape[1] else matrix.mT
    longer, shorter = tall.shape

    # In units of the largest eigenvalue: the solver's tolerance is absolute below about 1e-11.
    unit = float(expected[-1])

    def apply(vector: NDArray[np.float64]) -> NDArray[np.float64]:
        applied: NDArray[np.float64] = (tall.mT @ (tall @ torch.from_numpy(vector))).numpy()
        return applied / (longer * unit)

    # Any start that overlaps every mode will do; a fixed one makes the result reproducible.
    start = np.random.default_rng(0).standard_normal(shorter)
    gram = LinearOperator((shorter, shorter), matvec=apply, dtype=np.float64)
    found, vectors = eigsh(gram, k=len(expected), which="LA", v0=start)
    if not np.allclose(np.sort(found) * unit, expected, rtol=_SAME_EIGENVALUE, atol=0.0):
        raise ValueError(
            "trap_modes: expected a generator in the state that the shuffled eigenvalues were "
            "drawn from; this one gives other shuffles."
        )
    basis = torch.from_numpy(vectors)
    return (matrix @ basis) @ basis.mT if tall is matrix else basis @ (basis.mT @ matrix)


def _mean_ratios(
    ratios: NDArray[np.float64], counts: NDArray[np.int64], top: int
) -> tuple[float, ...]:
    """Average eigenvalues over threshold, shape ``(R, M)`` ascending, by rank from the largest."""
    ranks = range(min(top, int(counts.max())))
    return tuple(float(ratios[counts > rank, -1 - rank].mean()) for rank in ranks)


def _masses(size: Tensor, percents: tuple[int, ...]) -> tuple[float, ...]:
    """Return the shares of the sum of nonnegative numbers that so many of the largest hold."""
    values = size.numpy().ravel()
    first = [len(values) - math.ceil(percent * len(values) / 100) for percent in percents]
    ordered = np.partition(values, first)
    return tuple(float(ordered[start:].sum() / ordered.sum()) for start in first)


def _largest(shares: Tensor, top: int) -> list[tuple[int, float]]:
    found = shares.topk(min(top, len(shares)))
    return list(zip(found.indices.tolist(), found.values.tolist(), strict=True))
