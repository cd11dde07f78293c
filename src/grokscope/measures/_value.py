"""A scalar reading that may be missing."""

import math
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Value:
    """A scalar reading, or nan with the reason why there is none.

    Attributes:
        value: The reading; nan when it is missing.
        reason: Why the reading is missing; empty when it is there.
    """

    value: float
    reason: str = ""


def missing(reason: str) -> Value:
    """Return the `Value` of a reading that could not be taken.

    Args:
        reason: One clause that says what about the data stood in the way.

    Returns:
        nan with `reason`.
    """
    return Value(math.nan, reason)
