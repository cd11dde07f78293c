"""Traps put back in their place, against full SVDs and planted entries, shifts and rows."""

import dataclasses
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from grokscope.measures.correlation_traps import CorrelationTraps, correlation_traps
from grokscope.measures.power_law import fit_power_law
from grokscope.measures.shuffled_spectrum import shuffled_eigenvalues
from grokscope.measures.spectrum import eigenvalues
from grokscope.measures.trap_modes import TrapModes, trap_modes

pytestmark = pytest.mark.usefixtures("global_rng_untouched")


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def gaussian(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, dtype=torch.float64, generator=seeded(seed))


def modes_of(
    weight: torch.Tensor, *, shuffles: int = 10, seed: int = 0, **options: float
) -> tuple[TrapModes, CorrelationTraps]:
    shuffled = shuffled_eigenvalues(weight, shuffles=shuffles, generator=seeded(seed))
    quantile = options.get("quantile", 0.999)
    traps = correlation_traps(shuffled, (weight.shape[0], weight.shape[1]), quantile=quantile)
    found = trap_modes(weight, eigenvalues(weight), shuffled, generator=seeded(seed), **options)
    return found, traps


def bbp_location(entry: float, n: int, ratio: float) -> float:
    """Return where an entry in unit noise puts an eigenvalue (Baik, Ben Arous & Peche)."""
    theta_squared = entry**2 / n
    return (theta_squared + 1) * (theta_squared + ratio) / theta_squared


def naive(weight: torch.Tensor, thresholds: list[float]) -> dict[str, object]:
    """Write the definition out with full SVDs, given the threshold of each shuffle."""
    rows, columns = weight.shape
    generator = seeded()
    mean_size = torch.zeros(rows, columns, dtype=torch.float64)
    constant, total, alphas, ratios = 0.0, 0.0, [], []
    for threshold in thresholds:
        order = torch.randperm(rows * columns, generator=generator)
        u, s, vh = torch.linalg.svd(weight.flatten()[order].view(rows, columns))
        trapped = [k for k in range(len(s)) if s[k] ** 2 / max(rows, columns) > threshold]
        flat = torch.zeros(rows * columns, dtype=torch.float64)
        for k in trapped:
            flat[order] += (s[k] * torch.outer(u[:, k], vh[k])).flatten()
        placed = flat.view(rows, columns)
        constant += float(placed.mean()) ** 2 * rows * columns
        total += float((placed**2).sum())
        mean_size += placed.abs() / len(thresholds)
        alphas.append(fit_power_law(eigenvalues(weight - placed)).alpha)
        ratios.append([float(s[k] ** 2) / max(rows, columns) / threshold for k in trapped])
    share = mean_size**2 / (mean_size**2).sum()
    ordered = mean_size.flatten().sort(descending=True).values
    ranks = max(len(found) for found in ratios)
    return {
        "count": np.mean([len(found) for found in ratios]),
        "ratios": [np.mean([f[k] for f in ratios if len(f) > k]) for k in range(ranks)],
        "mean_share": constant / total,
        "share": share,
        "top_5_mass": float(ordered[: math.ceil(rows * columns / 20)].sum() / ordered.sum()),
        "top_10_mass": float(ordered[: math.ceil(rows * columns / 10)].sum() / ordered.sum()),
        "alpha": np.mean(alphas),
        "alpha_std": np.std(alphas),
    }


@pytest.mark.parametrize("shape", [(30, 50), (50, 30), (40, 40), (12, 120), (130, 14)])
def test_agrees_with_full_svds(shape: tuple[int, int]) -> None:
    # Heavy-tailed entries: several traps in most shuffles, none in some.
    weight = torch.from_numpy(np.random.default_rng(7).standard_t(4.0, shape)) + 0.1
    found, traps = modes_of(weight, shuffles=8, quantile=0.9, top=3)
    assert 0.0 < traps.count_mean < traps.count_max
    shuffled = shuffled_eigenvalues(weight, shuffles=8, generator=seeded())
    alone = [correlation_traps(one[None], shape, quantile=0.9).threshold for one in shuffled]
    expected = naive(weight, alone)
    assert found.count_mean == expected["count"] == traps.count_mean
    assert found.ratios == pytest.approx(expected["ratios"][:3], rel=1e-9)
    assert found.mean_share == pytest.approx(expected["mean_share"], rel=1e-7)
    assert found.top_5_mass == pytest.approx(expected["top_5_mass"], rel=1e-7)
    assert found.top_10_mass == pytest.approx(expected["top_10_mass"], rel=1e-7)
    assert found.alpha_detrapped == pytest.approx(expected["alpha"], rel=1e-7)
    assert found.alpha_detrapped_std == pytest.approx(expected["alpha_std"], rel=1e-6)
    share = expected["share"]
    for lines, axis in ((found.rows, 1), (found.columns, 0)):
        sums = share.sum(dim=axis)
        assert [line.index for line in lines] == sums.argsort(descending=True)[:3].tolist()
        assert [line.share for line in lines] == pytest.approx(
            [float(sums[line.index]) for line in lines], rel=1e-7
        )
    places = share.flatten().argsort(descending=True)[:3].tolist()
    assert [entry.row * shape[1] + entry.column for entry in found.entries] == places
    for entry in found.entries:
        assert entry.share == pytest.approx(float(share[entry.row, entry.column]), rel=1e-7)
        assert entry.weight == float(weight[entry.row, entry.column])


@pytest.mark.parametrize("shape", [(200, 784), (784, 200), (200, 200), (10, 200)])
def test_one_planted_entry_is_found_in_its_place(shape: tuple[int, int]) -> None:
    n, ratio = max(shape), min(shape) / max(shape)
    entry = -4.0 * ratio**0.25 * math.sqrt(n)
    weight = gaussian(*shape, seed=1)
    weight[7, 3] = entry
    found, traps = modes_of(weight)
    assert found.count_mean == traps.count_mean == 1.0
    assert (found.rows[0].index, found.columns[0].index) == (7, 3)
    first, second = found.entries[:2]
    assert (first.row, first.column, first.weight) == (7, 3, entry)
    assert first.share > 0.9
    assert second.share < 0.005
    assert found.rows[0].share >= first.share
    assert found.columns[0].share >= first.share
    assert found.mean_share < 0.005
    # Its row and column in a shuffle have a squared norm that scatters by sqrt(2 n): over n, that
    # is the scatter of the location, over sqrt(10) in the mean of ten. One percent for finite size.
    location = bbp_location(entry, n, ratio)
    scatter = math.sqrt(2 / n / 10) / location
    assert found.ratios[0] * traps.threshold == pytest.approx(location, rel=4 * scatter + 0.01)


def test_alpha_that_large_entries_pull_down_comes_back() -> None:
    noise = [fit_power_law(eigenvalues(gaussian(200, 200, seed=s))).alpha for s in range(30)]
    weight = gaussian(200, 200, seed=50)
    for k in range(20):
        weight[9 * k + 3, 7 * k + 1] = 60.0 * 1.15**k
    found, traps = modes_of(weight)
    assert traps.count_mean >= 18
    pulled = fit_power_law(eigenvalues(weight)).alpha
    assert pulled < 2.5 < min(noise)
    assert min(noise) <= found.alpha_detrapped <= max(noise)
    assert min(noise) <= found.alpha_below_edge <= max(noise)
    assert found.detrapped_reason == found.below_edge_reason == ""


def test_detrapping_leaves_what_has_been_learned() -> None:
    """A spread-out signal is no trap: it stays, where a cut at the edge would discard it."""
    weight = gaussian(100, 600)
    for k in range(20):
        direction = torch.outer(gaussian(100, seed=2 * k + 1), gaussian(600, seed=2 * k + 2))
        weight += 0.1 * 1.15**k * direction
    alpha = fit_power_law(eigenvalues(weight)).alpha
    weight[5, 6] = 600.0
    found, _ = modes_of(weight)
    assert found.count_mean == 1.0
    assert (found.entries[0].row, found.entries[0].column) == (5, 6)
    assert found.alpha_below_edge > 1.5 * alpha
    assert abs(found.alpha_detrapped - alpha) < (found.alpha_below_edge - alpha) / 4


@pytest.mark.parametrize("shape", [(200, 784), (200, 200)])
@pytest.mark.parametrize("shift", [0.3, -0.3])
def test_a_mean_shift_is_named_as_such(shape: tuple[int, int], shift: float) -> None:
    found, traps = modes_of(gaussian(*shape) + shift)
    assert found.count_mean == traps.count_mean == 1.0
    assert found.mean_share > 0.85
    assert found.entries[0].share < 1e-3
    assert found.rows[0].share < 0.01
    assert found.top_5_mass < 0.1


def test_planted_rows_and_columns_are_found() -> None:
    weight = gaussian(200, 300)
    weight[17] *= 10
    found, _ = modes_of(weight)
    assert found.rows[0].index == 17
    assert found.rows[0].share > 20 * found.rows[1].share
    assert all(entry.row == 17 for entry in found.entries)
    assert found.mean_share < 0.005
    found, _ = modes_of(weight.T.contiguous())
    assert found.columns[0].index == 17
    assert found.columns[0].share > 20 * found.columns[1].share


def test_several_planted_entries_are_named_in_order() -> None:
    weight = gaussian(200, 784)
    planted = {(3, 700): 100.0, (180, 2): -140.0, (40, 400): 80.0}
    for place, value in planted.items():
        weight[place] = value
    found, _ = modes_of(weight, top=3)
    assert [(entry.row, entry.column) for entry in found.entries] == [(180, 2), (3, 700), (40, 400)]
    assert [entry.weight for entry in found.entries] == [-140.0, 100.0, 80.0]
    assert sum(entry.share for entry in found.entries) > 0.9
    assert list(found.ratios) == sorted(found.ratios, reverse=True)
    assert len(found.ratios) == 3


@settings(deadline=None, max_examples=20)
@given(
    seed=st.integers(0, 2**31),
    rows=st.integers(2, 40),
    columns=st.integers(2, 40),
    exponent=st.sampled_from([-120, -40, 0, 30]),
)
def test_counts_are_those_of_correlation_traps_in_any_units(
    seed: int, rows: int, columns: int, exponent: int
) -> None:
    weight = gaussian(rows, columns, seed=seed) ** 5
    found, traps = modes_of(weight * 2.0**exponent, seed=seed)
    if traps.reason or traps.count_mean == 0:
        assert found.reason == (traps.reason or "no traps")
        return
    assert found.count_mean == traps.count_mean
    plain, _ = modes_of(weight, seed=seed)
    assert found.ratios == pytest.approx(plain.ratios, rel=1e-9)
    assert found.mean_share == pytest.approx(plain.mean_share, rel=1e-6, abs=1e-9)
    assert found.top_5_mass == pytest.approx(plain.top_5_mass, rel=1e-6)


def test_noise_has_no_traps_and_leaves_the_generator_alone() -> None:
    weight = gaussian(100, 200)
    shuffled = shuffled_eigenvalues(weight, generator=seeded())
    generator = seeded()
    found = trap_modes(weight, eigenvalues(weight), shuffled, generator=generator)
    assert_missing(found, "no traps")
    assert torch.equal(generator.get_state(), seeded().get_state())


def assert_missing(found: TrapModes, reason: str) -> None:
    values = dataclasses.asdict(found)
    assert {values.pop(name) for name in ("reason", "detrapped_reason", "below_edge_reason")} == {
        reason
    }
    assert all(value == () or math.isnan(value) for value in values.values())


def test_small_matrices_have_places_but_no_exponent() -> None:
    weight = gaussian(6, 100)
    weight[2, 30] = 60.0
    found, _ = modes_of(weight)
    assert found.reason == ""
    assert (found.entries[0].row, found.entries[0].column) == (2, 30)
    assert math.isnan(found.alpha_detrapped)
    assert math.isnan(found.alpha_detrapped_std)
    assert math.isnan(found.alpha_below_edge)
    assert found.detrapped_reason.startswith("only 6 of 6 values")
    assert found.below_edge_reason.startswith("only 5 of 5 values")


@pytest.mark.parametrize(
    "weight",
    [
        torch.zeros(12, 8),
        torch.full((12, 8), math.nan),
        torch.ones(12, 8),
        torch.ones(1, 1),
        torch.ones(0, 4),
    ],
)
def test_missing_where_correlation_traps_is(weight: torch.Tensor) -> None:
    found, traps = modes_of(weight)
    assert traps.reason != ""
    assert_missing(found, traps.reason)


def test_float32_gives_the_same_and_is_not_mutated() -> None:
    weight = gaussian(40, 60).float()
    weight[1, 2] = 50.0
    before = weight.clone()
    found, _ = modes_of(weight)
    assert torch.equal(weight, before)
    assert found == modes_of(weight.double())[0]
    assert found == modes_of(weight)[0], "the same bits again"


def test_wrong_calls() -> None:
    weight = gaussian(20, 30)
    weight[0, 0] = 40.0
    spectrum = eigenvalues(weight)
    shuffled = shuffled_eigenvalues(weight, generator=seeded())
    with pytest.raises(ValueError, match="this one gives other shuffles"):
        trap_modes(weight, spectrum, shuffled, generator=seeded(1))
    with pytest.raises(ValueError, match=r"expected one real floating-point matrix .*\(2, 3, 4\)"):
        trap_modes(torch.ones(2, 3, 4), spectrum, shuffled, generator=seeded())
    with pytest.raises(ValueError, match=r"got torch\.int64 of shape \(3, 4\)"):
        trap_modes(torch.ones(3, 4).long(), spectrum, shuffled, generator=seeded())
    with pytest.raises(ValueError, match=r"got \(19,\) for a matrix of shape \(20, 30\)"):
        trap_modes(weight, spectrum[1:], shuffled, generator=seeded())
    with pytest.raises(ValueError, match=r"got \(10, 19\) for a matrix of shape \(20, 30\)"):
        trap_modes(weight, spectrum, shuffled[:, 1:], generator=seeded())
    with pytest.raises(ValueError, match="top of at least 1, got 0"):
        trap_modes(weight, spectrum, shuffled, generator=seeded(), top=0)
    with pytest.raises(ValueError, match="strictly between 0 and 1, got 1"):
        trap_modes(weight, spectrum, shuffled, generator=seeded(), quantile=1.0)
