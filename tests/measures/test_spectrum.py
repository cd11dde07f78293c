"""Eigenvalues against an SVD, and the scalars that are read off them."""

import inspect
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from grokscope.measures import shuffled_spectrum, spectrum
from grokscope.measures.spectrum import eigenvalues, spectral_norm, stable_rank, unresolved

EPS = np.finfo(np.float64).eps


def gaussian(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def orthogonal(n: int, seed: int) -> torch.Tensor:
    return torch.linalg.qr(gaussian(n, n, seed=seed)).Q


def with_spectrum(rows: int, columns: int, singular: list[float]) -> torch.Tensor:
    """Build a matrix of known singular values between two random orthogonal bases."""
    k = len(singular)
    values = torch.tensor(singular, dtype=torch.float64)
    return orthogonal(rows, 1)[:, :k] * values @ orthogonal(columns, 2)[:, :k].T


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
@pytest.mark.parametrize("shape", [(7, 7), (5, 12), (12, 5), (1, 6), (100, 10)])
def test_eigenvalues_are_squared_singular_values_over_the_longer_side(
    shape: tuple[int, int], dtype: torch.dtype
) -> None:
    weight = gaussian(*shape).to(dtype)
    before = weight.clone()
    found = eigenvalues(weight)
    singular = np.linalg.svd(weight.double().numpy(), compute_uv=False)
    expected = np.sort(singular**2) / max(shape)
    assert found.dtype == torch.float64
    assert found.shape == (min(shape),)
    np.testing.assert_allclose(found, expected, rtol=1e-9, atol=max(shape) * EPS * expected[-1])
    assert torch.equal(weight, before)


def test_a_stack_gives_the_spectrum_of_each_of_its_matrices() -> None:
    stack = gaussian(2, 3, 8, 5)
    found = eigenvalues(stack)
    assert found.shape == (2, 3, 5)
    for i in range(2):
        for j in range(3):
            torch.testing.assert_close(found[i, j], eigenvalues(stack[i, j]))


def test_no_gradient_flows() -> None:
    weight = gaussian(6, 4).requires_grad_()
    assert not eigenvalues(weight).requires_grad


def test_small_singular_values_are_lost_below_the_documented_error_and_no_more() -> None:
    weight = with_spectrum(60, 20, [1.0, 1e-3, 1e-6, 1e-12])
    found = eigenvalues(weight) * 60
    bound = 60 * EPS
    np.testing.assert_allclose(found[-4:], [1e-24, 1e-12, 1e-6, 1.0], rtol=0, atol=bound)
    assert found.min() >= 0.0
    assert float(found[-3]) == pytest.approx(1e-12, rel=bound / 1e-12)


def test_singular_values_resolve_what_the_gram_matrix_cannot() -> None:
    singular = [1.0, 1e-3, 1e-6, 1e-12]
    weight = with_spectrum(60, 20, singular)
    found = eigenvalues(weight, method="svd") * 60
    np.testing.assert_allclose(found[-4:].sqrt(), singular[::-1], rtol=0, atol=60 * EPS)
    assert unresolved(found, (60, 20), method="svd").value == 16
    found = eigenvalues(weight)
    assert abs(float(60 * found[-4]) / 1e-24 - 1) > 0.5, "the control: the Gram matrix lost it"
    assert unresolved(found, (60, 20)).value == 17


@pytest.mark.parametrize("shape", [(7, 7), (5, 12), (12, 5), (100, 10)])
def test_both_methods_agree_on_what_both_resolve(shape: tuple[int, int]) -> None:
    weight = gaussian(*shape).float()
    gram = eigenvalues(weight)
    found = eigenvalues(weight, method="svd")
    assert found.dtype == torch.float64
    torch.testing.assert_close(found, gram, rtol=1e-9, atol=0)


@pytest.mark.parametrize("rank", [0, 1, 5, 12])
@pytest.mark.parametrize("shape", [(12, 40), (40, 12), (12, 12)])
def test_the_rest_is_the_rank_that_numpy_finds(shape: tuple[int, int], rank: int) -> None:
    weight = gaussian(shape[0], rank) @ gaussian(rank, shape[1], seed=1)
    assert np.linalg.matrix_rank(weight.numpy()) == rank
    for method in ("gram", "svd"):
        found = eigenvalues(weight, method=method)
        assert unresolved(found, shape, method=method).value == 12 - rank


@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
@pytest.mark.parametrize("shape", [(37, 11), (11, 37), (3, 20, 9)])
def test_blocks_and_strips_change_nothing_but_rounding(
    shape: tuple[int, ...], dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    weight = gaussian(*shape).to(dtype)
    whole = eigenvalues(weight)
    monkeypatch.setattr(spectrum, "_BLOCK_BYTES", 8 * weight.numel() // 7)
    monkeypatch.setattr(spectrum, "_STRIP", 4)
    found = eigenvalues(weight)
    torch.testing.assert_close(found, whole, rtol=1e-12, atol=0)
    assert torch.equal(found, eigenvalues(weight))


def test_a_large_matrix_of_low_precision_is_never_held_in_float64(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(spectrum, "_BLOCK_BYTES", 8 * 100 * 20)
    blocks = []
    whole = spectrum._add_gram
    monkeypatch.setattr(
        spectrum, "_add_gram", lambda gram, tall: blocks.append(tall.shape) or whole(gram, tall)
    )
    for weight in (gaussian(350, 20).bfloat16(), gaussian(20, 350).bfloat16()):
        eigenvalues(weight)
    assert blocks == [(100, 20), (100, 20), (100, 20), (50, 20)] * 2


@pytest.mark.parametrize("method", ["gram", "svd"])
@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf, 1e200])
def test_a_matrix_that_is_not_finite_is_all_nan_and_leaves_its_neighbours_alone(
    bad: float, method: spectrum.Method
) -> None:
    stack = gaussian(3, 6, 4)
    stack[1, 2, 3] = bad
    found = eigenvalues(stack, method=method)
    assert found[1].isnan().all()
    torch.testing.assert_close(found[[0, 2]], eigenvalues(stack[[0, 2]]))


@pytest.mark.parametrize("shape", [(0, 5), (5, 0), (0, 0)])
def test_an_empty_matrix_has_no_eigenvalues(shape: tuple[int, int]) -> None:
    found = eigenvalues(torch.zeros(shape))
    assert found.shape == (0,)
    assert eigenvalues(torch.zeros(shape), method="svd").shape == (0,)
    assert unresolved(found, shape).reason == "the matrix is empty"
    assert spectral_norm(found, shape).reason == "the matrix is empty"
    assert stable_rank(found).reason == "the matrix is empty"


@settings(deadline=None, max_examples=30)
@given(
    rows=st.integers(1, 12),
    columns=st.integers(1, 12),
    seed=st.integers(0, 2**31),
    factor=st.floats(1e-6, 1e6),
)
def test_invariances(rows: int, columns: int, seed: int, factor: float) -> None:
    weight = gaussian(rows, columns, seed=seed)
    expected = eigenvalues(weight)
    close = {"rtol": 1e-9, "atol": 1e-13 * float(expected.max())}
    torch.testing.assert_close(eigenvalues(weight.T), expected, **close)
    turned = orthogonal(rows, seed + 1) @ weight @ orthogonal(columns, seed + 2)
    torch.testing.assert_close(eigenvalues(turned), expected, **close)
    torch.testing.assert_close(eigenvalues(factor * weight) / factor**2, expected, **close)
    assert float(expected.sum()) == pytest.approx(
        float((weight**2).sum()) / max(rows, columns), rel=1e-12
    )


@pytest.mark.parametrize("shape", [(5, 5), (4, 9), (9, 4)])
def test_scalars_of_a_prescribed_spectrum(shape: tuple[int, int]) -> None:
    found = eigenvalues(with_spectrum(*shape, [3.0, 2.0, 1.0, 0.5]))
    assert spectral_norm(found, shape).value == pytest.approx(3.0, rel=1e-12)
    assert stable_rank(found).value == pytest.approx(14.25 / 9.0, rel=1e-12)
    assert stable_rank(found).reason == ""


def test_scalars_of_the_zero_matrix() -> None:
    found = eigenvalues(torch.zeros(4, 3))
    assert spectral_norm(found, (4, 3)).value == 0.0
    assert unresolved(found, (4, 3)).value == 3
    assert math.isnan(stable_rank(found).value)
    assert stable_rank(found).reason == "all weights are zero"


def test_scalars_of_a_matrix_that_is_not_finite() -> None:
    found = eigenvalues(torch.full((4, 3), math.nan))
    for value in (spectral_norm(found, (4, 3)), stable_rank(found), unresolved(found, (4, 3))):
        assert math.isnan(value.value)
        assert value.reason == "weights are not finite"


def test_wrong_calls() -> None:
    with pytest.raises(ValueError, match=r"expected shape \(\.\.\., rows, columns\), got \(4,\)"):
        eigenvalues(torch.zeros(4))
    with pytest.raises(ValueError, match=r"real floating dtype, got torch\.int64"):
        eigenvalues(torch.zeros(4, 3, dtype=torch.int64))
    with pytest.raises(ValueError, match=r"real floating dtype, got torch\.complex64"):
        eigenvalues(torch.zeros(4, 3, dtype=torch.complex64))
    with pytest.raises(ValueError, match=r"got \(3,\) for a matrix of shape \(5, 4\)"):
        spectral_norm(torch.ones(3), (5, 4))
    with pytest.raises(ValueError, match=r"spectral_norm: .*\(M,\), got \(2, 4\)"):
        spectral_norm(torch.ones(2, 4), (5, 4))
    with pytest.raises(ValueError, match=r"unresolved: .*got \(2, 4\)"):
        unresolved(torch.ones(2, 4), (5, 4))
    with pytest.raises(ValueError, match="'gram' or 'svd', got 'qr'"):
        eigenvalues(torch.ones(3, 4), method="qr")
    with pytest.raises(ValueError, match="'gram' or 'svd', got 'qr'"):
        unresolved(torch.ones(4), (5, 4), method="qr")
    with pytest.raises(ValueError, match=r"stable_rank: .*\(M,\), got \(2, 4\)"):
        stable_rank(torch.ones(2, 4))


def test_helpers_are_not_offered_as_measures() -> None:
    """`grokscope list measures` names every public function that a public module defines."""
    found = {
        name
        for module in (spectrum, shuffled_spectrum)
        for name, value in inspect.getmembers(module, inspect.isfunction)
        if value.__module__ == module.__name__ and not name.startswith("_")
    }
    assert found == {
        "eigenvalues",
        "spectral_norm",
        "stable_rank",
        "unresolved",
        "shuffled_eigenvalues",
    }
