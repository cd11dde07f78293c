"""Loss and accuracy, on training points and, where there are any, on held-out ones."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from grokscope.measures.classification import accuracy, cross_entropy
from grokscope.probes.probe import Cost, Need
from grokscope.probes.view import View
from grokscope.store.records import Reading


@dataclass(frozen=True)
class Performance:
    """Record ``loss`` and ``accuracy`` of ``train`` and ``test``.

    The loss is the one given with the data, cross-entropy if none was.
    """

    name: str = "performance"
    needs: frozenset[Need] = frozenset({"train inputs", "train labels"})
    cost: Cost = "cheap"

    def observe(self, view: View) -> Iterable[Reading]:
        """Yield loss and accuracy of each split."""
        assert view.data is not None
        loss = view.data.loss or cross_entropy
        splits = [("train", view.train.logits, view.labels)]
        if view.held_out is not None and view.data.held_out is not None:
            splits.append(("test", view.held_out.logits, view.data.held_out[1]))
        for split, logits, labels in splits:
            yield view.reading("loss", split, loss(logits, labels))
            yield view.reading("accuracy", split, accuracy(logits, labels))
