"""What an observation leaves behind: readings, arrays, verdicts and events."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np


@dataclass(frozen=True, slots=True)
class Reading:
    """One number, seen at one step.

    Attributes:
        step: Optimiser steps taken when it was seen (0 is the initialised network).
        measure: Dotted name, ``"htsr.alpha"``; ends in ``"@convention"`` when not the default one.
        subject: What was measured: a layer (``"fc1"``), a data split (``"train"``) or ``"model"``.
        value: The number; ``nan`` means that it could not be computed, and ``note`` says why.
        note: Why a value is missing or qualified; empty for a plain value.
    """

    step: int
    measure: str
    subject: str
    value: float
    note: str = ""


@dataclass(frozen=True, slots=True)
class ArrayReading:
    """Many numbers that belong together, such as the spectrum of one layer.

    Attributes:
        step: Optimiser steps taken when it was seen.
        measure: Dotted name, ``"spectrum.eigenvalues"``.
        subject: What was measured, as in `Reading`.
        values: float64 array of any shape.
    """

    step: int
    measure: str
    subject: str
    values: np.ndarray


@dataclass(frozen=True, slots=True)
class Verdict:
    """What one rule says of the network at one step.

    Attributes:
        step: The observation that it was reached at.
        rule: ``"observed"`` (test accuracy), or a test-free rule: ``"htsr"``, ``"neighbourhood"``.
        phase: One of `grokscope.phases.PHASES`.
        since: First observation of the unbroken stretch in which this rule says ``phase``.
        evidence: The grounds, in words and numbers, for people.
    """

    step: int
    rule: str
    phase: str
    since: int
    evidence: str


@dataclass(frozen=True, slots=True)
class Event:
    """Something that happened to the run rather than in the network.

    Attributes:
        step: Optimiser steps taken when it happened.
        kind: Stable key: ``"resumed"``, ``"probe-failed"``, ``"skipped"``, ``"interrupted"``...
        message: For people.
    """

    step: int
    kind: str
    message: str


@dataclass(frozen=True, slots=True)
class Cost:
    """Wall time spent since the previous observation, kept apart from the readings.

    Attributes:
        step: The observation that it belongs to.
        part: ``"training"``, ``"recording"``, or the name of a probe.
        seconds: Wall time, not reproducible from run to run.
    """

    step: int
    part: str
    seconds: float
