"""The power-law exponent of pure noise of a given shape, which one that was found is judged by."""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch

from grokscope.measures._noise import noise_spectra
from grokscope.measures.power_law import fit_power_law


@dataclass(frozen=True, slots=True)
class AlphaNull:
    """Exponents fitted to Gaussian noise of one shape. nan where ``reason`` says why.

    Attributes:
        mean: Mean of the exponents.
        std: Their sample standard deviation (divided by their number less one).
        q05: 0.05 quantile.
        q95: 0.95 quantile.
        draws: Number of simulated matrices.
        failed: How many of them had no fit; they count for nothing.
        reason: Why the four statistics are nan; empty if they are not.
    """

    mean: float
    std: float
    q05: float
    q95: float
    draws: int
    failed: int
    reason: str = ""


def alpha_null(
    shape: tuple[int, int],
    *,
    draws: int = 50,
    seed: int = 0,
    convention: Literal["corrected", "weightwatcher"] = "corrected",
    min_tail: int = 10,
) -> AlphaNull:
    """Simulate the exponents that `power_law.fit_power_law` finds in matrices without structure.

    The exponent of noise depends on the shape: what is low for one shape is usual for another, and
    published cut-offs, the same for all shapes, must be read against that. Its distribution is
    broad and has a long upper tail (784x200: mean 9.4, standard deviation 4.0, quantiles 5.0 and
    18.5), so that a low exponent is better compared with ``q05`` than in standard deviations.

    Entries are Gaussian with variance 1. Convention ``"weightwatcher"``, whose cut is absolute, is
    given eigenvalues of ``W^T W`` at that scale.

    The null is simulated once per (arguments, process), the same for a shape and its transpose,
    and then kept. It takes about 0.05 s for 784x200, 0.6 s for 1024x1024, and grows as the square
    of the shorter side.

    Args:
        shape: Shape of the matrix, either orientation, both sides at least 1.
        draws: Number of simulated matrices, at least 2.
        seed: Of the simulation's own generator.
        convention: As `power_law.fit_power_law` takes it.
        min_tail: As `power_law.fit_power_law` takes it.

    Returns:
        The null. Missing if fewer than two of the fits succeed, as when the shorter side is less
        than ``min_tail``.

    Raises:
        ValueError: If a side is below 1, ``draws`` is below 2, or ``convention`` or ``min_tail``
            is none of the allowed.
    """
    n, m = max(shape), min(shape)
    if m < 1:
        raise ValueError(f"alpha_null: expected a matrix with entries, got shape {tuple(shape)}.")
    if draws < 2:
        raise ValueError(f"alpha_null: expected at least 2 draws, got {draws}.")
    return _simulated(n, m, draws, seed, convention, min_tail)


@functools.lru_cache(maxsize=256)
def _simulated(
    n: int,
    m: int,
    draws: int,
    seed: int,
    convention: Literal["corrected", "weightwatcher"],
    min_tail: int,
) -> AlphaNull:
    spectra = noise_spectra(n, m, draws, np.random.default_rng(seed))
    if convention == "weightwatcher":
        spectra *= n
    fits = [
        fit_power_law(spectrum, convention=convention, min_tail=min_tail)
        for spectrum in torch.from_numpy(spectra)
    ]
    alphas = np.array([fit.alpha for fit in fits if not fit.reason])
    failed = draws - len(alphas)
    if len(alphas) < 2:
        why = next(fit.reason for fit in fits if fit.reason)
        reason = f"{failed} of {draws} fits to noise failed: {why}"
        return AlphaNull(math.nan, math.nan, math.nan, math.nan, draws, failed, reason)
    low, high = np.quantile(alphas, (0.05, 0.95))
    return AlphaNull(
        mean=float(alphas.mean()),
        std=float(alphas.std(ddof=1)),
        q05=float(low),
        q95=float(high),
        draws=draws,
        failed=failed,
    )
