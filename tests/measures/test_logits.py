from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from grokscope.measures.logits import logit_scale, softmax_collapse_rate

pytestmark = pytest.mark.usefixtures("global_rng_untouched")
BITS = {torch.float16: 11, torch.bfloat16: 8, torch.float32: 24, torch.float64: 53}


def test_logit_scale_is_exact() -> None:
    logits = torch.tensor([[3.0, 4.0], [0.0, -1.0]])
    assert logit_scale(logits).value == 3.0


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 2**31), st.floats(-100, 100).filter(lambda c: abs(c) > 1e-3))
def test_logit_scale_scales_and_ignores_rotations(seed: int, c: float) -> None:
    generator = torch.Generator().manual_seed(seed)
    z = torch.randn(9, 4, dtype=torch.float64, generator=generator)
    q, _ = torch.linalg.qr(torch.randn(4, 4, dtype=torch.float64, generator=generator))
    value = logit_scale(z).value
    assert value == pytest.approx(sum(math.hypot(*row) for row in z.tolist()) / 9, rel=1e-14)
    assert logit_scale(c * z).value == pytest.approx(abs(c) * value, rel=1e-12)
    assert logit_scale(z @ q).value == pytest.approx(value, rel=1e-12)


@pytest.mark.parametrize("dtype", list(BITS))
@pytest.mark.parametrize("classes", [2, 10, 113])
def test_collapse_starts_between_the_derived_gaps(dtype: torch.dtype, classes: int) -> None:
    low = BITS[dtype] * math.log(2)
    high = low + math.log(classes - 1)
    # Finest steps that the precision resolves at this size of logit, and a little more.
    margin = 0.01 + 4 * high * 2.0 ** -BITS[dtype]

    def rate(gap: float) -> float:
        logits = torch.zeros(1, classes, dtype=torch.float64)
        logits[0, 1] = gap
        return softmax_collapse_rate(logits, dtype).value

    assert rate(low - margin) == 0.0
    assert rate(high + margin) == 1.0


def test_collapse_rate_counts_rows_whatever_their_label() -> None:
    logits = torch.tensor([[0.0, 1.0], [0.0, 100.0], [100.0, 0.0], [5.0, 5.0]])
    assert softmax_collapse_rate(logits).value == 0.5
    assert softmax_collapse_rate(logits + 7.0).value == 0.5
    assert softmax_collapse_rate(logits.flip(1)).value == 0.5


def test_collapse_rate_uses_the_precision_of_the_logits_unless_told() -> None:
    logits = torch.tensor([[25.0, 0.0]], dtype=torch.float64)
    assert softmax_collapse_rate(logits).value == 0.0
    assert softmax_collapse_rate(logits.float()).value == 1.0
    assert softmax_collapse_rate(logits, torch.float32).value == 1.0


def test_collapse_means_loss_and_gradient_of_exactly_zero() -> None:
    logits = torch.tensor([[30.0, 0.0, 0.0], [3.0, 0.0, 0.0]], requires_grad=True)
    loss = torch.nn.functional.cross_entropy(logits, torch.tensor([0, 0]), reduction="none")
    (gradient,) = torch.autograd.grad(loss.sum(), logits)
    assert softmax_collapse_rate(logits).value == float((loss == 0).double().mean()) == 0.5
    assert gradient[0, 0] == 0.0
    assert gradient[1, 0] != 0.0


def test_small_logits_never_collapse() -> None:
    generator = torch.Generator().manual_seed(1)
    logits = torch.randn(1000, 10, generator=generator)
    assert softmax_collapse_rate(logits).value == 0.0


@pytest.mark.parametrize("measure", [logit_scale, softmax_collapse_rate])
def test_say_why_a_value_is_missing_and_leave_the_argument_alone(measure) -> None:
    logits = torch.tensor([[1.0, 2.0], [3.0, 4.0]], requires_grad=True)
    measure(logits)
    assert logits.tolist() == [[1.0, 2.0], [3.0, 4.0]]
    broken = torch.tensor([[1.0, math.nan]])
    assert math.isnan(measure(broken).value)
    assert measure(broken).reason == "logits are not finite"
    assert measure(torch.empty(0, 3)).reason == "there are no logits"


def test_collapse_rate_is_missing_where_the_precision_overflows() -> None:
    found = softmax_collapse_rate(torch.tensor([[1e5, 0.0]]), torch.float16)
    assert math.isnan(found.value)
    assert found.reason == "logits are not finite in torch.float16"


def test_refuse_a_wrong_call() -> None:
    for measure in (logit_scale, softmax_collapse_rate):
        name = measure.__name__
        with pytest.raises(ValueError, match=rf"{name}: .*\(rows, classes\), got \(3,\)"):
            measure(torch.zeros(3))
        with pytest.raises(ValueError, match=rf"{name}: .* floating dtype, got torch.int64"):
            measure(torch.zeros(3, 2, dtype=torch.int64))
    with pytest.raises(ValueError, match=r"expected at least 2 classes, got 1"):
        softmax_collapse_rate(torch.zeros(3, 1))
    with pytest.raises(ValueError, match=r"floating dtype, got torch.int32"):
        softmax_collapse_rate(torch.zeros(3, 2), torch.int32)
