"""The record of a matrix, and matrices of one shape measured together."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

import numpy as np
import pytest
import scipy.stats
import torch
from torch import Tensor

from grokscope.data.seeds import derive_seed
from grokscope.measures import marchenko_pastur
from grokscope.measures.alpha_null import alpha_null
from grokscope.measures.correlation_traps import correlation_traps
from grokscope.measures.erg import erg
from grokscope.measures.ks_marchenko_pastur import ks_marchenko_pastur
from grokscope.measures.power_law import fit_power_law
from grokscope.measures.power_law_p_value import power_law_p_value
from grokscope.measures.shuffled_spectrum import shuffled_eigenvalues
from grokscope.measures.spectral_distance import spectral_distance
from grokscope.measures.spectral_spikes import spectral_spikes
from grokscope.measures.spectrum import eigenvalues
from grokscope.measures.tail_alternatives import tail_alternatives
from grokscope.measures.trap_modes import trap_modes
from grokscope.measures.weightwatcher import weightwatcher
from grokscope.probes.matrices import Matrix, Parameter, plan_matrices, take_matrix
from grokscope.scan.entry import TensorEntry
from grokscope.scan.layer import measure
from grokscope.scan.measuring import _groups
from grokscope.scan.rows import Row
from grokscope.scan.settings import Settings

QUICK = Settings(shuffles=2, null_draws=3)


def matrices(*shapes: tuple[int, int]) -> list[Matrix]:
    plan = plan_matrices([Parameter(f"{i}.weight", s, "float32") for i, s in enumerate(shapes)])
    return [each for each in plan if isinstance(each, Matrix)]


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randn(*shape, generator=torch.Generator().manual_seed(seed))


def row_of(matrix: Matrix) -> Row:
    return Row(None, matrix, ((0, TensorEntry(matrix.sources[0], "float32", matrix.shape)),))


def flat(record: dict[str, Any]) -> dict[str, Any]:
    return {k: v for k, v in record.items() if isinstance(v, float)}


def test_matrices_of_one_shape_are_measured_together_as_alone() -> None:
    weights = [noise(30, 40), noise(30, 40, seed=1), torch.zeros(30, 40)]
    weights[2][:] = weights[0].prod(0)  # of rank one: by singular values, beside two by Gram
    plan = matrices(*[(30, 40)] * 3)
    together = measure(weights, plan, QUICK, [None, 5, 7])
    for weight, matrix, step, (record, _) in zip(
        weights, plan, (None, 5, 7), together, strict=True
    ):
        ((alone, _),) = measure([weight], [matrix], QUICK, [step])
        assert alone.keys() == record.keys()
        assert flat(alone) == pytest.approx(flat(record), rel=1e-9)
    assert [record["method"] for record, _ in together] == ["gram", "gram", "svd"]


def test_a_group_has_one_shape_and_fits_the_memory() -> None:
    shapes = [(20, 30), (20, 40), (20, 30), (20, 30), (30, 20)]
    rows = [row_of(matrix) for matrix in matrices(*shapes)]
    assert _groups(rows, range(5), memory=2**40) == [[0, 2, 3], [1], [4]]
    assert _groups(rows, [3, 0, 1], memory=1) == [[3], [0], [1]]
    many = [row_of(matrix) for matrix in matrices(*[(20, 30)] * 40)]
    assert [len(group) for group in _groups(many, range(40), memory=2**40)] == [16, 16, 8]


@pytest.mark.parametrize("convention", ["corrected", "weightwatcher"])
@pytest.mark.parametrize(
    "weight",
    [
        torch.zeros(20, 30),
        torch.full((20, 30), torch.nan),
        torch.full((20, 30), torch.inf),
        torch.ones(20, 30),
        torch.eye(20, 30),
        1e-30 * noise(20, 30),
        1e30 * noise(20, 30),
        1e150 * noise(20, 30).double(),
        noise(20, 30).sign(),
        torch.linalg.qr(noise(30, 20)).Q.T,
        noise(20, 30) * (torch.arange(20) < 3)[:, None],
        noise(20, 30).to(torch.bfloat16),
        noise(20, 30).to(torch.float16),
    ],
    ids=lambda _: "",
)
def test_degenerate_matrices_have_a_record_with_reasons(weight: Tensor, convention: Any) -> None:
    settings = Settings(convention=convention, shuffles=2, null_draws=3, bootstrap=3)
    ((record, spectrum),) = measure([weight], matrices((20, 30)), settings, [None])
    json.dumps([record, spectrum], allow_nan=False)
    assert record["status"] == ("failed" if record["alpha"] is None else "ok")
    assert bool(record["reason"]) == (record["alpha"] is None)
    for name, value in record.items():
        if value is None and name != "trap_location":
            assert record["missing"][name]


def test_another_seed_or_step_shuffles_otherwise_and_changes_nothing_else() -> None:
    (matrix,) = matrices((30, 40))
    weight = noise(30, 40)
    records = [
        measure([weight], [matrix], Settings(shuffles=2, null_draws=3, seed=seed), [step])[0][0]
        for seed, step in ((0, None), (1, None), (0, 3), (0, None))
    ]
    ratios = [record["trap_ratio"] for record in records]
    assert len(set(ratios)) == 3
    assert records[0] == records[3]
    assert len({record["alpha"] for record in records}) == 1


def structured() -> Tensor:
    """Return a matrix with a heavy tail, a mean and a large entry: no measure of it is trivial."""
    weight = noise(60, 80) * torch.linspace(0.2, 3, 60)[:, None] ** 2 + 0.4
    weight[5, 9] = 90.0
    return weight


def test_every_number_of_a_record_is_that_of_its_measure() -> None:
    (matrix,) = matrices((60, 80))
    weight, shape = structured(), (60, 80)
    settings = Settings(shuffles=3, null_draws=5, seed=4, bootstrap=7)
    null = alpha_null(shape, draws=5)
    ((record, spectrum),) = measure([weight], [matrix], settings, [11], null)

    def seeded(*names: str) -> torch.Generator:
        return torch.Generator().manual_seed(derive_seed(4, *names, matrix.name, 11))

    raw = eigenvalues(weight)
    exact = weight.double().numpy()
    singular = np.linalg.svd(exact, compute_uv=False)
    fit = fit_power_law(raw)
    others = tail_alternatives(raw, fit)
    spikes = spectral_spikes(raw, shape)
    shuffled = shuffled_eigenvalues(weight, shuffles=3, generator=seeded("spectral"))
    traps = correlation_traps(shuffled, shape)
    modes = trap_modes(weight, raw, shuffled, generator=seeded("spectral"))
    law = ks_marchenko_pastur(shuffled, shape)
    tail = erg(raw, fit)
    location = record.pop("trap_location")
    assert record.pop("missing") == {}
    assert [record.pop(name) for name in ("status", "reason", "method")] == ["ok", "", "gram"]
    assert record == pytest.approx(
        {
            "size": 60,
            "rank": 60,
            "alpha": fit.alpha,
            "alpha_se": fit.sigma,
            "alpha_unbiased": fit.alpha_unbiased,
            "D": fit.ks_distance,
            "xmin": fit.xmin,
            "xmax": fit.xmax,
            "num_pl_spikes": fit.tail_size,
            "p_value": power_law_p_value(raw, fit, draws=7, generator=seeded("bootstrap")).value,
            "ratio_exponential": others.exponential.log_likelihood_ratio,
            "p_exponential": others.exponential.p_value,
            "ratio_log_normal": others.log_normal.log_likelihood_ratio,
            "p_log_normal": others.log_normal.p_value,
            "ratio_truncated": others.truncated_power_law.log_likelihood_ratio,
            "p_truncated": others.truncated_power_law.p_value,
            "alpha_null_mean": null.mean,
            "alpha_null_std": null.std,
            "alpha_null_q05": null.q05,
            "alpha_null_q95": null.q95,
            "alpha_z": (fit.alpha - null.mean) / null.std,
            "alpha_hat": fit.alpha * np.log10(singular[0] ** 2),
            "log_alpha_norm": np.log10((singular ** (2 * fit.alpha)).sum()),
            "log_norm": np.log10((exact**2).sum()),
            "log_spectral_norm": np.log10(singular[0] ** 2),
            "spectral_norm": singular[0],
            "frobenius_norm": np.linalg.norm(exact),
            "stable_rank": (exact**2).sum() / singular[0] ** 2,
            "effective_rank": np.exp(scipy.stats.entropy(singular)),
            "participation_ratio": (singular**2).sum() ** 2 / (singular**4).sum(),
            "spectral_entropy": scipy.stats.entropy(singular**2) / np.log(60),
            "mp_scale": spikes.scale,
            "bulk_min": spikes.bulk_min,
            "bulk_max": spikes.bulk_max,
            "mp_softrank": spikes.softrank,
            "num_spikes": spikes.count,
            "spike_threshold": spikes.threshold,
            "traps": traps.count_mean,
            "traps_std": traps.count_std,
            "traps_min": traps.count_min,
            "traps_max": traps.count_max,
            "trap_fraction": traps.fraction,
            "trap_ratio": traps.ratio,
            "trap_threshold": traps.threshold,
            "shuffled_scale": traps.scale,
            "bulk_energy": traps.bulk_energy,
            "kurtosis": scipy.stats.kurtosis(exact, axis=None),
            "mp_ks_distance": law.distance,
            "mp_ks_p_value": law.p_value,
            "shuffled_distance": spectral_distance(raw, shuffled).value,
            "alpha_detrapped": modes.alpha_detrapped,
            "alpha_detrapped_std": modes.alpha_detrapped_std,
            "alpha_below_edge": modes.alpha_below_edge,
            "erg_size": tail.size,
            "erg_gap": tail.gap,
            "erg_difference": tail.lambda_difference,
        },
        rel=1e-9,
    )
    assert traps.count_mean >= 1
    assert location["mean_share"] == pytest.approx(modes.mean_share)
    assert location["top_5_mass"] == pytest.approx(modes.top_5_mass)
    assert location["rows"] == [[line.index, pytest.approx(line.share)] for line in modes.rows]
    assert location["columns"] == [[x.index, pytest.approx(x.share)] for x in modes.columns]
    assert list(location["entries"][0][:3]) == [5, 9, 90.0]
    assert spectrum["raw"] == pytest.approx(raw.tolist(), rel=1e-6)
    assert spectrum["shuffled"] == pytest.approx(shuffled[0].tolist(), rel=1e-6)
    assert (spectrum["scale"], spectrum["threshold"]) == (spikes.scale, spikes.threshold)


@pytest.mark.parametrize("shape", [(60, 80), (16, 12, 3, 3)])
def test_the_packages_columns_and_their_drawing(shape: tuple[int, ...]) -> None:
    plan = plan_matrices([Parameter("a.weight", shape, "float32")])
    matrix = next(x for x in plan if isinstance(x, Matrix) and not x.name.endswith("[flattened]"))
    weight = take_matrix(matrix, [noise(*shape)])
    settings = Settings(convention="weightwatcher", seed=4)
    ((record, spectrum),) = measure([weight], [matrix], settings, [None])
    seed = derive_seed(4, "weightwatcher", matrix.name, 0) % 2**32
    expected = weightwatcher(weight, random_state=np.random.RandomState(seed))
    for name, value in dataclasses.asdict(expected).items():
        if isinstance(value, float | int):
            assert record[name] == pytest.approx(value), name
    assert record["traps"] == expected.num_traps
    beyond = [value for value in spectrum["raw"] if value >= spectrum["xmin"] * (1 - 1e-5)]
    assert len(beyond) == expected.num_pl_spikes
    long, short = max(matrix.shape), min(matrix.shape)
    assert spectrum["threshold"] == pytest.approx(
        marchenko_pastur.edges(short / long, spectrum["scale"])[1]
    )
    inside = [value for value in spectrum["raw"] if value <= spectrum["threshold"]]
    assert len(inside) > 0.9 * len(spectrum["raw"])
