"""The value axis of a chart: range, ticks and number format, known before anything is drawn."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal

import altair as alt
import numpy as np

from grokscope.store.trace import Series

Kind = Literal["linear", "log", "symlog"]


@dataclass(frozen=True)
class ValueScale:
    """A vertical axis from ``low`` to ``high``; labels beside the plot are placed by it.

    Attributes:
        low: Value at the bottom.
        high: Value at the top.
        kind: ``linear``, ``log``, or ``symlog``: linear below 1 and logarithmic above.
        marks: Where the ticks are; chosen from the range if empty.
        numbers: d3 format of their labels; chosen from the range if empty.
    """

    low: float
    high: float
    kind: Kind = "linear"
    marks: tuple[float, ...] = ()
    numbers: str = ""

    def shows(self, value: float) -> bool:
        """Say whether a value has a place on the axis: zero has none on a logarithmic one."""
        return math.isfinite(value) and (self.kind != "log" or value > 0)

    def share(self, value: float) -> float:
        """Return how far up the axis ``value`` stands: 0 at the bottom, 1 at the top."""
        low, high, at = (self._bent(v) for v in (self.low, self.high, value))
        return (at - low) / (high - low)

    def _bent(self, value: float) -> float:
        if self.kind == "log":
            return math.log(value)
        return math.copysign(math.log1p(abs(value)), value) if self.kind == "symlog" else value

    def channel(self) -> alt.Scale:
        """Return the scale for an encoding."""
        return alt.Scale(
            type=self.kind,
            domain=[self.low, self.high],
            nice=False,
            zero=alt.Undefined if self.kind == "log" else False,
            constant=1 if self.kind == "symlog" else alt.Undefined,
        )

    def axis(self, height: int) -> alt.Axis:
        """Return the axis for a plot of ``height`` pixels."""
        marks = list(self.marks or self._ticks())
        number = self.numbers or self._format()
        return alt.Axis(
            values=marks or alt.Undefined,
            # Vega thins out given values to the number of ticks; it is for chosen ones only.
            tickCount=alt.Undefined if marks else max(2, height // 45),
            # An expression: with the format option, Vega cuts the precision and writes 1e+2.
            labelExpr=f"replace(format(datum.value, '{number}'), 'e+', 'e')",
            labelOverlap="greedy",
        )

    def _ticks(self) -> tuple[float, ...]:
        if self.kind == "linear":
            return ()
        bottom = self.low if self.kind == "log" else 1.0
        first, last = math.floor(math.log10(bottom)), math.ceil(math.log10(max(self.high, 1e-300)))
        steps = (1, 2, 5) if last - first <= 2 else (1, 3) if last - first <= 3 else (1,)
        exponents = range(first, max(last, first) + 1, max(1, (last - first) // 4))
        marks = [m * 10.0**e for e in exponents for m in steps]
        return tuple(m for m in [0.0, *marks] if self.low <= m <= self.high)

    def _format(self) -> str:
        if self.kind == "log" and self.low < 1e-3:
            return "~e"
        return "~s" if max(abs(self.low), abs(self.high)) >= 1e4 else ",~g"


def fitting_scale(
    shown: Iterable[Series], kind: Kind = "linear", in_view: Iterable[float] = ()
) -> ValueScale:
    """Return a scale that shows every finite value of some series, with a little air.

    Args:
        shown: On a logarithmic scale only positive values count.
        kind: Of the scale.
        in_view: Further values that must be on it; the scale may end at one, without air.
    """
    fixed = np.array(list(in_view), np.float64)
    values = np.concatenate([fixed, *(series.finite().values for series in shown)])
    values = values[values > 0] if kind == "log" else values
    low, high = (float(values.min()), float(values.max())) if len(values) else (1.0, 1.0)
    if kind == "log":
        air = max((high / low) ** 0.06, 1.05)
        return ValueScale(low / air, high * air, kind)
    air = 0.06 * (high - low) or 0.06 * abs(high) or 1.0
    ends_low, ends_high = low in fixed and high > low, high in fixed and high > low
    return ValueScale(low if ends_low else low - air, high if ends_high else high + air, kind)
