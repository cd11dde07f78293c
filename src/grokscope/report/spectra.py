"""Spectra of every layer at the moments that matter, beside their shuffles and the law of noise."""

from __future__ import annotations

from dataclasses import dataclass

import altair as alt
import numpy as np

from grokscope.phases import Milestones
from grokscope.report.charts import layers_of
from grokscope.report.panel import Width, dressed, rounded
from grokscope.report.spectrum_chart import Seen, axis_edges, density_layers
from grokscope.report.theme import Palette
from grokscope.store.trace import Trace


@dataclass(frozen=True)
class Spectrum:
    """One layer at one moment.

    Attributes:
        layer: Name of the layer.
        moment: ``start``, ``memorised``, ``generalised``, ``collapsed``; ``latest`` where no
            later moment has come.
        step: Of the observation that it shows.
        beyond: Eigenvalues above the edge of noise, -1 if the edge is not known.
        below: Eigenvalues too small for the axis, and not drawn.
        traps: Mean number of correlation traps in the shuffled matrix, None if not counted.
        chart: The chart.
    """

    layer: str
    moment: str
    step: int
    beyond: int
    below: int
    traps: float | None
    chart: alt.LayerChart


@dataclass(frozen=True)
class _Moment:
    name: str
    step: int
    seen: Seen


def spectra(
    trace: Trace,
    at: Milestones,
    palette: Palette,
    width: Width = "container",
    height: int = 110,
) -> list[Spectrum]:
    """Return one chart for each layer and moment, layer by layer.

    All charts of a layer share both axes.

    Args:
        trace: At least one observation.
        at: Its milestones.
        palette: Colours.
        width: Of each chart, in pixels; or ``container``.
        height: Of each plot, in pixels.
    """
    moments = at.moments()
    if at.end not in moments.values():
        moments["latest"] = at.end
    layers = layers_of(trace)
    found = []
    for i, layer in enumerate(layers):
        come = [m for name, step in moments.items() if (m := _see(trace, layer, name, step))]
        if not come:
            continue
        seen = [moment.seen for moment in come]
        edges = axis_edges(seen)
        drawn = density_layers(seen, edges, palette.layer(i, len(layers)), palette)
        for moment, chart in zip(come, drawn, strict=True):
            known = np.isfinite(moment.seen.support[1])
            found.append(
                Spectrum(
                    layer,
                    moment.name,
                    moment.step,
                    len(moment.seen.beyond()) if known else -1,
                    int((moment.seen.raw < edges[0]).sum()),
                    rounded(trace.series("traps.count", layer).at(moment.step)),
                    dressed(chart, palette, width, height, 0),
                )
            )
    return found


def _see(trace: Trace, layer: str, moment: str, step: int) -> _Moment | None:
    """Collect what is known of a layer at the recorded spectrum nearest to ``step``."""
    steps = trace.array_steps("spectrum.eigenvalues", layer)
    if not steps:
        return None
    at = min(steps, key=lambda s: abs(np.log1p(s) - np.log1p(step)))
    raw = trace.array("spectrum.eigenvalues", layer, at)
    shuffled = trace.array("spectrum.shuffled_eigenvalues", layer, at)
    if raw is None or not len(raw) or not np.isfinite(raw).all() or not raw.max() > 0:
        return None
    # The largest eigenvalue is the squared spectral norm over the longer side N.
    norm = trace.series("spectrum.spectral_norm", layer).at(at)
    ratio = min(1.0, len(raw) * float(raw.max()) / norm**2) if norm > 0 else float("nan")
    flat = np.empty(0) if shuffled is None else shuffled[np.isfinite(shuffled)].ravel()
    scale = trace.series("marchenko_pastur.scale", layer).at(at)
    return _Moment(moment, at, Seen(raw, flat, ratio, scale))
