"""Traps: how often noise shows one, where a planted one sits, and what must not count as one."""

import dataclasses
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from grokscope.measures.correlation_traps import CorrelationTraps, correlation_traps
from grokscope.measures.marchenko_pastur import cdf, median
from grokscope.measures.shuffled_spectrum import shuffled_eigenvalues
from grokscope.measures.spectrum import eigenvalues
from grokscope.measures.tracy_widom import edge_threshold


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def gaussian(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=seeded(seed))


def traps_of(weight: torch.Tensor, shuffles: int = 10, seed: int = 0) -> CorrelationTraps:
    shape = (weight.shape[0], weight.shape[1])
    found = shuffled_eigenvalues(weight, shuffles=shuffles, generator=seeded(seed))
    return correlation_traps(found, shape)


def bbp_location(theta_squared: float, scale: float, ratio: float) -> float:
    """Return where a spike of that strength sits (Baik, Ben Arous & Peche)."""
    return (theta_squared + scale) * (theta_squared + ratio * scale) / theta_squared


@pytest.mark.parametrize(
    ("shape", "quantile", "most"),
    [
        ((60, 200), 0.999, 0.01),
        ((60, 60), 0.999, 0.015),
        ((10, 100), 0.999, 0.01),
        ((60, 200), 0.95, 0.11),
    ],
)
def test_false_positives_on_gaussian_noise(
    shape: tuple[int, int], quantile: float, most: float
) -> None:
    spectra = eigenvalues(gaussian(1500, *shape))
    found = correlation_traps(spectra, shape, quantile=quantile)
    assert found.fraction <= most
    if quantile == 0.95:
        assert found.fraction >= 0.03, "the control: a lower quantile does let noise through"


def test_learned_structure_is_no_trap() -> None:
    """A spread-out rank-one signal towers over the bulk of W and is gone after the shuffle."""
    noise = gaussian(120, 80)
    signal = torch.outer(gaussian(120, seed=1), gaussian(80, seed=2)) / 4
    weight = noise + signal
    found = traps_of(weight)
    assert float(eigenvalues(weight)[-1]) > 1.5 * found.threshold
    assert found.count_mean <= 0.1


@pytest.mark.parametrize("shape", [(100, 400), (400, 100), (150, 150)])
@pytest.mark.parametrize("strength", [2.5, 4.0])
def test_one_large_entry_is_a_trap_where_the_theory_puts_it(
    shape: tuple[int, int], strength: float
) -> None:
    n, ratio, scale = max(shape), min(shape) / max(shape), 0.25
    theta_squared = strength * scale * math.sqrt(ratio) + 0.5 * scale
    weight = math.sqrt(scale) * gaussian(*shape)
    weight[3, 5] = math.sqrt(n * theta_squared)
    shuffled = shuffled_eigenvalues(weight, generator=seeded())
    expected = bbp_location(theta_squared, scale, ratio)
    assert float(shuffled[:, -1].mean()) == pytest.approx(expected, rel=0.03)
    found = correlation_traps(shuffled, shape)
    assert found.count_mean == found.count_min == found.count_max == 1.0
    assert found.fraction == 1.0
    assert found.ratio == pytest.approx(expected / edge_threshold(shape, scale), rel=0.05)
    assert found.scale == pytest.approx(scale, rel=0.03)
    outside = theta_squared / (scale * min(shape))  # mean squared entry: scale + theta^2 / M
    assert found.bulk_energy == pytest.approx(1 / (1 + outside), rel=0.03)


def test_one_entry_below_the_transition_is_no_trap() -> None:
    weight = gaussian(100, 400)
    weight[3, 5] = math.sqrt(400 * 0.5 * math.sqrt(0.25))
    assert weight[3, 5] > 1.5 * gaussian(100, 400).abs().max(), "the control: it is the largest"
    found = traps_of(weight)
    assert found.count_mean == 0.0
    assert found.ratio < 1.0


def test_a_mean_shift_is_a_trap_where_the_theory_puts_it() -> None:
    weight = gaussian(100, 400) + 0.25
    shuffled = shuffled_eigenvalues(weight, generator=seeded())
    found = correlation_traps(shuffled, (100, 400))
    assert found.count_mean == 1.0
    expected = bbp_location(100 * float(weight.mean()) ** 2, float(weight.var()), 0.25)
    assert float(shuffled[:, -1].mean()) == pytest.approx(expected, rel=0.03)


def test_several_large_entries_are_several_traps() -> None:
    weight = gaussian(100, 200)
    # Few and far between: after a shuffle two of them rarely share a row or a column.
    weight[[1, 20, 40], [7, 90, 30]] = torch.tensor([60.0, -80.0, 100.0], dtype=torch.float64)
    found = traps_of(weight)
    assert 2.5 <= found.count_mean <= 3.0
    assert found.count_max == 3.0


def test_statistics_of_hand_made_spectra() -> None:
    """Four shuffles with 0, 1, 1 and 3 eigenvalues above a threshold that is known."""
    shape = (200, 50)
    grid = np.linspace(0.2, 2.3, 5000)
    quantiles = np.interp((np.arange(50) + 0.5) / 50, cdf(grid, 0.25), grid)
    spectra = torch.from_numpy(np.stack([quantiles] * 4))
    scale = float(np.median(quantiles)) / median(0.25)
    threshold = edge_threshold(shape, scale)
    assert quantiles[-1] < threshold
    spectra[1, -1:] = 1.01 * threshold
    spectra[2, -1:] = 2.0 * threshold
    spectra[3, -3:] = threshold * torch.tensor([1.5, 1.5, 4.0], dtype=torch.float64)
    found = correlation_traps(spectra, shape)
    assert found.count_mean == 1.25
    assert found.count_std == pytest.approx(math.sqrt(4.75 / 4))
    assert (found.count_min, found.count_max) == (0.0, 3.0)
    assert found.fraction == 0.75
    assert found.ratio == pytest.approx((quantiles[-1] / threshold + 1.01 + 2.0 + 4.0) / 4)
    assert found.scale == pytest.approx(scale)
    assert found.threshold == pytest.approx(threshold)
    assert found.bulk_energy == pytest.approx(scale / float(spectra.mean()))
    assert found.reason == ""


def test_each_shuffle_has_its_own_scale() -> None:
    spectra = torch.cat([eigenvalues(gaussian(1, 80, 40)), 100 * eigenvalues(gaussian(1, 80, 40))])
    found = correlation_traps(spectra, (80, 40))
    assert found.count_max == 0.0


@settings(deadline=None, max_examples=20)
@given(seed=st.integers(0, 2**31), exponent=st.integers(-30, 30))
def test_counts_do_not_depend_on_units(seed: int, exponent: int) -> None:
    weight = gaussian(30, 20, seed=seed) ** 3
    expected = traps_of(weight, seed=seed)
    found = traps_of(weight * 2.0**exponent, seed=seed)
    for name in ("count_mean", "count_std", "count_min", "count_max", "fraction"):
        assert getattr(found, name) == getattr(expected, name)
    assert found.ratio == pytest.approx(expected.ratio, rel=1e-9)
    assert found.bulk_energy == pytest.approx(expected.bulk_energy, rel=1e-9)
    assert found.scale == pytest.approx(expected.scale * 4.0**exponent, rel=1e-9)


def test_counts_do_not_depend_on_orientation_or_order_in_distribution() -> None:
    weight = gaussian(60, 90) ** 3
    order = torch.randperm(weight.numel(), generator=seeded(9))
    means = [
        traps_of(matrix, shuffles=100).count_mean
        for matrix in (weight, weight.T, weight.flatten()[order].reshape(60, 90))
    ]
    # One count scatters by about 1: the mean of 100 by about 0.1.
    assert max(means) - min(means) < 0.5
    assert min(means) > 1.0, "the control: this matrix has traps to count"


@pytest.mark.parametrize(
    ("weight", "reason"),
    [
        (torch.zeros(12, 8), "all weights are zero"),
        (torch.full((12, 8), math.nan), "weights are not finite"),
        (torch.ones(12, 8), "no bulk: more than half of the shuffled eigenvalues are zero"),
        (torch.ones(1, 1), "the matrix is a single entry"),
        (torch.ones(0, 4), "the matrix is empty"),
    ],
)
def test_unfit_matrices(weight: torch.Tensor, reason: str) -> None:
    found = dataclasses.asdict(traps_of(weight))
    assert found.pop("reason") == reason
    assert all(math.isnan(number) for number in found.values())


def test_wrong_calls() -> None:
    with pytest.raises(ValueError, match=r"got \(10, 5\) for a matrix of shape \(6, 4\)"):
        correlation_traps(torch.ones(10, 5), (6, 4))
    with pytest.raises(ValueError, match="strictly between 0 and 1, got 1"):
        correlation_traps(eigenvalues(gaussian(2, 6, 4)), (6, 4), quantile=1.0)
