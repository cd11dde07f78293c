"""The building blocks of every chart over steps: axis, phase bands, lines, labels.

Steps run on a symmetric-log axis: logarithmic where things happen and linear below, so that the
network at step 0, which a logarithm cannot show, keeps its true place at the left edge.
"""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import altair as alt

from grokscope.phases import PHASES, Milestones, phase_spans
from grokscope.report.theme import FONT, Palette
from grokscope.report.value_scale import ValueScale
from grokscope.store.trace import Series, Trace

Row = dict[str, Any]
Width = int | Literal["container"]

LABELS = 88  # pixels at the right of a large chart that the names of lines take
_NUMBERS = 36  # pixels at the left that the labels of the value axis take
_LINE_SPACING = 12  # pixels that two names need between them
_DIGITS = 6  # significant ones kept of a value: more than any screen shows
_MOST_LABELS = 6  # with more lines than this, only the first and the last are named
# Written out, since what Vega-Lite makes of a text field breaks when the nearest point is sought:
# there the row lies one level deeper.
_ROW = "(datum.datum || datum)"
_TOOLTIP = "{'title': ROW.name, 'step': format(ROW.step, ','), 'value': format(ROW.value, ',.4~g')}"


@dataclass(frozen=True)
class Line:
    """One series as it is drawn.

    Attributes:
        name: What it is, unlike that of any other line.
        series: The values; missing ones leave a gap.
        colour: Of line and label.
        dash: Lengths of strokes and gaps; empty for a solid line.
        width: Of the line, in pixels.
        label: Stands beside its end; ``name`` if empty.
    """

    name: str
    series: Series
    colour: str
    dash: tuple[int, ...] = ()
    width: float = 1.5
    label: str = ""


def rounded(value: float) -> float | None:
    """Return a value as charts hold it: six significant digits, None where it is missing."""
    return float(f"{value:.{_DIGITS}g}") if math.isfinite(value) else None


def rows_of(lines: Sequence[Line], scale: ValueScale) -> list[Row]:
    """Return every reading of ``lines`` as one row; missing ones have the value None.

    ``alone`` marks values between missing ones: no line reaches them, so they are drawn as dots.
    """
    rows: list[Row] = []
    for line in lines:
        values = [rounded(v) if scale.shows(v) else None for v in line.series.values]
        padded = [None, *values, None]
        for i, (step, value) in enumerate(zip(line.series.steps, values, strict=True)):
            row: Row = {"step": int(step), "name": line.name, "value": value}
            if value is not None and padded[i] is None and padded[i + 2] is None:
                row["alone"] = "yes"
            rows.append(row)
    return rows


def data_of(rows: Sequence[Row]) -> alt.InlineData:
    """Return rows as chart data: one CSV text, which Altair neither copies nor checks row by row.

    Args:
        rows: Values are numbers, text, or None where they are missing.
    """
    columns = list(dict.fromkeys(key for row in rows for key in row))
    text = io.StringIO()
    writer = csv.DictWriter(text, columns, lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    numbers = {
        column: "number"
        for column in columns
        if all(isinstance(row.get(column, 0), (int, float, type(None))) for row in rows)
    }
    return alt.InlineData(values=text.getvalue(), format=alt.CsvDataFormat(numbers, type="csv"))


def linear_below(at: Milestones) -> int:
    """Return the power of ten from which the step axis is logarithmic.

    A tenth of the step at which the training set was memorised, rounded down; where it was not,
    a ten-thousandth of the run.
    """
    decades = 4 if at.memorised is None else 1
    upto = at.end if at.memorised is None else at.memorised
    return int(10 ** max(math.floor(math.log10(max(upto, 1))) - decades, 0))


def step_channel(at: Milestones, *, short: bool, offset: float = 0.0) -> alt.X:
    """Return the step axis, the same for every chart of one trace.

    Args:
        at: The milestones of the trace; its end is the right edge.
        short: Whether labels are abbreviated (10k) and the title is left out.
        offset: Pixels between the plot and the axis.
    """
    last, linear = max(at.end, 1), linear_below(at)
    decades = range(round(math.log10(linear)), math.floor(math.log10(last)) + 1)
    number = "format(datum.value, '~s')" if short else "format(datum.value, ',')"
    axis = alt.Axis(
        values=[0, *(10**d for d in decades)],
        labelExpr=number,
        grid=False,
        offset=offset,
        labelOverlap="greedy",
        labelFlush=True,
    )
    scale = alt.Scale(type="symlog", constant=linear, domain=[0, last], nice=False)
    title = None if short else f"optimiser steps (logarithmic; linear below {linear:,})"
    return alt.X("step:Q", title=title, scale=scale, axis=axis)


def phase_fill(palette: Palette, listed: Sequence[str] = ()) -> alt.Color:
    """Return the encoding of a phase as a colour, with a legend of those ``listed``, if any."""
    scale = alt.Scale(domain=list(PHASES), range=[palette.phases[phase] for phase in PHASES])
    names = alt.Legend(
        values=list(listed), title=None, orient="bottom", symbolType="square", offset=6
    )
    return alt.Color("phase:N", scale=scale, legend=names if listed else None)


def bands(trace: Trace, palette: Palette, x: alt.X) -> alt.Chart:
    """Return the observed phases as tinted bands over the whole height."""
    rows = [
        {"step": span.start, "end": span.end, "phase": span.phase}
        for span in phase_spans(trace, "observed")
    ]
    chart = alt.Chart(data_of(rows)).mark_rect(opacity=0.2)
    tinted: alt.Chart = chart.encode(x=x, x2="end:Q", color=phase_fill(palette))
    return tinted


def line_layers(
    lines: Sequence[Line], x: alt.X, scale: ValueScale, height: int, labels: int = LABELS
) -> list[alt.Chart]:
    """Return lines, lone points, the point under the pointer, and the names at the right.

    Args:
        lines: In the order of their names.
        x: The step axis.
        scale: The value axis.
        height: Of the plot, in pixels.
        labels: Room for the names, in pixels.
    """
    names = [line.name for line in lines]

    def by_name(values: list[Any]) -> dict[str, Any]:
        return {
            "shorthand": "name:O",
            "legend": None,
            "scale": alt.Scale(domain=names, range=values),
        }

    colour = alt.Color(**by_name([line.colour for line in lines]))
    y = alt.Y("value:Q", title=None, scale=scale.channel(), axis=scale.axis(height))
    base = alt.Chart(data_of(rows_of(lines, scale))).encode(x=x, y=y, color=colour)
    pointed = alt.selection_point(nearest=True, on="pointerover", clear="pointerout", empty=False)
    return [
        base.mark_line(strokeCap="round", strokeJoin="round").encode(
            detail="name:N",
            strokeDash=alt.StrokeDash(**by_name([list(ln.dash or (1, 0)) for ln in lines])),
            strokeWidth=alt.StrokeWidth(**by_name([ln.width for ln in lines])),
        ),
        base.mark_point(filled=True, size=16, opacity=1).transform_filter("datum.alone"),
        base.mark_point(filled=True, size=40, tooltip=alt.ExprRef(_TOOLTIP.replace("ROW", _ROW)))
        .encode(opacity=alt.condition(pointed, alt.value(1), alt.value(0)))
        .add_params(pointed)
        .transform_filter("isValid(datum.value)"),
        _end_labels(lines, scale, height, colour, labels),
    ]


def _end_labels(
    lines: Sequence[Line], scale: ValueScale, height: int, colour: alt.Color, labels: int
) -> alt.Chart:
    """Return the name of each line beside its last value, moved apart where they would overlap."""
    ends = []
    for line in lines:
        shown = [float(value) for value in line.series.values if scale.shows(value)]
        if shown:
            at = height * (1 - scale.share(shown[-1]))
            ends.append((at, line.name, line.label or line.name))
    if len(ends) > _MOST_LABELS:
        ends = [ends[0], ends[-1]]
    ends.sort()
    places = apart([place for place, _, _ in ends], height)
    rows = [
        {"name": name, "label": label, "at": at}
        for at, (_, name, label) in zip(places, ends, strict=True)
    ]
    chart = alt.Chart(data_of(rows)).mark_text(align="left", dx=7, limit=labels - 7)
    y = alt.Y("at:Q", scale=None, axis=None)
    named: alt.Chart = chart.encode(x=alt.value("width"), y=y, text="label:N", color=colour)
    return named


def limit_lines(
    scale: ValueScale, height: int, palette: Palette, limits: Sequence[float]
) -> list[alt.Chart]:
    """Draw thresholds of the rules as dashed lines across the plot; two of them hold a band."""
    places = [height * (1 - scale.share(limit)) for limit in limits]
    across = {"x": alt.value(0), "x2": alt.value("width")}
    rows = data_of([{"at": place} for place in places])
    rules = alt.Chart(rows).mark_rule(strokeDash=[2, 3], color=palette.ink, opacity=0.7)
    drawn = [rules.encode(y=alt.Y("at:Q", scale=None, axis=None), **across)]
    if len(places) == 2:
        band = alt.Chart(data_of([{"one": 1}])).mark_rect(fill=palette.ink, opacity=0.07)
        drawn.insert(0, band.encode(y=alt.value(places[1]), y2=alt.value(places[0]), **across))
    return drawn


def apart(places: Sequence[float], height: float, spacing: float = _LINE_SPACING) -> list[float]:
    """Move sorted places at least ``spacing`` apart, as little as that takes, within ``height``."""
    moved: list[float] = []
    for place in places:
        moved.append(max(place, moved[-1] + spacing) if moved else place)
    limit = height
    for i in reversed(range(len(moved))):
        moved[i] = min(moved[i], limit)
        limit = moved[i] - spacing
    return moved


def dressed(
    layers: Sequence[alt.Chart],
    palette: Palette,
    width: Width,
    height: int,
    labels: int = LABELS,
) -> alt.LayerChart:
    """Put layers on each other and give the chart its size and its quiet looks.

    Args:
        layers: From back to front.
        palette: Colours.
        width: Of everything, with axis and labels, in pixels; or ``container``.
        height: Of the plot, in pixels.
        labels: Room at the right for the names of lines, in pixels.
    """
    # Nothing, as wide as the longest name: it keeps the plots of one page equally wide.
    room = (
        alt.Chart(data_of([{"one": 1}]))
        .mark_rule(opacity=0)
        .encode(
            x=alt.value("width"), x2=alt.value(alt.ExprRef(f"width + {labels}")), y=alt.value(0)
        )
    )
    # All in one call: every further method of a chart copies all of it.
    return alt.LayerChart(
        layer=[*layers, room],
        width=width,
        height=height,
        background="transparent",
        autosize=alt.AutoSizeParams(type="fit-x", contains="padding"),
        resolve=alt.Resolve(
            scale=dict.fromkeys(("color", "strokeDash", "strokeWidth"), "independent")
        ),
        config=_config(palette),
    )


def _config(palette: Palette) -> alt.Config:
    return alt.Config(
        font=FONT,
        padding={"left": 2, "right": 0, "top": 6, "bottom": 2},
        view={"stroke": None},
        text={"fontSize": 11},
        axis={
            "domainColor": palette.faint,
            "tickColor": palette.faint,
            "gridColor": palette.faint,
            "gridOpacity": 0.6,
            "labelColor": palette.muted,
            "titleColor": palette.muted,
            "titleFontWeight": "normal",
            "titleFontSize": 11,
            "labelFontSize": 10.5,
            "tickSize": 4,
            "titlePadding": 6,
        },
        axisY={
            "domain": False,
            "ticks": False,
            "labelPadding": 5,
            "minExtent": _NUMBERS,
            "maxExtent": _NUMBERS,
        },
        legend={"labelColor": palette.muted, "labelFontSize": 10.5},
    )
