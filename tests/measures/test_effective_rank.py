"""Soft ranks against closed forms, scipy and WeightWatcher's own entropy."""

import math

import numpy as np
import pytest
import scipy.stats
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from weightwatcher.RMT_Util import matrix_entropy

from grokscope.measures.effective_rank import (
    effective_rank,
    participation_ratio,
    spectral_entropy,
)
from grokscope.measures.spectrum import eigenvalues

MEASURES = (effective_rank, participation_ratio, spectral_entropy)


def gaussian(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("rank", [1, 3, 8])
def test_equal_singular_values_count_once_each(rank: int) -> None:
    found = torch.tensor([0.0] * (8 - rank) + [2.5] * rank, dtype=torch.float64)
    assert effective_rank(found).value == pytest.approx(rank, rel=1e-14)
    assert participation_ratio(found).value == pytest.approx(rank, rel=1e-14)
    assert spectral_entropy(found).value == pytest.approx(math.log(rank) / math.log(8), abs=1e-14)


def test_each_takes_the_shares_that_its_name_says() -> None:
    """Singular values 1 and 3, eigenvalues 1 and 9."""
    found = eigenvalues(torch.diag(torch.tensor([3.0, 1.0])))
    h = lambda p: -p * math.log(p) - (1 - p) * math.log(1 - p)  # noqa: E731
    assert effective_rank(found).value == pytest.approx(math.exp(h(1 / 4)), rel=1e-12)
    assert participation_ratio(found).value == pytest.approx(100 / 82, rel=1e-12)
    assert spectral_entropy(found).value == pytest.approx(h(1 / 10) / math.log(2), rel=1e-12)


def test_against_scipy_on_a_gaussian_matrix() -> None:
    singular = np.linalg.svd(gaussian(30, 50).numpy(), compute_uv=False)
    found = eigenvalues(gaussian(30, 50))
    assert effective_rank(found).value == pytest.approx(
        math.exp(scipy.stats.entropy(singular)), rel=1e-10
    )
    assert spectral_entropy(found).value == pytest.approx(
        scipy.stats.entropy(singular**2, base=30), rel=1e-10
    )


def test_weightwatcher_divides_by_the_log_of_the_rank() -> None:
    found = eigenvalues(gaussian(40, 5) @ gaussian(5, 20, seed=1), method="svd")
    published = matrix_entropy(np.sqrt(40 * found.numpy()), 40)
    ours = spectral_entropy(found).value
    assert published == pytest.approx(ours * math.log(20) / math.log(5), rel=1e-6)


@settings(deadline=None, max_examples=25)
@given(
    rows=st.integers(2, 12),
    columns=st.integers(2, 12),
    seed=st.integers(0, 2**31),
    factor=st.floats(1e-6, 1e6),
)
def test_invariances_and_order(rows: int, columns: int, seed: int, factor: float) -> None:
    weight = gaussian(rows, columns, seed=seed)
    found = eigenvalues(weight)
    for measure in MEASURES:
        expected = measure(found).value
        assert measure(eigenvalues(factor * weight.T)).value == pytest.approx(expected, rel=1e-6)
        assert measure(found.flip(0)).value == pytest.approx(expected, rel=1e-12)
    # Squares make shares more unequal, and Renyi entropies fall with their order.
    soft = participation_ratio(found).value
    assert 1.0 <= soft <= min(rows, columns) ** spectral_entropy(found).value * (1 + 1e-12)
    assert soft <= effective_rank(found).value <= min(rows, columns) * (1 + 1e-12)


def test_eigenvalues_whose_sum_would_overflow() -> None:
    found = torch.full((4,), 1e308, dtype=torch.float64)
    assert participation_ratio(found).value == pytest.approx(4.0)
    assert spectral_entropy(found).value == pytest.approx(1.0)


@pytest.mark.parametrize("measure", MEASURES)
def test_missing(measure) -> None:  # type: ignore[no-untyped-def]
    for found, reason in (
        (torch.zeros(3), "all weights are zero"),
        (torch.zeros(0), "the matrix is empty"),
        (torch.tensor([1.0, math.nan]), "weights are not finite"),
    ):
        value = measure(found)
        assert math.isnan(value.value)
        assert value.reason == reason
    with pytest.raises(ValueError, match=rf"{measure.__name__}: .*\(M,\), got \(2, 4\)"):
        measure(torch.ones(2, 4))


def test_one_eigenvalue_has_rank_one_and_no_entropy() -> None:
    one = torch.tensor([3.0])
    assert effective_rank(one).value == 1.0
    assert participation_ratio(one).value == 1.0
    assert spectral_entropy(one).reason == "a single eigenvalue has no entropy"
