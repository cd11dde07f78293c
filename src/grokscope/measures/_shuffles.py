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
        On the CPU, shape ``(size,)``: ``flat[order]`` is the shuffled matrix, flattened. int32
        where that suffices, which is smaller and faster, else int64; the order is the same.
    """
    index = torch.int32 if size <= torch.iinfo(torch.int32).max else torch.int64
    for _ in range(shuffles):
        yield torch.randperm(size, generator=generator, dtype=index)
