"""The three large charts of a run: accuracy and phases, layer exponents, correlation traps."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import altair as alt

from grokscope.phases import PHASES, RULES, THRESHOLDS, Milestones
from grokscope.phases.rules import judged_layers, neighbourhood_score
from grokscope.report.disagreements import stretches
from grokscope.report.panel import (
    Line,
    Row,
    Width,
    bands,
    data_of,
    dressed,
    limit_lines,
    line_layers,
    phase_fill,
    rounded,
    step_channel,
)
from grokscope.report.theme import Palette
from grokscope.report.value_scale import ValueScale, fitting_scale
from grokscope.store.trace import Trace

_STRIP, _GAP, _MARK = 18, 9, 3  # pixels: a strip of phases, the gap below it, the mark in the gap
_BRIEF = {
    "fitting": "fit",
    "pre-grokking": "pre",
    "grokking": "grok",
    "generalised": "gen",
    "anti-grokking": "anti",
    "unstable": "unst",
    "false alarm": "false",
}
_NOT_LAYERS = frozenset({"model", "train", "test"})


def layers_of(trace: Trace) -> list[str]:
    """Return the layers of the network in its order: whatever a measure of layers was read on."""
    found: dict[str, None] = {}
    for measure in ("htsr.alpha", "traps.count", "spectrum.stable_rank", "weights.l2_norm"):
        found.update(dict.fromkeys(trace.subjects(measure)))
    return [subject for subject in found if subject not in _NOT_LAYERS]


def phases_seen(trace: Trace) -> list[str]:
    """Return the phases that any rule ever named, in their order."""
    said = {verdict.phase for verdict in trace.verdicts}
    return [phase for phase in PHASES if phase in said]


def layer_lines(trace: Trace, measure: str, palette: Palette) -> list[Line]:
    """Return one line for each layer that ``measure`` was read on, in the colour of the layer."""
    layers = layers_of(trace)
    read = set(trace.subjects(measure))
    return [
        Line(layer, trace.series(measure, layer), palette.layer(i, len(layers)), label=label)
        for i, (layer, label) in enumerate(zip(layers, short_names(layers), strict=True))
        if layer in read
    ]


def short_names(names: Sequence[str]) -> list[str]:
    """Return dotted names without the parts at their beginning and end that all share."""
    parts = [name.split(".") for name in names]
    least = min((len(part) for part in parts), default=0)

    def alike(index: int) -> bool:
        return len(names) > 1 and len({part[index] for part in parts}) == 1

    start = next((i for i in range(least) if not alike(i)), 0)
    end = next((i for i in range(least - start) if not alike(-1 - i)), 0)
    return [".".join(part[start : len(part) - end]) for part in parts]


def main_chart(
    trace: Trace,
    at: Milestones,
    palette: Palette,
    width: Width = "container",
    height: int = 270,
    *,
    legend: bool = False,
) -> alt.LayerChart:
    """Chart accuracy and neighbourhood consistency, and what each rule says of the same steps.

    Test accuracy and train accuracy stand before the observed phases. Below them lies one strip of
    phases for each rule; a thick mark under a strip shows where its rule is wrong about a collapse.

    Args:
        trace: At least one observation.
        at: Its milestones.
        palette: Colours.
        width: Of everything, in pixels; or ``container``.
        height: Of the plot without the strips, in pixels.
        legend: Whether the phases are listed below the chart.
    """
    rules = [rule for rule in RULES if trace.verdict(rule) is not None]
    x = step_channel(at, short=False, offset=len(rules) * (_STRIP + _GAP) + _GAP)
    lines = [
        Line("train", trace.series("accuracy", "train"), palette.muted, width=1.5),
        Line("test", trace.series("accuracy", "test"), palette.ink, width=2.25),
        Line("neighbourhood", neighbourhood_score(trace), palette.accent, dash=(6, 3), width=1.75),
    ]
    lines = [line for line in lines if len(line.series)]
    scale = ValueScale(0.0, 1.0, marks=(0, 0.25, 0.5, 0.75, 1), numbers=".0%")
    layers = [bands(trace, palette, x), *line_layers(lines, x, scale, height)]
    for i, rule in enumerate(rules):
        top = height + _GAP + i * (_STRIP + _GAP)
        fill = phase_fill(palette, phases_seen(trace) if legend and i == 0 else ())
        layers += _strip(trace, rule, palette, x, top, fill)
    return dressed(layers, palette, width, height)


def _strip(
    trace: Trace, rule: str, palette: Palette, x: alt.X, top: int, fill: alt.Color
) -> list[alt.Chart]:
    """Draw the phases of one rule, ``top`` pixels below the top of the plot."""
    rows: list[Row] = [
        {
            "step": stretch.start,
            "end": stretch.end,
            "phase": stretch.phase,
            "wrong": stretch.wrong,
            "full": stretch.wrong or stretch.phase,
            "brief": _BRIEF.get(stretch.wrong or stretch.phase, ""),
            "ink": palette.on_phases[stretch.phase],
            "rule": rule,
        }
        for stretch in stretches(trace, rule)
    ]
    start, end = "scale('x', datum.step)", "scale('x', datum.end)"
    # A phase that began with the last observation has no length yet, and shows nevertheless.
    wide = alt.value(alt.ExprRef(f"max({end}, {start} + 3)"))
    base = alt.Chart(data_of(rows)).encode(x=x, x2=wide)
    tooltip = [
        alt.Tooltip("rule:N"),
        alt.Tooltip("phase:N"),
        alt.Tooltip("step:Q", title="from", format=","),
        alt.Tooltip("end:Q", title="to", format=","),
    ]
    fits = f"{end} - {start} > 5.8 * length({{0}}) + 6 ? {{0}} : {{1}}"
    brief = fits.format("datum.brief", "''")
    words = alt.Chart(data_of(rows)).mark_text(
        text=alt.ExprRef(fits.format("datum.full", brief)), fontSize=10.5, baseline="middle"
    )
    bottom = top + _STRIP
    return [
        base.mark_rect().encode(
            y=alt.value(top), y2=alt.value(bottom), color=fill, tooltip=tooltip
        ),
        base.mark_rect(fill=palette.ink)
        .encode(y=alt.value(bottom + 1), y2=alt.value(bottom + 1 + _MARK))
        .transform_filter("datum.wrong"),
        words.encode(
            x=alt.value(alt.ExprRef(f"({start} + {end}) / 2")),
            y=alt.value(top + _STRIP / 2),
            color=alt.Color("ink:N", scale=None),
        ),
        alt.Chart(data_of([{"rule": rule}]))
        .mark_text(align="left", dx=7, baseline="middle", color=palette.muted)
        .encode(x=alt.value("width"), y=alt.value(top + _STRIP / 2), text="rule:N"),
    ]


def alpha_chart(
    trace: Trace,
    at: Milestones,
    palette: Palette,
    width: Width = "container",
    height: int = 210,
) -> alt.LayerChart | None:
    """Chart the exponent of each layer, with the range that its authors call well-trained.

    Layers too small for the rule that reads exponents are dashed.

    Returns:
        None if no exponent was read.
    """
    judged = set(judged_layers(trace))
    lines = [
        line if line.name in judged else replace(line, dash=(3, 3), width=1.0)
        for line in layer_lines(trace, "htsr.alpha", palette)
    ]
    if not any(len(line.series.finite()) for line in lines):
        return None
    low, high = THRESHOLDS.alpha_overfit, THRESHOLDS.alpha_random
    scale = fitting_scale([line.series for line in lines], "log", in_view=(1.0, low, high))
    # No exponent of this estimator is below 1; should one be, its own scale shows it.
    bottom = 1.0 if all((line.series.finite().values >= 1).all() for line in lines) else scale.low
    scale = replace(scale, low=bottom, marks=(1, 2, 4, 6, 10, 20, 40), numbers=",~g")
    x = step_channel(at, short=False)
    limits = limit_lines(scale, height, palette, (low, high))
    layers = [bands(trace, palette, x), *limits, *line_layers(lines, x, scale, height)]
    return dressed(layers, palette, width, height)


def traps_chart(
    trace: Trace,
    at: Milestones,
    palette: Palette,
    width: Width = "container",
    height: int = 210,
) -> alt.LayerChart | None:
    """Chart the correlation traps of each layer: mean over the shuffles, and spread.

    Returns:
        None if none were counted.
    """
    lines = layer_lines(trace, "traps.count", palette)
    if not any(len(line.series.finite()) for line in lines):
        return None
    rows: list[Row] = []
    for line in lines:
        spread = trace.series("traps.count_std", line.name)
        for step, mean in zip(line.series.steps, line.series.values, strict=True):
            low, high = rounded(max(0.0, mean - spread.at(step))), rounded(mean + spread.at(step))
            rows.append({"step": int(step), "name": line.name, "low": low, "high": high})
    most = max((row["high"] or 0.0 for row in rows), default=0.0)
    counts = [line.series for line in lines]
    scale = fitting_scale(counts, "symlog", in_view=(0.0, max(most * 1.05, 2.0)))
    x = step_channel(at, short=False)
    colours = alt.Scale(domain=[ln.name for ln in lines], range=[ln.colour for ln in lines])
    y = alt.Y("low:Q", title=None, scale=scale.channel(), axis=scale.axis(height))
    area = alt.Chart(data_of(rows)).mark_area(opacity=0.22 / max(1.0, len(lines) / 3))
    layers = [
        bands(trace, palette, x),
        *limit_lines(scale, height, palette, (THRESHOLDS.trap_count,)),
        area.encode(x=x, y=y, y2="high:Q", color=alt.Color("name:N", scale=colours, legend=None)),
        *line_layers(lines, x, scale, height),
    ]
    return dressed(layers, palette, width, height)
