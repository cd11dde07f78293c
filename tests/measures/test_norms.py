from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from grokscope.measures.norms import l2_norm

pytestmark = pytest.mark.usefixtures("global_rng_untouched")


def test_exact_value_over_several_shapes() -> None:
    tensors = [
        torch.tensor([[1.0, 2.0]]),
        torch.tensor(4.0),
        torch.empty(0, 3),
        torch.tensor([10.0]),
    ]
    assert l2_norm(tensors).value == 11.0  # 1 + 4 + 16 + 100
    assert l2_norm(iter(tensors)).value == 11.0


@settings(deadline=None, max_examples=50)
@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=30), st.integers(1, 30))
def test_does_not_depend_on_how_entries_are_divided(entries: list[float], cut: int) -> None:
    whole = torch.tensor(entries, dtype=torch.float64)
    truth = math.sqrt(math.fsum(x * x for x in entries))
    assert l2_norm([whole[:cut], whole[cut:].reshape(-1, 1)]).value == pytest.approx(
        truth, rel=1e-14
    )
    assert l2_norm([-whole.flip(0)]).value == pytest.approx(truth, rel=1e-14)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float32, torch.float64])
def test_accumulates_in_float64(dtype: torch.dtype) -> None:
    large, one = torch.tensor([4096.0], dtype=dtype), torch.tensor([1.0], dtype=dtype)
    truth = math.sqrt(2**24 + 1)  # float32 has no 2^24 + 1
    assert l2_norm([large, one]).value == truth
    assert l2_norm([torch.cat([one, large])]).value == truth


def test_leaves_its_argument_alone() -> None:
    parameter = torch.nn.Parameter(torch.tensor([3.0, 4.0]))
    assert l2_norm([parameter]).value == 5.0
    assert parameter.tolist() == [3.0, 4.0]
    assert parameter.grad is None


def test_says_why_a_value_is_missing() -> None:
    nothing = l2_norm([])
    assert math.isnan(nothing.value)
    assert nothing.reason == "there are no weights"
    for bad in (math.nan, math.inf):
        broken = l2_norm([torch.tensor([1.0]), torch.tensor([1.0, bad])])
        assert math.isnan(broken.value)
        assert broken.reason == "weights are not finite"


def test_refuses_a_wrong_call() -> None:
    with pytest.raises(ValueError, match=r"l2_norm: .* floating dtype, got torch.int64"):
        l2_norm([torch.tensor([1.0]), torch.tensor([1])])
