"""The step of a ReLU network, written out: the regime is millions of very small steps.

For a network of a few ten thousand parameters the eager autograd loop spends most of its time on
bookkeeping: recording a graph, allocating every intermediate, one optimiser call per tensor. Here
gradients are written out by hand into buffers that live as long as the run, all parameters lie in
one flat vector, and the optimiser is one fused call. What remains is close to the matrix products.

Exact shortcut: an input that is zero in every training point never receives a gradient. Its column
of the first layer is left out of all products and moves by weight decay alone, which is a product
of numbers. (With coupled decay or norm growth its gradient is not zero, and nothing is left out.)
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import numpy as np
import torch
from torch import Tensor, nn

from grokscope.errors import InputError
from grokscope.training.config import ClassifierConfig

# Parameters start on 64-byte boundaries of the flat vector, as separate tensors would.
_ALIGN = 16


class MLPStep:
    """Optimiser steps of an MLP on a fixed training set.

    Every buffer is allocated here; `run` allocates nothing. The model's own parameters are brought
    up to date by `write_back`.
    """

    def __init__(
        self, layers: list[nn.Linear], inputs: Tensor, targets: Tensor, config: ClassifierConfig
    ) -> None:
        """Bind to the layers of a network and its training set.

        Args:
            layers: The linear layers in order; a ReLU stands between each two.
            inputs: Training inputs, shape (n, d), of the training dtype.
            targets: One-hot targets, shape (n, classes), of the training dtype.
            config: Loss, optimiser, learning rate and batch size.
        """
        self._layers = layers
        self._config = config
        reached = self._reached_inputs(inputs)
        self._reached = reached
        self._inputs = inputs[:, reached].contiguous()
        self._targets = targets
        first = layers[0].weight.detach()
        # Columns that nothing but weight decay moves, as they were at initialisation, and the
        # product of the decays since. Kept apart so that rounding does not depend on when the
        # model is written back.
        self._idle_columns = (~reached).nonzero().flatten()
        self._idle_start = first[:, self._idle_columns].clone()
        self._idle_decay = 1.0
        self._idle_decay_last = 1.0

        shapes: list[torch.Size] = []
        for i, layer in enumerate(layers):
            weight = layer.weight[:, reached] if i == 0 else layer.weight
            shapes += [weight.shape, layer.bias.shape]
        sizes = [-(-math.prod(shape) // _ALIGN) * _ALIGN for shape in shapes]
        like = inputs.new_zeros
        self._flat = like(sum(sizes))
        self._grad = like(sum(sizes))
        self._moments = [like(sum(sizes)) for _ in range(2)]
        self._before = like(sum(sizes))
        self._count = torch.zeros((), device=inputs.device)

        def views(flat: Tensor) -> list[Tensor]:
            starts = np.cumsum([0, *sizes])
            return [
                flat[start : start + math.prod(shape)].view(shape)
                for start, shape in zip(starts[:-1].tolist(), shapes, strict=True)
            ]

        parameters, gradients = views(self._flat), views(self._grad)
        self._weights, self._biases = parameters[0::2], parameters[1::2]
        self._weight_grads, self._bias_grads = gradients[0::2], gradients[1::2]
        self.read_model()

        batch = config.batch_size
        self._batch_inputs = like(batch, int(reached.sum()))
        self._batch_targets = like(batch, targets.shape[1])
        self._ones = inputs.new_ones(batch)
        self._outputs = [like(batch, w.shape[0]) for w in self._weights]
        self._errors = [like(batch, w.shape[0]) for w in self._weights]
        self._optimise = self._optimiser()

    def _reached_inputs(self, inputs: Tensor) -> Tensor:
        config = self._config
        coupled = config.weight_decay > 0 and config.optimizer != "adamw"
        if coupled or config.norm_growth:
            return torch.ones(inputs.shape[1], dtype=torch.bool, device=inputs.device)
        return (inputs != 0).any(0)

    def read_model(self) -> None:
        """Take the parameters of the model over."""
        for i, (layer, weight, bias) in enumerate(
            zip(self._layers, self._weights, self._biases, strict=True)
        ):
            source = layer.weight.detach()
            weight.copy_(source[:, self._reached] if i == 0 else source)
            bias.copy_(layer.bias.detach())

    @torch.no_grad()
    def write_back(self) -> None:
        """Bring the parameters of the model up to date."""
        for i, (layer, weight, bias) in enumerate(
            zip(self._layers, self._weights, self._biases, strict=True)
        ):
            if i == 0:
                layer.weight[:, self._reached] = weight
                layer.weight[:, self._idle_columns] = self._idle_start * self._idle_decay
            else:
                layer.weight.copy_(weight)
            layer.bias.copy_(bias)

    def learning_rate(self, step: int) -> float:
        """Return the learning rate of the step that leads from ``step`` to ``step + 1``."""
        config = self._config
        if step < config.warmup:
            return config.lr * (step + 1) / config.warmup
        if config.schedule == "cosine":
            done = (step - config.warmup) / max(1, config.steps - config.warmup)
            return config.lr * 0.5 * (1 + math.cos(math.pi * done))
        return config.lr

    def _optimiser(self) -> Callable[[float], None]:
        """Return the update of the flat parameters, as a function of the learning rate."""
        config, flat, grad = self._config, self._flat, self._grad
        first, second = self._moments
        if config.optimizer == "sgd":

            def sgd(lr: float) -> None:
                if config.weight_decay:
                    grad.add_(flat, alpha=config.weight_decay)
                if config.momentum:
                    first.mul_(config.momentum).add_(grad)
                    flat.add_(first, alpha=-lr)
                else:
                    flat.add_(grad, alpha=-lr)

            return sgd

        # The fused kernels that torch.optim.Adam and AdamW call with fused=True, without the
        # Python that surrounds them there (twice the cost of the update at this size).
        fused = torch._fused_adamw_ if config.optimizer == "adamw" else torch._fused_adam_
        count = self._count

        def adam(lr: float) -> None:
            count.add_(1)
            fused(
                [flat],
                [grad],
                [first],
                [second],
                [],
                [count],
                lr=lr,
                beta1=config.betas[0],
                beta2=config.betas[1],
                weight_decay=config.weight_decay,
                eps=config.eps,
                amsgrad=False,
                maximize=False,
            )

        return adam

    @torch.no_grad()
    def run(self, start: int, batches: Tensor) -> None:
        """Take one step for each row of ``batches``.

        Args:
            start: Steps taken before.
            batches: Indices of training points, int64, shape (steps, batch size).
        """
        config = self._config
        constant = config.schedule == "constant"
        decays = config.weight_decay if len(self._idle_columns) else 0.0
        weights, biases, outputs, errors = self._weights, self._biases, self._outputs, self._errors
        transposed = [weight.t() for weight in weights]
        errors_t = [error.t() for error in errors]
        batch_inputs, batch_targets = self._batch_inputs, self._batch_targets
        last = len(weights) - 1
        layer_inputs = [batch_inputs, *outputs[:-1]]
        forward = list(zip(biases, layer_inputs, transposed, outputs, strict=True))
        hidden, (bias, entering, weight_t, logits) = forward[:-1], forward[-1]
        backward = [
            (errors_t[i], layer_inputs[i], self._weight_grads[i], self._bias_grads[i], errors[i])
            for i in range(last, -1, -1)
        ]
        error, rows = errors[last], len(batch_inputs)
        mse = config.loss == "mse"
        scale = 2.0 / (rows * logits.shape[1]) if mse else 1.0 / rows
        growth = -2.0 * config.norm_growth
        select, addmm, mm, mv = torch.index_select, torch.addmm, torch.mm, torch.mv
        relu, mask = torch.relu_, torch.ops.aten.threshold_backward.grad_input
        optimise, ones = self._optimise, self._ones
        lr = config.lr

        for offset, rows_of_batch in enumerate(batches):
            select(self._inputs, 0, rows_of_batch, out=batch_inputs)
            select(self._targets, 0, rows_of_batch, out=batch_targets)
            for layer_bias, below, layer_weight_t, output in hidden:
                addmm(layer_bias, below, layer_weight_t, out=output)
                relu(output)
            addmm(bias, entering, weight_t, out=logits)
            if not mse:
                torch.softmax(logits, 1, out=logits)
            torch.sub(logits, batch_targets, out=error).mul_(scale)
            for i, (error_t, below, weight_grad, bias_grad, layer_error) in enumerate(backward):
                mm(error_t, below, out=weight_grad)
                mv(error_t, ones, out=bias_grad)
                if i < last:
                    below_error = errors[last - i - 1]
                    mm(layer_error, weights[last - i], out=below_error)
                    mask(below_error, below, 0, grad_input=below_error)
            if growth:
                self._grad.add_(self._flat, alpha=growth)
            if not constant or config.warmup:
                lr = self.learning_rate(start + offset)
            if decays:
                self._idle_decay *= 1 - lr * decays
            optimise(lr)

    def remember(self) -> None:
        """Note the parameters as they are, for `moved`."""
        self._before.copy_(self._flat)
        self._idle_decay_last = self._idle_decay

    def moved(self) -> float:
        """Return the l2 norm of the way from the noted parameters to the present ones."""
        idle = float(self._idle_start.double().norm()) * (self._idle_decay - self._idle_decay_last)
        return math.hypot(float((self._flat - self._before).double().norm()), idle)

    def is_finite(self) -> bool:
        """Say whether every parameter is finite. What is once NaN stays NaN."""
        return bool(torch.isfinite(self._flat.sum()))

    def state(self) -> tuple[dict[str, np.ndarray], dict[str, float]]:
        """Return the optimiser's tensors, and the decay of the idle columns as a number."""
        names = ("exp_avg", "exp_avg_sq")
        tensors = {
            f"optimizer.{name}": moment.cpu().numpy().copy()
            for name, moment in zip(names, self._moments, strict=True)
        }
        tensors["optimizer.count"] = self._count.cpu().numpy().copy()
        return tensors, {"idle_decay": self._idle_decay}

    def restore(self, tensors: Mapping[str, np.ndarray], numbers: Mapping[str, float]) -> None:
        """Take over what `state` returned; the model holds the parameters of that step already."""
        self.read_model()
        names = ("exp_avg", "exp_avg_sq", "count")
        for name, target in zip(names, (*self._moments, self._count), strict=True):
            source = tensors.get(f"optimizer.{name}")
            if source is None or source.shape != tuple(target.shape):
                raise InputError(f"the checkpoint lacks a fitting tensor optimizer.{name}.")
            target.copy_(torch.from_numpy(source.copy()))
        self._idle_decay = float(numbers["idle_decay"])
