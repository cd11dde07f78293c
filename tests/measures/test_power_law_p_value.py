"""The bootstrap test: its level, its power, and the synthetic samples it draws."""

import dataclasses
import math

import numpy as np
import pytest
import scipy.stats
import torch
from numpy.typing import NDArray

from grokscope.measures.power_law import fit_power_law
from grokscope.measures.power_law_p_value import power_law_p_value

pytestmark = pytest.mark.usefixtures("global_rng_untouched")


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def pareto(n: int, exponent: float, seed: int) -> NDArray[np.float64]:
    return 1 + np.random.default_rng(seed).pareto(exponent - 1, n)


def p_value(data: NDArray[np.float64], *, seed: int, draws: int, min_tail: int = 10) -> float:
    values = torch.from_numpy(data)
    found = power_law_p_value(
        values,
        fit_power_law(values, min_tail=min_tail),
        draws=draws,
        generator=seeded(seed),
        min_tail=min_tail,
    )
    assert found.reason == ""
    return found.value


def test_p_values_of_power_laws_are_uniform_where_the_whole_sample_is_the_tail() -> None:
    """There the distance does not depend on the exponent: the bootstrap is exact.

    Of 25 distances of equal standing, the rank of the data's own is uniform; a uniform variable
    within the rank makes the p-value continuous.
    """
    draws, seeds = 24, 150
    p_values = [
        p_value(pareto(60, 2.5, seed), seed=seed, draws=draws, min_tail=60) for seed in range(seeds)
    ]
    within = np.random.default_rng(0).random(seeds)
    ranks = (np.array(p_values) * draws + within) / (draws + 1)
    assert scipy.stats.kstest(ranks, "uniform").pvalue > 0.01


def test_power_laws_are_not_rejected_too_often() -> None:
    """With xmin fitted too the test errs to the cautious side: at 0.1 it rejects less than that."""
    seeds = 60
    rejected = 0
    for seed in range(seeds):
        body = np.random.default_rng(1000 + seed).random(100)
        sample = np.concatenate([body, pareto(100, 2.5, seed)])
        rejected += p_value(sample, seed=seed, draws=40) <= 0.1
    assert rejected <= scipy.stats.binom(seeds, 0.1).ppf(0.99)


def test_exponential_samples_are_rejected() -> None:
    for seed in range(10):
        sample = 1 + np.random.default_rng(seed).exponential(0.5, 1000)
        assert p_value(sample, seed=seed, draws=50, min_tail=500) <= 0.02


def test_power_law_of_the_same_size_is_not_rejected() -> None:
    p_values = [p_value(pareto(1000, 2.5, s), seed=s, draws=50, min_tail=500) for s in range(10)]
    assert np.median(p_values) > 0.1


def test_the_synthetic_samples_are_those_of_the_procedure(monkeypatch: pytest.MonkeyPatch) -> None:
    """Body values come from below xmin, the tail from the law, in the shares of the data."""
    data = np.concatenate([np.linspace(0.0, 0.9, 300), pareto(300, 2.5, 0)])
    values = torch.from_numpy(data)
    fit = fit_power_law(values)
    seen = []

    def watched(sample: torch.Tensor, **options: object) -> object:
        seen.append(sample.numpy())
        return fit_power_law(sample, **options)

    monkeypatch.setattr("grokscope.measures.power_law_p_value.fit_power_law", watched)
    power_law_p_value(values, fit, draws=50, generator=seeded())
    assert all(len(sample) == len(data) for sample in seen)
    pooled = np.concatenate(seen)
    below = pooled[pooled < fit.xmin]
    tail = pooled[pooled >= fit.xmin]
    share = fit.tail_size / len(data)
    spread = math.sqrt(share * (1 - share) / len(pooled))
    assert abs(len(tail) / len(pooled) - share) < 4 * spread
    assert set(below) == set(data[data < fit.xmin]), "each of them drawn, and nothing else"
    law = scipy.stats.pareto(fit.alpha - 1, scale=fit.xmin)
    assert scipy.stats.kstest(tail, law.cdf).pvalue > 0.01
    sizes = np.array([(sample >= fit.xmin).sum() for sample in seen])
    assert 0.5 < sizes.std() / math.sqrt(share * (1 - share) * len(data)) < 1.5


@pytest.mark.parametrize("exponent", [2.5, 1.1])
def test_share_of_distances_by_hand(exponent: float, monkeypatch: pytest.MonkeyPatch) -> None:
    values = torch.from_numpy(pareto(30, 2.5, 0))
    fit = fit_power_law(values, min_tail=20)
    fit = dataclasses.replace(fit, alpha=exponent, ks_distance=0.12)
    distances = []

    def watched(sample: torch.Tensor, **options: object) -> object:
        refit = fit_power_law(sample, **options)
        distances.append(refit.ks_distance)
        return refit

    monkeypatch.setattr("grokscope.measures.power_law_p_value.fit_power_law", watched)
    found = power_law_p_value(values, fit, draws=40, generator=seeded(), min_tail=20)
    fitted = np.array([distance for distance in distances if not math.isnan(distance)])
    # At exponents near 1 the largest draw pushes others below the cut of the fit.
    assert (0 < len(fitted) < 40) == (exponent == 1.1)
    assert found.value == np.mean(fitted >= fit.ks_distance)
    assert 0.0 < found.value < 1.0


def test_same_seed_same_value_and_units_do_not_matter() -> None:
    data = pareto(100, 2.5, 1)
    first = p_value(data, seed=3, draws=30)
    assert p_value(data, seed=3, draws=30) == first
    assert p_value(data[::-1].copy(), seed=3, draws=30) == first
    assert p_value(2.0**40 * data, seed=3, draws=30) == first
    assert len({p_value(data, seed=seed, draws=30) for seed in range(4, 9)}) > 1


def test_the_convention_is_that_of_the_fit() -> None:
    values = torch.from_numpy(pareto(40, 2.5, 2))
    fit = fit_power_law(values, convention="weightwatcher")
    options = {"convention": "weightwatcher", "draws": 40}
    right = power_law_p_value(values, fit, generator=seeded(), **options)
    wrong = power_law_p_value(values, fit, generator=seeded(), draws=40)
    # The other distance looks at both sides of a step, and is larger.
    assert right.value < wrong.value


def test_no_synthetic_sample_can_be_fitted() -> None:
    values = torch.from_numpy(pareto(30, 2.5, 0))
    fit = dataclasses.replace(fit_power_law(values), alpha=1.001)
    found = power_law_p_value(values, fit, draws=20, generator=seeded())
    assert math.isnan(found.value)
    assert found.reason == "no synthetic sample of the fitted law can be fitted"


def test_missing_fit() -> None:
    values = torch.ones(5, dtype=torch.float64)
    found = power_law_p_value(values, fit_power_law(values), generator=seeded())
    assert math.isnan(found.value)
    assert found.reason == "only 5 of 5 values are positive beyond rounding, a tail needs 10"


def test_wrong_calls() -> None:
    values = torch.from_numpy(pareto(50, 2.5, 0))
    fit = fit_power_law(values)
    with pytest.raises(ValueError, match="at least 1 draw, got 0"):
        power_law_p_value(values, fit, draws=0, generator=seeded())
    with pytest.raises(ValueError, match=rf"tail has {fit.tail_size:.0f} points, got 0 of shape"):
        power_law_p_value(0.001 * values.clamp(max=9), fit, generator=seeded())
