"""Shuffles: what they keep, what they destroy, and where their randomness comes from."""

import math
import random

import numpy as np
import pytest
import torch

from grokscope.measures import shuffled_spectrum
from grokscope.measures._shuffles import permutations
from grokscope.measures._spectra import bulk_scales
from grokscope.measures.shuffled_spectrum import shuffled_eigenvalues
from grokscope.measures.spectrum import eigenvalues


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def gaussian(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=seeded(seed))


@pytest.mark.parametrize("shape", [(30, 20), (20, 30), (12, 12), (10, 100)])
def test_each_shuffle_is_the_spectrum_of_a_permutation_of_the_entries(
    shape: tuple[int, int],
) -> None:
    weight = gaussian(*shape)
    found = shuffled_eigenvalues(weight, shuffles=4, generator=seeded(7))
    assert found.dtype == torch.float64
    assert found.shape == (4, min(shape))
    generator = seeded(7)
    for row in found:
        order = torch.randperm(weight.numel(), generator=generator)
        torch.testing.assert_close(row, eigenvalues(weight.flatten()[order].reshape(shape)))
    # What every permutation keeps is the mean squared entry.
    torch.testing.assert_close(found.mean(dim=1), (weight**2).mean().expand(4))


def test_a_shuffle_destroys_structure_and_leaves_noise_alone() -> None:
    noise = gaussian(100, 60)
    signal = 5 * torch.outer(gaussian(100, seed=1).sign(), gaussian(60, seed=2).sign()) / 60**0.5
    structured = noise + signal
    assert eigenvalues(structured)[-1] > 2 * eigenvalues(noise)[-1]
    # Normalised by the mean squared entry, the shuffled spectra of the two cannot be told apart.
    of_signal = shuffled_eigenvalues(structured, generator=seeded()) / (structured**2).mean()
    of_noise = shuffled_eigenvalues(noise, generator=seeded()) / (noise**2).mean()
    assert float(of_signal[:, -1].mean() / of_noise[:, -1].mean()) == pytest.approx(1.0, abs=0.06)


def test_the_same_seed_gives_the_same_bits_and_another_seed_does_not() -> None:
    weight = gaussian(40, 25)
    first = shuffled_eigenvalues(weight, generator=seeded(3))
    assert torch.equal(first, shuffled_eigenvalues(weight, generator=seeded(3)))
    assert not torch.equal(first, shuffled_eigenvalues(weight, generator=seeded(4)))


def test_only_the_given_generator_advances_and_the_weight_stays() -> None:
    weight = gaussian(20, 10).float().requires_grad_()
    before = weight.detach().clone()
    states = torch.get_rng_state(), np.random.get_state()[1].copy(), random.getstate()
    generator = seeded()
    found = shuffled_eigenvalues(weight, generator=generator)
    assert not found.requires_grad
    assert torch.equal(torch.get_rng_state(), states[0])
    assert (np.random.get_state()[1] == states[1]).all()
    assert random.getstate() == states[2]
    assert not torch.equal(generator.get_state(), seeded().get_state())
    assert torch.equal(weight, before)


def test_chunks_change_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    weight = gaussian(30, 20)
    whole = shuffled_eigenvalues(weight, shuffles=7, generator=seeded())
    monkeypatch.setattr(shuffled_spectrum, "_CHUNK_BYTES", 3 * 8 * 600)
    torch.testing.assert_close(shuffled_eigenvalues(weight, shuffles=7, generator=seeded()), whole)


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_low_precision_weights_have_the_spectra_of_their_float64_values(dtype: torch.dtype) -> None:
    weight = gaussian(40, 25).to(dtype)
    for each in (weight, weight.T):
        found = shuffled_eigenvalues(each, generator=seeded())
        torch.testing.assert_close(found, shuffled_eigenvalues(each.double(), generator=seeded()))


def test_the_short_index_gives_the_permutation_of_the_long_one() -> None:
    generator = seeded(1)
    (order,) = permutations(5000, 1, generator)
    other = seeded(1)
    assert order.dtype == torch.int32
    assert torch.equal(order.long(), torch.randperm(5000, generator=other))
    assert torch.equal(generator.get_state(), other.get_state())


def test_a_matrix_that_is_not_finite_is_all_nan_and_draws_as_much() -> None:
    generator, other = seeded(), seeded()
    weight = gaussian(6, 4)
    shuffled_eigenvalues(weight, generator=generator)
    weight[0, 0] = math.nan
    assert shuffled_eigenvalues(weight, generator=other).isnan().all()
    assert torch.equal(generator.get_state(), other.get_state())


@pytest.mark.parametrize("shape", [(0, 5), (5, 0)])
def test_an_empty_matrix(shape: tuple[int, int]) -> None:
    found = shuffled_eigenvalues(torch.zeros(shape), shuffles=3, generator=seeded())
    assert found.shape == (3, 0)
    assert bulk_scales(found, shape)[1] == "the matrix is empty"


@pytest.mark.parametrize("shape", [(784, 200), (100, 100), (10, 300)])
def test_bulk_scales_are_the_variance_of_noise(shape: tuple[int, int]) -> None:
    found = shuffled_eigenvalues(3 * gaussian(*shape), generator=seeded())
    scales, reason = bulk_scales(found, shape)
    assert reason == ""
    assert scales.shape == (10,)
    assert scales.mean() == pytest.approx(9.0, rel=0.02)


def one_entry() -> torch.Tensor:
    weight = torch.zeros(12, 8)
    weight[3, 4] = 2.0
    return weight


@pytest.mark.parametrize(
    ("weight", "reason"),
    [
        (torch.zeros(12, 8), "all weights are zero"),
        (torch.full((12, 8), math.inf), "weights are not finite"),
        (torch.full((12, 8), 0.1), "no bulk: more than half of the shuffled eigenvalues are zero"),
        (one_entry(), "no bulk: more than half of the shuffled eigenvalues are zero"),
    ],
)
def test_no_bulk(weight: torch.Tensor, reason: str) -> None:
    scales, why = bulk_scales(shuffled_eigenvalues(weight, generator=seeded()), (12, 8))
    assert why == reason
    assert np.isnan(scales).all()


def test_a_bulk_of_rounding_noise_is_none() -> None:
    spectra = torch.tensor([[1e-17] * 5 + [0.1, 0.2, 1.0]], dtype=torch.float64)
    assert bulk_scales(spectra, (12, 8))[1].startswith("no bulk")
    spectra[:, :5] = 1e-12
    assert bulk_scales(spectra, (12, 8))[1] == ""


def test_wrong_calls() -> None:
    with pytest.raises(
        ValueError, match=r"one .* matrix .* got torch\.float32 of shape \(2, 3, 4\)"
    ):
        shuffled_eigenvalues(torch.ones(2, 3, 4), generator=seeded())
    with pytest.raises(ValueError, match=r"real floating-point .* got torch\.complex64"):
        shuffled_eigenvalues(torch.ones(3, 4, dtype=torch.complex64), generator=seeded())
    with pytest.raises(ValueError, match=r"at least 1 shuffle, got 0"):
        shuffled_eigenvalues(torch.ones(3, 4), shuffles=0, generator=seeded())
    with pytest.raises(ValueError, match=r"got \(10, 5\) for a matrix of shape \(6, 4\)"):
        bulk_scales(torch.ones(10, 5), (6, 4))
    with pytest.raises(ValueError, match=r"shape \(R, M\), got \(4,\)"):
        bulk_scales(torch.ones(4), (6, 4))
