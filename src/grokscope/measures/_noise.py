"""Spectra of pure noise, which nulls are simulated from."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import eigvalsh_tridiagonal


def noise_spectra(
    n: int, m: int, draws: int, generator: np.random.Generator
) -> NDArray[np.float64]:
    """Return eigenvalues of ``W^T W / n`` for Gaussian ``n x m`` matrices.

    Orthogonal maps take a Gaussian matrix to a bidiagonal one with independent chi-distributed
    entries, with the same singular values: 2m - 1 random numbers instead of n * m, no product of
    matrices, and O(m^2) time for the eigenvalues of what is tridiagonal then (about 0.5 ms for
    m = 200, 0.2 s for 4096).

    Source: Dumitriu & Edelman, arXiv:math-ph/0206043 (beta = 1).

    Args:
        n: Longer side.
        m: Shorter side, 1 or more.
        draws: Number of matrices, of independent entries of mean 0 and variance 1.
        generator: What they are drawn from.

    Returns:
        float64, ascending along the last axis, shape ``(draws, m)``.
    """
    diagonal = generator.chisquare(np.arange(n, n - m, -1), (draws, m)) / n
    below = generator.chisquare(np.arange(m - 1, 0, -1), (draws, m - 1)) / n
    # X = B B^T is tridiagonal: squares of both on its diagonal, their products beside it.
    beside = np.sqrt(diagonal[:, :-1] * below)
    diagonal[:, 1:] += below
    spectra = np.empty((draws, m))
    for spectrum, d, e in zip(spectra, diagonal, beside, strict=True):
        spectrum[:] = eigvalsh_tridiagonal(d, e, check_finite=False, lapack_driver="sterf")
    return spectra.clip(min=0.0)
