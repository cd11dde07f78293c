"""The loop: advance, observe, checkpoint, stop. Between those, nothing happens but training."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from grokscope.errors import RunFailed
from grokscope.training.system import System

# Steps between two looks at the clock and the stop flag. A step here is a fraction of a
# millisecond to a few; nobody waits long for Ctrl-C, and the look costs nothing in comparison.
_STRIDE = 512


def train(
    system: System,
    *,
    stop_step: int,
    observe_at: Sequence[int],
    observe: Callable[[], None],
    checkpoint: Callable[[], None],
    checkpoint_seconds: float,
    stopping: Callable[[], bool],
    progress: Callable[[], None],
) -> bool:
    """Train ``system`` up to ``stop_step``.

    An observation of the present step comes before a checkpoint of it, always: a run that resumes
    from a checkpoint has recorded everything up to and at its step.

    Args:
        system: What is trained; it goes on from where it stands.
        stop_step: Last step.
        observe_at: Steps to observe at, increasing; those behind the system are passed over.
        observe: Looks at the system as it stands.
        checkpoint: Saves it as it stands.
        checkpoint_seconds: Wall time after which a checkpoint is due.
        stopping: Whether to stop early; asked at least every few hundred steps.
        progress: Called after every stretch, for showing.

    Returns:
        Whether ``stop_step`` was reached.

    Raises:
        RunFailed: If a parameter is no longer finite; the last good state is in the checkpoints.
    """
    remaining = [step for step in observe_at if system.step <= step <= stop_step]
    saved_at, saved_step = time.monotonic(), system.step
    while True:
        if remaining and remaining[0] == system.step:
            observe()
            remaining.pop(0)
        progress()
        finished = system.step >= stop_step
        due = time.monotonic() - saved_at >= checkpoint_seconds
        if finished or due or stopping():
            if system.step != saved_step or finished:
                checkpoint()
            saved_at, saved_step = time.monotonic(), system.step
        if finished or stopping():
            return finished
        before = system.step
        system.advance(min([before + _STRIDE, stop_step, *remaining[:1]]))
        if not system.is_finite():
            raise RunFailed(
                f"a parameter is no longer finite between step {before:,} and step "
                f"{system.step:,}: training diverged. Try a smaller learning rate."
            )
