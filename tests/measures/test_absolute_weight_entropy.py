from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from grokscope.measures.absolute_weight_entropy import absolute_weight_entropy

pytestmark = pytest.mark.usefixtures("global_rng_untouched")


@pytest.mark.parametrize("c", [1e-300, 1e-3, 1 / math.e, 0.7, 1.0, 20.0])
def test_constant_matrix(c: float) -> None:
    weight = torch.full((6, 7), c, dtype=torch.float64)
    weight[::2] *= -1
    assert absolute_weight_entropy(weight).value == pytest.approx(-42 * c * math.log(c), rel=1e-13)


def test_an_entry_gives_at_most_one_over_e_and_zero_gives_nothing() -> None:
    assert absolute_weight_entropy(torch.zeros(3, 3)).value == 0.0
    grid = torch.linspace(-2, 2, 4001, dtype=torch.float64)
    each = [absolute_weight_entropy(w).value for w in grid]
    assert max(each) <= 1 / math.e
    assert grid[int(torch.tensor(each).argmax())].abs() == pytest.approx(1 / math.e, abs=1e-3)


def test_default_initialisation_at_scale_8() -> None:
    """Uniform entries on (-b, b), b = 8/28: -(b/2)(ln b - 1/2) each, 3.93e4 for 200 x 784."""
    b = 8 / 28
    generator = torch.Generator().manual_seed(0)
    weight = torch.empty(200, 784, dtype=torch.float64).uniform_(-b, b, generator=generator)
    expected = -(b / 2) * (math.log(b) - 0.5) * weight.numel()
    assert expected == pytest.approx(3.93e4, rel=1e-3)
    assert absolute_weight_entropy(weight).value == pytest.approx(expected, rel=2e-3)


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 2**31), st.floats(1e-3, 1e3))
def test_agrees_with_the_definition_and_follows_the_norm(seed: int, c: float) -> None:
    generator = torch.Generator().manual_seed(seed)
    weight = torch.randn(5, 4, dtype=torch.float64, generator=generator)
    sizes = [abs(w) for row in weight.tolist() for w in row]
    value = absolute_weight_entropy(weight).value
    assert value == pytest.approx(-math.fsum(w * math.log(w) for w in sizes), rel=1e-12, abs=1e-12)
    assert absolute_weight_entropy(-weight.T.flip(0)).value == pytest.approx(value, abs=1e-12)
    scaled = c * value - c * math.log(c) * math.fsum(sizes)
    assert absolute_weight_entropy(c * weight).value == pytest.approx(
        scaled, rel=1e-10, abs=1e-10 * c
    )


def test_leaves_its_argument_alone_and_says_why_a_value_is_missing() -> None:
    weight = torch.nn.Parameter(torch.tensor([[0.5, -2.0]]))
    absolute_weight_entropy(weight)
    assert weight.tolist() == [[0.5, -2.0]]
    broken = absolute_weight_entropy(torch.tensor([[0.5, math.nan]]))
    assert math.isnan(broken.value)
    assert broken.reason == "weights are not finite"
    assert absolute_weight_entropy(torch.empty(0, 4)).reason == "there are no weights"


def test_refuses_a_wrong_call() -> None:
    with pytest.raises(ValueError, match=r"absolute_weight_entropy: .* got torch.int64"):
        absolute_weight_entropy(torch.ones(2, 2, dtype=torch.int64))
