"""Other laws for a tail, against scipy, mpmath and the powerlaw package."""

import dataclasses
import math
import warnings

import mpmath
import numpy as np
import powerlaw
import pytest
import scipy.integrate
import scipy.optimize
import scipy.stats
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from grokscope.measures.power_law import PowerLawFit, fit_power_law
from grokscope.measures.spectrum import eigenvalues
from grokscope.measures.tail_alternatives import (
    Alternative,
    TailAlternatives,
    tail_alternatives,
)

pytestmark = pytest.mark.usefixtures("global_rng_untouched")

Array = NDArray[np.float64]


def of(data: Array, **options: int) -> tuple[TailAlternatives, Array, PowerLawFit]:
    """Return the alternatives, the tail and the fit."""
    values = torch.from_numpy(data)
    fit = fit_power_law(values, **options)
    return tail_alternatives(values, fit), data[data >= fit.xmin], fit


def noise_spectrum(rows: int, columns: int, seed: int) -> Array:
    generator = torch.Generator().manual_seed(seed)
    weight = torch.randn(rows, columns, dtype=torch.float64, generator=generator)
    return eigenvalues(weight).numpy()


def truncated_pareto(n: int, alpha: float, rate: float, seed: int) -> Array:
    """Draw from x^-alpha exp(-rate x), x >= 1, by rejection from the power law."""
    generator = np.random.default_rng(seed)
    kept = np.empty(0)
    while len(kept) < n:
        x = 1 + generator.pareto(alpha - 1, 4 * n)
        kept = np.concatenate([kept, x[generator.random(4 * n) < np.exp(-rate * (x - 1))]])
    return kept[:n]


def truncated_log_normal(n: int, mu: float, sigma: float, seed: int) -> Array:
    law = scipy.stats.truncnorm(-mu / sigma, np.inf, loc=mu, scale=sigma)
    return np.exp(law.rvs(n, random_state=np.random.default_rng(seed)))


rng = np.random.default_rng(0)
CASES = {
    "power law": 1 + rng.pareto(1.5, 300),
    "very heavy": 1 + rng.pareto(0.3, 300),
    "steep": 3 * (1 + rng.pareto(6.0, 300)),
    "exponential": 0.01 * rng.exponential(1.0, 300),
    "log-normal": np.exp(5 + 2 * rng.standard_normal(500)),
    "cut-off": truncated_pareto(400, 1.8, 0.05, 0),
    "noise": noise_spectrum(200, 784, 0),
    "ten eigenvalues": noise_spectrum(10, 100, 0),
    "narrow": 7 * (1 + 1e-3 * rng.random(40)),
    "far narrower": 7 * (1 + 1e-6 * rng.random(40)),
}


def log_likelihood(law: str, parameters: list[float], tail: Array, xmin: float) -> float:
    """Write the laws out."""
    if law == "exponential":
        return float(scipy.stats.expon(xmin, 1 / parameters[0]).logpdf(tail).sum())
    if law == "log_normal":
        normal = scipy.stats.lognorm(parameters[1], scale=math.exp(parameters[0]))
        return float((normal.logpdf(tail) - normal.logsf(xmin)).sum())
    alpha, rate = parameters
    if rate == 0:
        return float(scipy.stats.pareto(alpha - 1, scale=xmin).logpdf(tail).sum())
    if alpha > -100:
        with mpmath.workdps(60):  # its series cancel at large orders
            log_total = (
                float(mpmath.log(mpmath.re(mpmath.expint(alpha, rate * xmin)))) + rate * xmin
            )
    else:
        log_total = integrate(alpha, rate * xmin)[0]
    y = tail / xmin
    density = -alpha * np.log(y) - rate * xmin * (y - 1) - log_total - math.log(xmin)
    return float(density.sum())


def integrate(alpha: float, rate: float) -> tuple[float, float, float]:
    """Integrate y^-alpha exp(-rate (y - 1)) over y >= 1 in ln y, by a very fine Simpson rule.

    Returns the log of the integral and the means of ln y and of y - 1.
    """

    def exponent(u: Array) -> Array:
        return (1 - alpha) * u - rate * np.expm1(u)

    peak = max(0.0, math.log((1 - alpha) / rate)) if alpha < 1 else 0.0
    top, end = exponent(np.array(peak)), 1e-8
    while exponent(np.array(peak + end)) > top - 60:
        end *= 1.1
    u = np.linspace(max(0.0, peak - end), peak + end, 400_001)
    mass = np.exp(exponent(u) - top)
    total, logs, excess = (scipy.integrate.simpson(mass * f, x=u) for f in (1.0, u, np.expm1(u)))
    return float(math.log(total) + top), float(logs / total), float(excess / total)


@pytest.mark.parametrize("case", CASES)
@pytest.mark.parametrize("law", ["exponential", "log_normal", "truncated_power_law"])
def test_ratios_are_those_of_the_densities_written_out(case: str, law: str) -> None:
    alternatives, tail, fit = of(CASES[case])
    found: Alternative = getattr(alternatives, law)
    power_law = log_likelihood("truncated_power_law", [fit.alpha, 0.0], tail, fit.xmin)
    if found.reason:
        assert law == "log_normal"
        return
    other = log_likelihood(law, list(found.parameters.values()), tail, fit.xmin)
    # Parameters of about 1e13 leave few digits to the densities written out.
    digits = 1e-3 if case == "far narrower" else 1e-6
    assert found.log_likelihood_ratio == pytest.approx(power_law - other, abs=digits)


@pytest.mark.parametrize("case", CASES)
def test_no_other_log_normal_is_better(case: str) -> None:
    alternatives, tail, fit = of(CASES[case])
    found = alternatives.log_normal
    highest = (
        log_likelihood("truncated_power_law", [fit.alpha, 0.0], tail, fit.xmin)
        - found.log_likelihood_ratio
    )
    if found.reason:
        assert found.reason == "the best log-normal is its limit, the power law"
        assert (found.log_likelihood_ratio, found.statistic, found.p_value) == (0.0, 0.0, 1.0)
        assert all(math.isnan(value) for value in found.parameters.values())
        start = [math.log(fit.xmin), 1.0]
    else:
        start = list(found.parameters.values())
    searched = scipy.optimize.minimize(
        lambda at: -log_likelihood("log_normal", list(at), tail, fit.xmin),
        start,
        method="Nelder-Mead",
        bounds=[(start[0] - 200.0, None), (1e-9, None)],
        options={"maxfev": 500},
    )
    assert -searched.fun < highest + 1e-6


@pytest.mark.parametrize("case", CASES)
def test_no_other_truncated_power_law_is_better(case: str) -> None:
    """The likelihood is concave, and highest where both means are those of the sample."""
    alternatives, tail, fit = of(CASES[case])
    alpha, rate = alternatives.truncated_power_law.parameters.values()
    y = tail / fit.xmin
    if rate == 0:
        assert alpha == pytest.approx(fit.alpha, rel=1e-12)
        assert alternatives.truncated_power_law.p_value == 1.0
        assert np.mean(y) >= (alpha - 1) / (alpha - 2), "the mean of the power law itself"
        return
    _, logs, excess = integrate(alpha, rate * fit.xmin)
    digits = 1e-3 if case == "far narrower" else 1e-6
    assert logs == pytest.approx(np.log(y).mean(), rel=digits)
    assert excess == pytest.approx((y - 1).mean(), rel=digits)


@pytest.mark.parametrize("case", CASES)
def test_what_cannot_be(case: str) -> None:
    """A law is at least as likely as its special cases and limits."""
    alternatives, _, _ = of(CASES[case])
    truncated = alternatives.truncated_power_law.log_likelihood_ratio
    assert truncated <= 0.0
    assert truncated <= alternatives.exponential.log_likelihood_ratio + 1e-9
    assert alternatives.log_normal.log_likelihood_ratio <= 0.0


@pytest.mark.parametrize("case", sorted(CASES.keys() - {"narrow", "far narrower"}))
def test_against_the_powerlaw_package(case: str) -> None:
    alternatives, tail, fit = of(CASES[case])
    names = {
        "exponential": "exponential",
        "log_normal": "lognormal",
        "truncated_power_law": "truncated_power_law",
    }
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        reference = powerlaw.Fit(CASES[case], xmin=fit.xmin, verbose=0)
        laws = {law: getattr(reference, name) for law, name in names.items()}
        compared = {
            law: reference.distribution_compare("power_law", name) for law, name in names.items()
        }
    power_law = log_likelihood("truncated_power_law", [fit.alpha, 0.0], tail, fit.xmin)
    for law, theirs in laws.items():
        found = getattr(alternatives, law)
        parameters = [theirs.parameter1, theirs.parameter2][: len(found.parameters)]
        reached = log_likelihood(law, parameters, tail, fit.xmin)
        ours = power_law - found.log_likelihood_ratio
        assert ours > reached - 1e-8
        # It keeps every alpha within [0, 3], and stops its searches early near the limits.
        if case in ("very heavy", "log-normal", "cut-off"):
            ratio, p_value = compared[law]
            assert ours == pytest.approx(reached, abs=1e-4)
            assert found.log_likelihood_ratio == pytest.approx(ratio, abs=1e-4)
            assert found.p_value == pytest.approx(p_value, abs=1e-3)


def test_p_values_by_their_definitions() -> None:
    alternatives, tail, fit = of(CASES["cut-off"])
    power_law = scipy.stats.pareto(fit.alpha - 1, scale=fit.xmin).logpdf(tail)
    for found, law in (
        (
            alternatives.exponential,
            scipy.stats.expon(fit.xmin, 1 / alternatives.exponential.parameters["rate"]),
        ),
        (
            alternatives.log_normal,
            scipy.stats.lognorm(
                alternatives.log_normal.parameters["sigma"],
                scale=math.exp(alternatives.log_normal.parameters["mu"]),
            ),
        ),
    ):
        difference = power_law - law.logpdf(tail) + law.logsf(fit.xmin)
        normal = difference.mean() / (difference.std() / math.sqrt(len(tail)))
        assert found.statistic == pytest.approx(normal, rel=1e-7)
        assert found.p_value == pytest.approx(2 * scipy.stats.norm.sf(abs(normal)), rel=1e-7)
        assert found.test == "vuong"
    nested = alternatives.truncated_power_law
    assert nested.statistic == -2 * nested.log_likelihood_ratio
    assert nested.p_value == pytest.approx(scipy.stats.chi2(1).sf(nested.statistic), rel=1e-9)
    assert nested.test == "likelihood-ratio"


def test_planted_parameters_are_recovered() -> None:
    """Over samples the estimates scatter about the truth; each mean within 4 standard errors."""
    laws = {
        "exponential": ({"rate": 0.7}, lambda seed: 1 + exponential(seed) / 0.7),
        "log_normal": (
            {"mu": 0.5, "sigma": 0.8},
            lambda seed: truncated_log_normal(4000, 0.5, 0.8, seed),
        ),
        "truncated_power_law": (
            {"alpha": 1.6, "rate": 0.1},
            lambda seed: truncated_pareto(4000, 1.6, 0.1, seed),
        ),
    }
    for law, (truth, draw) in laws.items():
        found = [getattr(of(draw(seed), min_tail=4000)[0], law).parameters for seed in range(30)]
        for name, value in truth.items():
            estimates = np.array([parameters[name] for parameters in found])
            error = estimates.std() / math.sqrt(len(estimates))
            assert error < 0.02
            assert abs(estimates.mean() - value) < 4 * error, (law, name)


def exponential(seed: int, n: int = 4000) -> Array:
    return np.random.default_rng(seed).exponential(1.0, n)


def test_the_true_law_wins() -> None:
    power, _, _ = of(1 + np.random.default_rng(1).pareto(1.5, 1000), min_tail=1000)
    assert power.exponential.log_likelihood_ratio > 0
    assert power.exponential.p_value < 1e-3
    assert power.truncated_power_law.p_value > 0.05
    thin, _, _ = of(1 + exponential(1, 1000), min_tail=1000)
    for found in (thin.exponential, thin.log_normal, thin.truncated_power_law):
        assert found.log_likelihood_ratio < 0
        assert found.p_value < 1e-3
    normal, _, _ = of(truncated_log_normal(1000, 1.0, 0.7, 1), min_tail=1000)
    assert normal.log_normal.log_likelihood_ratio < 0
    assert normal.log_normal.p_value < 1e-3


def test_a_true_power_law_is_rejected_for_a_cut_off_half_as_often_as_stated() -> None:
    """The null holds the rate at the edge of its range: p is below x with chance x / 2."""
    p_values = []
    for seed in range(400):
        sample = 1 + np.random.default_rng(seed).pareto(2.5, 300)
        p_values.append(of(sample, min_tail=300)[0].truncated_power_law.p_value)
    rejected = int((np.array(p_values) <= 0.1).sum())
    low, high = scipy.stats.binom(400, 0.05).ppf([0.001, 0.999])
    assert low <= rejected <= high


@settings(deadline=None, max_examples=20)
@given(seed=st.integers(0, 2**31), exponent=st.integers(-60, 60))
def test_units_and_order(seed: int, exponent: int) -> None:
    data = np.exp(np.random.default_rng(seed).standard_normal(60))
    factor = 2.0**exponent
    expected, _, _ = of(data)
    found, _, _ = of(np.random.default_rng(seed).permutation(factor * data))
    for law in ("exponential", "log_normal", "truncated_power_law"):
        first, second = getattr(expected, law), getattr(found, law)
        for name in ("log_likelihood_ratio", "statistic", "p_value"):
            assert getattr(second, name) == pytest.approx(getattr(first, name), abs=1e-7)
        units = {"rate": lambda x: x / factor, "mu": lambda x: x + math.log(factor)}
        for name, value in first.parameters.items():
            converted = units.get(name, lambda x: x)(value)
            assert second.parameters[name] == pytest.approx(
                converted, rel=1e-6, abs=1e-9, nan_ok=True
            )


def test_the_tail_of_a_small_sample_in_the_other_convention() -> None:
    """There ``fit.alpha`` is not the most likely exponent; the comparison uses the one that is."""
    values = 1 + torch.from_numpy(np.random.default_rng(3).pareto(1.5, 15))
    small = fit_power_law(values, convention="weightwatcher")
    tail = values[values >= small.xmin].numpy()
    found = tail_alternatives(values, small).exponential
    slope = 1 / np.log(tail / small.xmin).mean()
    power_law = scipy.stats.pareto(slope, scale=small.xmin).logpdf(tail).sum()
    other = scipy.stats.expon(small.xmin, 1 / found.parameters["rate"]).logpdf(tail).sum()
    assert slope != pytest.approx(small.alpha - 1, rel=0.01)
    assert found.log_likelihood_ratio == pytest.approx(power_law - other, abs=1e-9)


def test_missing_fit() -> None:
    values = torch.ones(5, dtype=torch.float64)
    fit = fit_power_law(values)
    alternatives = dataclasses.asdict(tail_alternatives(values, fit))
    for found in alternatives.values():
        assert (
            found["reason"]
            == fit.reason
            == ("only 5 of 5 values are positive beyond rounding, a tail needs 10")
        )
        numbers = [*found["parameters"].values(), found["log_likelihood_ratio"], found["p_value"]]
        assert all(math.isnan(number) for number in [*numbers, found["statistic"]])


def test_wrong_calls() -> None:
    values = torch.from_numpy(CASES["power law"])
    fit = fit_power_law(values)
    with pytest.raises(ValueError, match=rf"tail has {fit.tail_size:.0f} points, got 0 of shape"):
        tail_alternatives(0.01 * values.clamp(max=2), fit)
