"""The distance of densities against scipy, its bounds, and its level on noise."""

import math

import numpy as np
import pytest
import torch
from scipy.spatial.distance import jensenshannon

from grokscope.measures._noise import noise_spectra
from grokscope.measures.shuffled_spectrum import shuffled_eigenvalues
from grokscope.measures.spectral_distance import spectral_distance
from grokscope.measures.spectrum import eigenvalues


def gaussian(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def noise(n: int, m: int, draws: int, seed: int = 0) -> torch.Tensor:
    return torch.from_numpy(noise_spectra(n, m, draws, np.random.default_rng(seed)))


@pytest.mark.parametrize("bins", [1, 7, 20, 64])
def test_against_scipy_on_the_same_histograms(bins: int) -> None:
    weight = gaussian(40, 60) ** 3
    found = eigenvalues(weight)
    shuffled = shuffled_eigenvalues(weight, generator=torch.Generator().manual_seed(0))
    a, b = found.log().numpy(), shuffled.log().flatten().numpy()
    grid = np.linspace(min(a.min(), b.min()), max(a.max(), b.max()), bins + 1)
    p, q = (np.histogram(x, grid)[0] for x in (a, b))
    value = spectral_distance(found, shuffled, bins=bins).value
    assert value == pytest.approx(jensenshannon(p, q), rel=1e-9, abs=1e-12)
    assert (value > 0.01) == (bins > 1), "the control: one bin sees nothing"


def test_zero_for_equal_spectra() -> None:
    found = eigenvalues(gaussian(30, 50))
    assert spectral_distance(found, found.expand(4, -1)).value == 0.0


def test_the_greatest_distance_is_that_of_disjoint_spectra() -> None:
    found = eigenvalues(gaussian(30, 50))
    value = spectral_distance(found, 1e6 * found.expand(2, -1)).value
    assert value == pytest.approx(math.sqrt(math.log(2)), rel=1e-12)


def test_zero_eigenvalues_have_a_bin_of_their_own() -> None:
    """Half of the mass there against none, the other half alike: 1/2 and 1/2 against 0 and 1."""
    half = torch.tensor([0.0, 1e-20, 1.0, 1.0], dtype=torch.float64)
    ones = torch.ones(3, 4, dtype=torch.float64)
    expected = jensenshannon([0.5, 0.5], [0.0, 1.0])
    assert spectral_distance(half, ones).value == pytest.approx(expected, rel=1e-12)


def test_invariances() -> None:
    weight = gaussian(30, 50) ** 3
    found = eigenvalues(weight)
    shuffled = shuffled_eigenvalues(weight, generator=torch.Generator().manual_seed(0))
    expected = spectral_distance(found, shuffled).value
    order = torch.randperm(30, generator=torch.Generator().manual_seed(1))
    assert spectral_distance(found[order], shuffled.flip(0)[:, order]).value == expected
    assert spectral_distance(1e-9 * found, 1e-9 * shuffled).value == pytest.approx(expected)


@pytest.mark.parametrize(
    ("n", "m", "level", "seldom"),
    [(784, 200, 0.04, 0.05), (200, 200, 0.07, 0.09), (1024, 1024, 0.03, 0.035)],
)
def test_the_level_of_noise_is_the_stated_one(n: int, m: int, level: float, seldom: float) -> None:
    repeats = 40 if m == 200 else 5
    spectra = noise(n, m, 11 * repeats, seed=7).reshape(repeats, 11, m)
    found = np.array([spectral_distance(each[0], each[1:]).value for each in spectra])
    assert found.mean() == pytest.approx(level, abs=0.006)
    assert (found > seldom).mean() < 0.25


def test_structure_is_farther_from_its_shuffles_than_noise() -> None:
    noisy = gaussian(100, 200)
    structured = noisy + gaussian(100, 20, seed=1) @ gaussian(20, 200, seed=2)
    of = [
        spectral_distance(
            eigenvalues(weight),
            shuffled_eigenvalues(weight, generator=torch.Generator().manual_seed(0)),
        ).value
        for weight in (noisy, structured)
    ]
    assert of[0] < 0.12
    assert of[1] > 0.4


def test_missing() -> None:
    found = eigenvalues(gaussian(4, 6))
    for a, b, reason in (
        (0 * found, 0 * found, "all weights are zero"),
        (found, 0 * found, "all weights are zero"),
        (math.nan * found, math.nan * found, "weights are not finite"),
        (found[:0], found[:0], "the matrix is empty"),
    ):
        value = spectral_distance(a, b.expand(2, -1))
        assert math.isnan(value.value)
        assert value.reason == reason


def test_wrong_calls() -> None:
    ones = torch.ones(4)
    for a, b in (
        (ones, ones),
        (ones, torch.ones(2, 3)),
        (ones, torch.ones(0, 4)),
        (ones[None], ones[None]),
    ):
        with pytest.raises(ValueError, match=r"\(M,\) and shuffled ones of shape \(R, M\), got"):
            spectral_distance(a, b)
    with pytest.raises(ValueError, match="at least 1 bin, got 0"):
        spectral_distance(ones, ones[None], bins=0)
