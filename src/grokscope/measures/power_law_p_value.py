"""Whether a tail looks like a power law at all: the bootstrap test of its Kolmogorov distance."""

from __future__ import annotations

from typing import Literal

import torch
from torch import Tensor

from grokscope.measures._value import Value, missing
from grokscope.measures.power_law import PowerLawFit, fit_power_law


def power_law_p_value(
    eigenvalues: Tensor,
    fit: PowerLawFit,
    *,
    draws: int = 100,
    generator: torch.Generator,
    convention: Literal["corrected", "weightwatcher"] = "corrected",
    min_tail: int = 10,
) -> Value:
    """Test a power-law fit by the semi-parametric bootstrap of Clauset et al.

    Every synthetic data set has as many points as the data: each is drawn, with the chance that the
    tail has among the data, from the fitted law, and otherwise from the data below ``xmin``. It is
    fitted in the same way, ``xmin`` included. The p-value is the share of them whose distance to
    their own fit is at least that of the data; the authors rule the power law out at 0.1 or less.
    It is known to within ``1 / (2 sqrt(draws))``: 100 draws give 0.05, 2,500 give 0.01.

    What a large one does not show: with ``xmin`` free, other laws too have a short tail that passes
    (most samples of 1,000 exponential draws do, with tails of about 100), so read it with the
    size of the tail. On true power laws the test is cautious. And eigenvalues repel each other, so
    that they lie more evenly than independent draws do: the test is that of the published
    procedure, and on spectra its p-values tend to be too large.

    Source: Clauset, Shalizi & Newman, arXiv:0706.1062, section 4.1. Costs ``draws`` fits.

    Args:
        eigenvalues: The data that were fitted, any order, shape ``(n,)``.
        fit: `power_law.fit_power_law` of them.
        draws: Number of synthetic data sets, at least 1.
        generator: CPU generator for them.
        convention: The one of ``fit``.
        min_tail: The one of ``fit``.

    Returns:
        Share in [0, 1], among the synthetic data sets that can be fitted. Missing if ``fit`` is, or
        if none of them can (below exponents of about 1.1, where the largest draw dwarfs all
        others).

    Raises:
        ValueError: If ``fit`` is not of these eigenvalues (its tail has another size), ``draws`` is
            below 1 or an option is none that `fit_power_law` allows.
    """
    if draws < 1:
        raise ValueError(f"power_law_p_value: expected at least 1 draw, got {draws}.")
    if fit.reason:
        return missing(fit.reason)
    data = eigenvalues.detach().to("cpu", torch.float64)
    body = data[data < fit.xmin]
    size = len(data)
    if size - len(body) != fit.tail_size:
        raise ValueError(
            f"power_law_p_value: expected the eigenvalues of the fit, whose tail has "
            f"{fit.tail_size:.0f} points, got {size - len(body)} of shape {tuple(data.shape)}."
        )
    fitted = at_least = 0
    for _ in range(draws):
        in_tail = int((_uniform(size, generator) * size >= len(body)).sum())
        tail = fit.xmin * (1.0 - _uniform(in_tail, generator)) ** (-1.0 / (fit.alpha - 1.0))
        rest = (_uniform(size - in_tail, generator) * len(body)).long()
        refit = fit_power_law(
            torch.cat([body[rest], tail]), convention=convention, min_tail=min_tail
        )
        fitted += not refit.reason
        at_least += refit.ks_distance >= fit.ks_distance
    if fitted == 0:
        return missing("no synthetic sample of the fitted law can be fitted")
    return Value(at_least / fitted)


def _uniform(size: int, generator: torch.Generator) -> Tensor:
    return torch.rand(size, dtype=torch.float64, generator=generator)
