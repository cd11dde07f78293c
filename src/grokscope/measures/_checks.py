"""What measures of logits and weights ask of their arguments."""

from __future__ import annotations

import torch
from torch import Tensor


def require_matrix(name: str, argument: str, tensor: Tensor, axes: str) -> None:
    """Raise ValueError unless ``tensor`` is a real floating-point matrix.

    Args:
        name: The function that was called, for the message.
        argument: Which of its arguments this is.
        tensor: What it was given.
        axes: The meaning of both axes: ``"rows, classes"``.
    """
    if tensor.ndim != 2:
        raise ValueError(
            f"{name}: expected {argument} of shape ({axes}), got {tuple(tensor.shape)}."
        )
    require_floating(name, argument, tensor)


def require_floating(name: str, argument: str, tensor: Tensor) -> None:
    """Raise ValueError unless ``tensor`` is of a real floating dtype."""
    if not tensor.is_floating_point():
        raise ValueError(
            f"{name}: expected {argument} of a real floating dtype, got {tensor.dtype}."
        )


def require_labels(name: str, labels: Tensor, rows: int) -> None:
    """Raise ValueError unless ``labels`` are ``rows`` class indices, int64."""
    if labels.dtype != torch.int64 or tuple(labels.shape) != (rows,):
        raise ValueError(
            f"{name}: expected int64 labels of shape ({rows},), "
            f"got {labels.dtype} of shape {tuple(labels.shape)}."
        )


def require_known_classes(name: str, labels: Tensor, classes: int) -> None:
    """Raise ValueError unless every label is one of ``classes`` logits."""
    if len(labels) == 0:
        return
    low, high = int(labels.min()), int(labels.max())
    if low < 0 or high >= classes:
        raise ValueError(
            f"{name}: expected labels in [0, {classes}) for {classes} logits a row, "
            f"got labels in [{low}, {high}]."
        )


def unfit(what: str, tensor: Tensor) -> str:
    """Return why ``tensor`` cannot be measured; an empty string if it can.

    Args:
        what: The plural that the reason begins with: ``"logits"``.
        tensor: Real floating point, any shape.

    Returns:
        A reason for `Value` if it is empty or not finite, else ``""``.
    """
    if tensor.numel() == 0:
        return f"there are no {what}"
    if not bool(tensor.isfinite().all()):
        return f"{what} are not finite"
    return ""
