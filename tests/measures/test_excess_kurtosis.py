"""Excess kurtosis against scipy, its invariances, and what it is missing for."""

import math

import pytest
import scipy.stats
import torch

from grokscope.measures import excess_kurtosis as module
from grokscope.measures.excess_kurtosis import excess_kurtosis


def gaussian(*shape: int) -> torch.Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(0))


def test_is_that_of_scipy() -> None:
    for weight in (
        gaussian(30, 40),
        gaussian(30, 40) ** 3,
        gaussian(7).sign(),
        gaussian(5, 6).exp(),
    ):
        expected = scipy.stats.kurtosis(weight.numpy(), axis=None)
        assert excess_kurtosis(weight).value == pytest.approx(expected, rel=1e-10, abs=1e-12)


def test_scale_shift_order_and_pieces_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    weight = gaussian(30, 40) ** 3
    expected = pytest.approx(excess_kurtosis(weight).value, rel=1e-9)
    for other in (-1e-200 * weight, 1e200 * weight, weight + 5, weight.T, weight.flip(0).flatten()):
        assert excess_kurtosis(other).value == expected
    monkeypatch.setattr(module, "_PIECE", 7)
    assert excess_kurtosis(weight).value == expected


def test_noise_of_a_known_law() -> None:
    weight = gaussian(300, 300)
    assert abs(excess_kurtosis(weight).value) < 5 * math.sqrt(24 / 90_000)
    assert excess_kurtosis(weight.sign()).value == pytest.approx(-2.0, abs=1e-3)


def test_what_has_none() -> None:
    assert excess_kurtosis(torch.zeros(0, 3)).reason == "there are no weights"
    assert excess_kurtosis(torch.zeros(2, 3)).reason == "all weights are zero"
    assert excess_kurtosis(torch.full((50, 3), 0.1)).reason == "all weights are equal"
    assert excess_kurtosis(torch.tensor([1.0, math.nan])).reason == "weights are not finite"
    with pytest.raises(ValueError, match="real floating"):
        excess_kurtosis(torch.ones(3, dtype=torch.int64))
