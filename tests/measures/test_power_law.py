"""The power-law fit against published values, another package, scipy and a naive double loop."""

import dataclasses
import math
import warnings

import numpy as np
import powerlaw
import pytest
import scipy.stats
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from grokscope.measures import power_law
from grokscope.measures.power_law import PowerLawFit, fit_power_law
from grokscope.measures.spectrum import eigenvalues

EPS = np.finfo(np.float64).eps


def pareto_grid(n: int, exponent: float) -> torch.Tensor:
    """Place n points on the quantiles of a Pareto law whose density falls as x^-exponent."""
    k = torch.arange(n, dtype=torch.float64)
    return (1 - (k + 0.5) / n) ** (-1 / (exponent - 1))


def pareto_sample(n: int, exponent: float, seed: int) -> torch.Tensor:
    uniform = np.random.default_rng(seed).random(n)
    return torch.from_numpy((1 - uniform) ** (-1 / (exponent - 1)))


def gaussian(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def naive_fit(data: list[float], min_tail: int) -> tuple[float, float, float, int]:
    """Write the corrected definition out: every distinct xmin, every step, both of its sides."""
    cut = len(data) * EPS * max(data)
    kept = [value for value in data if value > cut]
    best = None
    for xmin in sorted(set(kept)):
        tail = sorted(value for value in kept if value >= xmin)
        n = len(tail)
        spread = math.fsum(math.log(value / xmin) for value in tail)
        if n < min_tail or spread <= 0:
            continue
        alpha = 1 + n / spread
        distance = 0.0
        for value in tail:
            fitted = 1 - (value / xmin) ** (1 - alpha)
            below = sum(other < value for other in tail) / n
            upto = sum(other <= value for other in tail) / n
            distance = max(distance, abs(fitted - below), abs(fitted - upto))
        if best is None or distance < best[1] - 1e-13:
            best = (alpha, distance, xmin, n)
    assert best is not None
    return best


def assert_missing(fit: PowerLawFit, reason: str) -> None:
    assert fit.reason == reason
    numbers = [value for name, value in dataclasses.asdict(fit).items() if name != "reason"]
    assert len(numbers) == 7
    assert all(math.isnan(number) for number in numbers)


@pytest.mark.parametrize(
    ("n", "exponent", "alpha", "xmin", "distance", "sigma"),
    [
        (200, 2.5, 2.506379, 1.001670, 0.003365, 0.106517),
        (200, 4.0, 4.012759, 1.000835, 0.003365, 0.213034),
        (40, 2.5, 2.532516, 1.008421, 0.016858, 0.242312),
        (20, 2.0, 2.044433, 1.025641, 0.033787, 0.233542),
        (19, 2.0, 1.991794, 1.027027, 0.024792, 0.227533),  # small-sample branch
        (12, 2.5, 2.480328, 1.028779, 0.038030, 0.427334),
    ],
)
def test_weightwatcher_on_a_pareto_grid(
    n: int, exponent: float, alpha: float, xmin: float, distance: float, sigma: float
) -> None:
    """Values that WeightWatcher 0.7.7 gives."""
    fit = fit_power_law(pareto_grid(n, exponent), convention="weightwatcher")
    assert fit.alpha == pytest.approx(alpha, abs=1e-6)
    assert fit.xmin == pytest.approx(xmin, abs=1e-6)
    assert fit.ks_distance == pytest.approx(distance, abs=1e-6)
    assert fit.sigma == pytest.approx(sigma, abs=1e-6)
    assert fit.tail_size == n
    assert fit.reason == ""


def test_weightwatcher_on_a_structured_matrix() -> None:
    """Values that WeightWatcher gives for W_ij = sin(1 + 0.7 i^2 + 1.3 j^2 + 0.37 i j)."""
    i = torch.arange(100, dtype=torch.float64)[:, None]
    j = torch.arange(200, dtype=torch.float64)
    found = 200 * eigenvalues(torch.sin(1 + 0.7 * i**2 + 1.3 * j**2 + 0.37 * i * j))
    assert float(found.sum()) == pytest.approx(9941.7933, rel=1e-8)
    assert float(found.max()) == pytest.approx(417.4530, rel=1e-6)
    fit = fit_power_law(found, convention="weightwatcher")
    assert fit.alpha == pytest.approx(2.206800, abs=1e-6)
    assert fit.xmin == pytest.approx(82.392093, rel=1e-7)
    assert fit.ks_distance == pytest.approx(0.157395, abs=1e-6)
    assert fit.tail_size == 41


def test_weightwatcher_cut_is_absolute_and_the_corrected_one_is_not() -> None:
    weight = (torch.rand(200, 200, generator=torch.Generator().manual_seed(3)) * 2 - 1) / 200**0.5
    small = 200 * eigenvalues(1e-4 * weight)
    assert_missing(
        fit_power_law(small, convention="weightwatcher"),
        "only 0 of 200 values are above 1e-5, a tail needs 2",
    )
    expected = fit_power_law(200 * eigenvalues(weight))
    assert fit_power_law(small).alpha == pytest.approx(expected.alpha, rel=1e-6)


def reference_fit(data: torch.Tensor, **options: float) -> powerlaw.Fit:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        fit = powerlaw.Fit(data.numpy(), verbose=0, **options)
        assert math.isfinite(fit.power_law.alpha)
        return fit


@pytest.mark.parametrize("seed", range(4))
def test_weightwatcher_agrees_with_the_powerlaw_package(seed: int) -> None:
    data = torch.cat([pareto_sample(150, 2.5, seed), gaussian(50, seed=seed).abs()])
    fit = fit_power_law(data, convention="weightwatcher")
    reference = reference_fit(data)
    assert fit.alpha == pytest.approx(reference.power_law.alpha, rel=1e-9)
    assert fit.xmin == pytest.approx(reference.power_law.xmin, rel=1e-12)
    assert fit.ks_distance == pytest.approx(reference.power_law.D, rel=1e-8)


@pytest.mark.parametrize("seed", range(4))
def test_corrected_agrees_with_powerlaw_and_scipy_at_its_own_xmin(seed: int) -> None:
    data = torch.cat([pareto_sample(150, 2.5, seed), gaussian(50, seed=seed).abs()])
    fit = fit_power_law(data)
    reference = reference_fit(data, xmin=fit.xmin)
    assert fit.alpha == pytest.approx(reference.power_law.alpha, rel=1e-9)
    assert fit.sigma == pytest.approx(reference.power_law.standard_err, rel=1e-9)
    tail = data[data >= fit.xmin].numpy()
    assert fit.tail_size == len(tail)
    law = scipy.stats.pareto(fit.alpha - 1, scale=fit.xmin)
    assert fit.ks_distance == pytest.approx(scipy.stats.kstest(tail, law.cdf).statistic, rel=1e-9)


CASES = {
    "pareto": pareto_sample(120, 3.0, 1),
    "noise spectrum": eigenvalues(gaussian(150, 90)),
    "ties": (pareto_sample(150, 2.2, 2) * 4).round(),
    "zeros": torch.cat([torch.zeros(30, dtype=torch.float64), pareto_sample(60, 2.0, 3)]),
    "shortest": pareto_sample(10, 2.0, 4),
    "wide range": torch.logspace(-14, 3, 100, dtype=torch.float64),
}


@pytest.mark.parametrize("min_tail", [2, 10])
@pytest.mark.parametrize("name", CASES)
def test_corrected_agrees_with_the_definition_written_out(name: str, min_tail: int) -> None:
    alpha, distance, xmin, size = naive_fit(CASES[name].tolist(), min_tail)
    fit = fit_power_law(CASES[name], min_tail=min_tail)
    assert fit.alpha == pytest.approx(alpha, rel=1e-9)
    assert fit.ks_distance == pytest.approx(distance, rel=1e-9)
    assert fit.xmin == xmin
    assert fit.tail_size == size
    assert fit.sigma == pytest.approx((alpha - 1) / math.sqrt(size), rel=1e-9)


@pytest.mark.parametrize("convention", ["corrected", "weightwatcher"])
@pytest.mark.parametrize("kind", ["pareto", "grid", "noise", "ties"])
def test_tails_that_are_passed_over_could_not_have_won(
    kind: str, convention: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = {
        "pareto": pareto_sample(600, 2.5, 5),
        "grid": pareto_grid(600, 2.5),
        "noise": 600 * eigenvalues(gaussian(600, 600)),
        "ties": (pareto_sample(600, 2.2, 2) * 4).round(),
    }[kind]
    fit = fit_power_law(data, convention=convention)
    monkeypatch.setattr(power_law, "_PROBES", 1)  # the first point alone rules out no tail
    monkeypatch.setattr(power_law, "_BLOCK", 600)
    assert fit_power_law(data, convention=convention) == fit


def test_most_tails_of_a_spectrum_are_passed_over(monkeypatch: pytest.MonkeyPatch) -> None:
    looked_at = []
    whole = power_law._ks_distances

    def count(*arguments: torch.Tensor) -> torch.Tensor:
        looked_at.append(len(arguments[2]))
        return whole(*arguments)

    monkeypatch.setattr(power_law, "_ks_distances", count)
    fit_power_law(eigenvalues(gaussian(500, 1000)))
    bounded, *full = looked_at
    assert bounded == 491
    assert sum(full) < 150


def test_the_unbiased_exponent_and_the_largest_value() -> None:
    data = torch.cat([pareto_sample(60, 2.5, 1), gaussian(20).abs()])
    fit = fit_power_law(data)
    tail = data[data >= fit.xmin]
    spread = float((tail / fit.xmin).log().sum())
    assert fit.alpha_unbiased == pytest.approx(1 + (len(tail) - 1) / spread, rel=1e-12)
    assert fit.xmax == float(data.max())
    few = fit_power_law(pareto_sample(15, 2.5, 2), convention="weightwatcher")
    assert few.alpha_unbiased == few.alpha  # its small-sample branch is that estimate


@pytest.mark.parametrize("exponent", [1.5, 2.0, 3.0, 5.0])
def test_a_planted_exponent_is_recovered_within_its_standard_error(exponent: float) -> None:
    """With xmin known the estimate is normal to a good approximation; a free xmin widens it."""
    errors = []
    for seed in range(20):
        fit = fit_power_law(pareto_sample(1000, exponent, seed))
        errors.append((fit.alpha - exponent) / fit.sigma)
    assert np.abs(errors).max() < 4.0
    assert abs(np.mean(errors)) < 1.0


def test_the_onset_of_a_planted_tail_is_found() -> None:
    body = torch.rand(1000, dtype=torch.float64, generator=torch.Generator().manual_seed(1)).sqrt()
    fit = fit_power_law(torch.cat([body * 5, 5 * pareto_sample(1000, 2.5, 6)]))
    assert fit.xmin == pytest.approx(5.0, rel=0.2)
    assert abs(fit.alpha - 2.5) < 4 * fit.sigma


def test_noise_has_no_heavy_tail() -> None:
    fit = fit_power_law(eigenvalues(gaussian(784, 200)))
    assert fit.alpha > 4.0


@settings(deadline=None, max_examples=25)
@given(
    rows=st.integers(12, 40),
    columns=st.integers(12, 40),
    seed=st.integers(0, 2**31),
    factor=st.floats(1e-6, 1e6),
)
def test_invariances(rows: int, columns: int, seed: int, factor: float) -> None:
    # Cubed entries: a spectrum with outliers, and never two candidates of equal distance.
    weight = gaussian(rows, columns, seed=seed) ** 3
    expected = fit_power_law(eigenvalues(weight))
    left = torch.linalg.qr(gaussian(rows, rows, seed=seed + 1)).Q
    order = torch.randperm(min(rows, columns), generator=torch.Generator().manual_seed(seed + 2))
    for fit in (
        fit_power_law(eigenvalues(factor * weight)),
        fit_power_law(eigenvalues(weight.T)),
        fit_power_law(eigenvalues(left @ weight)),
        fit_power_law(eigenvalues(weight)[order]),
    ):
        # A square matrix may have an eigenvalue so small that only its size differs.
        assert fit.tail_size == expected.tail_size
        assert fit.alpha == pytest.approx(expected.alpha, rel=1e-6)
        assert fit.ks_distance == pytest.approx(expected.ks_distance, rel=1e-6)


def test_data_and_global_random_state_are_left_alone() -> None:
    data = pareto_sample(50, 2.0, 7)
    before, state = data.clone(), torch.get_rng_state()
    fit_power_law(data)
    assert torch.equal(data, before)
    assert torch.equal(torch.get_rng_state(), state)


def test_the_smallest_layer_has_exactly_one_candidate() -> None:
    fit = fit_power_law(eigenvalues(gaussian(10, 100)))
    assert fit.tail_size == 10


def test_unfit_data() -> None:
    zero = torch.zeros(20, dtype=torch.float64)
    assert_missing(
        fit_power_law(zero), "only 0 of 20 values are positive beyond rounding, a tail needs 10"
    )
    assert_missing(
        fit_power_law(-pareto_sample(20, 2.0, 0)),
        "only 0 of 20 values are positive beyond rounding, a tail needs 10",
    )
    assert_missing(
        fit_power_law(pareto_sample(9, 2.0, 0)),
        "only 9 of 9 values are positive beyond rounding, a tail needs 10",
    )
    assert_missing(
        fit_power_law(torch.zeros(0)),
        "only 0 of 0 values are positive beyond rounding, a tail needs 10",
    )
    for bad in (math.nan, math.inf):
        data = pareto_sample(20, 2.0, 0)
        data[3] = bad
        assert_missing(fit_power_law(data), "data are not finite")


@pytest.mark.parametrize("convention", ["corrected", "weightwatcher"])
def test_constant_data_have_no_exponent(convention: str) -> None:
    fit = fit_power_law(torch.full((30,), 3.0), convention=convention)
    assert_missing(fit, "the values of every tail are equal, which no power law fits")


def test_an_orthogonal_matrix_has_no_exponent() -> None:
    found = eigenvalues(torch.linalg.qr(gaussian(80, 40)).Q)
    assert found.unique().numel() > 1, "the control: the values differ by rounding"
    assert_missing(
        fit_power_law(found), "the values of every tail are equal, which no power law fits"
    )


def test_a_matrix_of_rank_one_has_no_exponent() -> None:
    found = eigenvalues(torch.outer(gaussian(30), gaussian(20, seed=1)))
    assert_missing(
        fit_power_law(found), "only 1 of 20 values are positive beyond rounding, a tail needs 10"
    )


def test_wrong_calls() -> None:
    with pytest.raises(ValueError, match=r"shape \(n,\), got torch\.float32 of shape \(3, 4\)"):
        fit_power_law(torch.ones(3, 4))
    with pytest.raises(ValueError, match=r"got torch\.int64 of shape \(3,\)"):
        fit_power_law(torch.ones(3, dtype=torch.int64))
    with pytest.raises(ValueError, match=r"'corrected' or 'weightwatcher', got 'ww'"):
        fit_power_law(torch.ones(30), convention="ww")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"min_tail of at least 2, got 1"):
        fit_power_law(torch.ones(30), min_tail=1)
