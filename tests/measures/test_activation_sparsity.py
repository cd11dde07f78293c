from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from grokscope.measures.activation_sparsity import activation_sparsity

pytestmark = pytest.mark.usefixtures("global_rng_untouched")


def test_comparison_is_strict() -> None:
    activations = torch.tensor([[0.0, 0.25, 0.5], [0.75, 0.2, 0.25]])
    assert activation_sparsity(activations, threshold=0.25).value == 2 / 6
    assert activation_sparsity(activations, threshold=0.26).value == 4 / 6


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 2**31), st.floats(1e-3, 3.0))
def test_agrees_with_the_definition_and_its_invariances(seed: int, threshold: float) -> None:
    generator = torch.Generator().manual_seed(seed)
    a = torch.randn(7, 5, dtype=torch.float64, generator=generator).relu()
    naive = sum(x < threshold for row in a.tolist() for x in row) / 35
    value = activation_sparsity(a, threshold=threshold).value
    assert value == naive
    assert activation_sparsity(a.flip(0).flip(1), threshold=threshold).value == value
    assert activation_sparsity(2 * a, threshold=2 * threshold).value == value
    assert activation_sparsity(a, threshold=2 * threshold).value >= value


def test_half_of_symmetric_pre_activations_are_silent() -> None:
    generator = torch.Generator().manual_seed(0)
    a = torch.randn(400, 100, generator=generator).relu()
    assert activation_sparsity(a, threshold=1e-9).value == pytest.approx(0.5, abs=5 * 0.5 / 200)


def test_leaves_its_argument_alone_and_says_why_a_value_is_missing() -> None:
    a = torch.tensor([[0.0, 1.0]], requires_grad=True)
    assert activation_sparsity(a).value == 0.5
    assert a.tolist() == [[0.0, 1.0]]
    broken = activation_sparsity(torch.tensor([[0.0, math.inf]]))
    assert math.isnan(broken.value)
    assert broken.reason == "activations are not finite"
    assert activation_sparsity(torch.empty(0, 4)).reason == "there are no activations"


def test_refuses_a_wrong_call() -> None:
    with pytest.raises(ValueError, match=r"activation_sparsity: .*\(inputs, units\), got \(2,\)"):
        activation_sparsity(torch.zeros(2))
    with pytest.raises(ValueError, match=r"floating dtype, got torch.bool"):
        activation_sparsity(torch.zeros(2, 2, dtype=torch.bool))
    for threshold in (0.0, -1.0, math.inf, math.nan):
        with pytest.raises(ValueError, match=rf"positive finite threshold, got {threshold}"):
            activation_sparsity(torch.zeros(2, 2), threshold=threshold)
