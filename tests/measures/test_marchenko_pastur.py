"""The Marchenko-Pastur law against quadrature, exact moments and random matrices."""

import math
import subprocess
import sys

import numpy as np
import pytest
import scipy.integrate
import scipy.optimize

from grokscope.measures.marchenko_pastur import cdf, density, edges, median, scale_from_median

RATIOS = [1.0, 0.999, 0.5, 200 / 784, 0.1, 0.05, 1e-3]


def integral(function, ratio: float, scale: float, upto: float | None = None) -> float:
    """Integrate over the support, x = low + (high - low) sin^2 t, which tames both edges."""
    low, high = edges(ratio, scale)
    end = math.pi / 2
    if upto is not None:
        end = math.asin(math.sqrt((upto - low) / (high - low)))

    def integrand(t: float) -> float:
        x = low + (high - low) * math.sin(t) ** 2
        return float(function(x)) * (high - low) * math.sin(2 * t)

    # The outermost sliver, where a divergent density meets a vanishing step, is below 1e-8.
    return scipy.integrate.quad(integrand, 1e-9, end, epsabs=1e-11, limit=200)[0]


@pytest.mark.parametrize("scale", [1.0, 0.03])
@pytest.mark.parametrize("ratio", RATIOS)
def test_density_has_the_exact_moments(ratio: float, scale: float) -> None:
    def moment(power: int) -> float:
        return integral(lambda x: x**power * density(x, ratio, scale), ratio, scale)

    assert moment(0) == pytest.approx(1.0, abs=1e-8)
    assert moment(1) == pytest.approx(scale, rel=1e-8)
    assert moment(2) == pytest.approx(scale**2 * (1 + ratio), rel=1e-8)
    assert moment(3) == pytest.approx(scale**3 * (1 + 3 * ratio + ratio**2), rel=1e-8)


@pytest.mark.parametrize("scale", [1.0, 7.0])
@pytest.mark.parametrize("ratio", RATIOS)
def test_cdf_is_the_integral_of_the_density(ratio: float, scale: float) -> None:
    low, high = edges(ratio, scale)
    for share in (1e-4, 0.01, 0.2, 0.5, 0.9, 0.999):
        x = low + share * (high - low)
        expected = integral(lambda t: density(t, ratio, scale), ratio, scale, upto=x)
        assert float(cdf(x, ratio, scale)) == pytest.approx(expected, abs=2e-8)


@pytest.mark.parametrize("ratio", RATIOS)
def test_cdf_is_monotone_from_0_to_1(ratio: float) -> None:
    low, high = edges(ratio)
    grid = np.linspace(low, high, 2001)
    values = cdf(grid, ratio)
    assert values[0] == 0.0
    assert values[-1] == pytest.approx(1.0, abs=1e-12)
    assert (np.diff(values) >= -1e-12).all()
    assert float(cdf(low - 1.0, ratio)) == 0.0
    assert float(cdf(high + 1.0, ratio)) == pytest.approx(1.0, abs=1e-12)


@pytest.mark.parametrize(
    ("ratio", "expected"), [(0.5, 0.83046), (200 / 784, 0.91427), (0.1, 0.96656), (0.05, 0.98331)]
)
def test_tabulated_medians(ratio: float, expected: float) -> None:
    assert median(ratio) == pytest.approx(expected, abs=1e-5)
    assert median(ratio, 3.0) == pytest.approx(3 * expected, abs=3e-5)


def test_median_of_a_square_matrix_is_that_of_a_squared_semicircle() -> None:
    angle = scipy.optimize.brentq(lambda t: t + math.sin(t) - math.pi / 2, 0.0, 2.0)
    assert median(1.0) == pytest.approx(4 * math.sin(angle / 2) ** 2, rel=1e-12)
    assert median(1.0) == pytest.approx(0.65278, abs=1e-5)


@pytest.mark.parametrize("ratio", RATIOS)
def test_half_of_the_law_lies_below_its_median(ratio: float) -> None:
    assert float(cdf(median(ratio, 2.0), ratio, 2.0)) == pytest.approx(0.5, abs=1e-12)


def noise_spectrum(n: int, m: int, scale: float, seed: int) -> np.ndarray:
    weight = np.random.default_rng(seed).normal(0.0, math.sqrt(scale), (n, m))
    return np.linalg.svd(weight, compute_uv=False)[::-1] ** 2 / n


@pytest.mark.parametrize(("n", "m"), [(784, 200), (200, 200)])
def test_random_matrices_follow_the_law(n: int, m: int) -> None:
    spectrum = noise_spectrum(n, m, 0.3, seed=4)
    steps = np.arange(m + 1) / m
    law = cdf(spectrum, m / n, 0.3)
    assert max((steps[1:] - law).max(), (law - steps[:-1]).max()) < 0.025
    wrong = cdf(spectrum, m / n, 0.36)
    assert max((steps[1:] - wrong).max(), (wrong - steps[:-1]).max()) > 0.05
    assert float(scale_from_median(spectrum, m / n)) == pytest.approx(0.3, rel=0.05)


def test_scale_from_median_shrugs_at_outliers() -> None:
    spectra = np.stack([noise_spectrum(784, 200, 2.0, seed=5)] * 2)
    spectra[1, -5:] = 1e3
    scales = scale_from_median(spectra, 200 / 784)
    assert scales.shape == (2,)
    assert scales[1] == scales[0] == pytest.approx(2.0, rel=0.02)
    assert spectra[1].mean() > 20.0


def test_density_off_and_at_the_ends_of_its_support() -> None:
    values = density([-1.0, 0.0, 5.0, math.nan], 1.0)
    assert values[0] == 0.0
    assert values[1] == math.inf
    assert values[2] == 0.0
    assert math.isnan(values[3])
    assert float(density(0.0, 0.5)) == 0.0
    assert math.isnan(cdf(math.nan, 0.5))


def test_shapes_are_kept() -> None:
    x = np.linspace(0.1, 2.0, 6).reshape(2, 3)
    assert density(x, 0.5).shape == cdf(x, 0.5).shape == (2, 3)


@pytest.mark.parametrize("ratio", [0.0, -0.1, 1.0001, math.nan])
def test_ratio_out_of_range(ratio: float) -> None:
    for call in (edges, median, lambda r: cdf(0.5, r), lambda r: scale_from_median([1.0], r)):
        with pytest.raises(ValueError, match=r"ratio M / N in \(0, 1\], got"):
            call(ratio)


@pytest.mark.parametrize("scale", [0.0, -1.0, math.inf, math.nan])
def test_scale_out_of_range(scale: float) -> None:
    for call in (edges, median, lambda r, s: density(0.5, r, s)):
        with pytest.raises(ValueError, match=r"positive finite scale, got"):
            call(0.5, scale)


@pytest.mark.parametrize("name", ["marchenko_pastur", "tracy_widom"])
def test_the_laws_need_no_torch(name: str) -> None:
    program = f"import grokscope.measures.{name}, sys; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
