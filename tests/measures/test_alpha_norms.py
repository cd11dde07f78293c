"""Alpha norms against exact arithmetic, where they would overflow, and against each other."""

import math
from fractions import Fraction

import pytest
import torch

from grokscope.measures.alpha_norms import alpha_hat, log_alpha_norm
from grokscope.measures.spectrum import eigenvalues


def gaussian(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("rows", [3, 7])
def test_a_diagonal_matrix(rows: int) -> None:
    """Singular values 2, 3, 10, so eigenvalues of W^T W of 4, 9, 100, in either orientation."""
    weight = torch.zeros(rows, 3, dtype=torch.float64)
    weight[:3] = torch.diag(torch.tensor([2.0, 10.0, 3.0]))
    for w in (weight, weight.T):
        shape = (w.shape[0], w.shape[1])
        assert alpha_hat(2.5, eigenvalues(w), shape).value == pytest.approx(5.0, rel=1e-12)
        exact = Fraction(4) ** 3 + Fraction(9) ** 3 + Fraction(100) ** 3
        assert log_alpha_norm(3.0, eigenvalues(w), shape).value == pytest.approx(
            math.log10(exact), rel=1e-13
        )


def test_at_alpha_one_the_norm_is_the_squared_frobenius_norm() -> None:
    weight = gaussian(20, 30)
    found = log_alpha_norm(1.0, eigenvalues(weight), (20, 30))
    assert found.value == pytest.approx(math.log10(float((weight**2).sum())), rel=1e-12)


@pytest.mark.parametrize("alpha", [2.0, 50.0, 1e4])
def test_no_exponent_overflows_and_the_largest_eigenvalue_takes_over(alpha: float) -> None:
    weight = 1e3 * gaussian(40, 25)
    found = log_alpha_norm(alpha, eigenvalues(weight), (40, 25)).value
    hat = alpha_hat(alpha, eigenvalues(weight), (40, 25)).value
    assert math.isfinite(found)
    assert hat < found * (1 + 1e-15) <= hat + math.log10(25)
    top = eigenvalues(weight)[-2:] * 40
    if alpha == 1e4:
        assert found == pytest.approx(alpha * math.log10(float(top[1])), rel=1e-15)


def test_scaling_the_weights_adds() -> None:
    weight = gaussian(12, 8)
    for measure in (alpha_hat, log_alpha_norm):
        before = measure(3.0, eigenvalues(weight), (12, 8)).value
        after = measure(3.0, eigenvalues(10 * weight), (12, 8)).value
        assert after - before == pytest.approx(3.0 * 2.0, rel=1e-12)


def test_pooled_spectra_of_several_matrices() -> None:
    stack = gaussian(3, 6, 9)
    pooled = eigenvalues(stack).flatten()
    each = [10 ** log_alpha_norm(2.0, eigenvalues(w), (6, 9)).value for w in stack]
    assert 10 ** log_alpha_norm(2.0, pooled, (6, 9)).value == pytest.approx(sum(each), rel=1e-12)


@pytest.mark.parametrize("measure", [alpha_hat, log_alpha_norm])
def test_missing(measure) -> None:  # type: ignore[no-untyped-def]
    ones = torch.ones(3, dtype=torch.float64)
    for alpha, found, shape, reason in (
        (math.nan, ones, (3, 4), "there is no power-law exponent"),
        (2.0, 0 * ones, (3, 4), "all weights are zero"),
        (2.0, math.nan * ones, (3, 4), "weights are not finite"),
        (math.nan, math.nan * ones, (3, 4), "weights are not finite"),
        (2.0, torch.ones(0), (0, 4), "the matrix is empty"),
    ):
        value = measure(alpha, found, shape)
        assert math.isnan(value.value)
        assert value.reason == reason


@pytest.mark.parametrize("measure", [alpha_hat, log_alpha_norm])
def test_wrong_calls(measure) -> None:  # type: ignore[no-untyped-def]
    with pytest.raises(ValueError, match=r"got \(3,\) for a matrix of shape \(5, 4\)"):
        measure(2.0, torch.ones(3), (5, 4))
    with pytest.raises(ValueError, match=r"got \(2, 4\) for a matrix of shape \(5, 4\)"):
        measure(2.0, torch.ones(2, 4), (5, 4))
    for alpha in (0.0, -1.0, math.inf):
        with pytest.raises(ValueError, match="positive finite alpha or nan"):
            measure(alpha, torch.ones(4), (5, 4))
