"""Other laws for the tail of a spectrum, and whether the power law beats them."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.optimize import brentq
from scipy.special import erfcx, log_ndtr
from torch import Tensor

from grokscope.measures.power_law import PowerLawFit

Array = NDArray[np.float64]

# Mean over standard deviation of the logs of a log-normal. Below the first it is the power law, its
# limit, to one part in a million; no tail that holds its own xmin comes near the second.
_LOG_NORMAL_RANGE = (-1e3, 1e8)
_NODES, _NODE_WEIGHTS = np.polynomial.legendre.leggauss(160)
_LARGEST_STEP = 3.0  # of a logarithm
_CONVERGED = 1e-12  # gain of the log-likelihood per point
_NEGLIGIBLE = 45.0  # an integrand is cut off where it has fallen by this many powers of e


@dataclass(frozen=True, slots=True)
class Alternative:
    """A law fitted to a tail, and the power law held against it.

    Attributes:
        parameters: Of the fitted law, by name, in the units of the data.
        log_likelihood_ratio: Log-likelihood of the power law less that of this law: positive if the
            power law describes the tail better.
        statistic: What the p-value is of. For the test ``"vuong"``, the ratio over its standard
            deviation: about standard normal if both laws are equally far from the truth. For
            ``"likelihood-ratio"``, twice the size of the ratio: about chi-squared with one degree
            of freedom if the power law, a special case of this law, is true.
        p_value: Chance of a statistic at least so far from 0, both signs. The sign of the ratio
            means little unless it is small.
        test: Which of the two tests.
        reason: Why numbers are nan; empty if they are not.
    """

    parameters: Mapping[str, float]
    log_likelihood_ratio: float
    statistic: float
    p_value: float
    test: Literal["vuong", "likelihood-ratio"]
    reason: str = ""


@dataclass(frozen=True, slots=True)
class TailAlternatives:
    """Three other laws for one tail, all on ``x >= xmin``.

    Attributes:
        exponential: ``p(x) ~ exp(-rate x)``; parameter ``rate``. Vuong's test.
        log_normal: ``ln x`` normal before the cut at ``xmin``, with parameters ``mu`` and
            ``sigma``. Vuong's test.
        truncated_power_law: ``p(x) ~ x^-alpha exp(-rate x)``, ``rate >= 0``; parameters ``alpha``
            and ``rate``. Likelihood-ratio test.
    """

    exponential: Alternative
    log_normal: Alternative
    truncated_power_law: Alternative


def tail_alternatives(eigenvalues: Tensor, fit: PowerLawFit) -> TailAlternatives:
    """Fit three other laws to the tail of a power-law fit, by maximum likelihood, and compare.

    The ratio can be positive for the exponential only. The power law is the truncated one at rate
    0, and also a limit of log-normals (as ``mu`` falls to minus infinity): their best fits are at
    least as likely. A ratio of 0 says that the best of them is the power law itself; the log-normal
    then has no parameters, and a reason.

    ``xmin`` is the one that suits the power law, and eigenvalues repel each other, so that they
    are no independent sample: the p-values are those of the published procedure, not exact. That of
    the likelihood-ratio test is about twice too large, as the rate cannot be negative.

    Source: Clauset, Shalizi & Newman, arXiv:0706.1062, section 5 and appendix C (Vuong 1989,
    Econometrica 57:307). Takes a few milliseconds for any tail of usual size.

    Args:
        eigenvalues: The data that were fitted, any order, shape ``(n,)``.
        fit: `power_law.fit_power_law` of them. The power law is taken at its maximum-likelihood
            exponent, which is ``fit.alpha`` but for the small samples of ``"weightwatcher"``.

    Returns:
        Parameters, ratios and p-values; all missing if ``fit`` is.

    Raises:
        ValueError: If ``fit`` is not of these eigenvalues (its tail has another size).
    """
    if fit.reason:
        return _missing(fit.reason)
    data = eigenvalues.detach().to("cpu", torch.float64).numpy()
    y = data[data >= fit.xmin] / fit.xmin
    if y.ndim != 1 or len(y) != fit.tail_size:
        raise ValueError(
            f"tail_alternatives: expected the eigenvalues of the fit, whose tail has "
            f"{fit.tail_size:.0f} points, got {len(y)} of shape {tuple(data.shape)}."
        )
    # All densities are those of y = x / xmin times y, which cancels from the ratios.
    u = np.log(y)
    slope = 1.0 / float(u.mean())
    power_law = math.log(slope) - slope * u
    return TailAlternatives(
        exponential=_exponential(y, u, power_law, fit.xmin),
        log_normal=_log_normal(u, power_law, fit.xmin),
        truncated_power_law=_truncated_power_law(u, slope, power_law, fit.xmin),
    )


def _missing(reason: str) -> TailAlternatives:
    nan = math.nan
    return TailAlternatives(
        Alternative({"rate": nan}, nan, nan, nan, "vuong", reason),
        Alternative({"mu": nan, "sigma": nan}, nan, nan, nan, "vuong", reason),
        Alternative({"alpha": nan, "rate": nan}, nan, nan, nan, "likelihood-ratio", reason),
    )


def _vuong(parameters: Mapping[str, float], power_law: Array, other: Array) -> Alternative:
    """Compare two laws by their log-likelihoods at every point, shape ``(n,)``."""
    difference = power_law - other
    ratio = float(difference.sum())
    statistic = ratio / (math.sqrt(len(difference)) * float(difference.std()))
    p_value = math.erfc(abs(statistic) / math.sqrt(2.0))
    return Alternative(parameters, ratio, statistic, p_value, "vuong")


def _exponential(y: Array, u: Array, power_law: Array, xmin: float) -> Alternative:
    excess = y - 1.0
    rate = 1.0 / float(excess.mean())
    return _vuong({"rate": rate / xmin}, power_law, math.log(rate) - rate * excess + u)


def _log_normal(u: Array, power_law: Array, xmin: float) -> Alternative:
    """Fit a normal law that is cut off below 0 to the logs ``u >= 0``.

    With ``h = mu / sigma``, the ratio of the mean square to the squared mean falls from 2 to 1 as
    ``h`` rises from minus to plus infinity, so that one equation in ``h`` gives the best fit.
    """
    mean, mean_square = float(u.mean()), float(np.square(u).mean())
    low, high = _LOG_NORMAL_RANGE

    def excess(h: float) -> float:
        first = h + _hazard(h)
        return (1.0 + h * first) / first**2 - mean_square / mean**2

    if excess(low) <= 0.0:
        reason = "the best log-normal is its limit, the power law"
        return Alternative({"mu": math.nan, "sigma": math.nan}, 0.0, 0.0, 1.0, "vuong", reason)
    h = brentq(excess, low, high, xtol=1e-12)
    sigma = mean / (h + _hazard(h))
    other = -0.5 * (u / sigma - h) ** 2 - math.log(sigma * math.sqrt(2.0 * math.pi)) - log_ndtr(h)
    return _vuong({"mu": h * sigma + math.log(xmin), "sigma": sigma}, power_law, other)


def _hazard(h: float) -> float:
    """Return the density of the standard normal law at ``h`` over its CDF there."""
    return math.sqrt(2.0 / math.pi) / float(erfcx(-h / math.sqrt(2.0)))


def _truncated_power_law(u: Array, slope: float, power_law: Array, xmin: float) -> Alternative:
    r"""Fit :math:`e^{-bu - c(e^u - 1 - u)}`, ``c >= 0``, to the logs ``u >= 0``.

    This is the truncated power law with rate ``c`` and exponent ``1 + b - c``, in coordinates whose
    estimates depend little on each other also where the tail is short. The log-likelihood is
    concave in ``(b, c)``.
    """
    mean, mean_bend = float(u.mean()), float(_bend(u).mean())
    # At c = 0 the likelihood falls with c unless the power law expects a larger mean of e^u.
    if slope > 1.0 and mean_bend >= 1.0 / (slope - 1.0) - mean:
        parameters = {"alpha": 1.0 + slope, "rate": 0.0}
        return Alternative(parameters, 0.0, 0.0, 1.0, "likelihood-ratio")

    b, c = _solve(mean, mean_bend, rate=1.0 / float(np.expm1(u).mean()))
    other = -b * u - c * _bend(u) - _moments(b, c)[0]
    ratio = min(float((power_law - other).sum()), 0.0)
    p_value = math.erfc(math.sqrt(-ratio))  # chi-squared, one degree of freedom, at -2 ratio
    parameters = {"alpha": 1.0 + b - c, "rate": c / xmin}
    return Alternative(parameters, ratio, -2.0 * ratio, p_value, "likelihood-ratio")


def _solve(mean: float, mean_bend: float, rate: float) -> tuple[float, float]:
    """Find the ``b`` and ``c > 0`` whose law has those means of ``u`` and of ``e^u - 1 - u``.

    These are the maximum-likelihood ones. Fisher scoring in ``b`` and ``ln c`` (Newton's method
    near the solution), with steps that are halved until the likelihood rises.

    Args:
        mean: Of the logs.
        mean_bend: Of ``e^u - 1 - u`` over the logs.
        rate: Of the best exponential, where the search begins.
    """
    observed = np.array([mean, mean_bend])

    def loss(at: Array) -> tuple[float, Array, Array]:
        """Return the negative log-likelihood per point, its gradient and Fisher information."""
        c = math.exp(at[1])
        log_total, expected, covariance = _moments(float(at[0]), c)
        scale = np.array([1.0, c])
        value = float(at[0]) * mean + c * mean_bend + log_total
        return value, scale * (observed - expected), covariance * np.outer(scale, scale)

    at = np.array([rate - 1.0, math.log(rate)])
    value, gradient, information = loss(at)
    while True:
        (bb, bc), cc = information[0], information[1, 1]
        # Far below the best c all is flat and the model useless: there, c goes up step by step.
        turn = (bc * gradient[0] / bb - gradient[1]) / (cc - bc**2 / bb)
        capped = min(max(float(turn), -_LARGEST_STEP), _LARGEST_STEP)
        step = np.array([-(gradient[0] + bc * capped) / bb, capped])
        gain = -float(gradient @ step)
        if gain < _CONVERGED and capped == turn:  # what remains after this step is its square
            at += step
            return float(at[0]), math.exp(at[1])
        trial = loss(at + step)
        while gain > _CONVERGED and trial[0] > value - gain / 10:
            step, gain = step / 2, gain / 2
            trial = loss(at + step)
        at += step
        value, gradient, information = trial


def _moments(b: float, c: float) -> tuple[float, Array, Array]:
    r"""Integrate :math:`e^{-bu - c(e^u - 1 - u)}` over ``u >= 0``, for any ``b`` and ``c > 0``.

    The exponent is concave. With its peak at ``p``, it falls from there, at ``u = p + d``, by
    ``max(b, 0) d + c e^p (e^d - 1 - d)``, and ``c e^p = c - min(b, 0)``. Gauss-Legendre between
    bounds on the two ``d`` where that is `_NEGLIGIBLE`.

    Returns:
        Log of the integral; means of ``u`` and of ``e^u - 1 - u`` under that density, shape
        ``(2,)``; their covariance, shape ``(2, 2)``.
    """
    peak = math.log1p(-b / c) if b < 0.0 else 0.0
    slope, curvature = max(b, 0.0), c - min(b, 0.0)
    # e^d - 1 - d is at least d^2 / 2, and e^d / 2 from d = 2 on.
    after = min(
        2.0 * _NEGLIGIBLE / (slope + math.sqrt(slope**2 + 2.0 * _NEGLIGIBLE * curvature)),
        max(2.0, math.log(2.0 * _NEGLIGIBLE / curvature)),
    )
    # e^-d - 1 + d is at least d^2 / (2 + d).
    root = math.sqrt(_NEGLIGIBLE**2 + 8.0 * _NEGLIGIBLE * curvature)
    before = min(peak, (_NEGLIGIBLE + root) / (2.0 * curvature))
    d = before * (_NODES - 1.0) / 2.0 + after * (_NODES + 1.0) / 2.0
    mass = _NODE_WEIGHTS * (before + after) / 2.0 * np.exp(-slope * d - curvature * _bend(d))
    total = float(mass.sum())
    u = peak + d
    statistics = np.stack([u, _bend(u)])
    expected = statistics @ mass / total
    centred = statistics - expected[:, None]
    log_total = math.log(total) - b * peak - c * float(_bend(np.array(peak)))
    return log_total, expected, (centred * mass) @ centred.T / total


def _bend(u: Array) -> Array:
    """Return ``e^u - 1 - u``, exact to rounding also near 0."""
    series = u**2 / 2 * (1 + u / 3 * (1 + u / 4 * (1 + u / 5 * (1 + u / 6 * (1 + u / 7)))))
    return np.where(np.abs(u) < 1e-2, series, np.expm1(u) - u)
