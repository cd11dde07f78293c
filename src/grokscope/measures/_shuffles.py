"""The permutations behind every shuffled spectrum, so that all who ask for them see the same."""

from __future__ import annotations

from collections.abc import Iterator

import torch
from torch import Tensor


def permutations(size: int, shuffles: int, generator: torch.Generator) -> Iterator[Tensor]:
    """Draw random orders of the entries of a matrix, one at a time.

    Args:
        size: Number of entries.
        shuffles: Number of permutations.
        generator: CPU generator; it advances as the permutations are taken.

    Yields:
        int64 on the CPU, shape ``(size,)``: ``flat[order]`` is the shuffled matrix, flattened.
    """
    for _ in range(shuffles):
        yield torch.randperm(size, generator=generator)
