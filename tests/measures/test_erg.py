"""The ERG tail against products written out, exactly where they are rational."""

import dataclasses
import math
import random
from decimal import Decimal, localcontext
from fractions import Fraction

import numpy as np
import pytest
import torch

from grokscope.measures._noise import noise_spectra
from grokscope.measures.erg import ERG, erg
from grokscope.measures.power_law import fit_power_law
from grokscope.measures.spectrum import eigenvalues


def gaussian(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def noise(n: int, m: int) -> torch.Tensor:
    return torch.from_numpy(noise_spectra(n, m, 1, np.random.default_rng(0))[0])


def of(found: torch.Tensor) -> ERG:
    return erg(found, fit_power_law(found))


def numbers(result: ERG) -> list[float]:
    return [value for name, value in dataclasses.asdict(result).items() if name != "reason"]


def exact_size(values: list[int]) -> int | None:
    """Multiply integers, over their mean, from the largest down, in rational arithmetic."""
    mean = Fraction(sum(values), len(values))
    product = Fraction(1)
    for size, value in enumerate(sorted(values, reverse=True), start=1):
        product *= value / mean
        if 0 < product < 1:
            return size
    return None


def test_small_integers_exactly() -> None:
    """Including products of exactly 1, which are not below it, and zeros, which do not count."""
    draw = random.Random(0)
    missing = 0
    for _ in range(300):
        values = [draw.choice([0, 1, 1, 2, 3, 4, 6, 8]) for _ in range(draw.randint(2, 8))]
        if not any(values):
            continue
        found, expected = of(torch.tensor(values, dtype=torch.float64)), exact_size(values)
        if expected is None:
            missing += 1
            assert math.isnan(found.size)
            assert found.reason == "the product of the largest eigenvalues never falls below 1"
        else:
            assert found.size == expected
    assert missing > 10, "the control: both outcomes occur"


def test_a_product_of_exactly_one_is_not_below_one() -> None:
    """The mean is 3: the product is 3, then 3 * 1/3, and below 1 with the third."""
    values = [9, 1, 1, 1]
    assert exact_size(values) == 3
    for unit in (1.0, 1e-3, 7.7):  # whatever the rounding of the logarithms
        assert of(unit * torch.tensor(values, dtype=torch.float64)).size == 3


@pytest.mark.parametrize("shape", [(200, 784), (200, 200), (40, 300)])
def test_against_products_that_do_not_overflow(shape: tuple[int, int]) -> None:
    found = eigenvalues(gaussian(*shape))
    values = found.numpy()[::-1] / found.numpy().mean()
    size = int(np.flatnonzero(np.cumprod(values) < 1.0)[0]) + 1
    result = of(found)
    fit = fit_power_law(found)
    assert result.size == size
    assert result.gap == size - fit.tail_size
    assert result.lambda_erg == pytest.approx(values[size - 1], rel=1e-12)
    assert result.lambda_power_law == pytest.approx(fit.xmin / float(found.mean()), rel=1e-12)
    assert result.lambda_difference == pytest.approx(
        result.lambda_power_law - result.lambda_erg, rel=1e-12
    )


def test_4096_eigenvalues_whose_product_overflows() -> None:
    found = noise(4096, 4096)
    values = found.numpy()[::-1] / found.numpy().mean()
    with np.errstate(over="ignore"):
        assert np.isinf(np.cumprod(values).max())
    with localcontext(prec=40):
        product, size = Decimal(1), 0
        for value in values:
            product *= Decimal(float(value))
            size += 1
            if product < 1:
                break
    assert of(found).size == size


def test_freshly_initialised_layers() -> None:
    """Sizes that WeightWatcher finds for one draw: 174 for 784x200, 147 for 200x200."""
    assert of(noise(784, 200)).size == pytest.approx(174, abs=4)
    assert of(noise(200, 200)).size == pytest.approx(147, abs=4)


def test_invariances() -> None:
    found = eigenvalues(gaussian(30, 50))
    order = torch.randperm(30, generator=torch.Generator().manual_seed(1))
    for other in (1e-9 * found, 50 * found, found[order]):
        result = of(other)
        assert result.size == of(found).size
        assert numbers(result) == pytest.approx(numbers(of(found)), rel=1e-9)


def test_rounding_left_of_zero_eigenvalues_counts_as_zero() -> None:
    low_rank = gaussian(50, 8) @ gaussian(8, 40, seed=1)
    clean = torch.cat([torch.zeros(32, dtype=torch.float64), eigenvalues(low_rank)[-8:]])
    assert numbers(of(eigenvalues(low_rank))) == pytest.approx(numbers(of(clean)), nan_ok=True)


def test_an_orthogonal_matrix_has_no_tail() -> None:
    found = eigenvalues(torch.linalg.qr(gaussian(80, 40)).Q)
    assert found.unique().numel() > 1, "the control: the values differ by rounding"
    result = of(found)
    assert all(math.isnan(value) for value in numbers(result))
    assert result.reason == "the product of the largest eigenvalues never falls below 1"


def test_without_a_fit_the_erg_tail_remains() -> None:
    found = eigenvalues(gaussian(5, 30))
    result = of(found)
    assert result.size in (2, 3, 4, 5)
    assert result.lambda_erg > 0
    assert math.isnan(result.gap)
    assert math.isnan(result.lambda_power_law)
    assert math.isnan(result.lambda_difference)
    assert "a tail needs 10" in result.reason


def test_unfit() -> None:
    fit = fit_power_law(eigenvalues(gaussian(20, 20)))
    for found, reason in (
        (torch.zeros(3), "all weights are zero"),
        (torch.zeros(0), "the matrix is empty"),
        (torch.full((3,), math.nan), "weights are not finite"),
    ):
        result = erg(found, fit)
        assert result.reason == reason
        assert all(math.isnan(value) for value in numbers(result))
    with pytest.raises(ValueError, match=r"erg: .*\(M,\), got \(2, 4\)"):
        erg(torch.ones(2, 4), fit)
