"""Changing a preset's settings from the command line."""

from __future__ import annotations

import pytest

from grokscope.errors import UsageError
from grokscope.experiments import EXPERIMENTS, get_experiment
from grokscope.experiments.settings import resolve
from grokscope.training.config import ClassifierConfig

DIGITS = get_experiment("anti-grokking").presets["digits"].config


def test_values_are_read_as_what_the_setting_is() -> None:
    changes = ["hidden=30,20", "lr=1e-3", "replacement=false", "loss=cross-entropy", "n_test=50"]
    config = resolve(DIGITS, changes, seed=4, steps=None)
    assert isinstance(config, ClassifierConfig)
    assert config.hidden == (30, 20)
    assert config.lr == 1e-3
    assert config.replacement is False
    assert config.loss == "cross-entropy"
    assert config.n_test == 50
    assert config.seed == 4
    assert config.steps == 125_000


def test_a_single_hidden_layer_needs_no_brackets() -> None:
    config = resolve(DIGITS, ["hidden=20"])
    assert isinstance(config, ClassifierConfig)
    assert config.hidden == (20,)


def test_what_is_not_changed_stays() -> None:
    assert resolve(DIGITS, []) == DIGITS


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ("hidden=0", r"hidden"),
        ("betas=0.9", r"betas"),
        ("batch_size=1.5", r"batch_size: Input should be a valid integer.*got 1\.5"),
        ("dtype=float23", r"Did you mean 'float32'\?"),
    ],
)
def test_values_that_do_not_fit(change: str, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        resolve(DIGITS, [change])


def test_every_preset_survives_validation_and_a_round_trip() -> None:
    for experiment in EXPERIMENTS.values():
        assert experiment.default in experiment.presets
        for name, preset in experiment.presets.items():
            kind = type(preset.config)
            assert kind.model_validate(preset.config.model_dump(mode="json")) == preset.config, name
            assert preset.summary.endswith((".", "?"))
            assert preset.differences, name


def test_claims_name_presets_that_exist_and_say_when_they_hold() -> None:
    for experiment in EXPERIMENTS.values():
        ids = [claim.id for claim in experiment.claims]
        assert len(ids) == len(set(ids))
        for claim in experiment.claims:
            assert claim.presets <= set(experiment.presets)
            assert claim.criterion
            assert claim.published
            assert claim.source


def test_published_settings() -> None:
    """arXiv 2506.04434, table 3, and Omnigrok's notebook: the figures, typed in a second time."""
    presets = get_experiment("anti-grokking").presets
    mnist, omnigrok, golechha = (presets[n].config for n in ("mnist", "omnigrok", "golechha"))
    assert isinstance(mnist, ClassifierConfig)
    assert isinstance(omnigrok, ClassifierConfig)
    assert isinstance(golechha, ClassifierConfig)
    assert (mnist.n_train, mnist.hidden, mnist.init_scale) == (1000, (200, 200), 8.0)
    assert (mnist.optimizer, mnist.lr, mnist.weight_decay) == ("adamw", 5e-4, 0.0)
    assert (mnist.batch_size, mnist.steps, mnist.dtype) == (200, 10_000_000, "float64")
    assert (mnist.loss, mnist.subset, mnist.betas, mnist.eps) == (
        "mse", "stratified", (0.9, 0.999), 1e-8,
    )  # fmt: skip
    assert (omnigrok.lr, omnigrok.weight_decay, omnigrok.subset) == (1e-3, 0.01, "first")
    assert (omnigrok.steps, omnigrok.batch_size) == (100_000, 200)
    assert (golechha.batch_size, golechha.n_test, golechha.steps) == (1000, 1000, 100_000)
    growing = presets["golechha-growing-norm"].config
    assert isinstance(growing, ClassifierConfig)
    assert (growing.norm_growth, growing.weight_decay) == (2e-10, 0.01)
