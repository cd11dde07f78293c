"""What a scan is asked to do."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Convention = Literal["corrected", "weightwatcher"]


@dataclass(frozen=True, slots=True)
class Settings:
    """How every matrix is measured; part of the key under which results are kept.

    Attributes:
        convention: ``corrected``, or ``weightwatcher`` for that package's columns (version 0.7.7).
        shuffles: Element-wise shuffles that correlation traps are looked for in; 0 for none.
            ``weightwatcher`` makes as many as the package does, unless this is 0.
        seed: Root of the shuffles; None for that of the run which the files belong to, or 0.
        bootstrap: Synthetic data sets behind the p-value of the power law; 0 for no p-value.
        null_draws: Gaussian matrices of equal shape that alpha is compared with; 0 for none.
    """

    convention: Convention = "corrected"
    shuffles: int = 10
    seed: int | None = None
    bootstrap: int = 0
    null_draws: int = 50

    def __post_init__(self) -> None:
        """Check the ranges.

        Raises:
            ValueError: If one does not fit.
        """
        if self.convention not in ("corrected", "weightwatcher"):
            raise ValueError(f"expected convention corrected or weightwatcher, {self.convention!r}")
        if self.null_draws == 1:
            raise ValueError("expected null_draws of 0 or at least 2, got 1")
        for name in ("shuffles", "seed", "bootstrap", "null_draws"):
            value = getattr(self, name)
            if value is not None and value < 0:
                raise ValueError(f"expected {name} of at least 0, got {value}")
