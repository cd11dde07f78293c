"""What watching may cost: a share of wall time, kept by giving up the dearest probes first."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence

from grokscope.probes import Probe

_ORDER = ("cheap", "moderate", "heavy")


class Budget:
    """Keeps the time spent on observations under a share of all time since it was started.

    The price of a probe, and of what surrounds the probes, is what it took last time. What was
    never tried is taken to be free, so that everything is seen once, at the first observation.
    """

    def __init__(self, share: float | None) -> None:
        """Start the clock.

        Args:
            share: Largest share of wall time, such as 0.02; None for no limit.

        Raises:
            ValueError: If the share is not between 0 and 1.
        """
        if share is not None and not 0 < share < 1:
            raise ValueError(f"budget: expected a share between 0 and 1, or None, got {share}.")
        self._share = share
        self._start = time.perf_counter()
        self._spent = 0.0
        self._prices: dict[str, float] = {}
        self._overhead = 0.0

    def affordable(self, probes: Sequence[Probe]) -> list[Probe]:
        """Return the probes to run now, in their order; cheap ones are provided for first.

        Nothing if not even the work around them can be paid for.
        """
        if self._share is None:
            return list(probes)
        left = self._share * (time.perf_counter() - self._start) - self._spent - self._overhead
        chosen = []
        for probe in sorted(probes, key=lambda p: _ORDER.index(p.cost)):
            price = self._prices.get(probe.name)
            if price is None or price <= left:
                chosen.append(probe)
                left -= price or 0.0
        return [probe for probe in probes if probe in chosen]

    def spend(self, overhead: float, probes: Mapping[str, float]) -> None:
        """Book an observation: the seconds of each probe by name, and those of all the rest."""
        self._spent += overhead + sum(probes.values())
        self._overhead = overhead
        self._prices.update(probes)

    def share_spent(self) -> float:
        """Return the share of wall time that observations took so far."""
        passed = time.perf_counter() - self._start
        return self._spent / passed if passed > 0 else 0.0
