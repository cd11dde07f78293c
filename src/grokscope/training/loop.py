"""The loop: advance, observe, checkpoint, stop. Between those, nothing happens but training."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence

from grokscope.errors import RunFailed
from grokscope.training.system import System

# Seconds between two looks at the clock and the stop flag, aimed at: nobody waits long for Ctrl-C,
# and the look costs nothing in comparison.
_STRIDE_SECONDS = 0.2
_LONGEST_STRIDE = 4096


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
        stopping: Whether to stop early; asked several times a second.
        progress: Called after every stretch, for showing.

    Returns:
        Whether ``stop_step`` was reached.

    Raises:
        RunFailed: If a parameter is no longer finite; the last good state is in the checkpoints.
    """
    remaining = [step for step in observe_at if system.step <= step <= stop_step]
    saved_at, saved_step = time.monotonic(), system.step
    stride = 1
    while True:
        if remaining and remaining[0] == system.step:
            observe()
            remaining.pop(0)
        progress()
        finished, stop = system.step >= stop_step, stopping()
        due = time.monotonic() - saved_at >= checkpoint_seconds
        if finished or due or stop:
            if system.step != saved_step or finished:
                checkpoint()
            saved_at, saved_step = time.monotonic(), system.step
        if finished or stop:
            return finished
        before = system.step
        began = time.monotonic()
        system.advance(min([before + stride, stop_step, *remaining[:1]]))
        pace = (system.step - before) / max(time.monotonic() - began, 1e-9)
        # A stretch that an observation cut short says little of the pace: grow gradually.
        stride = max(1, min(int(pace * _STRIDE_SECONDS), 2 * stride, _LONGEST_STRIDE))
        if not system.is_finite():
            raise RunFailed(
                f"a parameter is no longer finite between step {before:,} and step "
                f"{system.step:,}: training diverged. Try a smaller learning rate."
            )
