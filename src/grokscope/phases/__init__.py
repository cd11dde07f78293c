"""From a trace to a verdict, with its evidence."""

from grokscope.phases.milestones import Milestones, find_milestones
from grokscope.phases.rules import PHASES, RULES, THRESHOLDS, Thresholds, judge
from grokscope.phases.spans import Span, agreement, lasting_alarm, phase_spans

__all__ = [
    "PHASES",
    "RULES",
    "THRESHOLDS",
    "Milestones",
    "Span",
    "Thresholds",
    "agreement",
    "find_milestones",
    "judge",
    "lasting_alarm",
    "phase_spans",
]
