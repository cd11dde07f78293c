"""The scale of the training logits, and how far the softmax has collapsed on them."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from grokscope.measures._value import missing
from grokscope.measures.logits import logit_scale, softmax_collapse_rate
from grokscope.probes.probe import Cost, Need
from grokscope.probes.view import View
from grokscope.store.records import Reading


@dataclass(frozen=True)
class Logits:
    """Record ``logits.scale`` and ``logits.softmax_collapse_rate`` of the training inputs.

    Attributes:
        softmax: Whether training minimises a softmax cross-entropy; without one there is no
            softmax to collapse, and the rate is missing with that reason.
    """

    softmax: bool = True
    name: str = "logits"
    needs: frozenset[Need] = frozenset({"train inputs"})
    cost: Cost = "cheap"

    def observe(self, view: View) -> Iterable[Reading]:
        """Yield the two readings."""
        yield view.reading("logits.scale", "train", logit_scale(view.train.logits))
        rate = missing("the loss has no softmax")
        if self.softmax:
            rate = softmax_collapse_rate(view.train.logits)
        yield view.reading("logits.softmax_collapse_rate", "train", rate)
