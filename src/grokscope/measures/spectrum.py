"""Eigenvalue spectrum of a weight matrix, and the scalars that are read off it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Literal, get_args

import torch
from torch import Tensor

from grokscope.measures._spectra import ALL_ZERO, require_shape, unfit
from grokscope.measures._value import Value, missing

Method = Literal["gram", "svd"]

_BLOCK_BYTES = 64 * 2**20  # of a matrix in float64 at once
_STRIP = 384  # columns of a Gram matrix at once


def eigenvalues(weight: Tensor, *, method: Method = "gram") -> Tensor:
    r"""Return the eigenvalues of the correlation matrix :math:`X = W^\top W / N`.

    ``N`` is the longer side of ``W`` and ``M`` the shorter one; the ``M`` eigenvalues are the
    squared singular values of ``W`` over ``N``, computed in float64 by one of two methods:

    * ``"gram"``: of the Gram matrix on the short side. Several times faster than an SVD, and
      frugal: the matrix is upcast in blocks of 64 MiB, so that beside it only a few arrays of
      ``M x M`` are held. It has a price: an eigenvalue carries an absolute error of about
      ``N * eps * largest`` with ``eps = 2.2e-16``. Eigenvalues below that are rounding noise
      (negative ones are set to 0), whatever their true size; `unresolved` counts them.
    * ``"svd"``: squared singular values, which resolve eigenvalues down to
      ``(N * eps)^2 * largest``.

    Source: Martin & Mahoney, arXiv:1810.01075 (their empirical spectral density).

    Args:
        weight: Real floating-point matrix, shape ``(rows, columns)``, or a stack of them, shape
            ``(..., rows, columns)``; any device. It is not mutated and no gradient flows.
        method: One of the two above.

    Returns:
        float64, ascending along the last axis, shape ``(..., M)``, on the device of ``weight``.
        All-nan for a matrix of the stack with entries that are not finite, or so large
        (about 1e154) that their squares are not.

    Raises:
        ValueError: If ``weight`` is no matrix or not real floating point, or for another method.
    """
    if weight.ndim < 2:
        raise ValueError(
            f"eigenvalues: expected shape (..., rows, columns), got {tuple(weight.shape)}."
        )
    if not weight.is_floating_point():
        raise ValueError(f"eigenvalues: expected a real floating dtype, got {weight.dtype}.")
    _require_method("eigenvalues", method)
    weight = weight.detach()
    if method == "svd":
        return _from_singular_values(weight)
    return _from_gram(weight)


def _from_gram(weight: Tensor) -> Tensor:
    gram = _gram(weight)
    # By Cauchy-Schwarz every entry of a Gram matrix is bounded by its diagonal, and any nan or
    # infinity of W reaches it: the diagonal alone tells whether the solver may see this matrix.
    finite = gram.diagonal(dim1=-2, dim2=-1).isfinite().all(-1)
    gram.masked_fill_(~finite[..., None, None], 0.0)
    found: Tensor = torch.linalg.eigvalsh(gram, UPLO="L").clamp_(min=0.0)
    return found.masked_fill_(~finite[..., None], torch.nan)


def _gram(weight: Tensor) -> Tensor:
    """Return the lower triangle of ``W^T W / N``, shape ``(..., M, M)``, float64.

    It is summed over blocks of the long side, strip by strip from the diagonal down, which saves
    nearly half of the work for a large one; what stands above the diagonal is of no use.
    """
    rows, columns = weight.shape[-2:]
    long, short = max(rows, columns), min(rows, columns)
    along = -2 if rows >= columns else -1
    gram = weight.new_zeros((*weight.shape[:-2], short, short), dtype=torch.float64)
    length = max(1, _BLOCK_BYTES * long // max(8 * weight.numel(), 1))
    for start in range(0, long, length):
        block = weight.narrow(along, start, min(length, long - start))
        _add_gram(gram, block.to(torch.float64) if along == -2 else block.to(torch.float64).mT)
    return gram.div_(max(long, 1))


def _add_gram(gram: Tensor, tall: Tensor) -> None:
    """Add ``tall^T tall`` to the lower triangle of ``gram``."""
    for left in range(0, gram.shape[-1], _STRIP):
        strip = slice(left, left + _STRIP)
        gram[..., left:, strip] += tall[..., left:].mT @ tall[..., strip]


def _from_singular_values(weight: Tensor) -> Tensor:
    weight = weight.to(torch.float64)
    finite = weight.isfinite().all(-1).all(-1)
    singular = torch.linalg.svdvals(weight.masked_fill(~finite[..., None, None], 0.0))
    found: Tensor = singular.flip(-1).square() / max(*weight.shape[-2:], 1)
    finite &= found.isfinite().all(-1)
    return found.masked_fill_(~finite[..., None], torch.nan)


def unresolved(eigenvalues: Tensor, shape: tuple[int, int], *, method: Method = "gram") -> Value:
    """Count the eigenvalues that are too small for their size to be known.

    At or below ``N * eps * largest`` a Gram matrix in float64 leaves rounding noise only; singular
    values reach down to the square of that factor. ``M`` minus the count is the numerical rank;
    from singular values, the one that ``numpy.linalg.matrix_rank`` finds.

    Args:
        eigenvalues: `eigenvalues` of one matrix, shape ``(M,)``.
        shape: Shape of that matrix, either orientation.
        method: The one that they were computed by.

    Returns:
        Between 0 and ``M``, which it is for the zero matrix; missing if the matrix is empty or not
        finite.

    Raises:
        ValueError: If ``eigenvalues`` do not belong to one matrix of that shape, or for another
            method.
    """
    _require_method("unresolved", method)
    _require_one("unresolved", eigenvalues, shape)
    reason = unfit(eigenvalues)
    if reason not in ("", ALL_ZERO):
        return missing(reason)
    return Value(float((eigenvalues <= _resolution(eigenvalues, shape, method)).sum()))


def _resolution(eigenvalues: Tensor, shape: Sequence[int], method: Method) -> Tensor:
    """Return what eigenvalues must exceed for their size to be known, shape ``(...)``."""
    relative = max(shape) * torch.finfo(torch.float64).eps
    return eigenvalues.amax(-1) * (relative if method == "gram" else relative**2)


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
    _require_one("spectral_norm", eigenvalues, shape)
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


def _require_one(name: str, eigenvalues: Tensor, shape: tuple[int, int]) -> None:
    require_shape(name, eigenvalues, shape)
    if eigenvalues.ndim != 1:
        raise ValueError(
            f"{name}: expected eigenvalues of shape (M,), got {tuple(eigenvalues.shape)}."
        )


def _require_method(name: str, method: Method) -> None:
    if method not in get_args(Method):
        raise ValueError(f"{name}: expected method 'gram' or 'svd', got {method!r}.")
