"""Tracy-Widom quantiles against scipy and published tables, and the edge against simulation."""

import math

import pytest
import scipy.stats
import torch

from grokscope.measures.tracy_widom import edge_threshold, tracy_widom_quantile


@pytest.mark.parametrize(
    ("probability", "exact"), [(0.90, 0.450), (0.95, 0.979), (0.99, 2.023), (0.999, 3.27)]
)
def test_quantiles_are_near_the_published_ones(probability: float, exact: float) -> None:
    assert tracy_widom_quantile(probability) == pytest.approx(exact, abs=0.03)


@pytest.mark.parametrize("probability", [1e-6, 0.01, 0.3, 0.5, 0.9, 0.95, 0.99, 0.999, 1 - 1e-6])
def test_quantiles_are_those_of_the_shifted_gamma_law(probability: float) -> None:
    law = scipy.stats.gamma(46.446, scale=0.186054, loc=-9.84801)
    assert tracy_widom_quantile(probability) == pytest.approx(law.ppf(probability), abs=1e-7)


@pytest.mark.parametrize("shape", [(60, 100), (60, 60), (10, 100)])
def test_noise_exceeds_the_threshold_as_often_as_it_should(shape: tuple[int, int]) -> None:
    """At scale known and quantile 0.9, Johnstone's asymptotics err to the cautious side."""
    draws = 1000
    weight = 0.5 * torch.randn(
        draws, *shape, dtype=torch.float64, generator=torch.Generator().manual_seed(1)
    )
    largest = torch.linalg.svdvals(weight)[:, 0] ** 2 / max(shape)
    rate = float((largest > edge_threshold(shape, 0.25, quantile=0.9)).double().mean())
    assert 0.04 < rate < 0.1 + 4 * math.sqrt(0.09 / draws)


def test_threshold_by_hand() -> None:
    # N = 101, M = 25: mu = 15^2, s = 15 * 0.3^(1/3).
    expected = (225 + 15 * 0.3 ** (1 / 3) * tracy_widom_quantile(0.999)) / 101
    assert edge_threshold((25, 101)) == pytest.approx(expected, rel=1e-12)
    assert edge_threshold((101, 25), 2.0) == pytest.approx(2 * expected, rel=1e-12)


def test_threshold_nears_the_marchenko_pastur_edge_of_large_matrices() -> None:
    assert edge_threshold((10**8, 10**8 // 4)) == pytest.approx(1.5**2, rel=1e-4)
    assert edge_threshold((200, 784)) > (1 + math.sqrt(200 / 784)) ** 2


def test_wrong_calls() -> None:
    for probability in (0.0, 1.0, -0.5, math.nan):
        with pytest.raises(ValueError, match="strictly between 0 and 1, got"):
            tracy_widom_quantile(probability)
    for shape in ((1, 1), (0, 5)):
        with pytest.raises(ValueError, match=r"at least 2 entries, got shape"):
            edge_threshold(shape)
