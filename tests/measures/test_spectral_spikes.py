"""Spikes: planted ones are counted exactly, and noise shows none at the stated rate."""

import dataclasses
import math

import numpy as np
import pytest
import scipy.stats
import torch

from grokscope.measures._noise import noise_spectra
from grokscope.measures.marchenko_pastur import edges
from grokscope.measures.spectral_spikes import SpectralSpikes, spectral_spikes
from grokscope.measures.spectrum import eigenvalues
from grokscope.measures.tracy_widom import edge_threshold

SHAPES = [(200, 784), (784, 200), (200, 200), (10, 200)]


def gaussian(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(seed))


def planted(shape: tuple[int, int], strengths: torch.Tensor, seed: int = 0) -> torch.Tensor:
    """Add singular values, in units of the edge of the noise, to a Gaussian matrix."""
    rows, columns = shape
    left = torch.linalg.qr(gaussian(rows, len(strengths), seed=seed + 1)).Q
    right = torch.linalg.qr(gaussian(columns, len(strengths), seed=seed + 2)).Q
    edge = rows**0.5 + columns**0.5
    return gaussian(rows, columns, seed=seed) + left * (edge * strengths) @ right.T


@pytest.mark.parametrize("k", [1, 3, 7])
@pytest.mark.parametrize("shape", SHAPES)
def test_planted_spikes_are_counted_exactly(shape: tuple[int, int], k: int) -> None:
    strengths = torch.logspace(0.2, 0.8, k, dtype=torch.float64)  # 1.6 to 6.3 edges
    found = spectral_spikes(eigenvalues(planted(shape, strengths)), shape)
    assert found.count == k
    assert found.reason == ""
    assert found.softrank < 0.5
    if k < 7 or min(shape) > 10:
        assert found.scale == pytest.approx(1.0, abs=0.1)


@pytest.mark.parametrize("factor", [1e-3, 1.0, 40.0])
def test_a_fixed_point_of_the_definition(factor: float) -> None:
    """Threshold and scale are those of what is left once the counted spikes are gone."""
    strengths = torch.linspace(1.2, 3.0, 30, dtype=torch.float64)
    values = eigenvalues(factor * planted((200, 300), strengths)).numpy()
    found = spectral_spikes(torch.from_numpy(values), (200, 300))
    assert found.count == 30
    rest = values[:-30] * 300 / 270
    law = spectral_spikes(torch.from_numpy(rest), (170, 270))
    assert law.count == 0
    assert found.scale == pytest.approx(law.scale, rel=1e-12)
    assert found.threshold * 300 / 270 == pytest.approx(law.threshold, rel=1e-12)
    assert law.threshold == pytest.approx(edge_threshold((170, 270), law.scale), rel=1e-12)
    assert (found.bulk_min, found.bulk_max) == edges(200 / 300, found.scale)
    assert found.softrank == pytest.approx(found.bulk_max / values[-1], rel=1e-12)
    assert found.scale == pytest.approx(factor**2, rel=0.05)


def test_spikes_do_not_hide_one_another() -> None:
    """A spike for every tenth eigenvalue raises the median by 11 percent."""
    weight = planted((200, 200), torch.full((20,), 1.5, dtype=torch.float64))
    found = eigenvalues(weight)
    assert float(found.median()) / float(eigenvalues(gaussian(200, 200)).median()) > 1.08
    scale = spectral_spikes(found, (200, 200)).scale
    assert scale == pytest.approx(1.0, abs=0.05)


@pytest.mark.parametrize(
    ("n", "m", "draws", "rate"),
    [(784, 200, 400, 0.002), (200, 200, 400, 0.004), (200, 10, 2000, 0.002)],
)
def test_noise_shows_no_spikes_at_the_stated_rate(n: int, m: int, draws: int, rate: float) -> None:
    spectra = torch.from_numpy(noise_spectra(n, m, draws, np.random.default_rng(11)))
    shown = sum(spectral_spikes(spectrum, (m, n)).count > 0 for spectrum in spectra)
    # No more than the stated rate allows in one of a thousand such tests.
    assert shown <= scipy.stats.binom(draws, rate).ppf(0.999)
    often = sum(spectral_spikes(s, (n, m), quantile=0.5).count > 0 for s in spectra[:200])
    assert often > 60, "the control: the threshold is not out of reach"


def test_softrank_of_noise_is_about_one() -> None:
    found = spectral_spikes(eigenvalues(gaussian(300, 500)), (300, 500))
    assert found.softrank == pytest.approx(1.0, abs=0.05)


@pytest.mark.parametrize("shape", [(30, 50), (20, 20)])
def test_invariances(shape: tuple[int, int]) -> None:
    found = eigenvalues(planted(shape, torch.tensor([1.5, 3.0], dtype=torch.float64)))
    expected = spectral_spikes(found, shape)
    order = torch.randperm(len(found), generator=torch.Generator().manual_seed(1))
    assert spectral_spikes(found[order], shape) == expected
    assert spectral_spikes(found, (shape[1], shape[0])) == expected
    scaled = spectral_spikes(4 * found, shape)
    assert scaled.count == expected.count
    assert scaled.threshold == pytest.approx(4 * expected.threshold)
    assert scaled.softrank == pytest.approx(expected.softrank)


@pytest.mark.parametrize("shape", [(5, 5), (4, 4), (3, 2), (2, 2), (1, 2), (1, 30)])
def test_small_matrices_end(shape: tuple[int, int]) -> None:
    """Spikes each far above the next: trimming stops before nothing is left."""
    values = torch.logspace(0, 3.0 * (min(shape) - 1), min(shape), dtype=torch.float64)
    found = spectral_spikes(values, shape)
    assert found.reason == ""
    assert 0 <= found.count < min(shape)
    assert found.count == (values > found.threshold).sum()


def assert_missing(found: SpectralSpikes, reason: str) -> None:
    values = dataclasses.asdict(found)
    assert values.pop("reason") == reason
    assert all(math.isnan(value) for value in values.values())


def test_missing() -> None:
    no_bulk = "no bulk: more than half of the eigenvalues that are no spikes are zero"
    low_rank = gaussian(30, 4) @ gaussian(4, 20, seed=1)
    assert_missing(spectral_spikes(eigenvalues(low_rank), (30, 20)), no_bulk)
    # Six of ten: only once they are gone is the bulk seen to be none.
    most = torch.tensor([0.0] * 4 + [1e6**k for k in range(1, 7)], dtype=torch.float64)
    assert_missing(spectral_spikes(most, (10, 30)), no_bulk)
    assert_missing(spectral_spikes(torch.zeros(3), (3, 4)), "all weights are zero")
    assert_missing(spectral_spikes(torch.full((3,), math.nan), (3, 4)), "weights are not finite")
    assert_missing(spectral_spikes(torch.zeros(0), (0, 4)), "the matrix is empty")
    assert_missing(spectral_spikes(torch.ones(1), (1, 1)), "the matrix is a single entry")


def test_wrong_calls() -> None:
    with pytest.raises(ValueError, match=r"got \(3,\) for a matrix of shape \(5, 4\)"):
        spectral_spikes(torch.ones(3), (5, 4))
    with pytest.raises(ValueError, match=r"\(M,\), got \(2, 4\)"):
        spectral_spikes(torch.ones(2, 4), (5, 4))
    with pytest.raises(ValueError, match="probability strictly between 0 and 1, got 1"):
        spectral_spikes(torch.ones(4), (5, 4), quantile=1.0)
