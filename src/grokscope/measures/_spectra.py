"""What measures of spectra ask of their arguments, and the scale that several of them share."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from grokscope.measures.marchenko_pastur import scale_from_median
from grokscope.measures.tracy_widom import edge_threshold

ALL_ZERO = "all weights are zero"


def unfit(eigenvalues: Tensor) -> str:
    """Return why a spectrum cannot be measured at all; an empty string if it can.

    Args:
        eigenvalues: As `spectrum.eigenvalues` returns them, any shape.

    Returns:
        A reason for `Value` (`ALL_ZERO` if it is that), or ``""``.
    """
    if eigenvalues.numel() == 0:
        return "the matrix is empty"
    if not bool(eigenvalues.isfinite().all()):
        return "weights are not finite"
    if not bool((eigenvalues > 0).any()):
        return ALL_ZERO
    return ""


def require_shape(name: str, eigenvalues: Tensor, shape: tuple[int, int]) -> None:
    """Raise ValueError unless ``eigenvalues`` can be those of matrices of ``shape``.

    Args:
        name: The function that was called, for the message.
        eigenvalues: Shape ``(..., M)``.
        shape: Shape of one matrix, either orientation.
    """
    if len(shape) != 2 or eigenvalues.ndim == 0 or eigenvalues.shape[-1] != min(shape):
        raise ValueError(
            f"{name}: expected eigenvalues of shape (..., M) with M the shorter side of the "
            f"matrix, got {tuple(eigenvalues.shape)} for a matrix of shape {tuple(shape)}."
        )


def bulk_scales(shuffled: Tensor, shape: tuple[int, int]) -> tuple[NDArray[np.float64], str]:
    """Estimate the entry variance of each shuffle from the middle of its spectrum.

    Args:
        shuffled: `shuffled_spectrum.shuffled_eigenvalues`, shape ``(R, M)``.
        shape: Shape of the matrix, either orientation.

    Returns:
        float64 variances, shape ``(R,)``, and ``""``; or nan variances and the reason why there is
        no bulk to scale: the matrix is empty, not finite or zero, or more than half of the
        eigenvalues of a shuffle are zero to rounding (few entries differ from zero, or from their
        mean).

    Raises:
        ValueError: If the eigenvalues do not belong to shuffles of a matrix of that shape.
    """
    require_shape("bulk_scales", shuffled, shape)
    if shuffled.ndim != 2:
        raise ValueError(
            f"bulk_scales: expected shuffled eigenvalues of shape (R, M), "
            f"got {tuple(shuffled.shape)}."
        )
    none = np.full(len(shuffled), np.nan)
    reason = unfit(shuffled)
    if reason:
        return none, reason
    values = shuffled.cpu().numpy()
    scales = scale_from_median(values, min(shape) / max(shape))
    rounding = max(shape) * np.finfo(np.float64).eps * values[:, -1]
    if (scales <= rounding).any():
        return none, "no bulk: more than half of the shuffled eigenvalues are zero"
    return scales, ""


def trap_thresholds(
    shuffled: Tensor, shape: tuple[int, int], quantile: float
) -> tuple[NDArray[np.float64], NDArray[np.float64], str]:
    """Return what eigenvalues of each shuffle must exceed to be correlation traps.

    Args:
        shuffled: `shuffled_spectrum.shuffled_eigenvalues`, shape ``(R, M)``.
        shape: Shape of the matrix, either orientation.
        quantile: Tracy-Widom quantile, in (0, 1).

    Returns:
        Variances and thresholds, shape ``(R,)`` each, and ``""``; or nan and the reason why there
        are none.

    Raises:
        ValueError: If the eigenvalues do not belong to shuffles of a matrix of that shape, or
            ``quantile`` is out of range.
    """
    scales, reason = bulk_scales(shuffled, shape)
    if not reason and max(shape) < 2:
        reason = "the matrix is a single entry"
    if reason:
        return scales, np.full(len(shuffled), np.nan), reason
    return scales, scales * edge_threshold(shape, quantile=quantile), ""
