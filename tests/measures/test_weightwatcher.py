"""WeightWatcher's columns against the package itself, `powerlaw`, and values worked out by hand."""

import contextlib
import dataclasses
import io
import itertools
import logging
import math
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import powerlaw
import pytest
import scipy.optimize
import sklearn.datasets
import torch
from threadpoolctl import threadpool_limits
from torch import nn

from grokscope.measures._weightwatcher_mp import _simplex_search, fit_marchenko_pastur
from grokscope.measures.weightwatcher import WeightWatcherColumns, weightwatcher

pytestmark = pytest.mark.usefixtures("global_rng_untouched")

SEED = 11
Row = dict[str, Any]

COUNTS = {"M", "N", "rf", "num_evals", "num_pl_spikes", "matrix_rank", "rank_loss"}
COUNTS |= {"weak_rank_loss", "detX_num", "num_ERG_spikes", "ERG_gap", "num_spikes"}
COUNTS |= {"rand_num_spikes", "num_traps"}
# For square matrices the package looks for the minimum, to 1e-4, that is computed exactly here.
OF_THE_SCALE = {"sigma_mp", "mp_softrank", "bulk_max", "bulk_min"}
OF_THE_LAW = OF_THE_SCALE | {"num_spikes", "W_scale"}
OF_THE_SHUFFLED_LAW = {f"rand_{name}" for name in OF_THE_LAW} | {"num_traps"}
OF_THE_SHUFFLES = {"max_rand_eval", "rand_distance", "ww_softrank", "ww_maxdist"}
OF_THE_FIT = {"alpha", "D", "xmin", "xmax", "sigma", "num_pl_spikes", "status", "warning"}
OF_THE_FIT |= {"alpha_weighted", "log_alpha_norm", "ERG_gap"}


def generator(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def gaussian(*shape: int, seed: int = 0) -> torch.Tensor:
    return torch.randn(*shape, generator=generator(seed))


def student(degrees: float, *shape: int) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(1).standard_t(degrees, shape)).float()


def pareto(index: float, *shape: int) -> torch.Tensor:
    return torch.from_numpy(np.random.default_rng(1).pareto(index, shape)).float()


def low_rank(noise: float) -> torch.Tensor:
    return gaussian(60, 5) @ gaussian(5, 80, seed=1) + noise * gaussian(60, 80, seed=2)


def outlier() -> torch.Tensor:
    weight = gaussian(40, 120)
    weight[3, 4] = 60.0
    return weight


def linear(weight: torch.Tensor) -> nn.Linear:
    layer = nn.Linear(*reversed(weight.shape), bias=False, device="meta")
    layer.weight = nn.Parameter(weight)
    return layer


class Conv1D(nn.Module):
    """Keeps its matrix as (inputs, outputs), as the layers of GPT-2 do."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        self.weight = nn.Parameter(0.02 * gaussian(inputs, outputs))


def conv(inputs: int, outputs: int, kernel: int) -> nn.Conv2d:
    layer = nn.Conv2d(inputs, outputs, kernel, bias=False, device="meta")
    layer.weight = nn.Parameter(0.1 * gaussian(*layer.weight.shape))
    return layer


def embedding(rows: int, columns: int) -> nn.Embedding:
    return nn.Embedding.from_pretrained(gaussian(rows, columns))


ZOO: dict[str, Callable[[], nn.Module]] = {
    "square": lambda: linear(gaussian(100, 100) / 10),
    "nearly square": lambda: linear(gaussian(60, 61)),
    "ten rows": lambda: linear(gaussian(10, 200)),
    "eight rows": lambda: linear(gaussian(8, 12)),
    "scaled down": lambda: linear(1e-2 * gaussian(50, 80)),
    "scaled up, tall, stored by columns": lambda: linear(1e3 * gaussian(40, 150).T),
    "Student 3": lambda: linear(student(3, 60, 40)),
    "Student 1.2": lambda: linear(student(1.2, 40, 60)),
    "Pareto 1.5": lambda: linear(pareto(1.5, 60, 45)),
    "Pareto 1.5, square": lambda: linear(pareto(1.5, 50, 50)),
    "low rank and noise": lambda: linear(low_rank(0.3)),
    "large entry": lambda: linear(outlier()),
    "embedding": lambda: embedding(300, 32),
    "Conv1D": lambda: Conv1D(30, 90),
    "conv 3x3, fewer outputs": lambda: conv(16, 12, 3),
    "conv 2x2": lambda: conv(26, 30, 2),
}


@contextlib.contextmanager
def package() -> Iterator[Any]:
    """Import WeightWatcher and undo what it does to the process: prints, logging, warnings, RNG."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    state = np.random.get_state()
    logging.disable(logging.CRITICAL)
    with (
        threadpool_limits(1),
        warnings.catch_warnings(),
        contextlib.redirect_stdout(io.StringIO()),
        contextlib.redirect_stderr(io.StringIO()),
    ):
        warnings.simplefilter("ignore")
        import weightwatcher

        yield weightwatcher.WeightWatcher
    logging.disable(logging.NOTSET)
    np.random.set_state(state)
    root.handlers[:], root.level = handlers, level


def theirs(model: nn.Module) -> list[Row]:
    with package() as watcher:
        np.random.seed(SEED)
        table = watcher(model).analyze(plot=False, mp_fit=True, randomize=True, detX=True)
    rows: list[Row] = table.to_dict("records")
    return rows


def matrix(layer: nn.Module) -> torch.Tensor:
    """Return the matrix of a layer, or the slices of a convolution, one for each position."""
    weight = layer.weight
    assert isinstance(weight, torch.Tensor)
    return weight.permute(2, 3, 0, 1).flatten(0, 1) if weight.ndim == 4 else weight


def ours(weight: torch.Tensor, seed: int = SEED) -> WeightWatcherColumns:
    return weightwatcher(weight, random_state=np.random.RandomState(seed))


def differences(found: WeightWatcherColumns, expected: Row) -> set[str]:
    """Return the names of the columns that do not agree."""
    differ = set()
    for name, value in dataclasses.asdict(found).items():
        if name.endswith("reason"):
            continue
        other = expected[name]
        if name in COUNTS or isinstance(value, str):
            agree = value == other
        else:
            exact = found.Q != 1.0 or name.removeprefix("rand_") not in OF_THE_SCALE
            near = 1e-6 if exact else 2e-4
            agree = other is not None and math.isclose(value, other, rel_tol=near, abs_tol=1e-12)
        if not agree:
            differ.add(name)
    return differ


@pytest.mark.parametrize("name", ZOO)
def test_agrees_with_the_package(name: str) -> None:
    layer = ZOO[name]()
    (expected,) = theirs(nn.Sequential(layer))
    found = ours(matrix(layer))
    assert differences(found, expected) == set()
    assert (found.reason, found.mp_reason, found.rand_mp_reason) == ("", "", "")


def mlp(*widths: int) -> nn.Sequential:
    with torch.random.fork_rng():
        torch.manual_seed(0)
        layers = [nn.Linear(a, b) for a, b in itertools.pairwise(widths)]
    return nn.Sequential(*[part for layer in layers for part in (layer, nn.ReLU())][:-1])


def assert_agrees_layer_by_layer(model: nn.Sequential) -> None:
    random_state = np.random.RandomState(SEED)
    layers = [layer for layer in model if isinstance(layer, nn.Linear)]
    for layer, expected in zip(layers, theirs(model), strict=True):
        found = weightwatcher(layer.weight, random_state=random_state)
        assert differences(found, expected) == set()


@pytest.mark.slow
def test_agrees_with_the_package_on_a_fresh_network() -> None:
    assert_agrees_layer_by_layer(mlp(784, 200, 200, 10))


def test_agrees_with_the_package_on_a_trained_network() -> None:
    """One generator, passed from layer to layer, replays the shuffles of all."""
    model = mlp(64, 48, 10)
    inputs, labels = sklearn.datasets.load_digits(return_X_y=True)
    x, y = torch.from_numpy(inputs).float() / 16, torch.from_numpy(labels)
    optimizer = torch.optim.Adam(model.parameters(), lr=1e-2)
    for _ in range(200):
        optimizer.zero_grad()
        loss = nn.functional.cross_entropy(model(x), y)
        loss.backward()
        optimizer.step()
    assert float(loss.detach()) < 0.05, "the control: it did learn"
    assert_agrees_layer_by_layer(model)


@pytest.mark.slow
@pytest.mark.parametrize("shape", [(1024, 4096), (1024, 1024)])
def test_agrees_with_the_package_on_a_large_layer(shape: tuple[int, int]) -> None:
    weight = gaussian(*shape) / 32
    (expected,) = theirs(nn.Sequential(linear(weight)))
    assert differences(ours(weight), expected) == set()


# WeightWatcher corrects the exponent of fewer than 20 eigenvalues, which `powerlaw` does not.
@pytest.mark.parametrize("name", [name for name in ZOO if not name.endswith("rows")])
def test_fits_agree_with_the_powerlaw_package(name: str) -> None:
    weight = matrix(ZOO[name]()).detach().double()
    found = ours(weight)
    values = np.linalg.svd(weight.float().double().numpy(), compute_uv=False).ravel() ** 2
    if weight.ndim == 3:
        values /= 2
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        # Its own default finds no exponent above 3.
        fit = powerlaw.Fit(values, verbose=0, parameter_ranges={"alpha": (1.0, 1e6)}).power_law
        expected = fit.alpha, fit.xmin, fit.D
    assert (found.alpha, found.xmin, found.D) == pytest.approx(expected, rel=1e-6)


def test_a_failed_fit_is_missing_where_the_package_has_minus_one() -> None:
    """Of weights this small no eigenvalue passes the package's absolute cut."""
    weight = 1e-3 * gaussian(50, 80) / 80**0.5
    (expected,) = theirs(nn.Sequential(linear(weight)))
    found = ours(weight)
    assert differences(found, expected) == OF_THE_FIT - {"status"}
    assert (expected["alpha"], expected["warning"]) == (-1, "over-trained")
    assert math.isnan(found.alpha)
    assert (found.status, found.warning) == ("failed", "")
    assert found.reason == "only 0 of 50 values are above 1e-5, a tail needs 2"
    assert found.mp_reason == ""


def test_the_zero_matrix_has_no_columns() -> None:
    weight = torch.zeros(20, 30)
    (expected,) = theirs(nn.Sequential(linear(weight)))
    found = ours(weight)
    assert (expected["alpha"], expected["sigma_mp"], expected["num_traps"]) == (-1, -1, -1)
    assert found.reason == found.mp_reason == found.rand_mp_reason == "all weights are zero"
    assert_only_a_shape(found)


def assert_only_a_shape(found: WeightWatcherColumns) -> None:
    shape = {"M", "N", "Q", "rf", "num_evals"}
    for name, value in dataclasses.asdict(found).items():
        assert name in shape or isinstance(value, str) or math.isnan(value)
    assert found.status == "failed"


@pytest.mark.parametrize("bad", [math.nan, math.inf, 1e39])
def test_weights_that_are_not_finite_in_float32_have_no_columns(bad: float) -> None:
    weight = gaussian(20, 30).double()
    weight[2, 3] = bad
    found = ours(weight)
    assert found.reason == found.mp_reason == found.rand_mp_reason == "weights are not finite"
    assert_only_a_shape(found)


def test_equal_eigenvalues_have_no_exponent_where_the_package_has_an_infinite_one() -> None:
    weight = torch.eye(30)
    (expected,) = theirs(nn.Sequential(linear(weight)))
    found = ours(weight)
    assert expected["alpha"] == math.inf
    assert found.reason == "the values of every tail are equal, which no power law fits"
    assert differences(found, expected) == OF_THE_FIT


def test_exchanged_sides_of_a_convolution_with_an_even_kernel() -> None:
    """With fewer outputs than inputs the package ends up with N < M and fits the wrong law."""
    layer = conv(52, 26, 2)
    (expected,) = theirs(nn.Sequential(layer))
    found = ours(matrix(layer))
    assert (expected["N"], expected["M"]) == (26, 52)
    assert (found.N, found.M) == (52, 26)
    differ = differences(found, expected)
    assert {"N", "M", "Q", "sigma_mp", "num_traps"} <= differ
    assert differ <= {"N", "M", "Q"} | OF_THE_LAW | OF_THE_SHUFFLED_LAW
    assert found.num_spikes == found.num_traps == 0, "it is pure noise"
    assert expected["num_traps"] > 0


def test_the_standard_error_of_a_tail_that_is_too_short_for_the_package() -> None:
    """With fewer than 8 eigenvalues its sigma is left over from an exponent of zero."""
    weight = low_rank(0.0)
    (expected,) = theirs(nn.Sequential(linear(weight)))
    found = ours(weight)
    assert differences(found, expected) == {"sigma"}
    assert expected["sigma"] == pytest.approx(-1 / math.sqrt(5))
    assert found.sigma == pytest.approx((found.alpha - 1) / math.sqrt(5))


def test_products_leave_the_range_of_floats_in_the_package() -> None:
    """The determinant condition by sums of logarithms, where the product over a tail overflows."""
    eigenvalues = np.concatenate([np.full(40, 1e-40), np.full(40, 1e20)])
    found = ours(torch.from_numpy(np.diag(np.sqrt(eigenvalues))))
    shares = eigenvalues * 80 / eigenvalues.sum()
    logs = np.log(shares[::-1]).cumsum()
    assert found.detX_num == int((logs < 0).argmax()) + 1 == 41
    assert found.detX_val == pytest.approx(1e-40, rel=1e-6)


GRID_CASES = [
    (200, 2.5, 2.506379, 1.001670, 0.003365, 0.106517, 119),
    (40, 2.5, 2.532516, 1.008421, 0.016858, 0.242312, 26),
]


@pytest.mark.parametrize(
    ("n", "exponent", "alpha", "xmin", "distance", "sigma", "size"), GRID_CASES
)
def test_values_of_the_package_on_a_pareto_grid(
    n: int, exponent: float, alpha: float, xmin: float, distance: float, sigma: float, size: int
) -> None:
    eigenvalues = (1 - (torch.arange(n, dtype=torch.float64) + 0.5) / n) ** (-1 / (exponent - 1))
    found = ours(torch.diag(eigenvalues.sqrt()))
    assert found.alpha == pytest.approx(alpha, abs=2e-6)
    assert found.xmin == pytest.approx(xmin, abs=1e-6)
    assert abs(found.D - distance) < 1e-6
    assert found.sigma == pytest.approx(sigma, abs=1e-6)
    assert (found.num_pl_spikes, found.detX_num) == (n, size)


def test_values_of_the_package_on_a_structured_matrix() -> None:
    i = torch.arange(100, dtype=torch.float64)[:, None]
    j = torch.arange(200, dtype=torch.float64)
    found = ours(torch.sin(1 + 0.7 * i**2 + 1.3 * j**2 + 0.37 * i * j))
    assert found.norm == pytest.approx(9941.7933, rel=1e-7)
    assert found.lambda_max == pytest.approx(417.4530, rel=1e-6)
    assert found.alpha == pytest.approx(2.206800, rel=1e-6)
    assert found.xmin == pytest.approx(82.392093, rel=1e-6)
    assert abs(found.D - 0.157395) < 1e-6
    assert (found.num_pl_spikes, found.detX_num, found.num_spikes) == (41, 67, 54)
    assert found.sigma_mp == pytest.approx(0.330712, abs=2e-6)
    assert found.mp_softrank == pytest.approx(0.075906, abs=1e-6)
    assert found.bulk_min == pytest.approx(0.932786, rel=1e-5)
    assert found.bulk_max == pytest.approx(31.687261, rel=1e-5)


@pytest.mark.parametrize(
    ("rows", "columns", "norm", "largest", "sigma", "softrank", "edge", "size", "entropy"),
    [
        (60, 150, 742.417077, 32.189087, 1.005401, 1.035499, 33.331768, 51, 0.951749),
        (80, 80, 532.767543, 23.132905, 1.006433, 1.166400, 26.982221, 59, 0.886610),
        (120, 120, 1189.122684, 36.905940, 1.006172, 1.087311, 40.128245, 89, 0.897256),
    ],
)
def test_values_of_the_package_on_hashed_noise(
    rows: int,
    columns: int,
    norm: float,
    largest: float,
    sigma: float,
    softrank: float,
    edge: float,
    size: int,
    entropy: float,
) -> None:
    i = np.arange(rows)[:, None]
    hashed = 43758.5453 * np.sin(12.9898 * i + 78.233 * np.arange(columns))
    found = ours(torch.from_numpy(hashed - np.floor(hashed) - 0.5))
    near = 2e-4 if rows == columns else 1e-5
    assert found.norm == pytest.approx(norm, rel=1e-6)
    assert found.lambda_max == pytest.approx(largest, rel=1e-5)
    assert found.sigma_mp == pytest.approx(sigma, rel=near)
    assert found.mp_softrank == pytest.approx(softrank, rel=2 * near)
    assert found.bulk_max == pytest.approx(edge, rel=2 * near)
    assert found.entropy == pytest.approx(entropy, abs=1e-6)
    assert (found.num_spikes, found.detX_num) == (0, size)


def test_values_of_the_package_for_the_bulk_of_fixed_spectra() -> None:
    k = np.arange(100) + 0.5
    fit = fit_marchenko_pastur(0.2 + 0.02 * k, 200, 100)
    assert fit.num_spikes == 0
    assert fit.sigma_mp == pytest.approx(0.810222, rel=1e-6)
    assert fit.mp_softrank == pytest.approx(1.048254, rel=1e-6)
    assert (fit.bulk_min, fit.bulk_max) == pytest.approx((0.067578, 2.295675), abs=1e-6)
    assert fit.W_scale == pytest.approx(0.912871, abs=1e-6)
    fit = fit_marchenko_pastur((0.02 * k) ** 2, 100, 100)
    assert fit.num_spikes == 0
    assert fit.sigma_mp == pytest.approx(0.996358, rel=2e-4)
    assert fit.mp_softrank == pytest.approx(1.336941, rel=4e-4)
    assert (fit.bulk_min, fit.bulk_max) == pytest.approx((0.0, 5.294421), rel=4e-4)
    assert fit.W_scale == pytest.approx(0.866036, abs=1e-6)


@pytest.mark.parametrize("start", [0.02, 0.9, 1.3, 40.0])
@pytest.mark.parametrize("width", [0.3, 3.0])
def test_the_simplex_search_is_that_of_scipy(start: float, width: float) -> None:
    def misfit(x: float) -> float:
        """Have ripples and a wall, as the misfit of a law to a density on a grid has."""
        return 1e6 if x > 1.7 else (x - 1.2) ** 2 / width + 0.01 * math.sin(90 * x)

    def of_array(x: np.ndarray) -> float:
        return misfit(float(x[0]))

    expected = scipy.optimize.fmin(of_array, start, xtol=1e-4, ftol=1e-4, disp=False)
    assert _simplex_search(misfit, start) == pytest.approx(expected[0], rel=1e-13)


@pytest.mark.parametrize("factor", [1e-3, 3.0, 7.0])
def test_the_bulk_scales_with_the_spectrum_where_the_density_is_flat(factor: float) -> None:
    """Rounding alone tells the points of a flat density apart, and must not choose its peak."""
    values = 0.2 + 0.02 * (np.arange(100) + 0.5)
    fit = fit_marchenko_pastur(values, 200, 100)
    scaled = fit_marchenko_pastur(factor * values, 200, 100)
    assert scaled.sigma_mp == pytest.approx(fit.sigma_mp, rel=1e-9)
    assert scaled.bulk_max == pytest.approx(factor * fit.bulk_max, rel=1e-9)


def test_the_smoothed_density_may_fall_between_the_points_of_the_grid() -> None:
    values = np.append(np.full(2999, 2000 / 2999), 1000.0)
    fit = fit_marchenko_pastur(values, 4000, 3000)  # a grid of steps of 1
    assert fit.reason == "the largest eigenvalue leaves no grid point to the others"
    assert math.isnan(fit.sigma_mp)


def test_small_layers_count_the_traps_of_five_shuffles_together() -> None:
    assert ours(outlier()).num_traps == 5
    wide = gaussian(100, 300)
    wide[3, 4] = 100.0
    assert ours(wide).num_traps == 1
    assert ours(gaussian(100, 300)).num_traps == 0, "the control"


def test_without_shuffles_their_columns_are_missing() -> None:
    weight = gaussian(30, 40)
    everything = dataclasses.asdict(ours(weight))
    plain = dataclasses.asdict(weightwatcher(weight))
    absent = {name for name, value in plain.items() if value != everything[name]}
    assert all(math.isnan(plain[name]) for name in absent)
    assert absent == OF_THE_SHUFFLES | OF_THE_SHUFFLED_LAW


def test_transposition_changes_only_the_shuffles() -> None:
    weight = student(2.0, 60, 90)
    found, turned = ours(weight), ours(weight.T)
    differ = differences(turned, dataclasses.asdict(found))
    assert differ, "the control"
    assert differ <= OF_THE_SHUFFLES | OF_THE_SHUFFLED_LAW


def test_weights_are_rounded_to_float32() -> None:
    weight = gaussian(30, 40)
    nudged = weight.double() * (1 + 1e-9)
    assert ours(nudged) == ours(weight)
    coarse = weight.bfloat16()
    assert ours(coarse) == ours(coarse.float())


def test_every_layer_of_a_shape_advances_the_generator_equally() -> None:
    states = []
    for weight in (gaussian(20, 30), torch.zeros(20, 30), torch.full((20, 30), math.nan)):
        random_state = np.random.RandomState(SEED)
        weightwatcher(weight, random_state=random_state)
        states.append(random_state.randint(2**31))
    assert len(set(states)) == 1


def test_weights_are_left_alone() -> None:
    weight = gaussian(30, 40).requires_grad_()
    before = weight.detach().clone()
    ours(weight)
    stack = gaussian(3, 20, 12)
    ours(stack)
    assert torch.equal(weight, before)
    assert torch.equal(stack, gaussian(3, 20, 12))


@pytest.mark.parametrize(
    "wrong",
    [torch.ones(3), torch.ones(2, 2, 2, 2), torch.ones(0, 4), torch.ones(3, 4, dtype=torch.int64)],
)
def test_wrong_calls(wrong: torch.Tensor) -> None:
    with pytest.raises(ValueError, match=r"weightwatcher: expected a real floating-point matrix"):
        weightwatcher(wrong)
