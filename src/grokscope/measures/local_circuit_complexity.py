"""Local circuit complexity, the third of three progress measures of arXiv:2405.12755."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

from grokscope.measures._checks import require_floating, require_matrix, unfit


@dataclass(frozen=True, slots=True)
class LocalCircuitComplexity:
    """Local circuit complexity over several random masks.

    Attributes:
        mean: Mean over masks, in nats; nan when it is missing.
        std: Sample standard deviation over masks, in nats; nan when it is missing.
        reason: Why both are missing; empty when they are there.
    """

    mean: float
    std: float
    reason: str = ""


def local_circuit_complexity(
    logits_of: Callable[[Mapping[str, Tensor]], Tensor],
    weights: Mapping[str, Tensor],
    *,
    mask_fraction: float = 0.1,
    masks: int = 5,
    reduction: Literal["sum", "mean"] = "sum",
    generator: torch.Generator,
) -> LocalCircuitComplexity:
    r"""Return how far the outputs move when a random part of the weights is set to zero.

    :math:`\sum_i \mathrm{KL}(P_W(\cdot | x_i) \,\|\, P_{W'}(\cdot | x_i))` over training inputs,
    with P the softmax of the logits (for a network trained on squared error as well) and W' the
    weights after each has been zeroed independently with probability ``mask_fraction``. The paper
    writes a sum over inputs and leaves open which layers, how many masks, and how they are drawn.

    It stays low through late collapse (arXiv:2506.04434, 2602.02859): it does not tell
    generalisation from collapse.

    Source: Golechha, arXiv:2405.12755, "approximate local circuit complexity".

    Args:
        logits_of: From weights, by name, to logits on the training inputs, shape ``(inputs, K)``;
            called ``masks + 1`` times. It must not change what it is given.
        weights: What is masked, by name; a model's weight matrices, as published. Any shapes, real
            floating point. Never changed: each mask makes a copy.
        mask_fraction: Probability that a weight is zeroed, in [0, 1].
        masks: Number of masks, at least 2.
        reduction: Over training inputs.
        generator: Of the CPU; advances by one uniform per weight and mask, names in sorted order.

    Returns:
        Mean and deviation over masks, non-negative, computed in float64; missing if there are no
        weights, or weights or logits are not finite.

    Raises:
        ValueError: If a constant is out of range, or a tensor has the wrong shape or dtype.
    """
    name = "local_circuit_complexity"
    if not 0 <= mask_fraction <= 1:
        raise ValueError(f"{name}: expected mask_fraction in [0, 1], got {mask_fraction}.")
    if masks < 2:
        raise ValueError(f"{name}: expected at least 2 masks, got {masks}.")
    if reduction not in ("sum", "mean"):
        raise ValueError(f"{name}: expected reduction 'sum' or 'mean', got {reduction!r}.")
    if not weights:
        return _missing("there are no weights")
    for weight in weights.values():
        require_floating(name, "weights", weight)
        reason = unfit("weights", weight)
        if reason:
            return _missing(reason)

    with torch.no_grad():
        logits = logits_of(weights)
        require_matrix(name, "logits", logits, "inputs, classes")
        reason = unfit("logits", logits)
        if reason:
            return _missing(reason)
        log_p = logits.to(torch.float64).log_softmax(1)
        totals = []
        for _ in range(masks):
            masked_logits = logits_of(_masked(weights, mask_fraction, generator))
            reason = unfit("logits of the masked network", masked_logits)
            if reason:
                return _missing(reason)
            log_q = masked_logits.to(torch.float64).log_softmax(1)
            # A divergence is never negative; the sum of its terms can be, by rounding.
            divergence = (log_p.exp() * (log_p - log_q)).sum(1).clamp_(min=0.0)
            totals.append(divergence.sum() if reduction == "sum" else divergence.mean())
    found = torch.stack(totals)
    return LocalCircuitComplexity(float(found.mean()), float(found.std()))


def _masked(
    weights: Mapping[str, Tensor], fraction: float, generator: torch.Generator
) -> dict[str, Tensor]:
    """Return copies of ``weights`` with a random ``fraction`` of the entries zero."""
    masked = {}
    for name in sorted(weights):
        weight = weights[name].detach()
        # Uniforms are drawn in float64 on the CPU whatever the weights are, so that a network
        # gets the same masks in any precision and on any device.
        drawn = torch.rand(weight.shape, dtype=torch.float64, generator=generator)
        masked[name] = weight.masked_fill((drawn < fraction).to(weight.device), 0.0)
    return masked


def _missing(reason: str) -> LocalCircuitComplexity:
    return LocalCircuitComplexity(float("nan"), float("nan"), reason)
