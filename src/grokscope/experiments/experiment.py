"""What an experiment is: a published system as presets of one recipe, with its claims."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

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
        context: What a single run of this preset cannot show, and what is known of it.
    """

    summary: str
    config: BaseModel
    differences: tuple[str, ...] = ()
    control: bool = False
    context: str = ""


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
        needs_end: Whether it speaks of the whole run; inconclusive before the last step.
        settings: Settings that its figure belongs to; inconclusive where they are not the preset's.
    """

    id: str
    statement: str
    source: str
    published: str
    criterion: str
    measure: Callable[[Trace, Milestones], Finding]
    presets: frozenset[str] = frozenset()
    needs_end: bool = True
    settings: frozenset[str] = frozenset()


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

    def evaluate(
        self, trace: Trace, preset: str, config: Mapping[str, Any]
    ) -> list[tuple[Claim, Finding]]:
        """Return every claim for a preset with its finding on a trace, in their order.

        Args:
            trace: What was recorded so far.
            preset: The preset that the run began from.
            config: Its resolved settings, plain JSON values.
        """
        steps = trace.steps()
        if not len(steps):
            return []
        milestones = find_milestones(trace)
        standard = self.presets[preset].config.model_dump(mode="json")
        found = []
        for claim in self.claims:
            if claim.presets and preset not in claim.presets:
                continue
            finding = claim.measure(trace, milestones)
            reason = ""
            changed = sorted(key for key in claim.settings if config.get(key) != standard[key])
            if changed:
                reason = f"not the preset's own settings ({', '.join(changed)})"
            elif claim.needs_end and steps[-1] < config["steps"]:
                reason = f"the run is at step {steps[-1]:,} of {config['steps']:,}"
            if reason:
                words = f"{finding.measured}; {reason}"
                finding = Finding("inconclusive", words, finding.values)
            found.append((claim, finding))
        return found
