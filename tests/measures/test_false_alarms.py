"""Closed forms that fits and trap counts must meet over many draws, at stated error rates."""

import math

import numpy as np
import pytest
import scipy.stats
import torch

from grokscope.measures.correlation_traps import correlation_traps
from grokscope.measures.power_law import fit_power_law
from grokscope.measures.shuffled_spectrum import shuffled_eigenvalues
from grokscope.measures.spectrum import eigenvalues

pytestmark = pytest.mark.usefixtures("global_rng_untouched")


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def gaussian(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=seeded(seed))


@pytest.mark.parametrize("exponent", [1.5, 2.0, 3.0, 5.0])
def test_pareto_samples_recover_their_exponent_within_its_standard_error(exponent: float) -> None:
    """With the whole sample as tail the estimate is normal: z-scores of mean 0 and variance 1.

    The bounds are those of the mean and of the variance of 200 standard normal variables, each at
    a level of 0.1 percent.
    """
    seeds, n = 200, 1000
    scores = []
    for seed in range(seeds):
        sample = 1 + np.random.default_rng(seed).pareto(exponent - 1, n)
        fit = fit_power_law(torch.from_numpy(sample), min_tail=n)
        assert fit.tail_size == n
        scores.append((fit.alpha_unbiased - exponent) / fit.sigma)
    mean, variance = float(np.mean(scores)), float(np.var(scores, ddof=1))
    assert abs(mean) < scipy.stats.norm.ppf(0.9995) / math.sqrt(seeds)
    low, high = scipy.stats.chi2(seeds - 1).ppf([0.0005, 0.9995]) / (seeds - 1)
    assert low < variance < high


def test_a_free_xmin_widens_the_scatter_a_little() -> None:
    """The tail is then chosen by the data, which no standard error knows."""
    scores = []
    for seed in range(200):
        sample = 1 + np.random.default_rng(seed).pareto(1.5, 1000)
        fit = fit_power_law(torch.from_numpy(sample))
        scores.append((fit.alpha - 2.5) / fit.sigma)
    assert abs(float(np.mean(scores))) < 0.5
    assert 1.0 < float(np.std(scores)) < 2.0
    assert float(np.mean(np.abs(scores) > 3)) < 0.1


@pytest.mark.parametrize(
    ("shape", "draws", "stated"),
    [
        ((100, 200), 1000, 0.005),
        ((200, 100), 300, 0.005),
        ((100, 100), 1000, 0.005),
        ((10, 200), 2000, 0.005),
        ((20, 20), 2000, 0.03),
        ((10, 10), 2000, 0.03),
    ],
)
def test_noise_shows_traps_no_more_often_than_stated(
    shape: tuple[int, int], draws: int, stated: float
) -> None:
    """Fresh noise is its own shuffle. The count may pass the stated rate by chance only."""
    spectra = torch.cat(
        [eigenvalues(gaussian(100, *shape, seed=seed)) for seed in range(draws // 100)]
    )
    found = correlation_traps(spectra, shape)
    assert found.fraction * draws <= scipy.stats.binom(draws, stated).ppf(0.999)


def test_shuffles_of_one_noise_matrix_show_as_few() -> None:
    spectra = shuffled_eigenvalues(gaussian(100, 200), shuffles=300, generator=seeded())
    found = correlation_traps(spectra, (100, 200))
    assert found.fraction * 300 <= scipy.stats.binom(300, 0.005).ppf(0.999)


@pytest.mark.parametrize("shape", [(200, 784), (784, 200), (150, 150), (10, 200)])
@pytest.mark.parametrize("planted", [1, 2, 3])
def test_planted_entries_are_counted_exactly(shape: tuple[int, int], planted: int) -> None:
    """As many traps as strong entries, in the matrix as it was built and in its shuffles.

    Two entries share a row or a column of a shuffle with a chance that depends on the sides, and
    then count as one trap: those shuffles are told apart by where the permutation put the entries.
    """
    rows, columns = shape
    n, ratio = max(shape), min(shape) / max(shape)
    weight = gaussian(rows, columns, seed=5)
    for k in range(planted):
        weight[3 * k, 17 * k] = (-1) ** k * (4.0 + 2.0 * k) * ratio**0.25 * math.sqrt(n)
    places = [3 * k * columns + 17 * k for k in range(planted)]
    assert correlation_traps(eigenvalues(weight)[None], shape).count_mean == planted

    shuffles = 40
    spectra = shuffled_eigenvalues(weight, shuffles=shuffles, generator=seeded(1))
    generator, apart = seeded(1), 0
    for spectrum in spectra:
        position = torch.randperm(rows * columns, generator=generator).argsort()[places]
        lines = {int(p) // columns for p in position}, {int(p) % columns for p in position}
        if all(len(line) == planted for line in lines):
            apart += 1
            assert correlation_traps(spectrum[None], shape).count_mean == planted
        else:
            assert 1 <= correlation_traps(spectrum[None], shape).count_mean <= planted
    assert apart >= shuffles / 2
