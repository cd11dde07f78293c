"""The record of a matrix, and matrices of one shape measured together."""

from __future__ import annotations

import json
from typing import Any

import pytest
import torch
from torch import Tensor

from grokscope.probes.matrices import Matrix, Parameter, plan_matrices
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
    rows = [Row(None, matrix) for matrix in matrices(*shapes)]
    assert _groups(rows, range(5), memory=2**40) == [[0, 2, 3], [1], [4]]
    assert _groups(rows, [3, 0, 1], memory=1) == [[3], [0], [1]]
    many = [Row(None, matrix) for matrix in matrices(*[(20, 30)] * 40)]
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
