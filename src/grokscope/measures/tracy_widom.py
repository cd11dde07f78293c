"""Tracy-Widom law of the largest eigenvalue of pure noise, and the threshold that it gives.

The quantiles come from the shifted gamma distribution that approximates the law for real matrices
(beta = 1); this module needs the standard library only.
"""

from __future__ import annotations

import functools
import math

# TW_1 is approximately Gamma(shape, scale) - shift. Source: Chiani, arXiv:1209.3394.
_GAMMA_SHAPE = 46.446
_GAMMA_SCALE = 0.186054
_GAMMA_SHIFT = 9.84801

_BISECTIONS = 60  # more than enough to reach the last bit of the quantile


@functools.lru_cache(maxsize=64)
def tracy_widom_quantile(probability: float) -> float:
    """Return a quantile of the Tracy-Widom law for real matrices (beta = 1).

    Within 0.03 of the exact quantile between 0.01 and 0.999 (exact at 0.95: 0.979, here 0.979;
    at 0.999: 3.27, here 3.25).

    Source: Chiani, arXiv:1209.3394 (gamma approximation).

    Args:
        probability: In (0, 1).

    Returns:
        The quantile, in Tracy-Widom units.

    Raises:
        ValueError: If ``probability`` is not strictly between 0 and 1.
    """
    if not 0.0 < probability < 1.0:
        raise ValueError(
            f"tracy_widom_quantile: expected a probability strictly between 0 and 1, "
            f"got {probability}."
        )
    # 30 standard deviations above the mean: no probability below 1 that a float holds lies there.
    below, above = 0.0, _GAMMA_SHAPE + 30.0 * math.sqrt(_GAMMA_SHAPE)
    for _ in range(_BISECTIONS):
        middle = (below + above) / 2
        if _gamma_cdf(middle) < probability:
            below = middle
        else:
            above = middle
    return _GAMMA_SCALE * (below + above) / 2 - _GAMMA_SHIFT


def edge_threshold(shape: tuple[int, int], scale: float = 1.0, quantile: float = 0.999) -> float:
    r"""Return the value that the largest eigenvalue of pure noise exceeds with chance 1 - quantile.

    For an ``N x M`` matrix (``N`` the longer side) of independent Gaussian entries of variance
    ``scale`` and :math:`W^\top W` its Gram matrix, the largest eigenvalue is about
    :math:`\sigma^2 (\mu + s q)`, with :math:`\mu = (\sqrt{N-1} + \sqrt M)^2`,
    :math:`s = (\sqrt{N-1} + \sqrt M)(1/\sqrt{N-1} + 1/\sqrt M)^{1/3}` and ``q`` a Tracy-Widom
    variable; the result is that over ``N``. Heavier-tailed entries exceed it more often.

    Source: Johnstone (2001), Ann. Statist. 29:295, theorem 1.1.

    Args:
        shape: Shape of the matrix, either orientation; the longer side at least 2.
        scale: Variance of the entries; the result is proportional to it.
        quantile: In (0, 1).

    Returns:
        The threshold, in units of eigenvalues of ``W^T W / N``.

    Raises:
        ValueError: If the matrix is a single entry or empty, or ``quantile`` is out of range.
    """
    n, m = max(shape), min(shape)
    if n < 2 or m < 1:
        raise ValueError(
            f"edge_threshold: expected a matrix with at least 2 entries, got shape {tuple(shape)}."
        )
    root_n, root_m = math.sqrt(n - 1), math.sqrt(m)
    centre = (root_n + root_m) ** 2
    width = (root_n + root_m) * math.cbrt(1.0 / root_n + 1.0 / root_m)
    return scale * (centre + width * tracy_widom_quantile(quantile)) / n


def _gamma_cdf(x: float) -> float:
    """Return the CDF at ``x > 0`` of a gamma variable of shape `_GAMMA_SHAPE` and scale 1.

    The power series of the lower incomplete gamma function: all of its terms are positive, so
    that nothing cancels.
    """
    term, total, k = 1.0, 1.0, _GAMMA_SHAPE
    while term > 1e-17 * total:
        k += 1.0
        term *= x / k
        total += term
    log_first = _GAMMA_SHAPE * math.log(x) - x - math.lgamma(_GAMMA_SHAPE + 1.0)
    return math.exp(log_first) * total
