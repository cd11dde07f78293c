"""A classifier in training: data set, network, loss and steps from one configuration."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from grokscope.data.batches import batch_indices
from grokscope.data.dataset import Split, first_n_split, stratified_split
from grokscope.data.digits import load_digits
from grokscope.data.mnist import mnist_split
from grokscope.data.seeds import derive_seed
from grokscope.errors import InputError
from grokscope.measures.classification import cross_entropy, mean_squared_error
from grokscope.models.mlp import MLP, mlp
from grokscope.probes.view import ProbeData
from grokscope.training.config import ClassifierConfig
from grokscope.training.mlp_step import MLPStep

# Steps whose batches are drawn and sent to the device at once.
_BATCHES_AT_ONCE = 512


def load_split(config: ClassifierConfig, data_dir: Path | None) -> Split:
    """Load the data set of a configuration and choose its training and test points.

    Raises:
        MissingResource: If the data set is not to be had; the message says what to put where.
        InputError: If there are fewer points than asked for, or a file is damaged.
    """
    seed = derive_seed(config.seed, "subset")
    if config.data == "mnist":
        split = mnist_split(data_dir, config.n_train, subset=config.subset, seed=seed)
    elif config.subset == "first":
        split = first_n_split(load_digits(), config.n_train)
    else:
        split = stratified_split(load_digits(), config.n_train, seed=seed)
    return split


class Classifier:
    """A ReLU network that learns a small part of a data set; see `System` for the contract."""

    model: MLP

    def __init__(
        self, config: ClassifierConfig, data_dir: Path | None = None, device: str = "cpu"
    ) -> None:
        """Load the data and initialise the network.

        Args:
            config: Everything that decides the outcome.
            data_dir: Folder of the user's own copy of the data.
            device: Where to train: ``"cpu"`` or ``"cuda"``.

        Raises:
            MissingResource: If the data set is not to be had.
            InputError: If it is damaged or too small.
        """
        self.config = config
        self.step = 0
        dtype = torch.float64 if config.dtype == "float64" else torch.float32
        split = load_split(config, data_dir)
        train, test, note = split.train, split.test, split.note
        labels = train.labels
        if config.permuted_labels:
            generator = torch.Generator().manual_seed(derive_seed(config.seed, "permuted labels"))
            labels = labels[torch.randperm(len(labels), generator=generator)]
            note += " Training labels are permuted."
        kept = slice(config.n_test)
        inputs = train.inputs.to(device, dtype)
        self.data = ProbeData(
            inputs=inputs,
            labels=labels.to(device),
            held_out=(test.inputs[kept].to(device, dtype), test.labels[kept].to(device)),
            image_shape=train.image_shape,
            loss=mean_squared_error if config.loss == "mse" else cross_entropy,
        )
        self.provenance = {"train": train.digest, "test": test.digest, "split": note}
        widths = (inputs.shape[1], *config.hidden, train.classes)
        self.model = mlp(
            widths,
            init_scale=config.init_scale,
            seed=derive_seed(config.seed, "init"),
            dtype=dtype,
        ).to(device)
        targets = torch.nn.functional.one_hot(self.data.labels, train.classes).to(dtype)
        self._step = MLPStep(list(self.model.layers()), inputs, targets, config)
        self._batch_seed = derive_seed(config.seed, "batches")
        self._scalars: dict[str, float] = {}

    def advance(self, stop: int) -> None:
        """Train up to step ``stop``; the model is current afterwards."""
        if stop <= self.step:
            return
        # The last step is taken apart, so that its length is known without a copy in every step.
        self._run(stop - 1)
        self._step.remember()
        self._run(stop)
        self._scalars = {"update.l2_norm": self._step.moved()}
        self._step.write_back()

    def _run(self, stop: int) -> None:
        while self.step < stop:
            upto = min(stop, (self.step // _BATCHES_AT_ONCE + 1) * _BATCHES_AT_ONCE)
            self._step.run(self.step, self._batches(self.step, upto))
            self.step = upto

    def _batches(self, start: int, stop: int) -> Tensor:
        config = self.config
        indices = batch_indices(
            config.n_train,
            config.batch_size,
            seed=self._batch_seed,
            start=start,
            stop=stop,
            replacement=config.replacement,
        )
        return torch.from_numpy(indices).to(self.data.inputs.device)

    def is_finite(self) -> bool:
        """Say whether every parameter is finite."""
        return self._step.is_finite()

    def scalars(self) -> dict[str, float]:
        """Return the l2 norm of the last update; nothing before the first."""
        return self._scalars

    def state(self) -> tuple[dict[str, np.ndarray], dict[str, float]]:
        """Return parameters and optimiser state, and the numbers beside them."""
        tensors, numbers = self._step.state()
        for name, parameter in self.model.named_parameters():
            tensors[f"model.{name}"] = parameter.detach().cpu().numpy().copy()
        return tensors, numbers

    @torch.no_grad()
    def restore(
        self, step: int, tensors: Mapping[str, np.ndarray], numbers: Mapping[str, float]
    ) -> None:
        """Continue from what `state` returned at ``step``.

        Raises:
            InputError: If the tensors are not this network's.
        """
        for name, parameter in self.model.named_parameters():
            source = tensors.get(f"model.{name}")
            if source is None or source.shape != tuple(parameter.shape):
                raise InputError(f"the checkpoint lacks a fitting tensor model.{name}.")
            parameter.copy_(torch.from_numpy(source.copy()))
        self._step.restore(tensors, numbers)
        self.step = step
