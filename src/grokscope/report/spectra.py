"""Spectra of every layer at the moments that matter, beside their shuffles and the law of noise."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import altair as alt
import numpy as np

from grokscope.measures import marchenko_pastur
from grokscope.phases import Milestones
from grokscope.report.charts import layers_of
from grokscope.report.panel import Row, Width, data_of, dressed, rounded
from grokscope.report.theme import Palette
from grokscope.store.trace import Trace

_BINS = 32
_CURVE = 160  # points of the density
_DEPTH = 1e-6  # of the largest eigenvalue: no axis reaches lower
_TICK = 7  # pixels of a mark for an eigenvalue beyond the edge


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
class _Seen:
    moment: str
    step: int
    raw: np.ndarray  # (M,)
    shuffled: np.ndarray  # (R * M,); empty if not recorded
    ratio: float  # M / N
    scale: float  # of the Marchenko-Pastur law; nan if not known

    @property
    def edge(self) -> float:
        """Upper edge of the law, nan if not known."""
        if not np.isfinite(self.scale + self.ratio) or self.scale <= 0:
            return float("nan")
        return marchenko_pastur.edges(self.ratio, self.scale)[1]

    @property
    def floor(self) -> float:
        """Where the axis should begin: somewhat below noise; nan if not known."""
        if not np.isfinite(self.edge):
            return float("nan")
        # A square matrix of noise has one eigenvalue in a hundred below 2.5e-4 of the variance.
        low, _ = marchenko_pastur.edges(self.ratio, self.scale)
        return max(low, 2.5e-4 * self.scale) / 3


def spectra(
    trace: Trace,
    at: Milestones,
    palette: Palette,
    width: Width = "container",
    height: int = 110,
) -> list[Spectrum]:
    """Return one chart for each layer and moment, layer by layer.

    The axis of eigenvalues is logarithmic, and the density is that of their logarithm, so that
    equal areas hold equally many of them in the bulk and far out. It begins where noise does:
    what is smaller, as in a layer that has lost its rank, is counted and not drawn. All charts of
    a layer share both axes.

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
        seen = [s for name, step in moments.items() if (s := _see(trace, layer, name, step))]
        if not seen:
            continue
        edges = _bins(seen)
        drawn = [(_bars(s, edges), _curve(s, edges)) for s in seen]
        highest = max(row["raw"] for bars, _ in drawn for row in bars)
        highest = max(highest, *(row["shuffled"] for bars, _ in drawn for row in bars))
        colour = palette.layer(i, len(layers))
        for s, (bars, curve) in zip(seen, drawn, strict=True):
            chart = _chart(s, bars, curve, edges, highest, colour, palette)
            known = np.isfinite(s.edge)
            found.append(
                Spectrum(
                    layer,
                    s.moment,
                    s.step,
                    int((s.raw > s.edge).sum()) if known else -1,
                    int((s.raw < edges[0]).sum()),
                    rounded(trace.series("traps.count", layer).at(s.step)),
                    dressed(chart, palette, width, height, 0),
                )
            )
    return found


def _see(trace: Trace, layer: str, moment: str, step: int) -> _Seen | None:
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
    return _Seen(
        moment,
        at,
        raw,
        flat,
        ratio,
        trace.series("marchenko_pastur.scale", layer).at(at),
    )


def _bins(seen: Sequence[_Seen]) -> np.ndarray:
    """Return the edges of the bins that all charts of a layer share."""
    values = np.concatenate([np.concatenate([s.raw, s.shuffled]) for s in seen])
    top = float(values.max())
    floors = [s.floor for s in seen if np.isfinite(s.floor)]
    bottom = min(floors, default=float(np.quantile(values[values > 0], 0.02)))
    return np.geomspace(max(min(bottom, top / 2), top * _DEPTH), 1.3 * top, _BINS + 1)


def _bars(seen: _Seen, edges: np.ndarray) -> list[Row]:
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


def _curve(seen: _Seen, edges: np.ndarray) -> list[Row]:
    """Return the Marchenko-Pastur density per decade on its support; nothing if not known."""
    if not np.isfinite(seen.edge):
        return []
    low, high = marchenko_pastur.edges(seen.ratio, seen.scale)
    at = np.geomspace(max(low, edges[0]), high, _CURVE)
    density = marchenko_pastur.density(at, seen.ratio, seen.scale) * at * np.log(10)
    rows = zip(at, density, strict=True)
    return [{"low": rounded(x), "law": rounded(y)} for x, y in rows]


def _chart(
    seen: _Seen,
    bars: list[Row],
    curve: list[Row],
    edges: np.ndarray,
    highest: float,
    colour: str,
    palette: Palette,
) -> list[alt.Chart]:
    """Draw bars, outline, law, and a mark for every eigenvalue beyond the edge of the law."""
    x = alt.X(
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

    def y(field: str) -> alt.Y:
        scale = alt.Scale(domain=[0, 1.12 * highest], nice=False)
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
    if curve:
        law = alt.Chart(data_of(curve)).mark_line(
            color=palette.accent, strokeWidth=1.5, strokeDash=[4, 2]
        )
        layers.append(law.encode(x=x, y=y("law")))
    for values, ink, top in ((seen.raw, colour, 0), (seen.shuffled, palette.ink, _TICK + 2)):
        rows = [{"low": rounded(v)} for v in values[values > seen.edge]]
        marks = alt.Chart(data_of(rows)).mark_rule(color=ink, strokeWidth=1.25)
        layers.append(marks.encode(x=x, y=alt.value(top), y2=alt.value(top + _TICK)))
    return layers


def _decades(edges: np.ndarray) -> list[float]:
    first, last = np.ceil(np.log10(edges[0])), np.floor(np.log10(edges[-1]))
    every = max(1, round((last - first) / 4))
    return [float(f"1e{int(e)}") for e in np.arange(first, last + 1, every)]
