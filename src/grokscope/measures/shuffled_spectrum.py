"""Spectrum of a weight matrix whose entries have been shuffled: its null model.

A shuffle keeps the distribution of the entries and destroys every correlation between rows and
columns. What remains above the Marchenko-Pastur bulk is owed to single large entries, or to a mean
that is not zero, and not to what the layer has learned.
"""

from __future__ import annotations

import torch
from torch import Tensor

from grokscope.measures._shuffles import permutations
from grokscope.measures.spectrum import eigenvalues

_CHUNK_BYTES = 64 * 2**20  # of shuffled copies at once, if they were float64


def shuffled_eigenvalues(
    weight: Tensor, *, shuffles: int = 10, generator: torch.Generator
) -> Tensor:
    """Return the spectra of several element-wise random permutations of a matrix.

    Shuffled copies are held in the dtype of the matrix, of a large one a single copy at a time.

    Source: Prakash & Martin, arXiv:2506.04434 (randomised spectra).

    Args:
        weight: Real floating-point matrix, shape ``(rows, columns)``, any device. Not mutated.
        shuffles: Number ``R`` of independent permutations, at least 1.
        generator: CPU generator that the permutations are drawn from, also for a matrix on
            another device, so that all devices see the same shuffles. It advances equally for
            every matrix of the same size, fit or not.

    Returns:
        float64, ascending along the last axis, shape ``(R, M)``, as `spectrum.eigenvalues`
        (of ``W^T W / N``, all-nan if the matrix is not finite). Two calls with equal matrices and
        equally seeded generators return the same bits.

    Raises:
        ValueError: If ``weight`` is not one real floating-point matrix, ``shuffles`` is below 1 or
            the generator is not on the CPU.
    """
    if weight.ndim != 2 or not weight.is_floating_point():
        raise ValueError(
            f"shuffled_eigenvalues: expected one real floating-point matrix of shape "
            f"(rows, columns), got {weight.dtype} of shape {tuple(weight.shape)}."
        )
    if shuffles < 1:
        raise ValueError(f"shuffled_eigenvalues: expected at least 1 shuffle, got {shuffles}.")
    if generator.device.type != "cpu":
        raise ValueError(
            f"shuffled_eigenvalues: expected a generator on the CPU, got {generator.device}."
        )
    flat = weight.detach().flatten()
    orders = permutations(len(flat), shuffles, generator)
    chunk = max(1, _CHUNK_BYTES // max(8 * len(flat), 1))
    spectra = []
    for start in range(0, shuffles, chunk):
        copies = flat.new_empty((min(chunk, shuffles - start), *weight.shape))
        for copy, order in zip(copies, orders, strict=False):
            torch.index_select(flat, 0, order.to(flat.device), out=copy.view(-1))
        spectra.append(eigenvalues(copies))
    return torch.cat(spectra)
