r"""Norms that weight the scale of a matrix by its power-law exponent.

Both take the eigenvalues :math:`\lambda` of :math:`W^\top W`, ``N`` times those that
`spectrum.eigenvalues` returns, and base-10 logarithms, as their source has them. They depend on the
scale of the weights.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from grokscope.measures._spectra import unfit
from grokscope.measures._value import Value, missing


def alpha_hat(alpha: float, eigenvalues: Tensor, shape: tuple[int, int]) -> Value:
    r"""Return the weighted exponent :math:`\alpha \log_{10} \lambda_{max}`.

    Source: Martin, Peng & Mahoney, arXiv:2002.06716.

    Args:
        alpha: Exponent of the matrix, `power_law.PowerLawFit.alpha`; nan if it has none.
        eigenvalues: `spectrum.eigenvalues` of the matrix, shape ``(M,)``, or of several matrices
            of one shape, pooled, shape ``(k * M,)``.
        shape: Shape of the matrix, either orientation.

    Returns:
        Any number. Missing if there is no exponent, or if the matrix is empty, zero or not finite.

    Raises:
        ValueError: If ``eigenvalues`` do not belong to matrices of that shape, or ``alpha`` is
            infinite or not positive.
    """
    logs, reason = _log_eigenvalues("alpha_hat", alpha, eigenvalues, shape)
    if reason:
        return missing(reason)
    return Value(alpha * float(logs.max()) / math.log(10.0))


def log_alpha_norm(alpha: float, eigenvalues: Tensor, shape: tuple[int, int]) -> Value:
    r"""Return the logarithm of the alpha-norm, :math:`\log_{10} \sum_i \lambda_i^\alpha`.

    It cannot overflow, however large ``alpha`` is. At least `alpha_hat`, and at most ``log10 M``
    more.

    Source: Martin, Peng & Mahoney, arXiv:2002.06716.

    Args:
        alpha: Exponent of the matrix, `power_law.PowerLawFit.alpha`; nan if it has none.
        eigenvalues: `spectrum.eigenvalues` of the matrix, shape ``(M,)``, or of several matrices
            of one shape, pooled, shape ``(k * M,)``.
        shape: Shape of the matrix, either orientation.

    Returns:
        Any number. Missing if there is no exponent, or if the matrix is empty, zero or not finite.

    Raises:
        ValueError: If ``eigenvalues`` do not belong to matrices of that shape, or ``alpha`` is
            infinite or not positive.
    """
    logs, reason = _log_eigenvalues("log_alpha_norm", alpha, eigenvalues, shape)
    if reason:
        return missing(reason)
    return Value(float((alpha * logs).logsumexp(0)) / math.log(10.0))


def _log_eigenvalues(
    name: str, alpha: float, eigenvalues: Tensor, shape: tuple[int, int]
) -> tuple[Tensor, str]:
    """Return natural logs of the eigenvalues of ``W^T W``, and why there is nothing to return."""
    if eigenvalues.ndim != 1 or len(eigenvalues) % max(min(shape), 1) != 0:
        raise ValueError(
            f"{name}: expected eigenvalues of shape (M,) or (k * M,) with M the shorter side of "
            f"the matrix, got {tuple(eigenvalues.shape)} for a matrix of shape {tuple(shape)}."
        )
    if alpha <= 0.0 or math.isinf(alpha):
        raise ValueError(f"{name}: expected a positive finite alpha or nan, got {alpha}.")
    reason = unfit(eigenvalues)
    if not reason and math.isnan(alpha):
        reason = "there is no power-law exponent"
    return eigenvalues.to(torch.float64).log() + math.log(max(*shape, 1)), reason
