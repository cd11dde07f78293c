"""What an experiment is: a published system as presets of one recipe, with its claims."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Literal

from pydantic import BaseModel

from grokscope.phases import Milestones, find_milestones
from grokscope.store.trace import Trace

if TYPE_CHECKING:
    from pathlib import Path

    from grokscope.probes import Probe
    from grokscope.training.system import System

Outcome = Literal["holds", "fails", "inconclusive"]


@dataclass(frozen=True)
class Preset:
    """One setting of an experiment.

    Attributes:
        summary: What this setting shows, one line.
        config: The resolved settings.
        differences: Where it departs from the paper, or paper from code, one sentence each.
        control: Whether nothing is meant to collapse here.
    """

    summary: str
    config: BaseModel
    differences: tuple[str, ...] = ()
    control: bool = False


@dataclass(frozen=True)
class Finding:
    """What one claim comes to on one run.

    Attributes:
        outcome: ``holds``, ``fails`` or ``inconclusive``.
        measured: Our figure, in words and numbers.
        values: The numbers in ``measured``, by name, for programs.
    """

    outcome: Outcome
    measured: str
    values: Mapping[str, float]


@dataclass(frozen=True)
class Claim:
    """A statement of a paper, with its figure and our test of it.

    Attributes:
        id: Stable key.
        statement: What is claimed, one sentence.
        source: arXiv id and section or table.
        published: The published figure, in words and numbers.
        criterion: When we say that it holds; fixed before the run, never tuned to pass.
        measure: From a trace and its milestones to a finding.
        presets: Names of the presets that it is evaluated on; empty for all.
    """

    id: str
    statement: str
    source: str
    published: str
    criterion: str
    measure: Callable[[Trace, Milestones], Finding]
    presets: frozenset[str] = frozenset()


@dataclass(frozen=True)
class Experiment:
    """A published system that one command reproduces.

    Attributes:
        id: The name on the command line.
        title: For headings.
        source: arXiv ids.
        summary: One or two sentences.
        presets: Settings by name.
        default: Name of the preset that runs when none is named.
        claims: Evaluated on every run, on the presets that they are for.
        build: From a configuration, the folder of the user's data (or None) and a device to the
            system.
        probes: From a configuration to the probes of its runs.
    """

    id: str
    title: str
    source: str
    summary: str
    presets: Mapping[str, Preset]
    default: str
    claims: Sequence[Claim]
    build: Callable[[BaseModel, Path | None, str], System]
    probes: Callable[[BaseModel], Sequence[Probe]]

    def evaluate(self, trace: Trace, preset: str) -> list[tuple[Claim, Finding]]:
        """Return every claim for ``preset`` with its finding on ``trace``, in their order."""
        if not len(trace.steps()):
            return []
        milestones = find_milestones(trace)
        return [
            (claim, claim.measure(trace, milestones))
            for claim in self.claims
            if not claim.presets or preset in claim.presets
        ]
