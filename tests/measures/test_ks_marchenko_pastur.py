"""The distance against scipy, and p-values on noise and on what is none."""

import math

import numpy as np
import pytest
import scipy.stats
import torch

from grokscope.measures import ks_marchenko_pastur as module
from grokscope.measures.ks_marchenko_pastur import ks_marchenko_pastur
from grokscope.measures.marchenko_pastur import cdf, scale_from_median
from grokscope.measures.shuffled_spectrum import shuffled_eigenvalues
from grokscope.measures.spectrum import eigenvalues


def gaussian(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("shape", [(60, 90), (90, 60), (40, 40), (10, 100)])
def test_distance_is_the_mean_of_what_scipy_finds(shape: tuple[int, int]) -> None:
    ratio = min(shape) / max(shape)
    spectra = eigenvalues(gaussian(3, *shape))
    expected = []
    for spectrum in spectra.numpy():
        scale = float(scale_from_median(spectrum, ratio))
        law = lambda x, scale=scale: cdf(x, ratio, scale)  # noqa: E731
        expected.append(scipy.stats.kstest(spectrum, law).statistic)
    found = ks_marchenko_pastur(spectra, shape, draws=20)
    assert found.distance == pytest.approx(np.mean(expected), rel=1e-9)


def test_p_values_of_noise_are_uniform() -> None:
    spectra = eigenvalues(7 * gaussian(300, 40, 60, seed=3))
    p_values = [ks_marchenko_pastur(one[None], (40, 60)).p_value for one in spectra]
    assert scipy.stats.kstest(p_values, "uniform").pvalue > 1e-3
    assert min(p_values) >= 1 / 201
    mean = ks_marchenko_pastur(spectra, (40, 60)).p_value
    assert mean == pytest.approx(np.mean(p_values), rel=1e-12)
    assert mean == pytest.approx(0.5, abs=0.07)


def test_a_shuffled_gaussian_matrix_is_not_suspicious() -> None:
    generator = torch.Generator().manual_seed(0)
    shuffled = shuffled_eigenvalues(gaussian(200, 784), generator=generator)
    found = ks_marchenko_pastur(shuffled, (200, 784))
    assert 0.009 < found.distance < 0.02  # null range of this shape
    assert 0.2 < found.p_value < 0.8
    assert found.reason == ""


def test_heavy_tailed_entries_are_as_improbable_as_the_draws_can_say() -> None:
    heavy = gaussian(60, 90) / gaussian(60, 90, seed=1)
    shuffled = shuffled_eigenvalues(heavy, generator=torch.Generator().manual_seed(0))
    found = ks_marchenko_pastur(shuffled, (60, 90), draws=99)
    assert found.p_value == pytest.approx(1 / 100)
    assert found.draws == 99
    assert found.distance > 0.2


def test_a_p_value_for_independent_draws_would_miss_what_this_one_sees() -> None:
    """Noise whose variance differs fourfold between two halves of the rows follows another law."""
    weight = torch.cat([gaussian(120, 60), 2 * gaussian(120, 60, seed=5)])
    found = ks_marchenko_pastur(eigenvalues(weight)[None], (240, 60))
    assert found.p_value < 0.05
    assert scipy.stats.kstwo(60).sf(found.distance) > 0.5


def test_the_null_is_deterministic_private_and_kept() -> None:
    module._null_distances.cache_clear()
    spectra = eigenvalues(gaussian(4, 30, 20))
    state, numpy_state = torch.get_rng_state(), np.random.get_state()[1].copy()
    first = ks_marchenko_pastur(spectra, (30, 20))
    assert module._null_distances.cache_info().misses == 1
    assert ks_marchenko_pastur(spectra, (20, 30)) == first
    assert module._null_distances.cache_info().hits == 1
    assert torch.equal(torch.get_rng_state(), state)
    assert (np.random.get_state()[1] == numpy_state).all()
    module._null_distances.cache_clear()
    assert ks_marchenko_pastur(spectra, (30, 20)) == first
    assert ks_marchenko_pastur(spectra, (30, 20), seed=1).distance == first.distance
    null = module._null_distances(30, 20, 200, 0)
    assert null.shape == (200,)
    assert (np.diff(null) > 0).all()
    assert not np.array_equal(null, module._null_distances(30, 20, 200, 1))


def test_without_draws_there_is_the_distance_alone() -> None:
    spectra = eigenvalues(gaussian(3, 30, 20))
    module._null_distances.cache_clear()
    found = ks_marchenko_pastur(spectra, (30, 20), draws=0)
    assert module._null_distances.cache_info().misses == 0
    assert found.distance == ks_marchenko_pastur(spectra, (30, 20), draws=20).distance
    assert math.isnan(found.p_value)
    assert found.reason == "no null was simulated"


@pytest.mark.parametrize(
    ("weight", "reason"),
    [
        (torch.zeros(12, 8), "all weights are zero"),
        (torch.full((12, 8), math.nan), "weights are not finite"),
        (torch.ones(12, 8), "no bulk: more than half of the shuffled eigenvalues are zero"),
        (torch.ones(0, 4), "the matrix is empty"),
    ],
)
def test_unfit_matrices(weight: torch.Tensor, reason: str) -> None:
    shuffled = shuffled_eigenvalues(weight, generator=torch.Generator().manual_seed(0))
    found = ks_marchenko_pastur(shuffled, (weight.shape[0], weight.shape[1]))
    assert found.reason == reason
    assert math.isnan(found.distance)
    assert math.isnan(found.p_value)


def test_wrong_calls() -> None:
    with pytest.raises(ValueError, match="0 draws or more, got -1"):
        ks_marchenko_pastur(torch.ones(10, 4), (6, 4), draws=-1)
    with pytest.raises(ValueError, match=r"got \(10, 5\) for a matrix of shape \(6, 4\)"):
        ks_marchenko_pastur(torch.ones(10, 5), (6, 4))
