"""The null of alpha against exponents of directly drawn matrices."""

import math

import numpy as np
import pytest
import scipy.stats
import torch

from grokscope.measures import alpha_null as module
from grokscope.measures._noise import noise_spectra
from grokscope.measures.alpha_null import alpha_null
from grokscope.measures.power_law import fit_power_law
from grokscope.measures.spectrum import eigenvalues


def gaussian(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def direct_alphas(shape: tuple[int, int], draws: int, **options: object) -> np.ndarray:
    unit = max(shape) if options else 1
    spectra = unit * eigenvalues(gaussian(draws, *shape, seed=5))
    return np.array([fit_power_law(spectrum, **options).alpha for spectrum in spectra])


@pytest.mark.parametrize("shape", [(60, 90), (50, 50), (12, 200)])
def test_exponents_are_those_of_gaussian_matrices(shape: tuple[int, int]) -> None:
    """Two samples, at a level of 0.001."""
    n, m = max(shape), min(shape)
    spectra = torch.from_numpy(noise_spectra(n, m, 300, np.random.default_rng(0)))
    short = [fit_power_law(spectrum).alpha for spectrum in spectra]
    direct = direct_alphas(shape, 300)
    assert scipy.stats.ks_2samp(short, direct).pvalue > 1e-3
    null = alpha_null(shape, draws=300)
    assert null.mean == pytest.approx(np.mean(short), rel=1e-12)
    error = math.hypot(null.std, direct.std()) / math.sqrt(300)
    assert abs(null.mean - direct.mean()) < 4 * error
    assert null.q05 < null.mean < null.q95
    assert 0.02 < (direct < null.q05).mean() < 0.1
    assert 0.02 < (direct > null.q95).mean() < 0.1


def test_the_shape_matters() -> None:
    """The control of the test above: exponents of another shape are told apart."""
    wide = direct_alphas((12, 200), 300)
    square = direct_alphas((50, 50), 300)
    assert scipy.stats.ks_2samp(wide, square).pvalue < 1e-6
    a, b = alpha_null((12, 200)), alpha_null((50, 50))
    assert a.mean - b.mean > 4 * math.hypot(a.std, b.std) / math.sqrt(50)


def test_statistics() -> None:
    spectra = torch.from_numpy(noise_spectra(40, 30, 20, np.random.default_rng(3)))
    alphas = np.array([fit_power_law(spectrum, min_tail=5).alpha for spectrum in spectra])
    null = alpha_null((30, 40), draws=20, seed=3, min_tail=5)
    assert null.mean == pytest.approx(alphas.mean())
    assert null.std == pytest.approx(alphas.std(ddof=1))
    assert (null.q05, null.q95) == pytest.approx(tuple(np.quantile(alphas, [0.05, 0.95])))
    assert (null.draws, null.failed, null.reason) == (20, 0, "")


def test_weightwatcher_convention() -> None:
    direct = direct_alphas((30, 40), 200, convention="weightwatcher")
    null = alpha_null((30, 40), draws=200, convention="weightwatcher")
    error = math.hypot(null.std, direct.std()) / math.sqrt(200)
    assert abs(null.mean - direct.mean()) < 4 * error
    assert null.mean != alpha_null((30, 40), draws=200).mean


def test_deterministic_private_and_kept() -> None:
    module._simulated.cache_clear()
    state, numpy_state = torch.get_rng_state(), np.random.get_state()[1].copy()
    first = alpha_null((30, 20))
    assert torch.equal(torch.get_rng_state(), state)
    assert (np.random.get_state()[1] == numpy_state).all()
    assert alpha_null((20, 30)) is first
    assert module._simulated.cache_info().misses == 1
    module._simulated.cache_clear()
    assert alpha_null((30, 20)) == first
    assert alpha_null((30, 20), seed=1) != first


def test_too_few_eigenvalues() -> None:
    null = alpha_null((9, 40), draws=5)
    assert (null.draws, null.failed) == (5, 5)
    assert null.reason == (
        "5 of 5 fits to noise failed: only 9 of 9 values are positive beyond rounding, "
        "a tail needs 10"
    )
    assert all(math.isnan(value) for value in (null.mean, null.std, null.q05, null.q95))


def test_failed_fits_count_for_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    fitted = []

    def every_other(spectrum: torch.Tensor, **options: object) -> object:
        fit = fit_power_law(spectrum if len(fitted) % 2 else 0 * spectrum, **options)
        fitted.append(fit.alpha)
        return fit

    monkeypatch.setattr(module, "fit_power_law", every_other)
    module._simulated.cache_clear()
    null = alpha_null((30, 20), draws=10)
    module._simulated.cache_clear()
    assert null.failed == 5
    assert null.mean == pytest.approx(np.nanmean(fitted))
    assert null.reason == ""


def test_wrong_calls() -> None:
    with pytest.raises(ValueError, match=r"with entries, got shape \(0, 4\)"):
        alpha_null((0, 4))
    with pytest.raises(ValueError, match="at least 2 draws, got 1"):
        alpha_null((20, 20), draws=1)
    with pytest.raises(ValueError, match="min_tail of at least 2, got 1"):
        alpha_null((20, 20), min_tail=1)
