"""The written-out step against torch's own autograd and optimisers."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest
import torch
from torch import nn

from grokscope.data.batches import batch_indices
from grokscope.data.seeds import derive_seed
from grokscope.errors import InputError, RunFailed
from grokscope.training.classifier import Classifier, load_split
from grokscope.training.config import ClassifierConfig
from grokscope.training.loop import train

STEPS = 60

BASE = ClassifierConfig(
    data="digits",
    n_train=50,
    hidden=(20, 15),
    init_scale=3.0,
    lr=1e-2,
    batch_size=16,
    replacement=True,
    dtype="float64",
    steps=STEPS,
)


def plain_loop(config: ClassifierConfig) -> nn.Sequential:
    """The loop as a user would write it, on the same data, batches and initial weights."""
    start = Classifier(config)
    weights = dict(start.model.named_parameters())
    layers: list[nn.Module] = []
    for i in range(1, len(weights) // 2 + 1):
        weight, bias = weights[f"fc{i}.weight"], weights[f"fc{i}.bias"]
        layer = nn.Linear(weight.shape[1], weight.shape[0], dtype=weight.dtype)
        layer.load_state_dict({"weight": weight.detach(), "bias": bias.detach()})
        layers += [layer, nn.ReLU()]
    net = nn.Sequential(*layers[:-1])
    common = {"lr": config.lr, "weight_decay": config.weight_decay}
    optimizer: torch.optim.Optimizer
    if config.optimizer == "sgd":
        optimizer = torch.optim.SGD(net.parameters(), momentum=config.momentum, **common)
    else:
        kind = torch.optim.AdamW if config.optimizer == "adamw" else torch.optim.Adam
        optimizer = kind(net.parameters(), betas=config.betas, eps=config.eps, **common)

    def rate(step: int) -> float:
        if step < config.warmup:
            return (step + 1) / config.warmup
        if config.schedule == "cosine":
            done = (step - config.warmup) / (config.steps - config.warmup)
            return (1 + math.cos(math.pi * done)) / 2
        return 1.0

    scheduler = torch.optim.lr_scheduler.LambdaLR(optimizer, rate)
    split = load_split(config, None)
    inputs, labels = split.train.inputs.double(), split.train.labels
    batches = batch_indices(
        config.n_train,
        config.batch_size,
        seed=derive_seed(config.seed, "batches"),
        start=0,
        stop=config.steps,
        replacement=config.replacement,
    )
    for batch in torch.from_numpy(batches):
        optimizer.zero_grad()
        logits = net(inputs[batch])
        if config.loss == "mse":
            loss = nn.functional.mse_loss(logits, nn.functional.one_hot(labels[batch], 10).double())
        else:
            loss = nn.functional.cross_entropy(logits, labels[batch])
        loss = loss - config.norm_growth * sum((p**2).sum() for p in net.parameters())
        loss.backward()
        optimizer.step()
        scheduler.step()
    return net


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"weight_decay": 0.3},
        {"loss": "cross-entropy", "weight_decay": 0.1},
        {"optimizer": "adam"},
        {"optimizer": "adam", "weight_decay": 0.05},
        {"optimizer": "sgd", "momentum": 0.9, "weight_decay": 0.01},
        {"optimizer": "sgd", "loss": "cross-entropy"},
        {"norm_growth": 1e-3, "weight_decay": 0.01},
        {"schedule": "cosine", "warmup": 10, "weight_decay": 0.2},
        {"replacement": False},
        {"hidden": ()},
        {"hidden": (7,), "betas": (0.8, 0.95), "eps": 1e-4},
    ],
    ids=str,
)
def test_equals_autograd_and_torch_optimisers(changes: dict[str, object]) -> None:
    config = ClassifierConfig.model_validate({**BASE.model_dump(), **changes})
    system = Classifier(config)
    initial = torch.cat([p.detach().flatten().clone() for p in system.model.parameters()])
    system.advance(STEPS)
    expected = torch.cat([p.detach().flatten() for p in plain_loop(config).parameters()])
    found = torch.cat([p.detach().flatten() for p in system.model.parameters()])
    assert (expected - initial).norm() > 1e-2  # something was learnt at all
    torch.testing.assert_close(found, expected, rtol=1e-9, atol=1e-11)


def test_inputs_that_are_always_zero_move_by_decay_alone() -> None:
    config = BASE.model_copy(update={"weight_decay": 0.3})
    system = Classifier(config)
    idle = (system.data.inputs == 0).all(0)
    assert idle.any()
    before = system.model.fc1.weight.detach().clone()
    system.advance(STEPS)
    after = system.model.fc1.weight.detach()
    decay = (1 - config.lr * config.weight_decay) ** STEPS
    torch.testing.assert_close(after[:, idle], before[:, idle] * decay, rtol=1e-12, atol=0)
    assert not torch.allclose(after[:, ~idle], before[:, ~idle] * decay)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_the_way_does_not_depend_on_how_it_is_cut(dtype: str) -> None:
    config = BASE.model_copy(update={"dtype": dtype, "weight_decay": 0.1, "steps": 1500})
    whole, pieces = Classifier(config), Classifier(config)
    whole.advance(1500)
    for stop in (1, 2, 37, 512, 513, 1024, 1499, 1500):
        pieces.advance(stop)
    for a, b in zip(whole.model.parameters(), pieces.model.parameters(), strict=True):
        assert torch.equal(a, b)
    assert whole.scalars() == pieces.scalars()


@pytest.mark.parametrize(
    "changes", [{"weight_decay": 0.1}, {"optimizer": "sgd", "momentum": 0.9}], ids=str
)
def test_restoring_a_state_continues_bit_identically(changes: dict[str, object]) -> None:
    config = BASE.model_copy(update={"dtype": "float32", "steps": 900, **changes})
    whole, first, second = Classifier(config), Classifier(config), Classifier(config)
    whole.advance(900)
    first.advance(333)
    second.restore(333, *first.state())
    second.advance(900)
    for a, b in zip(whole.model.parameters(), second.model.parameters(), strict=True):
        assert torch.equal(a, b)


def test_a_foreign_state_is_refused() -> None:
    system = Classifier(BASE)
    tensors, numbers = system.state()
    with pytest.raises(InputError, match=r"lacks a fitting tensor model\.fc1\.weight"):
        system.restore(1, {**tensors, "model.fc1.weight": np.zeros((2, 2))}, numbers)
    del tensors["optimizer.exp_avg"]
    with pytest.raises(InputError, match=r"lacks a fitting tensor optimizer\.exp_avg"):
        system.restore(1, tensors, numbers)


def test_update_norm_is_the_length_of_the_last_step() -> None:
    config = BASE.model_copy(update={"weight_decay": 0.5})
    system, behind = Classifier(config), Classifier(config)
    system.advance(40)
    behind.advance(39)
    moved = sum(
        float((a - b).detach().pow(2).sum())
        for a, b in zip(system.model.parameters(), behind.model.parameters(), strict=True)
    )
    assert system.scalars()["update.l2_norm"] == pytest.approx(math.sqrt(moved), rel=1e-9)


def test_divergence_stops_the_loop() -> None:
    config = BASE.model_copy(update={"optimizer": "sgd", "lr": 1e6, "steps": 2000})
    system = Classifier(config)
    seen: list[int] = []
    with pytest.raises(RunFailed, match=r"no longer finite between step [\d,]+ and step [\d,]+"):
        train(
            system,
            stop_step=2000,
            observe_at=[0, 600, 2000],
            observe=lambda: seen.append(system.step),
            checkpoint=lambda: None,
            checkpoint_seconds=100.0,
            stopping=lambda: False,
            progress=lambda: None,
        )
    assert seen == [0]
    assert system.step < 600


def test_the_loop_observes_before_it_saves_and_stops_when_asked() -> None:
    config = BASE.model_copy(update={"steps": 5000})
    system = Classifier(config)
    log: list[tuple[str, int]] = []
    finished = train(
        system,
        stop_step=5000,
        observe_at=[0, 100, 600, 5000],
        observe=lambda: log.append(("see", system.step)),
        checkpoint=lambda: log.append(("save", system.step)),
        checkpoint_seconds=0.0,
        stopping=lambda: system.step >= 600,
        progress=lambda: None,
    )
    assert not finished
    assert [step for kind, step in log if kind == "see"] == [0, 100, 600]
    assert log[0] == ("see", 0)
    assert ("save", 0) not in log  # nothing was done yet
    for step in (100, 600):
        assert log.index(("see", step)) < log.index(("save", step))
    assert log[-1] == ("save", 600)
    assert max(b - a for (_, a), (_, b) in itertools.pairwise(log)) <= 4096
