from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.datasets import load_digits

from grokscope.measures import neighbourhood
from grokscope.measures.neighbourhood import (
    mixture_consistency,
    noise_consistency,
    shift_consistency,
)

pytestmark = pytest.mark.usefixtures("global_rng_untouched")
LogitsOf = Callable[[torch.Tensor], torch.Tensor]


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def blobs(n: int = 60, d: int = 16, k: int = 4) -> tuple[torch.Tensor, torch.Tensor, LogitsOf]:
    """Well separated classes around one-hot centroids, and the nearest-centroid rule."""
    labels = torch.arange(n) % k
    centroids = 10.0 * torch.eye(k, d, dtype=torch.float64)
    inputs = centroids[labels] + 0.1 * torch.randn(n, d, dtype=torch.float64, generator=seeded())
    return inputs, labels, lambda x: -torch.cdist(x, centroids)


def all_three(
    logits_of: LogitsOf, inputs: torch.Tensor, labels: torch.Tensor, sigma: float = 0.5
) -> tuple[float, float, float]:
    side = math.isqrt(inputs.shape[1])
    return (
        noise_consistency(
            logits_of, inputs, labels, sigma=sigma, draws=20, generator=seeded()
        ).value,
        mixture_consistency(logits_of, inputs, labels, draws=20, generator=seeded()).value,
        shift_consistency(logits_of, inputs, labels, image_shape=(side, side)).value,
    )


def test_nearest_centroids_of_separated_blobs_are_consistent() -> None:
    inputs, labels, logits_of = blobs()
    noise, mixture, _ = all_three(logits_of, inputs, labels)
    assert noise == 1.0
    assert mixture == 1.0


def test_labels_that_the_network_does_not_predict_are_not_consistent() -> None:
    inputs, labels, logits_of = blobs(400)
    permuted = labels[torch.randperm(400, generator=seeded(1))]
    deviation = math.sqrt(0.25 * 0.75 / 400)
    for score in all_three(logits_of, inputs, permuted)[:2]:
        assert score == pytest.approx(0.25, abs=5 * deviation)
    wrong = (labels + 1) % 4
    assert all_three(logits_of, inputs, wrong)[:2] == (0.0, 0.0)


def test_a_network_that_ignores_its_input_scores_at_chance() -> None:
    inputs, labels, _ = blobs()
    constant = torch.tensor([0.0, 0.0, 1.0, 0.0])
    scores = all_three(lambda x: constant.expand(len(x), 4), inputs, labels)
    assert scores == (0.25, 0.25, 0.25)


@pytest.fixture(scope="module")
def digits() -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    data = load_digits()
    chosen = torch.randperm(len(data.target), generator=seeded(0))[:200]
    labels = torch.from_numpy(data.target)[chosen]
    permuted = labels[torch.randperm(200, generator=seeded(1))]
    return torch.from_numpy(data.data / 16.0)[chosen], labels, permuted


def fitted(inputs: torch.Tensor, labels: torch.Tensor) -> LogitsOf:
    """A small ReLU network that has learnt ``labels`` by heart."""
    generator = seeded(2)
    w1 = 0.1 * torch.randn(64, 100, dtype=torch.float64, generator=generator)
    w2 = 0.1 * torch.randn(100, 10, dtype=torch.float64, generator=generator)
    parameters = [w.requires_grad_() for w in (w1, torch.zeros(100, dtype=torch.float64), w2)]
    optimiser = torch.optim.Adam(parameters, lr=1e-2)

    def logits_of(x: torch.Tensor) -> torch.Tensor:
        return (x @ parameters[0] + parameters[1]).relu() @ parameters[2]

    for _ in range(300):
        optimiser.zero_grad()
        torch.nn.functional.cross_entropy(logits_of(inputs), labels).backward()
        optimiser.step()
    assert bool((logits_of(inputs).argmax(1) == labels).all())
    return logits_of


def test_control_of_memorised_permuted_labels(
    digits: tuple[torch.Tensor, torch.Tensor, torch.Tensor],
) -> None:
    """Noise and shifts tell learnt digits from memorised nonsense; short mixtures hardly do."""
    inputs, labels, permuted = digits
    true = all_three(fitted(inputs, labels), inputs, labels, sigma=0.2)
    nonsense = all_three(fitted(inputs, permuted), inputs, permuted, sigma=0.2)
    assert true[0] > 0.9
    assert nonsense[0] < 0.6
    assert true[1] > 0.97
    assert nonsense[1] < true[1]
    assert true[2] > 0.3
    assert nonsense[2] < 0.2


def test_noise_is_gaussian_of_the_given_size_and_independent_over_draws() -> None:
    seen: list[torch.Tensor] = []

    def watched(x: torch.Tensor) -> torch.Tensor:
        seen.append(x)
        return torch.zeros(len(x), 2)

    inputs = torch.rand(100, 50, dtype=torch.float64, generator=seeded(5))
    labels = torch.zeros(100, dtype=torch.int64)
    noise_consistency(watched, inputs, labels, sigma=0.3, draws=8, generator=seeded())
    (x,) = seen  # one call for all draws
    noise = (x.view(8, 100, 50) - inputs) / 0.3
    assert float(noise.mean()) == pytest.approx(0.0, abs=5 / 200)
    assert float(noise.square().mean()) == pytest.approx(1.0, abs=5 * math.sqrt(2) / 200)
    assert float(noise.pow(4).mean()) == pytest.approx(3.0, abs=5 * math.sqrt(96) / 200)
    for i in range(8):
        for j in range(i):
            correlation = float((noise[i] * noise[j]).mean())
            assert abs(correlation) < 5 / math.sqrt(5000)


def test_noise_on_a_threshold_follows_the_normal_distribution() -> None:
    """One input at distance a from a boundary keeps its label with probability Phi(a / sigma)."""
    n, a, sigma = 20_000, 0.7, 0.5
    inputs, labels = torch.full((n, 1), a), torch.ones(n, dtype=torch.int64)
    found = noise_consistency(
        lambda x: torch.cat([-x, x], 1), inputs, labels, sigma=sigma, draws=2, generator=seeded()
    )
    truth = 0.5 * (1 + math.erf(a / sigma / math.sqrt(2)))
    assert found.value == pytest.approx(truth, abs=5 * math.sqrt(truth * (1 - truth) / (2 * n)))


def test_mixtures_are_convex_with_another_input_and_a_uniform_weight() -> None:
    seen: list[torch.Tensor] = []

    def watched(x: torch.Tensor) -> torch.Tensor:
        seen.append(x)
        return torch.zeros(len(x), 2)

    n, draws = 12, 400
    inputs, labels = torch.eye(n, dtype=torch.float64), torch.zeros(n, dtype=torch.int64)
    mixture_consistency(watched, inputs, labels, draws=draws, generator=seeded())
    (x,) = seen
    x = x.view(draws, n, n)  # rows of the identity: the mixture shows its weights
    own = x.diagonal(dim1=1, dim2=2)
    assert torch.allclose(x.sum(2), torch.ones((), dtype=torch.float64))
    assert ((x > 0).sum(2) == 2).all()  # itself and exactly one other
    assert float(own.min()) > 0.7
    weight = 1 - own.flatten()
    assert float(weight.mean()) == pytest.approx(0.15, abs=5 * 0.3 / math.sqrt(12 * weight.numel()))
    assert float(weight.max()) > 0.299
    partners = (x > 0).sum(0).fill_diagonal_(0).double()  # how often j was the partner of i
    expected = draws / (n - 1)
    chi2 = float(((partners - expected).square() / expected).sum() - n * expected)
    degrees = n * (n - 2)
    assert chi2 == pytest.approx(degrees, abs=5 * math.sqrt(2 * degrees))


def test_mixture_crosses_a_midpoint_boundary_only_beyond_half() -> None:
    inputs = torch.tensor([[0.0], [1.0]])
    labels = torch.tensor([0, 1])

    def step(at: float) -> LogitsOf:
        return lambda x: torch.cat([at - x, x - at], 1)

    kept = mixture_consistency(
        step(0.5), inputs, labels, max_weight=0.5, draws=500, generator=seeded()
    )
    assert kept.value == 1.0
    # The boundary at 0.1 is crossed by the input at 0 once its partner weighs more: 2/3 of draws.
    crossed = mixture_consistency(step(0.1), inputs, labels, draws=5000, generator=seeded())
    truth = (1 / 3 + 1) / 2
    assert crossed.value == pytest.approx(truth, abs=5 * 0.5 * math.sqrt(2 / 9 / 5000))


def test_shifts_agree_with_slices_and_fill_with_zero() -> None:
    seen: list[torch.Tensor] = []

    def watched(x: torch.Tensor) -> torch.Tensor:
        seen.append(x)
        return torch.zeros(len(x), 2)

    images = np.arange(1.0, 25.0).reshape(2, 3, 4)
    inputs = torch.from_numpy(images.reshape(2, 12))
    labels = torch.zeros(2, dtype=torch.int64)
    shift_consistency(watched, inputs, labels, image_shape=(3, 4))
    (x,) = seen
    up, down, left, right = x.view(4, 2, 3, 4).numpy()
    padded = np.pad(images, ((0, 0), (1, 1), (1, 1)))
    assert (up == padded[:, 2:, 1:-1]).all()
    assert (down == padded[:, :-2, 1:-1]).all()
    assert (left == padded[:, 1:-1, 2:]).all()
    assert (right == padded[:, 1:-1, :-2]).all()


def test_shift_counts_the_directions_that_keep_the_label() -> None:
    image = torch.zeros(1, 9)
    image[0, 4] = 1.0  # the centre of 3 x 3
    upper = torch.tensor([1.0] * 6 + [-1.0] * 3)

    def logits_of(x: torch.Tensor) -> torch.Tensor:
        return torch.stack([-(x @ upper), x @ upper], 1)

    found = shift_consistency(logits_of, image, torch.tensor([1]), image_shape=(3, 3))
    assert found.value == 0.75  # down is lost


@settings(deadline=None, max_examples=25)
@given(st.integers(0, 2**31), st.integers(1, 5), st.integers(2, 6))
def test_chunks_do_not_change_the_value(seed: int, draws: int, at_once: int) -> None:
    generator = seeded(seed)
    inputs = torch.randn(7, 9, generator=generator)
    labels = torch.randint(0, 3, (7,), generator=generator)
    matrix = torch.randn(9, 3, generator=generator)

    def scores() -> list[float]:
        sources = seeded(1), seeded(2)
        f: LogitsOf = lambda x: x @ matrix  # noqa: E731
        return [
            noise_consistency(
                f, inputs, labels, sigma=1.0, draws=draws, generator=sources[0]
            ).value,
            mixture_consistency(f, inputs, labels, draws=draws, generator=sources[1]).value,
            shift_consistency(f, inputs, labels, image_shape=(3, 3)).value,
        ]

    whole = scores()
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(neighbourhood, "_ENTRIES_A_CALL", 63 * at_once // 2)
        assert scores() == whole


def test_no_noise_is_accuracy() -> None:
    inputs, labels, logits_of = blobs()
    labels = labels.clone()
    labels[:15] = (labels[:15] + 1) % 4
    found = noise_consistency(logits_of, inputs, labels, sigma=0.0, draws=3, generator=seeded())
    assert found.value == 0.75


def test_inputs_keep_their_dtype_and_values() -> None:
    inputs = torch.rand(5, 4, generator=seeded(), requires_grad=True)
    labels = torch.tensor([0, 1, 0, 1, 0])
    before = inputs.detach().clone()

    def logits_of(x: torch.Tensor) -> torch.Tensor:
        assert x.dtype == torch.float32
        assert not x.requires_grad
        x.mul_(2.0)  # a network may work in place on what it is handed
        return x[:, :2]

    scores = all_three(logits_of, inputs, labels)
    assert all(0 <= score <= 1 for score in scores)
    assert torch.equal(inputs.detach(), before)
    assert labels.tolist() == [0, 1, 0, 1, 0]


def test_say_why_a_value_is_missing() -> None:
    inputs, labels, logits_of = blobs()
    generator = seeded()

    def reasons(f: LogitsOf, x: torch.Tensor, y: torch.Tensor) -> list[str]:
        found = [
            noise_consistency(f, x, y, sigma=0.1, draws=2, generator=generator),
            mixture_consistency(f, x, y, draws=2, generator=generator),
            shift_consistency(f, x, y, image_shape=(4, 4)),
        ]
        assert all(math.isnan(value.value) for value in found)
        return [value.reason for value in found]

    broken = inputs.clone()
    broken[3, 3] = math.nan
    assert reasons(logits_of, broken, labels) == ["inputs are not finite"] * 3
    assert reasons(lambda x: logits_of(x) / 0.0, inputs, labels) == ["logits are not finite"] * 3
    assert reasons(logits_of, inputs[:0], labels[:0]) == ["there are no inputs"] * 3
    alone = mixture_consistency(logits_of, inputs[:1], labels[:1], draws=2, generator=generator)
    assert math.isnan(alone.value)
    assert alone.reason == "a single input has no partner to be mixed with"


def test_refuse_a_wrong_call() -> None:
    inputs, labels, logits_of = blobs()
    generator = seeded()

    def noise(f: LogitsOf, x: torch.Tensor, y: torch.Tensor) -> None:
        noise_consistency(f, x, y, sigma=0.1, draws=2, generator=generator)

    def mixture(f: LogitsOf, x: torch.Tensor, y: torch.Tensor) -> None:
        mixture_consistency(f, x, y, draws=2, generator=generator)

    def shift(f: LogitsOf, x: torch.Tensor, y: torch.Tensor) -> None:
        shift_consistency(f, x, y, image_shape=(4, 4))

    for call in (noise, mixture, shift):
        with pytest.raises(ValueError, match=r"inputs of shape \(rows, entries\), got \(960,\)"):
            call(logits_of, inputs.flatten(), labels)
        with pytest.raises(ValueError, match=r"inputs of a real floating dtype, got torch.int64"):
            call(logits_of, inputs.long(), labels)
        with pytest.raises(ValueError, match=r"int64 labels of shape \(60,\), got .* \(59,\)"):
            call(logits_of, inputs, labels[1:])
        with pytest.raises(ValueError, match=r"labels in \[0, 3\) for 3 logits .* \[0, 3\]"):
            call(lambda x: logits_of(x)[:, :3], inputs, labels)
        with pytest.raises(ValueError, match=r"logits of \d+ rows, got 7"):
            call(lambda x: logits_of(x)[:7], inputs, labels)
        with pytest.raises(ValueError, match=r"the network's logits of shape \(rows, classes\)"):
            call(lambda x: logits_of(x).flatten(), inputs, labels)
    for sigma in (-0.1, math.inf, math.nan):
        with pytest.raises(ValueError, match=rf"finite sigma of at least 0, got {sigma}"):
            noise_consistency(logits_of, inputs, labels, sigma=sigma, draws=1, generator=generator)
    for weight in (0.0, 0.6, math.nan):
        with pytest.raises(ValueError, match=rf"max_weight in \(0, 0.5\], got {weight}"):
            mixture_consistency(
                logits_of, inputs, labels, max_weight=weight, draws=1, generator=generator
            )
    with pytest.raises(ValueError, match=r"noise_consistency: expected at least 1 draw, got 0"):
        noise_consistency(logits_of, inputs, labels, sigma=0.1, draws=0, generator=generator)
    with pytest.raises(ValueError, match=r"mixture_consistency: expected at least 1 draw, got 0"):
        mixture_consistency(logits_of, inputs, labels, draws=0, generator=generator)
    with pytest.raises(ValueError, match=r"shape \(rows, 4 \* 5\) .* got \(60, 16\)"):
        shift_consistency(logits_of, inputs, labels, image_shape=(4, 5))
