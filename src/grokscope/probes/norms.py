"""Weight norms, of the whole network and by layer."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from grokscope.measures.norms import l2_norm
from grokscope.probes.probe import Cost, Need
from grokscope.probes.view import View
from grokscope.store.records import Reading


@dataclass(frozen=True)
class Norms:
    """Record ``weights.l2_norm``: of all parameters, biases too (``model``), and by matrix."""

    name: str = "norms"
    needs: frozenset[Need] = frozenset({"weights"})
    cost: Cost = "cheap"

    def observe(self, view: View) -> Iterable[Reading]:
        """Yield the norm of the model and of each weight matrix."""
        yield view.reading("weights.l2_norm", "model", l2_norm(view.model.parameters()))
        for layer, weight in view.weights.items():
            yield view.reading("weights.l2_norm", layer, l2_norm([weight]))
