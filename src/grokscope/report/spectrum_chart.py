"""One spectrum as a picture: beside its shuffles, the law of noise and the fitted power law.

The axis of eigenvalues is logarithmic, and densities are those of their logarithm, so that equal
areas hold equally many of them in the bulk and far out. It begins where noise does: what is
smaller, as in a layer that has lost its rank, is counted and not drawn.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import altair as alt
import numpy as np

from grokscope.measures import marchenko_pastur
from grokscope.report.panel import Row, data_of, rounded
from grokscope.report.theme import Palette
from grokscope.scan.words import decimal

_BINS = 32
_CURVE = 160  # points of the density of noise
_FIT = 48  # points of a fitted density
_DEPTH = 1e-6  # of the largest eigenvalue: no axis reaches lower
_TICK = 7  # pixels of a mark for an eigenvalue beyond the edge
_PIXELS = 600  # of the axis, about
_RANKS = 64  # largest eigenvalues that are all drawn; below, as many again, evenly on the axis


@dataclass(frozen=True)
class Tail:
    """A power law fitted to the largest eigenvalues.

    Attributes:
        alpha: Exponent of the density, above 1.
        xmin: Where the tail begins, positive.
        size: Number of eigenvalues in it.
    """

    alpha: float
    xmin: float
    size: float


@dataclass(frozen=True)
class Seen:
    """What is known of one matrix.

    Attributes:
        raw: Eigenvalues of ``W^T W / N``, ascending, shape (M,); at least one is positive.
        shuffled: Those of its shuffles together, in any number; empty if there are none.
        ratio: ``M / N``, in (0, 1]; nan if not known.
        scale: Of the Marchenko-Pastur law; nan if not known.
        tail: The fitted power law, if there is one.
        raw_threshold: Beyond it an eigenvalue is marked; the edge of the law where it is nan.
        shuffled_threshold: The same for the shuffles.
    """

    raw: np.ndarray
    shuffled: np.ndarray
    ratio: float
    scale: float
    tail: Tail | None = None
    raw_threshold: float = math.nan
    shuffled_threshold: float = math.nan

    @property
    def support(self) -> tuple[float, float]:
        """Both edges of the law, nan if not known."""
        if not np.isfinite(self.scale + self.ratio) or self.scale <= 0:
            return math.nan, math.nan
        return marchenko_pastur.edges(self.ratio, self.scale)

    @property
    def floor(self) -> float:
        """Where the axis should begin: somewhat below noise; nan if not known."""
        low, _ = self.support
        # A square matrix of noise has one eigenvalue in a hundred below 2.5e-4 of the variance.
        return max(low, 2.5e-4 * self.scale) / 3 if math.isfinite(low) else math.nan

    def beyond(self) -> np.ndarray:
        """Return the eigenvalues beyond the threshold; none if no edge is known."""
        return self.raw[self.raw > _first_known(self.raw_threshold, self.support[1])]

    def shuffled_beyond(self) -> np.ndarray:
        """Return the shuffled eigenvalues beyond theirs."""
        edge = _first_known(self.shuffled_threshold, self.raw_threshold, self.support[1])
        return self.shuffled[self.shuffled > edge]


def _first_known(*values: float) -> float:
    return next((value for value in values if math.isfinite(value)), math.nan)


def axis_edges(seen: Sequence[Seen]) -> np.ndarray:
    """Return the edges of the bins that all charts of a layer share; the axis ends with them."""
    values = np.concatenate([np.concatenate([s.raw, s.shuffled]) for s in seen])
    top = float(values.max())
    floors = [s.floor for s in seen if np.isfinite(s.floor)]
    bottom = min(floors, default=float(np.quantile(values[values > 0], 0.02)))
    bottom = min([bottom, *(s.tail.xmin for s in seen if s.tail)])
    return np.geomspace(max(min(bottom, top / 2), top * _DEPTH), 1.3 * top, _BINS + 1)


def density_layers(
    seen: Sequence[Seen], edges: np.ndarray, colour: str, palette: Palette
) -> list[list[alt.Chart]]:
    """Draw the density of each spectrum, all on the same axes.

    Bars of the matrix as it is, the outline of its shuffles, the law of noise, the fitted power law
    with its exponent, and a mark for every eigenvalue beyond the edge.

    Args:
        seen: The spectra.
        edges: Their `axis_edges`.
        colour: Of the bars.
        palette: The other colours.
    """
    bars = [_bars(s, edges) for s in seen]
    fits = [_fitted_density(s, edges) for s in seen]
    highest = max(max(row["raw"], row["shuffled"]) for rows in bars for row in rows)
    highest = max([highest, *(rows[0]["fit"] for rows in fits if rows)])
    highest *= 1.45 if any(fits) else 1.12  # room for marks, and for the name of a fit
    return [
        _density(s, rows, fit, edges, highest, colour, palette)
        for s, rows, fit in zip(seen, bars, fits, strict=True)
    ]


def survival_layers(
    seen: Seen, edges: np.ndarray, colour: str, palette: Palette, height: int
) -> list[alt.Chart]:
    """Draw which share of the eigenvalues is at least as large, on two logarithmic axes.

    A power law is a straight line there.

    Args:
        seen: One spectrum.
        edges: Its `axis_edges`.
        colour: Of the points.
        palette: The other colours.
        height: Of the plot, in pixels.
    """
    least = 0.5 / len(seen.raw)
    x = _eigenvalue_axis(edges)
    scale = alt.Scale(type="log", domain=[least, 1.4], nice=False)
    decades = [10.0**e for e in range(math.ceil(math.log10(least)), 1)]
    every = max(1, math.ceil(18 * len(decades) / height))
    axis = alt.Axis(values=decades[::-1][::every], labelExpr="format(datum.value, '~g')")

    def y(field: str) -> alt.Y:
        return alt.Y(f"{field}:Q", title=None, scale=scale, axis=axis)

    points = alt.Chart(data_of(_ranked(seen.raw, edges)))
    layers = []
    if len(seen.shuffled):
        outline = alt.Chart(data_of(_ranked(seen.shuffled, edges))).mark_line(
            interpolate="step-before", color=palette.ink, strokeWidth=1, opacity=0.75, clip=True
        )
        layers.append(outline.encode(x=x, y=y("share")))
    law = _law_survival(seen, edges, least)
    if law:
        layers.append(_law_line(law, palette).encode(x=x, y=y("share")))
    tooltip = [
        alt.Tooltip("low:Q", title="eigenvalue", format=".4~g"),
        alt.Tooltip("rank:Q", title="rank", format=","),
    ]
    layers.append(
        points.mark_circle(size=14, color=colour, opacity=1).encode(
            x=x, y=y("share"), tooltip=tooltip
        )
    )
    if seen.tail:
        rows = _fitted_survival(seen.tail, len(seen.raw), edges, least)
        line = alt.Chart(data_of(rows)).mark_line(color=palette.fit, strokeWidth=2, clip=True)
        start = _beginning(seen.tail, edges)
        # All curves fall to the right, so that there is room above on that side, else below.
        right = _place(start, edges) < 0.85
        top = 2 if right else height - 14
        mark = _tail_mark(start, seen.tail.alpha, x, palette, right, top)
        layers += [line.encode(x=x, y=y("share")), *mark]
    return layers


def _bars(seen: Seen, edges: np.ndarray) -> list[Row]:
    """Return the densities per decade of raw and shuffled eigenvalues, one row a bin."""

    def share(values: np.ndarray) -> np.ndarray:
        if not len(values):
            return np.zeros(len(edges) - 1)
        counts, _ = np.histogram(values, edges)
        return np.asarray(counts / len(values) / np.diff(np.log10(edges)))

    found = zip(edges[:-1], edges[1:], share(seen.raw), share(seen.shuffled), strict=True)
    return [
        {"low": rounded(a), "high": rounded(b), "raw": rounded(r), "shuffled": rounded(s)}
        for a, b, r, s in found
    ]


def _law(seen: Seen, edges: np.ndarray) -> list[Row]:
    """Return the Marchenko-Pastur density per decade on its support; nothing if not known."""
    low, high = seen.support
    if not np.isfinite(high):
        return []
    at = np.geomspace(max(low, edges[0]), high, _CURVE)
    density = marchenko_pastur.density(at, seen.ratio, seen.scale) * at * np.log(10)
    rows = zip(at, density, strict=True)
    return [{"low": rounded(x), "law": rounded(y)} for x, y in rows]


def _law_survival(seen: Seen, edges: np.ndarray, least: float) -> list[Row]:
    """Return the share of noise that is at least as large, on its support."""
    low, high = seen.support
    if not np.isfinite(high):
        return []
    at = np.geomspace(max(low, edges[0]), high, _CURVE)
    share = 1 - marchenko_pastur.cdf(at, seen.ratio, seen.scale)
    rows = zip(at, share, strict=True)
    return [{"low": rounded(x), "share": rounded(y)} for x, y in rows if y >= least]


def _fitted_density(seen: Seen, edges: np.ndarray) -> list[Row]:
    """Return the density per decade of the power law, of all eigenvalues; nothing without one."""
    if not seen.tail:
        return []
    slope = seen.tail.alpha - 1
    at = np.geomspace(_beginning(seen.tail, edges), edges[-1], _FIT)
    start = seen.tail.size / len(seen.raw) * slope * math.log(10)
    density = start * (at / seen.tail.xmin) ** -slope
    rows = zip(at, density, strict=True)
    return [{"low": rounded(x), "fit": rounded(y)} for x, y in rows]


def _fitted_survival(tail: Tail, count: int, edges: np.ndarray, least: float) -> list[Row]:
    """Return both ends of the straight line that the power law is, within the plot."""
    slope = tail.alpha - 1
    start = tail.size / count
    reach = math.log(start / least) / slope  # where the line has come down to the lower edge
    end = min(math.log(edges[-1]), math.log(tail.xmin) + reach)
    return [
        {"low": rounded(x), "share": rounded(start * (x / tail.xmin) ** -slope)}
        for x in (_beginning(tail, edges), math.exp(end))
    ]


def _beginning(tail: Tail, edges: np.ndarray) -> float:
    """Return where the tail begins on the axis."""
    return max(tail.xmin, float(edges[0]))


def _ranked(values: np.ndarray, edges: np.ndarray) -> list[Row]:
    """Return the largest values, and some of the others, with the share that is as large."""
    falling = np.sort(values)[::-1]
    ranks = np.arange(1, len(falling) + 1)
    inside = falling >= edges[0]
    falling, ranks = falling[inside], ranks[inside]
    kept = np.arange(len(falling)) < _RANKS
    if len(falling):
        # Of the others one for each of as many equal steps of the axis.
        steps = np.floor(np.log(falling / edges[0]) / np.log(edges[-1] / edges[0]) * _RANKS)
        kept[1:] |= steps[1:] != steps[:-1]
        kept[-1] = True
    return [
        {"low": rounded(x), "share": rounded(r / len(values)), "rank": int(r)}
        for x, r in zip(falling[kept], ranks[kept], strict=True)
    ]


def _density(
    seen: Seen,
    bars: list[Row],
    fit: list[Row],
    edges: np.ndarray,
    highest: float,
    colour: str,
    palette: Palette,
) -> list[alt.Chart]:
    x = _eigenvalue_axis(edges)

    def y(field: str) -> alt.Y:
        scale = alt.Scale(domain=[0, highest], nice=False)
        return alt.Y(f"{field}:Q", title=None, scale=scale, axis=None)

    base = alt.Chart(data_of(bars)).encode(x=x)
    tooltip = [
        alt.Tooltip("low:Q", title="from", format=".3~g"),
        alt.Tooltip("high:Q", title="to", format=".3~g"),
        alt.Tooltip("raw:Q", title="density, raw", format=".3~g"),
        alt.Tooltip("shuffled:Q", title="density, shuffled", format=".3~g"),
    ]
    layers = [
        base.mark_rect(fill=colour, opacity=0.45).encode(
            x2="high:Q", y=y("raw"), y2=alt.datum(0), tooltip=tooltip
        ),
    ]
    if len(seen.shuffled):
        outline = base.mark_line(
            interpolate="step-after", color=palette.ink, strokeWidth=1, opacity=0.75
        )
        layers.append(outline.encode(y=y("shuffled")))
    law = _law(seen, edges)
    if law:
        layers.append(_law_line(law, palette).encode(x=x, y=y("law")))
    if fit and seen.tail:
        line = alt.Chart(data_of(fit)).mark_line(color=palette.fit, strokeWidth=2, clip=True)
        start = _beginning(seen.tail, edges)
        right = _place(start, edges) < 0.5
        mark = _tail_mark(start, seen.tail.alpha, x, palette, right, 2 * _TICK + 6)
        layers += [line.encode(x=x, y=y("fit")), *mark]
    marked = ((seen.beyond(), colour, 0), (seen.shuffled_beyond(), palette.ink, _TICK + 2))
    for values, ink, top in marked:
        rows = [{"low": rounded(v)} for v in _one_a_pixel(values, edges)]
        marks = alt.Chart(data_of(rows)).mark_rule(color=ink, strokeWidth=1.25)
        layers.append(marks.encode(x=x, y=alt.value(top), y2=alt.value(top + _TICK)))
    return layers


def _tail_mark(
    start: float, alpha: float, x: alt.X, palette: Palette, right: bool, top: int
) -> list[alt.Chart]:
    """Draw where the tail begins, with the exponent beside it, to the right or to the left."""
    base = alt.Chart(data_of([{"low": rounded(start), "label": f"α {decimal(alpha)}"}]))
    rule = base.mark_rule(color=palette.fit, strokeWidth=1, strokeDash=[1, 2])
    text = base.mark_text(
        align="left" if right else "right", dx=5 if right else -5, baseline="top",
        color=palette.fit, fontWeight="bold",
    )  # fmt: skip
    return [
        rule.encode(x=x, y=alt.value(2 * _TICK + 6), y2=alt.value("height")),
        text.encode(x=x, y=alt.value(top), text="label:N"),
    ]


def _law_line(rows: list[Row], palette: Palette) -> alt.Chart:
    line: alt.Chart = alt.Chart(data_of(rows)).mark_line(
        color=palette.accent, strokeWidth=1.5, strokeDash=[4, 2], clip=True
    )
    return line


def _one_a_pixel(values: np.ndarray, edges: np.ndarray) -> np.ndarray:
    """Return the values without those that would be drawn upon another."""
    places = np.log(values / edges[0]) / np.log(edges[-1] / edges[0])
    _, first = np.unique(np.floor(_PIXELS * places), return_index=True)
    return values[first]


def _place(value: float, edges: np.ndarray) -> float:
    """Return where a value stands on the axis, from 0 at its left end to 1."""
    return math.log(value / edges[0]) / math.log(edges[-1] / edges[0])


def _eigenvalue_axis(edges: np.ndarray) -> alt.X:
    return alt.X(
        "low:Q",
        title=None,
        scale=alt.Scale(type="log", domain=[edges[0], edges[-1]], nice=False),
        axis=alt.Axis(
            values=_decades(edges),
            labelExpr="format(datum.value, datum.value < 1e-3 ? '~e' : '~g')",
            grid=False,
            labelFlush=14,
            labelOverlap="greedy",
        ),
    )


def _decades(edges: np.ndarray) -> list[float]:
    first, last = np.ceil(np.log10(edges[0])), np.floor(np.log10(edges[-1]))
    every = max(1, round((last - first) / 4))
    return [float(f"1e{int(e)}") for e in np.arange(first, last + 1, every)]
