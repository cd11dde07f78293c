r"""The ERG condition: the part of a spectrum whose volume is preserved.

ERG stands for exact renormalisation group; the condition is also called ``detX`` or trace-log.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from grokscope.measures._spectra import unfit
from grokscope.measures.power_law import PowerLawFit

_EPS = torch.finfo(torch.float64).eps


@dataclass(frozen=True, slots=True)
class ERG:
    """The ERG tail of one matrix beside its power-law tail. nan where ``reason`` says why.

    Attributes:
        size: Number of eigenvalues in the ERG tail.
        gap: ``size`` less the size of the power-law tail.
        lambda_erg: Smallest eigenvalue of the ERG tail, in units of the mean eigenvalue.
        lambda_power_law: Smallest eigenvalue of the power-law tail, in the same units.
        lambda_difference: ``lambda_power_law - lambda_erg``.
        reason: Why fields are nan: all of them, or without a power-law fit those that need one;
            empty if none is.
    """

    size: float
    gap: float
    lambda_erg: float
    lambda_power_law: float
    lambda_difference: float
    reason: str = ""


def erg(eigenvalues: Tensor, fit: PowerLawFit) -> ERG:
    r"""Return the smallest tail of a spectrum whose eigenvalues have a product below 1.

    Eigenvalues are divided by their mean, and taken from the largest down until
    :math:`\sum_{i \le k} \ln \tilde\lambda_i < 0`; ``k`` is the size of the tail. The sum of
    logarithms cannot overflow, as the product does for a few thousand eigenvalues. Eigenvalues at
    or below ``M * eps * largest``, which rounding leaves of zero ones, count for the mean but not
    for the product. The claim of the source is that at ``alpha = 2`` both tails begin at the same
    eigenvalue, with ``lambda_difference`` positive for larger and negative for smaller exponents.

    Differs from ``detX`` of WeightWatcher 0.7.7 for some thousand eigenvalues and more, where its
    product overflows; for matrices of small rank, as its product takes in the zero eigenvalues; and
    where the product never falls below 1, for which it reports the number of all eigenvalues.

    Source: Martin & Hinrichs, arXiv:2507.17912 (SETOL; the trace-log condition).

    Args:
        eigenvalues: `spectrum.eigenvalues` of one matrix, shape ``(M,)``, or any multiple of them.
        fit: `power_law.fit_power_law` of the same numbers.

    Returns:
        Both tails. Missing if the matrix is empty, zero or not finite, or if the product never
        falls below 1, beyond rounding, as for an orthogonal matrix.
        What needs the fit is missing for its reason.

    Raises:
        ValueError: If ``eigenvalues`` are not one-dimensional.
    """
    if eigenvalues.ndim != 1:
        raise ValueError(
            f"erg: expected eigenvalues of shape (M,), got {tuple(eigenvalues.shape)}."
        )
    nan = math.nan
    reason = unfit(eigenvalues)
    if reason:
        return ERG(nan, nan, nan, nan, nan, reason)
    descending = eigenvalues.to(torch.float64).sort(descending=True).values
    m, mean = len(descending), float(descending.mean())
    kept = descending[descending > m * _EPS * descending[0]] / mean
    log_product = kept.log().cumsum(0)
    below = log_product < -m * _EPS * (1.0 + log_product.max())
    if not bool(below.any()):
        reason = "the product of the largest eigenvalues never falls below 1"
        return ERG(nan, nan, nan, nan, nan, reason)
    last = int(below.nonzero()[0])
    lambda_erg, lambda_power_law = float(kept[last]), fit.xmin / mean
    return ERG(
        size=float(last + 1),
        gap=last + 1 - fit.tail_size,
        lambda_erg=lambda_erg,
        lambda_power_law=lambda_power_law,
        lambda_difference=lambda_power_law - lambda_erg,
        reason=fit.reason,
    )
