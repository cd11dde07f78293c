"""When to look: log-spaced steps, since late-phase dynamics live on a logarithmic axis."""

from __future__ import annotations

import numpy as np


def log_spaced(steps: int, observations: int) -> list[int]:
    """Return the steps of about ``observations`` looks at a run of ``steps`` steps.

    Step 0 and the last step are always among them. Early steps are few, so that rounding to whole
    steps leaves fewer looks than asked for.

    Args:
        steps: Last step, at least 1.
        observations: Looks wanted, at least 2.

    Returns:
        Increasing steps from 0 to ``steps``.

    Raises:
        ValueError: If there are too few of either.
    """
    if steps < 1 or observations < 2:
        raise ValueError(f"expected steps >= 1 and observations >= 2, got {steps}, {observations}.")
    grid = np.unique(np.round(np.geomspace(1, steps, observations - 1)).astype(np.int64))
    return [0, *grid.tolist()]


class LogSchedule:
    """An endless log-spaced schedule, for runs whose length is not known: due at 0, 1, 2, ...

    From about step 13 on, each look comes 8 % after the last: 30 while the step grows tenfold.
    """

    _ratio = 10 ** (1 / 30)  # thirty looks while the step grows tenfold

    def __init__(self) -> None:
        """Begin; the first step that comes is due."""
        self._next = 0

    def due(self, step: int) -> bool:
        """Say whether to look at ``step``; a step that was jumped over is made up for."""
        if step < self._next:
            return False
        self._next = max(step + 1, int(np.ceil(step * self._ratio)))
        return True
