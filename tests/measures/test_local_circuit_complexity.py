from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import numpy as np
import pytest
import scipy.special
import scipy.stats
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from grokscope.measures.local_circuit_complexity import local_circuit_complexity

pytestmark = pytest.mark.usefixtures("global_rng_untouched")


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def two_layers(
    seed: int = 0, dtype: torch.dtype = torch.float64
) -> tuple[Callable[[Mapping[str, torch.Tensor]], torch.Tensor], dict[str, torch.Tensor]]:
    generator = seeded(seed)

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(shape, dtype=torch.float64, generator=generator).to(dtype)

    x, bias = normal(12, 6), normal(9)
    weights = {"fc1": normal(9, 6), "fc2": normal(4, 9)}
    return lambda w: (x @ w["fc1"].T + bias).relu() @ w["fc2"].T, weights


def test_agrees_with_the_definition() -> None:
    logits_of, weights = two_layers()
    seen: list[torch.Tensor] = []

    def watched(w: Mapping[str, torch.Tensor]) -> torch.Tensor:
        seen.append(logits_of(w))
        return seen[-1]

    found = local_circuit_complexity(watched, weights, masks=6, generator=seeded())
    p, *masked = (scipy.special.softmax(z.numpy(), axis=1) for z in seen)
    totals = [scipy.stats.entropy(p, q, axis=1).sum() for q in masked]
    assert len(totals) == 6
    assert found.mean == pytest.approx(np.mean(totals), rel=1e-12)
    assert found.std == pytest.approx(np.std(totals, ddof=1), rel=1e-12)
    assert found.reason == ""
    mean = local_circuit_complexity(
        logits_of, weights, masks=6, reduction="mean", generator=seeded()
    )
    assert mean.mean == pytest.approx(found.mean / 12, rel=1e-12)
    assert mean.std == pytest.approx(found.std / 12, rel=1e-12)


def test_masks_zero_the_fraction_and_touch_nothing_else() -> None:
    weights = {"a": torch.full((300, 200), 2.0), "b": torch.full((500,), -3.0)}
    masked: list[dict[str, torch.Tensor]] = []

    def keep(w: Mapping[str, torch.Tensor]) -> torch.Tensor:
        masked.append(dict(w))
        return torch.zeros(1, 2)

    local_circuit_complexity(keep, weights, mask_fraction=0.1, generator=seeded())
    assert len(masked) == 6
    for i, w in enumerate(masked[1:]):
        assert set(w["a"].unique().tolist()) == {0.0, 2.0}
        assert set(w["b"].unique().tolist()) == {-3.0, 0.0}
        share = float((w["a"] == 0).double().mean())
        assert share == pytest.approx(0.1, abs=5 * math.sqrt(0.09 / 60_000))
        assert not torch.equal(w["a"], masked[1 + (i + 1) % 5]["a"])  # a new mask each time


def test_no_mask_no_change_and_a_full_mask_is_the_uniform_distribution() -> None:
    logits_of, weights = two_layers()
    none = local_circuit_complexity(logits_of, weights, mask_fraction=0.0, generator=seeded())
    assert (none.mean, none.std) == (0.0, 0.0)
    full = local_circuit_complexity(logits_of, weights, mask_fraction=1.0, generator=seeded())
    p = scipy.special.softmax(logits_of(weights).numpy(), axis=1)
    expected = sum(math.log(4) - scipy.stats.entropy(row) for row in p)
    assert full.mean == pytest.approx(expected, rel=1e-12)
    assert full.std == pytest.approx(0.0, abs=1e-12)


@settings(deadline=None, max_examples=60)
@given(st.integers(0, 2**31), st.floats(0, 1), st.floats(1e-12, 1e3))
def test_is_never_negative(seed: int, fraction: float, scale: float) -> None:
    logits_of, weights = two_layers(seed)
    small = {name: scale * w for name, w in weights.items()}
    found = local_circuit_complexity(
        logits_of, small, mask_fraction=fraction, masks=2, generator=seeded(seed)
    )
    assert found.mean >= 0.0
    assert found.std >= 0.0


def test_does_not_see_a_shift_of_all_logits_of_a_row() -> None:
    logits_of, weights = two_layers()
    plain = local_circuit_complexity(logits_of, weights, generator=seeded())
    shifted = local_circuit_complexity(lambda w: logits_of(w) + 3.0, weights, generator=seeded())
    assert shifted.mean == pytest.approx(plain.mean, rel=1e-12)


def test_depends_on_the_generator_alone_and_not_on_order_or_precision() -> None:
    logits_of, weights = two_layers()
    first = local_circuit_complexity(logits_of, weights, generator=seeded(3))
    turned = dict(reversed(weights.items()))
    assert local_circuit_complexity(logits_of, turned, generator=seeded(3)) == first
    assert local_circuit_complexity(logits_of, weights, generator=seeded(4)) != first
    low_logits_of, low_weights = two_layers(dtype=torch.float32)
    low = local_circuit_complexity(low_logits_of, low_weights, generator=seeded(3))
    assert low.mean == pytest.approx(first.mean, rel=1e-4)


def test_leaves_weights_alone() -> None:
    linear = torch.nn.utils.skip_init(torch.nn.Linear, 3, 2)
    with torch.no_grad():
        linear.weight.copy_(torch.arange(6.0).view(2, 3))
        linear.bias.zero_()
    weights = {"weight": linear.weight}
    x = torch.eye(3)
    local_circuit_complexity(lambda w: x @ w["weight"].T, weights, generator=seeded())
    assert torch.equal(linear.weight.detach(), torch.arange(6.0).view(2, 3))
    assert linear.weight.requires_grad
    assert linear.weight.grad is None


def test_says_why_a_value_is_missing() -> None:
    logits_of, weights = two_layers()

    def reason(f: Callable[..., torch.Tensor], w: dict[str, torch.Tensor]) -> str:
        found = local_circuit_complexity(f, w, generator=seeded())
        assert math.isnan(found.mean)
        assert math.isnan(found.std)
        return found.reason

    broken = {**weights, "fc1": weights["fc1"] * math.nan}
    assert reason(logits_of, broken) == "weights are not finite"
    assert reason(logits_of, {}) == "there are no weights"
    assert reason(lambda w: logits_of(w) / 0.0, weights) == "logits are not finite"
    assert reason(lambda w: logits_of(w)[:0], weights) == "there are no logits"
    calls = iter([1.0, math.inf])
    assert (
        reason(lambda w: logits_of(w) * next(calls), weights)
        == "logits of the masked network are not finite"
    )


def test_refuses_a_wrong_call() -> None:
    logits_of, weights = two_layers()
    for fraction in (-0.1, 1.1, math.nan):
        with pytest.raises(ValueError, match=rf"mask_fraction in \[0, 1\], got {fraction}"):
            local_circuit_complexity(logits_of, weights, mask_fraction=fraction, generator=seeded())
    with pytest.raises(ValueError, match=r"expected at least 2 masks, got 1"):
        local_circuit_complexity(logits_of, weights, masks=1, generator=seeded())
    with pytest.raises(ValueError, match=r"reduction 'sum' or 'mean', got 'max'"):
        local_circuit_complexity(logits_of, weights, reduction="max", generator=seeded())
    with pytest.raises(ValueError, match=r"floating dtype, got torch.int64"):
        local_circuit_complexity(
            logits_of, {"w": torch.ones(2, dtype=torch.int64)}, generator=seeded()
        )
    with pytest.raises(ValueError, match=r"\(inputs, classes\), got \(48,\)"):
        local_circuit_complexity(lambda w: logits_of(w).flatten(), weights, generator=seeded())
