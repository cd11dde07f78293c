"""ReLU network of linear layers, as in the MNIST systems of arXiv:2210.01117 and its successors."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn


class MLP(nn.Module):
    """Linear layers with biases, named ``fc1``, ``fc2``, ..., with a ReLU between any two.

    Parameters are not initialised: `mlp` builds a network that is.

    Attributes:
        widths: Inputs, hidden units of each layer, outputs.
    """

    def __init__(self, widths: Sequence[int], dtype: torch.dtype = torch.float32) -> None:
        """Allocate the layers.

        Args:
            widths: Inputs, hidden units of each layer, outputs; at least two, all positive.
            dtype: Of the parameters.

        Raises:
            ValueError: If ``widths`` are no such thing.
        """
        super().__init__()
        if len(widths) < 2 or min(widths) < 1:
            raise ValueError(f"MLP: expected two or more positive widths, got {tuple(widths)}.")
        self.widths = tuple(widths)
        for i, (fan_in, fan_out) in enumerate(pairwise(self.widths), 1):
            # Built without memory first: a layer's own initialisation would draw from the global
            # random number generator.
            layer = nn.Linear(fan_in, fan_out, device="meta", dtype=dtype)
            self.add_module(f"fc{i}", layer.to_empty(device="cpu"))

    def layers(self) -> list[nn.Linear]:
        """Return the linear layers, first to last."""
        return [layer for layer in self.children() if isinstance(layer, nn.Linear)]

    def forward(self, x: Tensor) -> Tensor:
        """Return the outputs of inputs ``x``: from ``(n, widths[0])`` to ``(n, widths[-1])``."""
        *hidden, last = self.layers()
        for layer in hidden:
            x = layer(x).relu()
        outputs: Tensor = last(x)
        return outputs


def mlp(
    widths: Sequence[int],
    *,
    init_scale: float = 1.0,
    seed: int,
    dtype: torch.dtype = torch.float32,
) -> MLP:
    r"""Build a ReLU network with PyTorch's default initialisation, every parameter times a factor.

    Weights and biases are uniform within :math:`\pm s / \sqrt{\mathrm{fan\_in}}`. In float64 they
    are, bit for bit, ``s`` times what ``torch.manual_seed(seed)`` and building the
    `torch.nn.Linear` layers in order would give; in another dtype they are those numbers, rounded.
    The global random number generator is not used.

    Args:
        widths: Inputs, hidden units of each layer, outputs.
        init_scale: ``s``, positive; 8 in the MNIST systems (arXiv:2210.01117, section 3, where
            biases are scaled too).
        seed: Of a generator of its own.
        dtype: Of the parameters.

    Returns:
        The network, on the CPU.

    Raises:
        ValueError: If ``widths`` or ``init_scale`` are out of range.
    """
    if not 0 < init_scale < math.inf:
        raise ValueError(f"mlp: expected a positive finite init_scale, got {init_scale}.")
    network = MLP(widths, dtype)
    generator = torch.Generator().manual_seed(seed)
    with torch.no_grad():
        for layer in network.layers():
            drawn = torch.empty(layer.weight.shape, dtype=torch.float64)
            nn.init.kaiming_uniform_(drawn, a=math.sqrt(5), generator=generator)
            layer.weight.copy_(drawn.mul_(init_scale))
            bound = 1 / math.sqrt(layer.in_features)
            drawn = torch.empty(layer.bias.shape, dtype=torch.float64)
            layer.bias.copy_(drawn.uniform_(-bound, bound, generator=generator).mul_(init_scale))
    return network
