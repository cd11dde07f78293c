"""The charts of a scan: alpha of every layer, and the spectrum of each that deserves a look."""

from __future__ import annotations

import math
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import altair as alt
import numpy as np

from grokscope.phases import THRESHOLDS
from grokscope.report.panel import Row, Width, data_of, dressed, limit_lines, rounded
from grokscope.report.spectrum_chart import (
    Seen,
    Tail,
    axis_edges,
    density_layers,
    survival_layers,
)
from grokscope.report.theme import Palette
from grokscope.report.value_scale import fitting_scale
from grokscope.scan import words
from grokscope.store.records import Reading
from grokscope.store.trace import Trace

_NAMED = 30  # layers up to which the overview names them below the axis
_NAME = 26  # characters of such a name
_HEIGHT = 160  # pixels of the plot of a spectrum

Layer = Mapping[str, Any]


@dataclass(frozen=True)
class SpectrumCharts:
    """Both pictures of one spectrum.

    Attributes:
        density: Densities, with the marks of what lies beyond the edge.
        survival: Share of the eigenvalues that is at least as large, with the fitted line.
        beyond: Eigenvalues beyond the edge; None if no edge is known.
        below: Eigenvalues too small for the axis, and not drawn.
        shuffled: Whether shuffles are drawn.
        law: Whether the law of noise is drawn.
    """

    density: alt.LayerChart
    survival: alt.LayerChart
    beyond: int | None
    below: int
    shuffled: bool
    law: bool


def spectrum_charts(
    spectrum: Mapping[str, Any], layer: Layer, palette: Palette, width: Width = "container"
) -> SpectrumCharts | None:
    """Draw the spectrum of one layer.

    Args:
        spectrum: ``raw`` (M,) and ``shuffled`` eigenvalues of ``W^T W / N``, ``shape`` (rows,
            columns); ``scale``, ``threshold``, ``alpha``, ``xmin``, ``num_pl_spikes`` or None.
        layer: Its record, for the threshold of the shuffles.
        palette: Colours.
        width: Of each chart, in pixels; or ``container``.

    Returns:
        None if there is nothing to draw: no eigenvalue is positive, or one is not finite.
    """
    raw = np.sort(np.asarray(spectrum["raw"], np.float64))
    if not len(raw) or not np.isfinite(raw).all() or not raw[-1] > 0:
        return None
    shuffled = np.asarray(spectrum.get("shuffled") or (), np.float64)
    values = [words.value_of(spectrum, key) for key in ("alpha", "xmin", "num_pl_spikes")]
    alpha, xmin, size = (value or 0.0 for value in values)
    shape = spectrum["shape"]
    threshold = words.value_of(spectrum, "threshold")
    shuffled_threshold = words.value_of(layer, "trap_threshold")
    seen = Seen(
        raw,
        shuffled[np.isfinite(shuffled)],
        min(shape) / max(shape),
        _known(words.value_of(spectrum, "scale")),
        Tail(alpha, xmin, size) if alpha > 1 and xmin > 0 and size > 0 else None,
        _known(threshold),
        _known(shuffled_threshold),
    )
    edges = axis_edges([seen])
    colour = palette.ramp[1]
    (density,) = density_layers([seen], edges, colour, palette)
    survival = survival_layers(seen, edges, colour, palette, _HEIGHT)
    known = threshold is not None or math.isfinite(seen.support[1])
    return SpectrumCharts(
        dressed(density, palette, width, _HEIGHT, 0),
        dressed(survival, palette, width, _HEIGHT, 0),
        len(seen.beyond()) if known else None,
        int((raw < edges[0]).sum()),
        bool(len(seen.shuffled)),
        math.isfinite(seen.support[1]),
    )


def _known(value: float | None) -> float:
    return math.nan if value is None else value


def overview_chart(
    layers: Sequence[Layer],
    found: Mapping[str, Collection[str]],
    palette: Palette,
    width: Width = "container",
    height: int = 230,
) -> alt.LayerChart | None:
    """Chart alpha of every layer in the order of the model.

    Behind each exponent stand the range of noise of equal shape (0.05 to 0.95 quantile) and the
    published range; through it goes its standard error. Layers with a finding are in red, those
    with traps triangles.

    Args:
        layers: Records that were measured, in order; those without an exponent leave a gap.
        found: Findings by name of the layer.
        palette: Colours.
        width: Of everything, in pixels; or ``container``.
        height: Of the plot, in pixels.

    Returns:
        None if no layer has an exponent.
    """
    rows = [
        _overview_row(i, layer, found.get(layer["name"], ())) for i, layer in enumerate(layers, 1)
    ]
    drawn = [row for row in rows if row["alpha"] is not None]
    if not drawn:
        return None
    if len(rows) <= _NAMED:
        for i, (row, layer) in enumerate(zip(rows, layers, strict=True), 1):
            row["place"] = f"{i} {words.name(layer['name'], _NAME)}"
    limits = (THRESHOLDS.alpha_overfit, THRESHOLDS.alpha_random)
    ends = [row[key] for row in rows for key in ("alpha", "noise_high") if row[key] is not None]
    scale = fitting_scale([], "log", in_view=(1.0, *limits, *ends))
    scale = replace(scale, low=1.0, marks=(1, 2, 4, 6, 10, 20, 40) if scale.high < 100 else ())
    for row in rows:
        for key in ("low", "noise_low"):
            row[key] = None if row[key] is None else max(row[key], scale.low)
        row["high"] = None if row["high"] is None else min(row["high"], scale.high)
    x = _places(rows)

    def y(field: str) -> alt.Y:
        return alt.Y(f"{field}:Q", title=None, scale=scale.channel(), axis=scale.axis(height))

    tooltip = [
        alt.Tooltip("name:N", title="layer"),
        alt.Tooltip("exponent:N", title="alpha"),
        alt.Tooltip("noise:N", title="noise of equal shape"),
        alt.Tooltip("traps:N", title="traps"),
    ]
    noise = alt.Chart(data_of([row for row in rows if row["noise_low"] is not None]))
    errors = alt.Chart(data_of([row for row in drawn if row["low"] is not None]))
    size = 70 if len(rows) <= _NAMED else 42 if len(rows) <= 120 else 24
    layers_drawn = [
        noise.mark_bar(
            color=palette.muted, opacity=0.28, width={"band": 0.7 if len(rows) <= _NAMED else 1.0}
        ).encode(x=x, y=y("noise_low"), y2="noise_high:Q"),
        *limit_lines(scale, height, palette, limits)[1:],
        errors.mark_rule(color=palette.ink, opacity=0.45).encode(x=x, y=y("low"), y2="high:Q"),
    ]
    red = palette.phases["anti-grokking"]
    for mark, shape, colour in (
        ("none", "circle", palette.ink),
        ("finding", "circle", red),
        ("traps", "triangle-up", red),
    ):
        chosen = alt.Chart(data_of([row for row in drawn if row["mark"] == mark]))
        marks = chosen.mark_point(filled=True, opacity=1, shape=shape, color=colour, size=size)
        layers_drawn.append(marks.encode(x=x, y=y("alpha"), tooltip=tooltip))
    return dressed(layers_drawn, palette, width, height, 0)


def _overview_row(place: int, layer: Layer, found: Collection[str]) -> Row:
    alpha, error = words.value_of(layer, "alpha"), words.value_of(layer, "alpha_se", "sigma")
    return {
        "place": str(place),
        "name": words.name(layer["name"], 80),
        "alpha": None if alpha is None else rounded(alpha),
        "low": rounded(alpha - error) if alpha is not None and error is not None else None,
        "high": rounded(alpha + error) if alpha is not None and error is not None else None,
        "noise_low": words.value_of(layer, "alpha_null_q05"),
        "noise_high": words.value_of(layer, "alpha_null_q95"),
        "exponent": words.alpha(layer),
        "noise": words.noise(layer) or "not drawn",
        "traps": words.traps(layer) or "not counted",
        "mark": "traps" if "traps" in found else "finding" if found else "none",
    }


def _places(rows: Sequence[Row]) -> alt.X:
    """Return the axis of the layers: their numbers, with names where there is room for them."""
    places = [row["place"] for row in rows]
    named = len(rows) <= _NAMED
    every = max(1, 10 * math.ceil(len(rows) / 200))
    axis = alt.Axis(
        values=places if named else places[every - 1 :: every],
        labelAngle=-40 if named else 0,
        labelLimit=150,
        labelOverlap=False if named else "greedy",
        grid=False,
        ticks=False,
    )
    title = None if named else "layer, by its number in the table below"
    scale = alt.Scale(domain=places, paddingInner=0, paddingOuter=0.5)
    return alt.X("place:O", title=title, sort=None, scale=scale, axis=axis)


def history(layers: Sequence[Layer]) -> Trace:
    """Return what was measured at several steps as the trace of a run, to be charted like one.

    Args:
        layers: Records of all steps.
    """
    trace = Trace()
    for layer in sorted(layers, key=lambda layer: int(layer["step"])):
        step, name = int(layer["step"]), words.name(layer["name"], 80)
        fields = {
            "htsr.alpha": "alpha",
            "spectrum.size": "size",
            "traps.count": "traps",
            "traps.count_std": "traps_std",
        }
        read = {measure: words.value_of(layer, field) for measure, field in fields.items()}
        trace.add(Reading(step, measure, name, _known(value)) for measure, value in read.items())
    return trace
