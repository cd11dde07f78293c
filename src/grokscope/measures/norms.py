"""Size of weights and of updates."""

from __future__ import annotations

import math
from collections.abc import Iterable

import torch
from torch import Tensor

from grokscope.measures._checks import require_floating
from grokscope.measures._value import Value, missing


def l2_norm(tensors: Iterable[Tensor]) -> Value:
    """Return the Euclidean norm of all entries of all tensors together.

    Over the parameters of a model this is the weight norm of arXiv:2210.01117 (there with biases;
    the sum in arXiv:2506.04434 leaves them out); over their differences, the size of an update.

    Args:
        tensors: Real floating point, any shapes, devices and dtypes.

    Returns:
        Non-negative, in units of the entries, accumulated in float64; missing if there are no
        entries or one is not finite.

    Raises:
        ValueError: If a tensor is not real floating point.
    """
    total, entries = 0.0, 0
    for tensor in tensors:
        require_floating("l2_norm", "tensors", tensor)
        entries += tensor.numel()
        total += float(tensor.detach().to(torch.float64).square().sum())
    if entries == 0:
        return missing("there are no weights")
    if not math.isfinite(total):
        return missing("weights are not finite")
    return Value(math.sqrt(total))
