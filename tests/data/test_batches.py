from __future__ import annotations

import itertools
import math
from collections import Counter

import numpy as np
import pytest
import scipy.stats
from hypothesis import given, settings
from hypothesis import strategies as st

from grokscope.data import batches
from grokscope.data.batches import batch_indices

RECORDED = {
    True: [[185, 132, 140, 162], [5, 135, 108, 82]],
    False: [[118, 27, 56, 61], [123, 22, 110, 142]],
}


def draw(n: int, size: int, start: int, stop: int, *, replacement: bool, seed: int = 0):
    return batch_indices(n, size, seed=seed, start=start, stop=stop, replacement=replacement)


@settings(deadline=None, max_examples=150)
@given(
    st.integers(1, 40),
    st.integers(1, 40),
    st.booleans(),
    st.integers(0, 10**9),
    st.lists(st.integers(0, 60), min_size=1, max_size=5),
    st.integers(1, 300),
)
def test_rows_do_not_depend_on_how_a_run_is_divided(
    n: int, size: int, replacement: bool, first: int, lengths: list[int], words: int
) -> None:
    size = size if replacement else min(size, n)
    edges = list(itertools.accumulate(lengths, initial=first))
    whole = draw(n, size, first, edges[-1], replacement=replacement)
    assert whole.shape == (sum(lengths), size)
    assert whole.dtype == np.int64
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(batches, "_WORDS_AT_ONCE", words)
        parts = [
            draw(n, size, *edge, replacement=replacement) for edge in itertools.pairwise(edges)
        ]
    assert (np.concatenate(parts) == whole).all()
    assert ((whole >= 0) & (whole < n)).all()


@pytest.mark.parametrize("replacement", [True, False])
def test_single_rows_make_the_same_run(replacement: bool) -> None:
    whole = draw(23, 7, 0, 500, replacement=replacement)
    rows = [draw(23, 7, step, step + 1, replacement=replacement)[0] for step in range(500)]
    assert (np.array(rows) == whole).all()


@settings(deadline=None, max_examples=60)
@given(st.integers(1, 50), st.integers(1, 50), st.integers(0, 2**40), st.integers(0, 2**32 - 1))
def test_an_epoch_has_no_repeats_and_drops_only_the_last_incomplete_batch(
    n: int, size: int, epoch: int, seed: int
) -> None:
    size = min(size, n)
    steps = n // size
    found = draw(n, size, epoch * steps, (epoch + 1) * steps, replacement=False, seed=seed)
    assert len(np.unique(found)) == steps * size > n - size


def test_a_full_batch_is_the_whole_set_in_a_new_order() -> None:
    found = draw(50, 50, 0, 20, replacement=False)
    assert (np.sort(found, axis=1) == np.arange(50)).all()
    assert len(np.unique(found, axis=0)) == 20


def test_points_left_over_change_from_epoch_to_epoch() -> None:
    found = draw(10, 4, 0, 2 * 3000, replacement=False).reshape(3000, 8)
    left_over = Counter(int(i) for row in found for i in set(range(10)) - set(row.tolist()))
    assert sum(left_over.values()) == 6000
    assert scipy.stats.chisquare([left_over[i] for i in range(10)]).pvalue > 1e-6


@pytest.mark.parametrize("n", [1, 2, 3, 10, 200, 1000])
def test_draws_with_replacement_are_uniform_and_independent(n: int) -> None:
    found = draw(n, 101, 0, 2000, replacement=True)  # odd: half a word a row is dropped
    if n == 1:
        assert (found == 0).all()
        return
    assert scipy.stats.chisquare(np.bincount(found.ravel(), minlength=n)).pvalue > 1e-6
    for lag in (1, 2, 8):
        pairs = np.bincount((found[:, :-lag] % 2 * 2 + found[:, lag:] % 2).ravel(), minlength=4)
        odd = (n // 2) / n
        expected = np.outer([1 - odd, odd], [1 - odd, odd]).ravel() * pairs.sum()
        assert scipy.stats.chisquare(pairs, expected).pvalue > 1e-6
    if n == 1000:  # birthday problem: how often two points of a batch are the same
        repeats = np.mean([101 - len(np.unique(row)) for row in found])
        assert repeats == pytest.approx(101 - n * (1 - (1 - 1 / n) ** 101), abs=0.25)


def test_permutations_are_uniform() -> None:
    orders = draw(4, 4, 0, 24 * 1000, replacement=False)
    counts = Counter(map(tuple, orders.tolist()))
    assert len(counts) == math.factorial(4)
    assert scipy.stats.chisquare(list(counts.values())).pvalue > 1e-6


def test_each_point_comes_at_each_place_equally_often() -> None:
    orders = draw(37, 37, 0, 3700, replacement=False)
    places = np.zeros((37, 37))
    np.add.at(places, (np.arange(37)[None], orders), 1)
    chi2 = ((places - 100) ** 2 / 100).sum()
    assert chi2 == pytest.approx(36 * 36, abs=5 * math.sqrt(2 * 36 * 36))


@pytest.mark.parametrize("replacement", [True, False])
def test_seeds_and_steps_give_unrelated_batches(replacement: bool) -> None:
    one = draw(1000, 100, 0, 50, replacement=replacement, seed=1)
    two = draw(1000, 100, 0, 50, replacement=replacement, seed=2)
    assert float((one == two).mean()) == pytest.approx(1 / 1000, abs=5 * math.sqrt(1e-3 / 5000))
    assert float((one[1:] == one[:-1]).mean()) < 0.01
    assert (draw(1000, 100, 0, 50, replacement=replacement, seed=1) == one).all()


def test_batches_are_what_they_were_when_runs_were_recorded() -> None:
    """Raw Philox words are stable over numpy versions; so must be what is made of them."""
    assert draw(200, 4, 5, 7, replacement=True).tolist() == RECORDED[True]
    assert draw(200, 4, 5, 7, replacement=False).tolist() == RECORDED[False]


def test_a_long_range_and_a_late_step_are_within_reach() -> None:
    assert draw(200, 1, 0, 10**6, replacement=True).shape == (10**6, 1)
    late = draw(60_000, 128, 10**12, 10**12 + 2, replacement=False)
    assert late.shape == (2, 128)
    assert (draw(60_000, 128, 10**12 + 1, 10**12 + 2, replacement=False) == late[1:]).all()


def test_no_steps_give_no_rows() -> None:
    for replacement in (True, False):
        assert draw(10, 3, 7, 7, replacement=replacement).shape == (0, 3)


def test_refuses_what_cannot_be_meant() -> None:
    with pytest.raises(ValueError, match=r"expected n in \[1, 2\*\*31\], got 0"):
        draw(0, 1, 0, 1, replacement=True)
    with pytest.raises(ValueError, match=r"expected n in \[1, 2\*\*31\], got 2147483649"):
        draw(2**31 + 1, 1, 0, 1, replacement=True)
    with pytest.raises(ValueError, match=r"batch_size in \[1, 10\] to draw without .* got 11"):
        draw(10, 11, 0, 1, replacement=False)
    with pytest.raises(ValueError, match=r"batch_size at least 1, got 0"):
        draw(10, 0, 0, 1, replacement=True)
    with pytest.raises(ValueError, match=r"0 <= start <= stop, got 3 and 2"):
        draw(10, 2, 3, 2, replacement=True)
    with pytest.raises(ValueError, match=r"0 <= start <= stop, got -1 and 2"):
        draw(10, 2, -1, 2, replacement=True)
