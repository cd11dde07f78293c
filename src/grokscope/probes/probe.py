"""The contract of a probe."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Literal, Protocol

from grokscope.store.records import ArrayReading, Reading

if TYPE_CHECKING:
    from grokscope.probes.view import View

Need = Literal["weights", "train inputs", "train labels"]
Cost = Literal["cheap", "moderate", "heavy"]


class Probe(Protocol):
    """Binds measures to a live model.

    Attributes:
        name: Stable key, for costs, events and the seed of the probe's generator.
        needs: What a watch must have been given for this probe to work.
        cost: Expected price of one observation: ``cheap`` is a small part of a training step's
            reading of the weights, ``moderate`` a few forward passes, ``heavy`` anything dearer.
            A watch over its budget gives up the heavy ones first.
    """

    @property
    def name(self) -> str:
        """Stable key."""
        ...

    @property
    def needs(self) -> frozenset[Need]:
        """What the watch must have been given."""
        ...

    @property
    def cost(self) -> Cost:
        """Expected price."""
        ...

    def observe(self, view: View) -> Iterable[Reading | ArrayReading]:
        """Yield the readings of one observation. Changes nothing that ``view`` shows."""
        ...
