r"""Distance of shuffled spectra to the Marchenko-Pastur law, judged against noise of equal shape.

Eigenvalues repel each other, so that even pure noise follows the law far more closely than
independent draws would: the textbook p-value of a Kolmogorov-Smirnov distance is near 1 whatever
happens. The p-value here comes from simulated noise instead, whose scale is estimated in the same
way.
"""

from __future__ import annotations

import functools
import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from grokscope.measures._noise import noise_spectra
from grokscope.measures._spectra import bulk_scales
from grokscope.measures.marchenko_pastur import cdf, scale_from_median


@dataclass(frozen=True, slots=True)
class KSResult:
    """Distance of shuffled spectra to the Marchenko-Pastur law. nan where ``reason`` says why.

    Attributes:
        distance: Two-sided Kolmogorov-Smirnov distance, mean over the shuffles, in [0, 1].
        p_value: Chance that Gaussian noise of equal shape is as far from the law, mean over the
            shuffles; at least ``1 / (draws + 1)``.
        draws: Number of simulated noise matrices behind ``p_value``.
        reason: Why the p-value, or with it the distance, is nan; empty if neither is.
    """

    distance: float
    p_value: float
    draws: int
    reason: str = ""


def ks_marchenko_pastur(
    shuffled: Tensor, shape: tuple[int, int], *, draws: int = 200, seed: int = 0
) -> KSResult:
    r"""Compare shuffled spectra with the Marchenko-Pastur law of their own robust scale.

    Each shuffle ``r`` has its distance ``D_r`` and its Monte-Carlo p-value
    ``p_r = (1 + #{D_b >= D_r}) / (draws + 1)`` against the distances ``D_b`` of Gaussian noise
    of that shape, each with its own estimated scale; ``p_r`` is exact for Gaussian entries,
    whatever ``draws``. Reported are the means of both. The mean p-value is what a single random
    shuffle gives on average; twice it is a valid p-value however the shuffles depend on each other
    (Vovk & Wang, arXiv:1212.4966), and under the null it lies near 1/2.

    The null is simulated once per (shape, draws, seed) and process and then kept; it takes about
    0.1 s for 784x200, 2 s for 1024x1024, and grows as the square of the shorter side. The distance
    needs none: without draws it is all that is computed.

    Source: the check is of Prakash & Martin, arXiv:2506.04434, table 4, who use the
    independent-draws p-value, to which these p-values must not be compared.

    Args:
        shuffled: `shuffled_spectrum.shuffled_eigenvalues` of one matrix, shape ``(R, M)``.
        shape: Shape of that matrix, either orientation.
        draws: Number of simulated matrices; 0 for the distance alone.
        seed: Of the simulation's own generator.

    Returns:
        Distance and p-value. Missing if the matrix is empty, not finite or zero, or if more than
        half of the shuffled eigenvalues are zero to rounding. Without draws only the p-value is.

    Raises:
        ValueError: If the eigenvalues do not belong to shuffles of a matrix of that shape, or
            ``draws`` is below 0.
    """
    if draws < 0:
        raise ValueError(f"ks_marchenko_pastur: expected 0 draws or more, got {draws}.")
    scales, reason = bulk_scales(shuffled, shape)
    if reason:
        return KSResult(math.nan, math.nan, draws, reason)
    ratio = min(shape) / max(shape)
    distances = _ks_distances(shuffled.cpu().numpy() / scales[:, None], ratio)
    if draws == 0:
        return KSResult(float(distances.mean()), math.nan, 0, "no null was simulated")
    null = _null_distances(max(shape), min(shape), draws, seed)
    as_far = draws - np.searchsorted(null, distances, side="left")
    return KSResult(float(distances.mean()), float(((1 + as_far) / (draws + 1)).mean()), draws)


def _ks_distances(spectra: NDArray[np.float64], ratio: float) -> NDArray[np.float64]:
    """Return the two-sided KS distance of ascending unit-scale spectra ``(..., M)`` to the law."""
    size = spectra.shape[-1]
    law = cdf(spectra, ratio)
    steps = np.arange(size + 1) / size
    distance: NDArray[np.float64] = np.maximum(law - steps[:-1], steps[1:] - law).max(axis=-1)
    return distance


@functools.lru_cache(maxsize=64)
def _null_distances(n: int, m: int, draws: int, seed: int) -> NDArray[np.float64]:
    """Return the ascending KS distances of ``draws`` Gaussian ``n x m`` matrices, ``n >= m``."""
    ratio = m / n
    spectra = noise_spectra(n, m, draws, np.random.default_rng(seed))
    scales = scale_from_median(spectra, ratio)
    null = np.sort(_ks_distances(spectra / scales[:, None], ratio))
    null.setflags(write=False)  # one array serves every caller
    return null
