"""WeightWatcher's fit of the Marchenko-Pastur law to a spectrum."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Vector = NDArray[np.float64]

_BANDWIDTH = 0.1  # of the triangular kernel, in units of the mean eigenvalue
_GRID = 1000
_GRID_MARGIN = 0.5
_NEGLIGIBLE = 0.01  # density below which a grid point does not count
_SEARCH = (0.05, 2.0, 0.01)  # first, last and step of the scale search, in units of its upper bound
_FLAT = 1e-12  # densities that differ by less, relative to the peak, are equal
_REJECTED = 1000.0  # residual of every grid point for a scale that cannot be
_TOLERANCE = 1e-4  # of the scale and of the misfit
_ITERATIONS = 200


@dataclass(frozen=True, slots=True)
class MarchenkoPasturFit:
    """A fitted bulk, in the package's names. All nan where ``reason`` says why.

    Attributes:
        num_spikes: Eigenvalues above the bulk edge plus a margin.
        sigma_mp: Standard deviation of the entries, in units of their root mean square.
        mp_softrank: Upper edge over the largest eigenvalue.
        W_scale: Square root of the factor that brings the eigenvalues to mean 1.
        bulk_max: Upper edge of the bulk, in units of the eigenvalues.
        bulk_min: Lower edge.
        reason: Why all of these are nan; empty if they are not.
    """

    num_spikes: float
    sigma_mp: float
    mp_softrank: float
    W_scale: float
    bulk_max: float
    bulk_min: float
    reason: str = ""


def fit_marchenko_pastur(eigenvalues: Vector, long: int, short: int) -> MarchenkoPasturFit:
    r"""Fit the Marchenko-Pastur law to a spectrum as WeightWatcher 0.7.7 does.

    The eigenvalues are brought to mean 1 and smoothed with a triangular kernel; the scale
    :math:`\sigma` is the one whose density has the least sum of squared residuals on a grid, found
    by a search over steps of 1 % and a simplex search from the best. For a square matrix the
    density is that of singular values, and its support stays :math:`[0, 2]` whatever
    :math:`\sigma` is, so that one large outlier raises the edge and may hide smaller ones.
    Eigenvalues above the edge by more than the *root* of the Tracy-Widom width count as spikes,
    which is several widths.

    The package smooths the same data anew for each of about 220 trial scales. Here it is done once,
    in time O(n), the search is one matrix operation, and the square case is solved exactly.

    Args:
        eigenvalues: Pooled, ascending, not negative, not all zero, any scale, shape ``(n,)``.
        long: Longer side of one matrix.
        short: Shorter side of one matrix.

    Returns:
        The fit. Missing if the grid misses the whole density, as it may when it is 200 times
        wider than the mean eigenvalue.
    """
    factor = len(eigenvalues) / float(eigenvalues.sum())
    values = factor * eigenvalues
    root = math.sqrt(short / long)
    grid, density = _smoothed(np.sqrt(values) if long == short else values)
    if len(grid) == 0:
        nan = math.nan
        reason = "the largest eigenvalue leaves no grid point to the others"
        return MarchenkoPasturFit(nan, nan, nan, nan, nan, nan, reason)
    if long == short:
        # Least squares in 1 / sigma^2, in which the residuals are linear.
        shape = np.sqrt(np.clip(4.0 - grid**2, 0.0, None))
        sigma = float(np.sqrt(shape @ shape / (math.pi * (shape @ density))))
    else:
        sigma = _search(grid, density, root, math.sqrt(values[-1]) / (1.0 + root))
    upper, lower = (sigma * (1.0 + root)) ** 2, (sigma * (1.0 - root)) ** 2
    width = root * (upper / short) ** (2 / 3)
    return MarchenkoPasturFit(
        num_spikes=float(np.count_nonzero(values > upper + math.sqrt(width))),
        sigma_mp=sigma,
        mp_softrank=float(upper / values[-1]),
        W_scale=math.sqrt(factor),
        bulk_max=upper / factor,
        bulk_min=lower / factor,
    )


def _smoothed(data: Vector) -> tuple[Vector, Vector]:
    """Return the grid points where the smoothed density is not negligible, and the density there.

    The triangular kernel is the second difference of a ramp, and a sum of ramps over sorted data
    needs only their number and their sum up to each point.
    """
    grid = np.linspace(0.0, data[-1] + _GRID_MARGIN, _GRID)
    sums = np.concatenate(([0.0], np.cumsum(data)))
    ends = np.stack([grid - _BANDWIDTH, grid, grid + _BANDWIDTH])
    counts = np.searchsorted(data, ends)
    ramps = counts * ends - sums[counts]
    density = (ramps[0] - 2.0 * ramps[1] + ramps[2]) / (len(data) * _BANDWIDTH**2)
    kept = density > _NEGLIGIBLE
    return grid[kept], density[kept]


def _search(grid: Vector, density: Vector, root: float, bound: float) -> float:
    """Return the scale whose Marchenko-Pastur density is closest to the smoothed one.

    Args:
        grid: Points, ascending, shape ``(g,)``.
        density: Smoothed density at the points.
        root: ``sqrt(M / N)``, below 1.
        bound: Scale whose upper edge is the largest eigenvalue.
    """
    # The first of equals: where kernels overlap the density is flat, but for rounding.
    peak, last = grid[(density > density.max() * (1.0 - _FLAT)).argmax()], grid[-1]
    # The law is sqrt((b - x)(x - a)) * height / sigma^2; at x = 0 it is 0, as a > 0.
    height = np.divide(1.0, 2.0 * math.pi * root**2 * grid, out=np.zeros_like(grid), where=grid > 0)
    squared, crossed, constant = height**2, height * density, density @ density

    def edges(sigma: Vector) -> tuple[Vector, Vector]:
        return (sigma * (1.0 - root)) ** 2, (sigma * (1.0 + root)) ** 2

    def allowed(sigma: Vector) -> NDArray[np.bool_]:
        lower, upper = edges(sigma)
        on: NDArray[np.bool_] = (lower <= peak) & (peak <= upper) & (upper <= last)
        return on

    def misfit(sigma: Vector) -> Vector:
        lower, upper = edges(sigma[:, None])
        inside = np.maximum((upper - grid) * (grid - lower), 0.0)
        law_squared, law_crossed = inside @ squared, np.sqrt(inside) @ crossed
        found: Vector = (law_squared / sigma**2 - 2.0 * law_crossed) / sigma**2 + constant
        return found

    def misfit_of_one(sigma: float) -> float:
        one = np.array([sigma])
        return float(misfit(one)[0]) if allowed(one)[0] else _REJECTED**2 * len(grid)

    scales = bound * np.arange(*_SEARCH)
    candidates = scales[allowed(scales)]
    best = candidates[misfit(candidates).argmin()] if len(candidates) else scales[0]
    return _simplex_search(misfit_of_one, float(best))


def _simplex_search(misfit: Callable[[float], float], start: float) -> float:
    """Return a local minimum by the method of Nelder & Mead in one dimension.

    Step by step what ``scipy.optimize.fmin`` does, without its overhead, which is larger than the
    time of a misfit.
    """
    best, worst = start, 1.05 * start
    low, high = misfit(best), misfit(worst)
    if high < low:
        best, worst, low, high = worst, best, high, low
    for _ in range(_ITERATIONS):
        if abs(worst - best) <= _TOLERANCE and high - low <= _TOLERANCE:
            break
        trial = 2.0 * best - worst
        found = misfit(trial)
        if found < low:
            farther = 3.0 * best - 2.0 * worst
            if (found_farther := misfit(farther)) < found:
                trial, found = farther, found_farther
        else:
            outside, to_beat = found < high, min(found, high)
            trial = 1.5 * best - 0.5 * worst if outside else 0.5 * best + 0.5 * worst
            found = misfit(trial)
            if found > to_beat or (found == to_beat and not outside):
                trial = best + 0.5 * (worst - best)
                found = misfit(trial)
        worst, high = trial, found
        if high < low:
            best, worst, low, high = worst, best, high, low
    return best
