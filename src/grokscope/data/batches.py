"""Which training points make up the batch of a step: a pure function of the seed and the step."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from grokscope.data.seeds import derive_seed

# Philox is counter-based: its stream can be entered at any block of four 64-bit words.
_WORDS_A_BLOCK = 4
_MAX_N = 2**31
# Words drawn at a time; their arrays stay in the cache of one core.
_WORDS_AT_ONCE = 2**16


def batch_indices(
    n: int, batch_size: int, *, seed: int, start: int, stop: int, replacement: bool
) -> NDArray[np.int64]:
    """Return the indices of the training points of steps ``start`` to ``stop - 1``.

    Row ``s - start`` depends only on ``(n, batch_size, seed, s, replacement)``: any division of a
    run into calls gives the same batches, and a resumed run needs no stored sampler. A long range
    costs a few nanoseconds an index.

    With replacement, every index is drawn independently and uniformly (to ``n / 2**32`` of its
    probability). Without, each epoch of ``n // batch_size`` steps runs through a fresh uniform
    permutation; the ``n % batch_size`` points left over at its end are dropped in that epoch. With
    ``batch_size == n`` each batch is the whole set, in a new order every step.

    Args:
        n: Number of training points, at most ``2**31``.
        batch_size: Points a step.
        seed: Root seed of the run; batches have a stream of their own.
        start: First step, counted from 0.
        stop: One past the last step.
        replacement: Whether the points of a batch are drawn independently.

    Returns:
        Shape ``(stop - start, batch_size)``, values in ``[0, n)``.

    Raises:
        ValueError: If a number is out of range, or ``batch_size`` exceeds ``n`` without
            replacement.
    """
    if not 1 <= n <= _MAX_N:
        raise ValueError(f"batch_indices: expected n in [1, 2**31], got {n}.")
    if batch_size < 1 or (batch_size > n and not replacement):
        most = "at least 1" if replacement else f"in [1, {n}] to draw without replacement"
        raise ValueError(f"batch_indices: expected batch_size {most}, got {batch_size}.")
    if not 0 <= start <= stop:
        raise ValueError(f"batch_indices: expected 0 <= start <= stop, got {start} and {stop}.")
    if replacement:
        return _independent(n, batch_size, derive_seed(seed, "batches", "replacement"), start, stop)
    return _permuted(n, batch_size, derive_seed(seed, "batches", "epochs"), start, stop)


def _independent(n: int, batch_size: int, key: int, start: int, stop: int) -> NDArray[np.int64]:
    out = np.empty((stop - start, batch_size), np.int64)
    words = -(-batch_size // 2)  # two indices a word
    at_once = max(1, _WORDS_AT_ONCE // words)
    for first in range(start, stop, at_once):
        last = min(first + at_once, stop)
        halves = _random_rows(key, words, first, last).view(np.uint32)[:, :batch_size]
        # The top 32 bits of a 64-bit product: a uniform on [0, 2**32) scaled to [0, n).
        scaled = np.multiply(halves, np.uint64(n), dtype=np.uint64)
        out[first - start : last - start] = np.right_shift(scaled, np.uint64(32), out=scaled)
    return out


def _permuted(n: int, batch_size: int, key: int, start: int, stop: int) -> NDArray[np.int64]:
    out = np.empty((stop - start, batch_size), np.int64)
    a_epoch = n // batch_size
    # A permutation is the order of n random keys. Each key carries its index in its low bits, so
    # that sorting the keys themselves, which is faster than an argsort, leaves the permutation.
    low = np.uint64((1 << (n - 1).bit_length()) - 1)
    index = np.arange(n, dtype=np.uint64)
    at_once = max(1, _WORDS_AT_ONCE // n)
    for first in range(start // a_epoch, -(-stop // a_epoch), at_once):
        last = min(first + at_once, -(-stop // a_epoch))
        keys = _random_rows(key, n, first, last)
        keys &= ~low
        keys |= index
        keys.sort(axis=1)
        keys &= low
        batches = keys[:, : a_epoch * batch_size].reshape(-1, batch_size)
        begin, end = max(start, first * a_epoch), min(stop, last * a_epoch)
        offset = first * a_epoch
        out[begin - start : end - start] = batches[begin - offset : end - offset]
    return out


def _random_rows(key: int, words: int, first: int, last: int) -> NDArray[np.uint64]:
    """Return rows ``first`` to ``last - 1`` of an endless table of random 64-bit words.

    Raw Philox output, which numpy keeps the same in all versions. A row begins on a new block, so
    that it can be reached without those before it.
    """
    blocks = -(-words // _WORDS_A_BLOCK)
    source = np.random.Philox(key=key, counter=first * blocks)
    table = source.random_raw((last - first) * blocks * _WORDS_A_BLOCK)
    return table.reshape(last - first, blocks * _WORDS_A_BLOCK)[:, :words]
