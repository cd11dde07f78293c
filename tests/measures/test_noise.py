"""The short way to spectra of noise against directly drawn matrices."""

import numpy as np
import pytest
import scipy.stats
import torch

from grokscope.measures._noise import noise_spectra
from grokscope.measures.spectrum import eigenvalues


def gaussian(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize(("n", "m"), [(60, 40), (30, 30), (100, 10), (5, 1)])
def test_they_are_those_of_gaussian_matrices(n: int, m: int) -> None:
    short = noise_spectra(n, m, 600, np.random.default_rng(1))
    direct = eigenvalues(gaussian(600, n, m, seed=2)).numpy()
    assert short.shape == (600, m)
    assert (np.diff(short, axis=1) >= 0).all()
    assert (short >= 0).all()
    for statistic in (
        lambda spectra: spectra[:, -1],
        lambda spectra: spectra[:, 0],
        lambda spectra: spectra.mean(axis=1),
        lambda spectra: np.median(spectra, axis=1),
        lambda spectra: (spectra**2).mean(axis=1),
    ):
        assert scipy.stats.ks_2samp(statistic(short), statistic(direct)).pvalue > 1e-3


def test_a_wrong_shape_would_be_noticed() -> None:
    """The control of the test above: one row more is seen."""
    short = noise_spectra(31, 30, 600, np.random.default_rng(1))
    direct = eigenvalues(gaussian(600, 30, 30, seed=2)).numpy()
    assert scipy.stats.ks_2samp(short[:, 0], direct[:, 0]).pvalue < 1e-3


@pytest.mark.parametrize(("n", "m"), [(50, 30), (20, 20), (3, 1)])
def test_the_eigenvalues_are_those_of_the_bidiagonal_form(n: int, m: int) -> None:
    found = noise_spectra(n, m, 2, np.random.default_rng(3))
    generator = np.random.default_rng(3)
    diagonal = np.sqrt(generator.chisquare(np.arange(n, n - m, -1), (2, m)))
    below = np.sqrt(generator.chisquare(np.arange(m - 1, 0, -1), (2, m - 1)))
    for spectrum, d, b in zip(found, diagonal, below, strict=True):
        singular = np.linalg.svd(np.diag(d) + np.diag(b, -1), compute_uv=False)
        np.testing.assert_allclose(spectrum, singular[::-1] ** 2 / n, rtol=1e-10, atol=1e-14)
