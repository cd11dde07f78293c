"""Activation sparsity, the first of three progress measures of arXiv:2405.12755."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from grokscope.measures._checks import require_matrix, unfit
from grokscope.measures._value import Value, missing


def activation_sparsity(activations: Tensor, *, threshold: float = 0.1) -> Value:
    r"""Return the share of activations below a threshold.

    :math:`\frac{1}{Dn} \sum_{ij} 1[a_{ij} < \tau]` over D inputs and n units of one layer. The
    comparison is strict, as printed; since an activation after a ReLU is never negative, the
    threshold must be positive to find anything. The paper states neither its value nor the layer
    nor whether activations are taken before or after the ReLU. The threshold is in units of the
    activations, so the measure depends on their scale.

    It rises through late collapse just as before grokking (arXiv:2506.04434, 2602.02859): it does
    not tell generalisation from collapse.

    Source: Golechha, arXiv:2405.12755, "activation sparsity".

    Args:
        activations: Of one layer on the training inputs, after its ReLU; shape
            ``(inputs, units)``, real floating point, any device.
        threshold: ``tau``, positive.

    Returns:
        In [0, 1]; missing if there are no activations or one is not finite.

    Raises:
        ValueError: If ``activations`` is not a real floating-point matrix, or ``threshold`` is not
            positive and finite.
    """
    require_matrix("activation_sparsity", "activations", activations, "inputs, units")
    if not 0 < threshold < math.inf:
        raise ValueError(
            f"activation_sparsity: expected a positive finite threshold, got {threshold}."
        )
    reason = unfit("activations", activations)
    if reason:
        return missing(reason)
    below = activations.detach().to(torch.float64) < threshold
    return Value(int(below.sum()) / below.numel())
