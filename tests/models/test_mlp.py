from __future__ import annotations

import itertools
import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from grokscope.measures.norms import l2_norm
from grokscope.models.mlp import MLP, mlp

MNIST = (784, 200, 200, 10)


def pytorch_default(widths: tuple[int, ...], seed: int) -> nn.Sequential:
    """Build the layers as a user of PyTorch would, from its global generator."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        layers: list[nn.Module] = []
        for fan_in, fan_out in itertools.pairwise(widths):
            layers += [nn.Linear(fan_in, fan_out, dtype=torch.float64), nn.ReLU()]
    return nn.Sequential(*layers[:-1])


@settings(deadline=None, max_examples=30)
@given(
    st.lists(st.integers(1, 12), min_size=2, max_size=5).map(tuple),
    st.sampled_from([0.3, 1.0, 8.0]),
    st.integers(0, 2**63 - 1),
)
def test_is_the_default_initialisation_times_the_scale(
    widths: tuple[int, ...], scale: float, seed: int
) -> None:
    reference = pytorch_default(widths, seed)
    network = mlp(widths, init_scale=scale, seed=seed, dtype=torch.float64)
    pairs = zip(network.parameters(), reference.parameters(), strict=True)
    assert all(torch.equal(ours, scale * theirs) for ours, theirs in pairs)


def test_forward_agrees_with_a_sequence_of_layers() -> None:
    reference = pytorch_default(MNIST, 5)
    network = mlp(MNIST, seed=5, dtype=torch.float64)
    x = torch.rand(7, 784, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    assert torch.equal(network(x), reference(x))


@pytest.mark.parametrize(("scale", "published"), [(1.0, 11.71), (8.0, 93.67), (4.0, 46.8)])
def test_norm_at_initialisation(scale: float, published: float) -> None:
    """Squares of uniforms within 1/sqrt(in) have mean 1/(3 in) and variance 4/(45 in^2)."""
    mean = sum(out / 3 + out / (3 * fan_in) for fan_in, out in itertools.pairwise(MNIST))
    variance = sum(
        (out * fan_in + out) * 4 / (45 * fan_in**2) for fan_in, out in itertools.pairwise(MNIST)
    )
    assert scale * math.sqrt(mean) == pytest.approx(published, abs=0.05)
    deviation = scale * math.sqrt(variance) / (2 * math.sqrt(mean))  # of the root
    for seed in range(3):
        found = l2_norm(mlp(MNIST, init_scale=scale, seed=seed).parameters()).value
        assert found == pytest.approx(scale * math.sqrt(mean), abs=5 * deviation)


def test_parameters_are_uniform_within_their_bounds() -> None:
    network = mlp(MNIST, init_scale=8.0, seed=1, dtype=torch.float64)
    for layer in network.layers():
        bound = 8 / math.sqrt(layer.in_features)
        for values in (layer.weight.detach(), layer.bias.detach()):
            n = values.numel()
            assert float(values.abs().max()) <= bound * (1 + 1e-15)
            assert float(values.abs().max()) > bound * (1 - 20 / n)
            assert abs(float(values.mean())) < 5 * bound / math.sqrt(3 * n)


def test_names_shapes_and_sizes_are_the_published_ones() -> None:
    network = mlp(MNIST, seed=0)
    assert [name for name, _ in network.named_parameters()] == [
        f"fc{i}.{kind}" for i in (1, 2, 3) for kind in ("weight", "bias")
    ]
    assert [layer.weight.shape for layer in network.layers()] == [(200, 784), (200, 200), (10, 200)]
    assert sum(p.numel() for p in network.parameters()) == 199_210
    assert network.widths == MNIST


def test_a_seed_gives_one_network_whatever_its_precision() -> None:
    first = mlp(MNIST, init_scale=8.0, seed=3, dtype=torch.float64)
    again = mlp(MNIST, init_scale=8.0, seed=3, dtype=torch.float64)
    single = mlp(MNIST, init_scale=8.0, seed=3)
    other = mlp(MNIST, init_scale=8.0, seed=4, dtype=torch.float64)
    for a, b, c, d in zip(
        *(net.parameters() for net in (first, again, single, other)), strict=True
    ):
        assert torch.equal(a, b)
        assert c.dtype == torch.float32
        assert torch.equal(a.float(), c)
        assert not torch.equal(a, d)
        assert a.requires_grad


def test_global_generator_is_not_touched() -> None:
    before = torch.get_rng_state()
    mlp(MNIST, seed=0)
    MLP(MNIST)
    assert torch.equal(torch.get_rng_state(), before)


def test_a_single_layer_has_no_relu() -> None:
    network = mlp((3, 2), seed=0, dtype=torch.float64)
    x = torch.tensor([[1.0, -2.0, 3.0]], dtype=torch.float64)
    assert torch.equal(network(x) - network(0 * x), -(network(-x) - network(0 * x)))


def test_refuses_what_cannot_be_meant() -> None:
    for widths in ((), (3,), (3, 0, 2)):
        with pytest.raises(ValueError, match=r"two or more positive widths, got \("):
            mlp(widths, seed=0)
    for scale in (0.0, -1.0, math.inf, math.nan):
        with pytest.raises(ValueError, match=rf"positive finite init_scale, got {scale}"):
            mlp((2, 2), init_scale=scale, seed=0)
