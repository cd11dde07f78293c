"""What the probes of one observation see, with the work that they share done once."""

from __future__ import annotations

import itertools
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager, nullcontext
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any

import torch
from torch import Tensor, nn

from grokscope.data.seeds import derive_seed
from grokscope.measures._value import Value
from grokscope.measures.spectrum import eigenvalues
from grokscope.probes.matrices import (
    COMPILED,
    Matrix,
    Parameter,
    layer_names,
    parameters_of,
    plan_matrices,
    take_matrix,
    uncompiled,
)
from grokscope.store.records import Reading


@dataclass(frozen=True)
class ProbeData:
    """The points that probes may look at.

    Attributes:
        inputs: Training inputs, first dimension n; what the model is called with.
        labels: Their classes, int64, shape (n,).
        held_out: Inputs and labels of points that were not trained on, if there are any. Only
            readings that say ``test`` use them; no test-free rule does.
        image_shape: (height, width) of flattened one-channel images, if that is what inputs are.
        loss: From (logits, labels) to the loss that training minimises.
    """

    inputs: Tensor
    labels: Tensor
    held_out: tuple[Tensor, Tensor] | None = None
    image_shape: tuple[int, int] | None = None
    loss: Callable[[Tensor, Tensor], Value] | None = None

    def __post_init__(self) -> None:
        """Check that inputs and labels belong together.

        Raises:
            ValueError: If they differ in number.
        """
        for name, inputs, labels in (
            ("training", self.inputs, self.labels),
            ("held-out", *(self.held_out or (self.inputs[:0], self.labels[:0]))),
        ):
            if len(inputs) != len(labels):
                raise ValueError(
                    f"ProbeData: expected as many {name} labels as inputs, "
                    f"got {len(labels)} and {len(inputs)}."
                )


@dataclass(frozen=True)
class Forward:
    """One forward pass.

    Attributes:
        logits: What the model returned, shape (n, classes).
        activations: By layer, what enters the *next* weight layer after it: the activations after
            the non-linearity, shape (n, width). The last layer has none.
    """

    logits: Tensor
    activations: Mapping[str, Tensor]


def unwrapped(model: nn.Module) -> nn.Module:
    """Return the module inside `torch.compile` and (distributed) data-parallel wrappers.

    Hooks on a compiled module are ignored or recompile it; the original shares its parameters.
    """
    while True:
        if isinstance(model, nn.DataParallel | nn.parallel.DistributedDataParallel):
            model = model.module
        elif (inner := model._modules.get(COMPILED)) is not None:
            model = inner
        else:
            return model


def weight_matrices(model: nn.Module) -> Mapping[str, Tensor]:
    """Return the matrices of a model by name, as `grokscope.probes.matrices` finds them.

    Each is cut from its parameter when it is asked for: detached and not copied, but for the
    product of a low-rank adapter. Matrices of any size are here, since readings say themselves
    what they miss. Convolution kernels are here flattened only: their slices hold the same
    entries, and have no single shape that the laws of random matrices could be asked about.
    Shared parameters appear once.
    """
    return _Matrices({name: p.detach() for name, p in model.named_parameters()})


class _Matrices(Mapping[str, Tensor]):
    def __init__(self, parameters: Mapping[str, Tensor]) -> None:
        self._parameters = parameters
        self._planned = _planned(parameters_of(parameters.items()))

    def __getitem__(self, name: str) -> Tensor:
        matrix = self._planned[name]
        return take_matrix(matrix, [self._parameters[source] for source in matrix.sources])

    def __iter__(self) -> Iterator[str]:
        return iter(self._planned)

    def __len__(self) -> int:
        return len(self._planned)


@lru_cache(maxsize=16)
def _planned(parameters: tuple[Parameter, ...]) -> dict[str, Matrix]:
    """Plan once for all observations of a model."""
    plan = plan_matrices(parameters, min_side=1)
    return {m.name: m for m in plan if isinstance(m, Matrix) and m.count == 1}


def _eagerly() -> AbstractContextManager[Any]:
    """Run compiled submodules as written: hooks inside them fire, and nothing is recompiled."""
    # Where the compiler was never imported nothing is compiled, and importing it takes seconds.
    if "torch._dynamo" not in sys.modules:
        return nullcontext()
    stance: AbstractContextManager[Any] = torch.compiler.set_stance("force_eager")
    return stance


def _bits(tensor: Tensor) -> Tensor:
    return tensor.reshape(-1).view(torch.uint8)


@contextmanager
def _kept_buffers(model: nn.Module) -> Iterator[None]:
    """Put back what a forward pass does to buffers, such as counters, in evaluation mode too."""
    owned = [(module, dict(module._buffers)) for module in model.modules()]
    before = [(b, b.detach().clone()) for b in model.buffers() if b.layout == torch.strided]
    try:
        yield
    finally:
        for module, buffers in owned:
            module._buffers.clear()
            module._buffers.update(buffers)
        for buffer, content in before:
            # Compared bit by bit, as nan differs from itself; one that did not change is not
            # written to, since autograd would take that for a change.
            if not torch.equal(_bits(buffer), _bits(content)):
                buffer.copy_(content)


@contextmanager
def undisturbed(model: nn.Module) -> Iterator[None]:
    """Look at a model in evaluation mode and leave no trace.

    Kept are mode, buffers, RNG, autograd, autocast and what `torch.compile` has compiled.
    """
    training = [(module, module.training) for module in model.modules()]
    devices = {p.device for p in model.parameters() if p.device.type == "cuda"}
    kind = next((d.type for d in devices), "cpu")
    with (
        torch.random.fork_rng(devices=sorted(d.index or 0 for d in devices)),
        torch.no_grad(),
        torch.autocast(kind, enabled=False),
        _eagerly(),
        _kept_buffers(model),
    ):
        try:
            model.eval()
            yield
        finally:
            for module, mode in training:
                module.training = mode


class View:
    """A model at one step, offered to the probes.

    Built and used inside `undisturbed`. Everything here is computed when first asked for and then
    shared: one forward pass of the training inputs, one of the held-out ones, one spectrum a layer.
    """

    def __init__(self, model: nn.Module, step: int, data: ProbeData | None, seed: int) -> None:
        """Bind to a model; costs nothing yet.

        Args:
            model: The model itself, not a wrapper.
            step: Optimiser steps taken.
            data: Points to look at; None where only weights are looked at.
            seed: Root of the private generators.
        """
        self.model = model
        self.step = step
        self.data = data
        self._seed = seed
        self._eigenvalues: dict[str, Tensor] = {}

    @cached_property
    def weights(self) -> Mapping[str, Tensor]:
        """Weight matrices by name; see `weight_matrices`."""
        return weight_matrices(self.model)

    @cached_property
    def layers(self) -> dict[str, Tensor]:
        """Weights of more than one dimension, whole, by layer; detached, not copied.

        For measures of entries, to which it is the same how a layer is cut in matrices. The names
        are those of `weights` without the parts in square brackets.
        """
        parameters = dict(self.model.named_parameters())
        return {layer: parameters[path].detach() for layer, path in self._paths.items()}

    @cached_property
    def train(self) -> Forward:
        """The forward pass of the training inputs."""
        return self._forward(self._data.inputs)

    @cached_property
    def held_out(self) -> Forward | None:
        """The forward pass of the held-out inputs, None if there are none."""
        held_out = self._data.held_out
        return None if held_out is None else self._forward(held_out[0])

    @property
    def _data(self) -> ProbeData:
        if self.data is None:
            raise ValueError("this probe needs training data; give the watch its data.")
        return self.data

    @property
    def labels(self) -> Tensor:
        """Labels of the training inputs, int64, shape (n,)."""
        return self._data.labels

    @property
    def inputs(self) -> Tensor:
        """The training inputs."""
        return self._data.inputs

    def logits_of(self, inputs: Tensor) -> Tensor:
        """Return the model's logits on any inputs; not shared."""
        logits = self.model(inputs)
        if not isinstance(logits, Tensor):
            raise TypeError(f"the model returned {type(logits).__name__}; probes expect logits.")
        return logits

    def logits_with(self, weights: Mapping[str, Tensor]) -> Tensor:
        """Return the logits on the training inputs with other weights in place.

        The model itself is not touched.

        Args:
            weights: Replacements of whole layers by name, as in `layers`.
        """
        paths = {self._paths[layer]: weight for layer, weight in weights.items()}
        logits: Tensor = torch.func.functional_call(self.model, paths, (self.inputs,))
        return logits

    def eigenvalues(self, layer: str) -> Tensor:
        """Return the spectrum of one matrix; see `grokscope.measures.spectrum.eigenvalues`."""
        if layer not in self._eigenvalues:
            self._eigenvalues[layer] = eigenvalues(self.weights[layer])
        return self._eigenvalues[layer]

    def generator(self, *names: str) -> torch.Generator:
        """Return a private CPU generator for ``names`` at this step.

        A reading that is skipped shifts no other: the seed depends on root, names and step alone.
        """
        return torch.Generator().manual_seed(derive_seed(self._seed, *names, self.step))

    def reading(
        self, measure: str, subject: str, value: Value | float, reason: str = ""
    ) -> Reading:
        """Return a reading at this step; ``reason`` says why a number is missing."""
        if isinstance(value, Value):
            return Reading(self.step, measure, subject, value.value, value.reason)
        return Reading(self.step, measure, subject, float(value), reason)

    @cached_property
    def _paths(self) -> dict[str, str]:
        names = layer_names(path for path, _ in self.model.named_parameters())
        return {
            names[path]: path
            for path, parameter in self.model.named_parameters()
            if parameter.ndim > 1 and parameter.is_floating_point()
        }

    def _forward(self, inputs: Tensor) -> Forward:
        entering: dict[str, Tensor] = {}
        hooks = []

        def remember(name: str) -> Callable[[nn.Module, tuple[Any, ...], dict[str, Any]], None]:
            def hook(_module: nn.Module, args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
                entering[name] = (args[0] if args else kwargs["input"]).detach()

            return hook

        try:
            for name, module in self.model.named_modules():
                if isinstance(module, nn.Linear):
                    hook = remember(uncompiled(name))
                    hooks.append(module.register_forward_pre_hook(hook, with_kwargs=True))
            logits = self.logits_of(inputs)
        finally:
            for handle in hooks:
                handle.remove()
        order = list(entering)
        return Forward(
            logits,
            {before: entering[after] for before, after in itertools.pairwise(order)},
        )
