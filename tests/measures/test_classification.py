from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from sklearn.metrics import accuracy_score, log_loss
from sklearn.metrics import mean_squared_error as sklearn_mse

from grokscope.measures.classification import accuracy, cross_entropy, mean_squared_error

pytestmark = pytest.mark.usefixtures("global_rng_untouched")
MEASURES = [accuracy, mean_squared_error, cross_entropy]


def batch(n: int = 37, k: int = 5, scale: float = 3.0) -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(n * k)
    logits = scale * torch.randn(n, k, dtype=torch.float64, generator=generator)
    return logits, torch.randint(0, k, (n,), generator=generator)


def test_agree_with_scikit_learn() -> None:
    logits, labels = batch()
    z, y = logits.numpy(), labels.numpy()
    p = np.exp(z) / np.exp(z).sum(1, keepdims=True)
    assert accuracy(logits, labels).value == accuracy_score(y, z.argmax(1))
    assert mean_squared_error(logits, labels).value == pytest.approx(
        sklearn_mse(np.eye(5)[y], z), rel=1e-14
    )
    assert cross_entropy(logits, labels).value == pytest.approx(
        log_loss(y, p, labels=range(5)), rel=1e-13
    )


def test_agree_with_the_losses_that_train() -> None:
    logits, labels = batch(200, 10)
    one_hot = torch.nn.functional.one_hot(labels, 10).double()
    assert mean_squared_error(logits, labels).value == pytest.approx(
        float(torch.nn.MSELoss()(logits, one_hot)), rel=1e-14
    )
    assert cross_entropy(logits, labels).value == pytest.approx(
        float(torch.nn.CrossEntropyLoss()(logits, labels)), rel=1e-13
    )


def test_exact_values() -> None:
    logits = torch.tensor([[2.0, 0.0], [0.0, 0.0], [0.0, 2.0]])
    labels = torch.tensor([0, 1, 0])
    assert accuracy(logits, labels).value == 1 / 3  # a tie goes to the lowest class
    assert mean_squared_error(logits, labels).value == pytest.approx((1 + 1 + 1 + 4) / 6, rel=1e-15)
    expected = (math.log1p(math.exp(-2)) + math.log(2) + math.log1p(math.exp(2))) / 3
    assert cross_entropy(logits, labels).value == pytest.approx(expected, rel=1e-14)


@pytest.mark.parametrize("gap", [1e-3, 1.0, 30.0, 60.0, 700.0])
@pytest.mark.parametrize("offset", [0.0, -900.0, 900.0])
def test_cross_entropy_keeps_its_relative_accuracy(gap: float, offset: float) -> None:
    logits = torch.tensor([[offset + gap, offset, offset]], dtype=torch.float64)
    gap = float(logits[0, 0] - logits[0, 1])  # what is left of it after rounding
    right, wrong = torch.tensor([0]), torch.tensor([1])
    truth = math.log1p(2 * math.exp(-gap))
    assert cross_entropy(logits, right).value == pytest.approx(truth, rel=1e-12, abs=0)
    # -log p of a wrong class: the gap, and what the right class lacks to probability 1.
    assert cross_entropy(logits, wrong).value == pytest.approx(gap + truth, rel=1e-12)


def test_cross_entropy_of_one_class_is_zero() -> None:
    assert cross_entropy(torch.tensor([[3.0], [-5.0]]), torch.tensor([0, 0])).value == 0.0


@settings(deadline=None, max_examples=50)
@given(
    hnp.arrays(
        np.float64,
        hnp.array_shapes(min_dims=2, max_dims=2, min_side=1, max_side=8),
        elements=st.floats(-1e3, 1e3, width=32),
    ),
    st.integers(0, 2**32 - 1),
)
def test_invariances(z: np.ndarray, seed: int) -> None:
    rng = np.random.default_rng(seed)
    rows, classes = rng.permutation(len(z)), rng.permutation(z.shape[1])
    y = rng.integers(0, z.shape[1], len(z))
    logits, labels = torch.from_numpy(z), torch.from_numpy(y)
    shifted = logits + torch.from_numpy(rng.integers(-64, 64, (len(z), 1)).astype(float))
    again = torch.from_numpy(z[rows][:, classes])
    labels_again = torch.from_numpy(np.argsort(classes)[y[rows]])
    for measure in MEASURES:
        value = measure(logits, labels).value
        assert value >= 0
        if measure is not accuracy:  # ties go by the order of classes
            assert measure(again, labels_again).value == pytest.approx(value, rel=1e-9, abs=1e-300)
    assert cross_entropy(shifted, labels).value == pytest.approx(
        cross_entropy(logits, labels).value, rel=1e-9, abs=1e-9
    )


def test_random_labels_score_at_chance() -> None:
    logits, labels = batch(20_000, 10)
    deviation = math.sqrt(0.1 * 0.9 / 20_000)
    assert accuracy(logits, labels).value == pytest.approx(0.1, abs=5 * deviation)


@pytest.mark.parametrize("measure", MEASURES)
@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float32])
def test_compute_in_float64(measure, dtype: torch.dtype) -> None:
    logits, labels = batch()
    low = logits.to(dtype)
    assert measure(low, labels) == measure(low.double(), labels)


@pytest.mark.parametrize("measure", MEASURES)
def test_leave_their_arguments_alone(measure) -> None:
    logits, labels = batch()
    logits.requires_grad_()
    before = logits.detach().clone(), labels.clone()
    measure(logits, labels)
    assert torch.equal(logits.detach(), before[0])
    assert torch.equal(labels, before[1])
    assert logits.grad is None
    assert logits.requires_grad


@pytest.mark.parametrize("measure", MEASURES)
def test_say_why_a_value_is_missing(measure) -> None:
    logits, labels = batch(4)
    for bad in (math.nan, math.inf, -math.inf):
        broken = logits.clone()
        broken[2, 1] = bad
        found = measure(broken, labels)
        assert math.isnan(found.value)
        assert found.reason == "logits are not finite"
    empty = measure(logits[:0], labels[:0])
    assert math.isnan(empty.value)
    assert empty.reason == "there are no logits"


@pytest.mark.parametrize("measure", MEASURES)
def test_refuse_a_wrong_call(measure) -> None:
    logits, labels = batch(4)
    name = measure.__name__
    with pytest.raises(ValueError, match=rf"{name}: .*\(rows, classes\), got \(20,\)"):
        measure(logits.flatten(), labels)
    with pytest.raises(ValueError, match=rf"{name}: .* floating dtype, got torch.int64"):
        measure(logits.long(), labels)
    with pytest.raises(ValueError, match=r"int64 labels of shape \(4,\), got .* shape \(3,\)"):
        measure(logits, labels[:3])
    with pytest.raises(ValueError, match=r"int64 labels .* got torch.int32"):
        measure(logits, labels.int())
    with pytest.raises(ValueError, match=r"labels in \[0, 5\) .* got labels in \[5, 5\]"):
        measure(logits, torch.full((4,), 5))
    with pytest.raises(ValueError, match=r"labels in \[0, 5\) .* got labels in \[-1, -1\]"):
        measure(logits, torch.full((4,), -1))
