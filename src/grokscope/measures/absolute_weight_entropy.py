"""Absolute weight entropy, the second of three progress measures of arXiv:2405.12755."""

from __future__ import annotations

import torch
from torch import Tensor

from grokscope.measures._checks import require_floating, unfit
from grokscope.measures._value import Value, missing


def absolute_weight_entropy(weight: Tensor) -> Value:
    r"""Return :math:`-\sum_{ij} |w_{ij}| \ln |w_{ij}|` of one weight matrix.

    The sum is not normalised, so this is no entropy of a distribution: an entry contributes at
    most ``1/e`` (at ``|w| = 1/e``) and less than 0 beyond ``|w| = 1``, and the measure follows the
    weight norm mechanically. A zero contributes 0. The paper leaves the base of the logarithm
    open; this is the natural one, which reproduces the figure of arXiv:2506.04434. The value of a
    model is the sum over its weight matrices.

    It falls in late collapse as it does in generalisation (arXiv:2506.04434, 2602.02859): it does
    not tell one from the other.

    Source: Golechha, arXiv:2405.12755, "absolute weight entropy".

    Args:
        weight: Real floating point, any shape and device.

    Returns:
        Any sign, at most ``weight.numel() / e``, computed in float64; missing if there are no
        weights or one is not finite.

    Raises:
        ValueError: If ``weight`` is not real floating point.
    """
    require_floating("absolute_weight_entropy", "weight", weight)
    reason = unfit("weights", weight)
    if reason:
        return missing(reason)
    size = weight.detach().to(torch.float64).abs()
    return Value(-float(torch.xlogy(size, size).sum()))
