"""Eigenvalue spectrum of a weight matrix, and the scalars that are read off it."""

from __future__ import annotations

import torch
from torch import Tensor

from grokscope.measures._spectra import ALL_ZERO, require_shape, unfit
from grokscope.measures._value import Value, missing


def eigenvalues(weight: Tensor) -> Tensor:
    r"""Return the eigenvalues of the correlation matrix :math:`X = W^\top W / N`.

    ``N`` is the longer side of ``W`` and ``M`` the shorter one; the ``M`` eigenvalues are the
    squared singular values of ``W`` over ``N``. They come from the Gram matrix on the short side,
    in float64, which is several times faster than an SVD and has a price: an eigenvalue carries an
    absolute error of about ``N * eps * largest`` with ``eps = 2.2e-16``. Eigenvalues below that are
    rounding noise (negative ones are set to 0), whatever their true size; take an SVD where
    singular values below about 1e-8 of the largest matter.

    Source: Martin & Mahoney, arXiv:1810.01075 (their empirical spectral density).

    Args:
        weight: Real floating-point matrix, shape ``(rows, columns)``, or a stack of them, shape
            ``(..., rows, columns)``; any device. It is not mutated and no gradient flows.

    Returns:
        float64, ascending along the last axis, shape ``(..., M)``, on the device of ``weight``.
        All-nan for a matrix of the stack with entries that are not finite, or so large
        (about 1e154) that their squares are not.

    Raises:
        ValueError: If ``weight`` is no matrix or not real floating point.
    """
    if weight.ndim < 2:
        raise ValueError(
            f"eigenvalues: expected shape (..., rows, columns), got {tuple(weight.shape)}."
        )
    if not weight.is_floating_point():
        raise ValueError(f"eigenvalues: expected a real floating dtype, got {weight.dtype}.")
    rows, columns = weight.shape[-2:]
    w = weight.detach().to(torch.float64)
    gram = w.mT @ w if rows >= columns else w @ w.mT
    gram /= max(rows, columns, 1)
    # By Cauchy-Schwarz every entry of a Gram matrix is bounded by its diagonal, and any nan or
    # infinity of W reaches it: the diagonal alone tells whether the solver may see this matrix.
    finite = gram.diagonal(dim1=-2, dim2=-1).isfinite().all(-1)
    gram = gram.masked_fill(~finite[..., None, None], 0.0)
    found: Tensor = torch.linalg.eigvalsh(gram).clamp_(min=0.0)
    return found.masked_fill_(~finite[..., None], torch.nan)


def spectral_norm(eigenvalues: Tensor, shape: tuple[int, int]) -> Value:
    """Return the largest singular value of a matrix, from its eigenvalues.

    Args:
        eigenvalues: `eigenvalues` of one matrix, shape ``(M,)``.
        shape: Shape of that matrix, either orientation.

    Returns:
        ``sqrt(N * largest)``, in units of the weights; 0 for the zero matrix; missing if the
        matrix is empty or not finite.

    Raises:
        ValueError: If ``eigenvalues`` do not belong to one matrix of that shape.
    """
    require_shape("spectral_norm", eigenvalues, shape)
    if eigenvalues.ndim != 1:
        raise ValueError(
            f"spectral_norm: expected eigenvalues of shape (M,), got {tuple(eigenvalues.shape)}."
        )
    reason = unfit(eigenvalues)
    if reason not in ("", ALL_ZERO):
        return missing(reason)
    return Value(float((eigenvalues.max() * max(shape)).sqrt()))


def stable_rank(eigenvalues: Tensor) -> Value:
    r"""Return the stable rank :math:`\|W\|_F^2 / \|W\|_2^2`: all eigenvalues over the largest.

    Source: Rudelson & Vershynin, arXiv:math/0503442 ("numerical rank").

    Args:
        eigenvalues: `eigenvalues` of one matrix, shape ``(M,)``, or any multiple of them.

    Returns:
        Dimensionless, between 1 and the rank; unchanged by scaling and transposition. Missing if
        the matrix is empty, zero or not finite.

    Raises:
        ValueError: If ``eigenvalues`` are not one-dimensional.
    """
    if eigenvalues.ndim != 1:
        raise ValueError(
            f"stable_rank: expected eigenvalues of shape (M,), got {tuple(eigenvalues.shape)}."
        )
    reason = unfit(eigenvalues)
    if reason:
        return missing(reason)
    return Value(float(eigenvalues.sum() / eigenvalues.max()))
