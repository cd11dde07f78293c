"""The moments of a run that matter, read off its accuracies."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from grokscope.phases.rules import THRESHOLDS, Thresholds, first_lasting
from grokscope.store.trace import Trace


@dataclass(frozen=True)
class Milestones:
    """Steps of the moments that claims and pictures refer to; None where one never came.

    Attributes:
        start: The first observation.
        memorised: First of the evaluations in which train accuracy stayed full.
        onset: Last observation before test accuracy had closed a quarter (`grokking_gap`) of the
            gap between its lowest level and 1: the right edge of pre-grokking.
        grokked: First observation at which test accuracy had come 95 % of the way from its lowest
            level to its maximum.
        peak: Observation of the maximum of test accuracy (median of five around it).
        collapsed: First observation after the peak from which test accuracy stayed below its
            maximum by ``observed_fall`` or more until the end.
        end: The last observation.
    """

    start: int
    memorised: int | None
    onset: int | None
    grokked: int | None
    peak: int | None
    collapsed: int | None
    end: int

    def moments(self) -> dict[str, int]:
        """Return the four moments at which spectra are compared, those that came, by name."""
        named = {
            "start": self.start,
            "memorised": self.memorised,
            "generalised": self.peak,
            "collapsed": self.end if self.collapsed is not None else None,
        }
        return {name: step for name, step in named.items() if step is not None}


def _centred_median(values: np.ndarray, window: int) -> np.ndarray:
    """Return the median of each value and its neighbours, ``window`` at most, shape (n,).

    The rules look back from a moment that has no future yet; looking back on a whole run, a median
    centred on the moment does not lag behind it.
    """
    reach = window // 2
    return np.array(
        [np.median(values[max(0, i - reach) : i + reach + 1]) for i in range(len(values))]
    )


def find_milestones(trace: Trace, limits: Thresholds = THRESHOLDS) -> Milestones:
    """Read the milestones off train and test accuracy; looks back over the whole trace.

    Args:
        trace: At least one observation.
        limits: The constants of the rules.

    Raises:
        ValueError: If the trace holds no observation.
    """
    steps = trace.steps()
    if not len(steps):
        raise ValueError("the trace holds no observation; milestones need at least one.")
    train = trace.series("accuracy", "train").finite()
    full = first_lasting(train.values >= limits.memorised, limits.evaluations)
    memorised = None if full is None else int(train.steps[full])

    onset = grokked = peak = collapsed = None
    test = trace.series("accuracy", "test").finite()
    if memorised is not None and len(test):
        later = test.steps >= train.steps[np.argmax(train.values >= limits.fitting)]
        after = test.steps[later]
        smooth = _centred_median(test.values[later], limits.evaluations)
        fitted = after >= train.steps[np.argmax(train.values >= limits.fitted)]
        at_peak = int(np.argmax(np.where(fitted, smooth, -1.0)))
        top, low = smooth[at_peak], smooth[: at_peak + 1].min()
        if top - low >= limits.generalised_gap * (1 - low) or top >= 1 - limits.near_train:
            peak = int(after[at_peak])
            risen = np.argmax(smooth >= low + limits.grokking_gap * (1 - low))
            onset = int(after[max(0, risen - 1)])
            grokked = int(after[np.argmax(smooth >= low + 0.95 * (top - low))])
            above = np.flatnonzero(smooth > top - limits.observed_fall)
            if above[-1] + 1 < len(after):
                collapsed = int(after[above[-1] + 1])
    return Milestones(int(steps[0]), memorised, onset, grokked, peak, collapsed, int(steps[-1]))
