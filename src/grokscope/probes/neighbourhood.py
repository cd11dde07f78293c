"""Neighbourhood consistency of the training points on a live model."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from grokscope.measures.neighbourhood import (
    mixture_consistency,
    noise_consistency,
    shift_consistency,
)
from grokscope.probes.probe import Cost, Need
from grokscope.probes.view import View
from grokscope.store.records import Reading


@dataclass(frozen=True)
class Neighbourhood:
    """Record how much of the neighbourhood of the training points keeps their labels.

    Attributes:
        sigmas: Standard deviations of the Gaussian input noise, in units of the inputs.
        max_weight: Largest weight of the other training input in a mixture.
        points: Perturbed points that each reading is taken over, at the least: every training
            point is perturbed as often as that needs.
    """

    sigmas: tuple[float, ...] = (0.05, 0.1, 0.2)
    max_weight: float = 0.3
    points: int = 1000
    name: str = "neighbourhood"
    needs: frozenset[Need] = frozenset({"train inputs", "train labels"})
    cost: Cost = "moderate"

    def observe(self, view: View) -> Iterable[Reading]:
        """Yield one reading for each size of noise, one for mixtures, one for shifts of images."""
        assert view.data is not None
        if not view.inputs.is_floating_point():
            reason = "inputs are not numbers that noise could be added to"
            yield view.reading("neighbourhood.mixture", "train", float("nan"), reason)
            return
        draws = max(1, -(-self.points // max(1, len(view.inputs))))
        for sigma in self.sigmas:
            kept = noise_consistency(
                view.logits_of,
                view.inputs,
                view.labels,
                sigma=sigma,
                draws=draws,
                generator=view.generator(self.name, f"noise {sigma}"),
            )
            yield view.reading(f"neighbourhood.noise_{sigma:g}", "train", kept)
        kept = mixture_consistency(
            view.logits_of,
            view.inputs,
            view.labels,
            max_weight=self.max_weight,
            draws=draws,
            generator=view.generator(self.name, "mixture"),
        )
        yield view.reading("neighbourhood.mixture", "train", kept)
        if view.data.image_shape is not None:
            kept = shift_consistency(
                view.logits_of, view.inputs, view.labels, image_shape=view.data.image_shape
            )
            yield view.reading("neighbourhood.shift", "train", kept)
