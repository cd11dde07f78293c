"""The three measures of Golechha (arXiv 2405.12755) on a live model."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from grokscope.measures.absolute_weight_entropy import absolute_weight_entropy
from grokscope.measures.activation_sparsity import activation_sparsity
from grokscope.measures.local_circuit_complexity import local_circuit_complexity
from grokscope.probes.probe import Cost, Need
from grokscope.probes.view import View
from grokscope.store.records import Reading


@dataclass(frozen=True)
class Golechha:
    """Record activation sparsity, absolute weight entropy and local circuit complexity.

    Their author's negative control is known: none of the three tells late collapse from
    generalisation (arXiv 2506.04434). The constants that the paper leaves open are attributes.
    Entropy and masks see every weight of more than one dimension once, whole, whatever its layer.

    Attributes:
        threshold: Activations below it count as silent.
        mask_fraction: Share of the weights set to zero for the circuit complexity.
        masks: Random masks that it is averaged over.
    """

    threshold: float = 0.1
    mask_fraction: float = 0.1
    masks: int = 5
    name: str = "golechha"
    needs: frozenset[Need] = frozenset({"weights", "train inputs"})
    cost: Cost = "moderate"

    def observe(self, view: View) -> Iterable[Reading]:
        """Yield sparsity by hidden layer, entropy by layer and in total, and the complexity."""
        for layer, activations in view.train.activations.items():
            sparsity = activation_sparsity(activations, threshold=self.threshold)
            yield view.reading("golechha.activation_sparsity", layer, sparsity)
        entropies = {
            layer: absolute_weight_entropy(weight) for layer, weight in view.layers.items()
        }
        for layer, entropy in entropies.items():
            yield view.reading("golechha.absolute_weight_entropy", layer, entropy)
        total = sum(entropy.value for entropy in entropies.values())
        reason = next((entropy.reason for entropy in entropies.values() if entropy.reason), "")
        yield view.reading("golechha.absolute_weight_entropy", "model", total, reason)
        complexity = local_circuit_complexity(
            view.logits_with,
            view.layers,
            mask_fraction=self.mask_fraction,
            masks=self.masks,
            reduction="mean",
            generator=view.generator(self.name),
        )
        yield view.reading(
            "golechha.local_circuit_complexity", "model", complexity.mean, complexity.reason
        )
