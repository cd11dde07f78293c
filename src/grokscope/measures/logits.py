"""Scale of the logits, and the numerical collapse of their softmax."""

from __future__ import annotations

import torch
from torch import Tensor

from grokscope.measures._checks import require_matrix, unfit
from grokscope.measures._value import Value, missing


def logit_scale(logits: Tensor) -> Value:
    """Return the mean over rows of the Euclidean norm of the logits.

    Args:
        logits: Shape ``(n, K)``, real floating point, any device.

    Returns:
        Non-negative, in units of the logits, computed in float64; missing if there are no logits or
        one is not finite.

    Raises:
        ValueError: If ``logits`` is not a real floating-point matrix.
    """
    require_matrix("logit_scale", "logits", logits, "rows, classes")
    reason = unfit("logits", logits)
    if reason:
        return missing(reason)
    return Value(float(logits.detach().to(torch.float64).square().sum(1).sqrt().mean()))


def softmax_collapse_rate(logits: Tensor, dtype: torch.dtype | None = None) -> Value:
    r"""Return the share of rows whose softmax has rounded to a single class.

    A row has collapsed if, in the precision of the softmax, :math:`\sum_k e^{z_k - \max z}` is
    exactly 1: all but the largest logit are lost to rounding, and a row that is classified
    correctly has loss and gradient exactly 0. With ``b`` significand bits and ``K`` classes of
    which all but one are level, this happens at a gap between :math:`b \ln 2` and
    :math:`b \ln 2 + \ln(K - 1)`, depending on the order of summation.

    Labels are not used, so a row that is confidently wrong counts as well. The rate bears on
    training only where the loss is a softmax cross-entropy, and on training inputs.

    Source: Prieto et al., arXiv:2501.04697, section 3 ("softmax collapse").

    Args:
        logits: Shape ``(n, K)``, ``K >= 2``, real floating point, any device.
        dtype: Precision in which the loss takes its softmax; that of ``logits`` if None.

    Returns:
        In [0, 1]; missing if there are no logits, or one is not finite in ``dtype``.

    Raises:
        ValueError: If ``logits`` is not a real floating-point matrix with at least two columns, or
            ``dtype`` is not floating point.
    """
    name = "softmax_collapse_rate"
    require_matrix(name, "logits", logits, "rows, classes")
    if logits.shape[1] < 2:
        raise ValueError(f"{name}: expected at least 2 classes, got {logits.shape[1]}.")
    dtype = logits.dtype if dtype is None else dtype
    if not dtype.is_floating_point:
        raise ValueError(f"{name}: expected a real floating dtype, got {dtype}.")
    z = logits.detach().to(dtype)
    reason = unfit("logits", z)
    if reason:
        return missing(f"{reason} in {dtype}" if unfit("logits", logits) == "" else reason)
    sums = (z - z.amax(1, keepdim=True)).exp().sum(1)
    return Value(int((sums == 1).sum()) / len(z))
