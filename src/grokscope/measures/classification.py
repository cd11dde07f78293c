"""How well logits fit labels: accuracy, mean squared error and cross-entropy."""

from __future__ import annotations

import torch
from torch import Tensor

from grokscope.measures._checks import (
    require_known_classes,
    require_labels,
    require_matrix,
    unfit,
)
from grokscope.measures._value import Value, missing


def accuracy(logits: Tensor, labels: Tensor) -> Value:
    """Return the share of rows whose largest logit is that of their label.

    Of equal largest logits the one of the lowest class counts.

    Args:
        logits: Shape ``(n, K)``, real floating point, any device.
        labels: Class indices in ``[0, K)``, int64, shape ``(n,)``, same device.

    Returns:
        In [0, 1]; missing if there are no rows or a logit is not finite.

    Raises:
        ValueError: If shapes, dtypes or the range of the labels do not fit.
    """
    _require("accuracy", logits, labels)
    reason = unfit("logits", logits)
    if reason:
        return missing(reason)
    return Value(int((logits.argmax(1) == labels).sum()) / len(labels))


def mean_squared_error(logits: Tensor, labels: Tensor) -> Value:
    """Return the mean over rows and outputs of the squared distance to one-hot targets.

    The mean over both axes is the loss that the MNIST systems of arXiv:2210.01117 and its
    successors train with; the loss that the code of that paper logs is the sum over the ``K``
    outputs, ``K`` times as large.

    Args:
        logits: Shape ``(n, K)``, real floating point, any device.
        labels: Class indices in ``[0, K)``, int64, shape ``(n,)``, same device.

    Returns:
        Non-negative, in squared units of the logits, computed in float64; missing if there are no
        rows or a logit is not finite.

    Raises:
        ValueError: If shapes, dtypes or the range of the labels do not fit.
    """
    _require("mean_squared_error", logits, labels)
    reason = unfit("logits", logits)
    if reason:
        return missing(reason)
    error = logits.detach().to(torch.float64, copy=True)
    error[torch.arange(len(labels), device=labels.device), labels] -= 1.0
    return Value(float(error.square_().mean()))


def cross_entropy(logits: Tensor, labels: Tensor) -> Value:
    r"""Return the mean over rows of :math:`-\log \mathrm{softmax}(z)_y`.

    Computed as :math:`\log(1 + \sum_{k \ne y} e^{z_k - z_y})`, which keeps its relative accuracy
    where the label's probability rounds to 1: late in training a loss of 1e-30 is 1e-30, not 0.

    Args:
        logits: Shape ``(n, K)``, real floating point, any device.
        labels: Class indices in ``[0, K)``, int64, shape ``(n,)``, same device.

    Returns:
        Non-negative, in nats, computed in float64; missing if there are no rows or a logit is not
        finite.

    Raises:
        ValueError: If shapes, dtypes or the range of the labels do not fit.
    """
    _require("cross_entropy", logits, labels)
    reason = unfit("logits", logits)
    if reason:
        return missing(reason)
    z = logits.detach().to(torch.float64)
    label = labels[:, None]
    excess = (z - z.gather(1, label)).scatter_(1, label, -torch.inf)
    others = excess.logsumexp(1)
    return Value(float(torch.logaddexp(others, torch.zeros_like(others)).mean()))


def _require(name: str, logits: Tensor, labels: Tensor) -> None:
    require_matrix(name, "logits", logits, "rows, classes")
    require_labels(name, labels, len(logits))
    require_known_classes(name, labels, logits.shape[1])
