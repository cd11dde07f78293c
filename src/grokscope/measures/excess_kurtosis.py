"""Excess kurtosis: how far the tails of the entries of a matrix reach."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from grokscope.measures._checks import require_floating, unfit
from grokscope.measures._value import Value, missing

_PIECE = 2**22  # entries that are upcast at once
_NO_SPREAD = 1e-30  # variance of the scaled entries that rounding leaves of equal ones


def excess_kurtosis(weight: Tensor) -> Value:
    r"""Return :math:`m_4 / m_2^2 - 3`, with :math:`m_k` the k-th central moment of all entries.

    0 for a Gaussian, 3 for a Laplace law, and the larger the fewer entries hold the squared norm.
    Heavy-tailed entries show correlation traps without any structure.

    Source: Fisher (1930), Proc. London Math. Soc. 30:199 (``g_2``, here with divisors ``n``).

    Args:
        weight: Real floating point, any shape, device and dtype. Accumulated in float64.

    Returns:
        Dimensionless, at least -2; unchanged by scale, shift and any permutation. Missing if there
        are no entries, one is not finite, or all are equal.

    Raises:
        ValueError: If ``weight`` is not real floating point.
    """
    require_floating("excess_kurtosis", "weight", weight)
    reason = unfit("weights", weight)
    if reason:
        return missing(reason)
    largest = float(weight.abs().max())
    if largest == 0.0:
        return missing("all weights are zero")
    pieces = torch.split(weight.detach().reshape(-1), _PIECE)

    def moment(centre: float, power: int) -> float:
        # Scaled, so that no power overflows.
        sums = (float((piece.double() / largest - centre).pow(power).sum()) for piece in pieces)
        return math.fsum(sums) / weight.numel()

    mean = moment(0.0, 1)
    second = moment(mean, 2)
    if second <= _NO_SPREAD:
        return missing("all weights are equal")
    return Value(moment(mean, 4) / second**2 - 3.0)
