"""Power-law fit of the upper tail of a spectrum: the HTSR exponent alpha."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

_EPS = torch.finfo(torch.float64).eps
_PROBES = 64  # points of a tail that bound its distance from below
_BLOCK = 16  # tails taken up at once
_WEIGHTWATCHER_CUT = 1e-5  # absolute, on eigenvalues of W^T W
_WEIGHTWATCHER_SMALL = 20  # fewer eigenvalues than this: its small-sample branch
_WEIGHTWATCHER_SMALL_TAIL = 8  # shortest tail that competes there


@dataclass(frozen=True, slots=True)
class PowerLawFit:
    """A fitted tail ``p(x) ~ x^-alpha``, ``x >= xmin``. All nan where ``reason`` says why.

    Attributes:
        alpha: Exponent of the density; always above 1.
        ks_distance: Kolmogorov-Smirnov distance of the tail to the fit, in [0, 1].
        xmin: Where the tail begins, in units of the data.
        sigma: Standard error ``(alpha - 1) / sqrt(tail_size)``, for a given ``xmin``.
        tail_size: Number of points in the tail.
        alpha_unbiased: ``1 + (tail_size - 1) / sum``, without the bias of the maximum-likelihood
            exponent for an ``xmin`` that was given beforehand (here it was not).
        xmax: The largest value.
        reason: Why all of these are nan; empty if they are not.
    """

    alpha: float
    ks_distance: float
    xmin: float
    sigma: float
    tail_size: float
    alpha_unbiased: float
    xmax: float
    reason: str = ""


def fit_power_law(
    eigenvalues: Tensor,
    *,
    convention: Literal["corrected", "weightwatcher"] = "corrected",
    min_tail: int = 10,
) -> PowerLawFit:
    r"""Fit a power law to the upper tail of positive data by the method of Clauset et al.

    Every data point is tried as ``xmin``. For each, the exponent is the maximum-likelihood one,
    :math:`\alpha = 1 + n / \sum_j \ln(x_j / x_{min})` over the ``n`` points of the tail, and the
    ``xmin`` whose fit has the least Kolmogorov-Smirnov distance to its tail wins (the smallest
    such ``xmin``). Alpha does not depend on the units of the data, except as said below. It does
    depend on the shape of a matrix, and by its construction never falls to 1.

    Conventions:

    * ``"corrected"``: values below ``n * eps * largest`` are dropped, as an eigenvalue solver
      leaves only noise there; a tail has at least ``min_tail`` points and holds all points that
      equal its ``xmin``; the distance is the two-sided one, against the empirical distribution on
      both sides of each step.
    * ``"weightwatcher"``: as WeightWatcher 0.7.7 fits (``fit="PL"``). Values up to 1e-5 are
      dropped, an *absolute* cut on eigenvalues of ``W^T W``: pass those, which are ``N`` times
      those that `spectrum.eigenvalues` returns. Tails of two points are allowed, the distance looks
      at the lower side of the steps only, and with fewer than 20 points the exponent is
      :math:`1 + (n - 1) / \sum` and only tails of at least 8 points compete. (The package also
      rounds weights to float32 first; that is the caller's choice here.) A fit that fails is nan,
      where the package writes -1.

    Source: Clauset, Shalizi & Newman, arXiv:0706.1062, sections 3.1 and 3.3; on spectra: Martin &
    Mahoney, arXiv:1810.01075. The search is exact. Its time grows about as ``n`` for spectra, as
    ``n^2`` at worst (some 20 ms for 4096 values); memory is O(n).

    Args:
        eigenvalues: Data in any order, shape ``(n,)``, real floating point, any positive units.
            Computed in float64.
        convention: One of the two above.
        min_tail: Shortest tail that competes, at least 2; ``"corrected"`` only.

    Returns:
        The fit. Missing if the data are not finite, if too few values are positive, or if no tail
        that may compete has any spread (all of its values equal to rounding).

    Raises:
        ValueError: If the data are not one-dimensional or not real floating point, or
            ``convention`` or ``min_tail`` is none of the allowed.
    """
    if eigenvalues.ndim != 1 or not eigenvalues.is_floating_point():
        raise ValueError(
            f"fit_power_law: expected real floating-point data of shape (n,), "
            f"got {eigenvalues.dtype} of shape {tuple(eigenvalues.shape)}."
        )
    if convention not in ("corrected", "weightwatcher"):
        raise ValueError(
            f"fit_power_law: expected convention 'corrected' or 'weightwatcher', "
            f"got {convention!r}."
        )
    if min_tail < 2:
        raise ValueError(f"fit_power_law: expected min_tail of at least 2, got {min_tail}.")
    data = eigenvalues.detach().to(torch.float64)
    if not bool(data.isfinite().all()):
        return _no_fit("data are not finite")
    x, log_x = _usable(data, convention)
    n = len(x)
    if convention == "corrected":
        needed, shortest, small = min_tail, min_tail, False
    else:
        small = n < _WEIGHTWATCHER_SMALL
        needed, shortest = 2, min(_WEIGHTWATCHER_SMALL_TAIL, n) if small else 2
    if n < needed:
        cut = "positive beyond rounding" if convention == "corrected" else "above 1e-5"
        return _no_fit(f"only {n} of {len(data)} values are {cut}, a tail needs {needed}")

    tail = torch.arange(n, 0, -1, dtype=torch.float64, device=x.device)
    spread = log_x.flip(0).cumsum(0).flip(0) - tail * log_x
    slope = (tail - 1 if small else tail) / spread  # alpha - 1
    candidate = (tail >= shortest) & (slope > 0) & slope.isfinite()
    if convention == "corrected":
        candidate &= spread > tail * n * _EPS  # else the whole tail is one value, to rounding
        candidate[1:] &= x[1:] > x[:-1]
    candidates = candidate.nonzero().flatten()
    if len(candidates) == 0:
        return _no_fit("the values of every tail are equal, which no power law fits")

    half_step = 0.5 if convention == "corrected" else 0.0
    best, distance = _best_tail(log_x, slope, candidates, half_step)
    alpha_minus_one = float(slope[best])
    return PowerLawFit(
        alpha=1.0 + alpha_minus_one,
        ks_distance=distance,
        xmin=float(x[best]),
        sigma=alpha_minus_one / math.sqrt(n - best),
        tail_size=float(n - best),
        alpha_unbiased=1.0 + float((tail[best] - 1) / spread[best]),
        xmax=float(x[-1]),
    )


def _no_fit(reason: str) -> PowerLawFit:
    nan = math.nan
    return PowerLawFit(nan, nan, nan, nan, nan, nan, nan, reason)


def _usable(data: Tensor, convention: str) -> tuple[Tensor, Tensor]:
    """Return the data above the cut, ascending, and their logs relative to the largest."""
    if convention == "weightwatcher":
        x = data[data > _WEIGHTWATCHER_CUT]
    else:
        cut = len(data) * _EPS * data.max().clamp(min=0.0) if len(data) else 0.0
        x = data[data > cut]
    x = x.sort().values
    # Logs relative to the largest are small in the tail, so that the sums over it stay exact.
    return x, (x / x[-1:]).log()


def _best_tail(
    log_x: Tensor, slope: Tensor, candidates: Tensor, half_step: float
) -> tuple[int, float]:
    """Return where the tail of least KS distance to its fit begins, and that distance.

    The greatest deviation over a few points of a tail is at most its distance. Tails are taken up
    in the order of that bound, until it exceeds the least distance found: the rest cannot win.

    Args:
        log_x: Logs of the data, ascending, shape ``(n,)``.
        slope: alpha - 1 of each tail by the index of its first point, shape ``(n,)``.
        candidates: Indices of the tails to look at, ascending.
        half_step: As `_ks_distances` takes it.
    """
    n = len(log_x)
    shares = torch.arange(_PROBES, dtype=torch.float64, device=log_x.device) / _PROBES
    probes = (shares * (n - candidates)[:, None]).long() + candidates[:, None]
    distances = _ks_distances(log_x, slope, candidates, probes, half_step)
    least = math.inf
    for rows in torch.split(distances.argsort(), _BLOCK):
        if float(distances[rows[0]]) > least:
            break
        first = candidates[rows]
        points = torch.arange(int(first.min()), n, device=log_x.device)
        distances[rows] = _ks_distances(log_x, slope, first, points, half_step)
        least = min(least, float(distances[rows].min()))
    best = int(distances.argmin())  # the first of equals; a bound above `least` is none
    return int(candidates[best]), float(distances[best])


def _ks_distances(
    log_x: Tensor, slope: Tensor, first: Tensor, points: Tensor, half_step: float
) -> Tensor:
    """Return the greatest deviation of each tail from its fit over some of its points.

    Args:
        log_x: Logs of the data, ascending, shape ``(n,)``.
        slope: alpha - 1 of each tail by the index of its first point, shape ``(n,)``.
        first: Indices of the first points of the tails, shape ``(k,)``.
        points: Indices of the points to look at, shape ``(k, p)`` or ``(p,)``; those before the
            tail count for nothing.
        half_step: 1/2 for both sides of the empirical steps: the farther side is half a step
            farther than their middle. 0 for the lower side only.

    Returns:
        Shape ``(k,)``.
    """
    first = first[:, None]
    rank = points - first
    size = (len(log_x) - first).to(torch.float64)  # else their quotients would be float32
    off = torch.expm1(slope[first] * (log_x[first] - log_x[points]))
    off += (rank + half_step) / size
    off = off.abs_().masked_fill_(rank < 0, 0.0).amax(dim=1)
    return off + half_step / size[:, 0]
