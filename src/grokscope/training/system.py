"""What the loop needs of a system in training, whatever it is."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Protocol

import numpy as np
from torch import nn

from grokscope.probes.view import ProbeData


class System(Protocol):
    """A model, its data, its loss and its way of taking steps."""

    @property
    def model(self) -> nn.Module:
        """The network, current whenever no call of `advance` is running."""
        ...

    @property
    def step(self) -> int:
        """Optimiser steps taken."""
        ...

    @property
    def data(self) -> ProbeData:
        """What probes may look at."""
        ...

    @property
    def provenance(self) -> Mapping[str, str]:
        """What the run must remember of the data: digest and how it was split."""
        ...

    def advance(self, stop: int) -> None:
        """Train up to step ``stop``. The way there does not depend on how it is cut into calls."""
        ...

    def is_finite(self) -> bool:
        """Say whether every parameter is finite."""
        ...

    def scalars(self) -> dict[str, float]:
        """Return readings of the step that was taken last, by measure."""
        ...

    def state(self) -> tuple[dict[str, np.ndarray], dict[str, float]]:
        """Return all that continuing bit-identically needs: tensors, and Python numbers."""
        ...

    def restore(
        self, step: int, tensors: Mapping[str, np.ndarray], numbers: Mapping[str, float]
    ) -> None:
        """Continue from what `state` returned at ``step``.

        Raises:
            InputError: If the tensors are not this system's.
        """
        ...
