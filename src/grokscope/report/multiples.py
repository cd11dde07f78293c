"""Small charts, one a measure, that share the step axis and the observed phases behind them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import altair as alt

from grokscope.phases import Milestones
from grokscope.report.charts import layer_lines
from grokscope.report.panel import Line, Width, bands, dressed, line_layers, step_channel
from grokscope.report.theme import Palette
from grokscope.report.value_scale import Kind, fitting_scale
from grokscope.store.trace import Trace

_LABELS = 62  # pixels at the right of a small chart that the names of lines take


@dataclass(frozen=True)
class Multiple:
    """A small chart with its words.

    Attributes:
        title: What is measured.
        meaning: One sentence of definition.
        chart: The chart itself.
    """

    title: str
    meaning: str
    chart: alt.LayerChart


@dataclass(frozen=True)
class _Panel:
    title: str
    meaning: str
    measures: tuple[str, ...]
    kind: Kind = "linear"
    in_view: tuple[float, ...] = ()


_NEIGHBOURHOOD = "neighbourhood."
_PANELS = (
    _Panel("Loss", "What training minimises, on train and test points.", ("loss",), "log"),
    _Panel(
        "Weight norm",
        "l2 norm of all parameters together (model) and of each weight matrix.",
        ("weights.l2_norm",),
        in_view=(0.0,),
    ),
    _Panel("Update norm", "l2 norm of one optimiser step.", ("update.l2_norm",), "log"),
    _Panel("Logit scale", "Size of the outputs on training points.", ("logits.scale",), "log"),
    _Panel(
        "Softmax collapse",
        "Share of training points whose softmax is exact to rounding: they no longer teach.",
        ("logits.softmax_collapse_rate",),
        in_view=(0.0,),
    ),
    _Panel(
        "Neighbourhood consistency",
        "Training points that keep their label: under noise, in mixtures, shifted by a pixel.",
        tuple(
            _NEIGHBOURHOOD + name
            for name in ("noise_0.05", "noise_0.1", "noise_0.2", "mixture", "shift")
        ),
        in_view=(0.0, 1.0),
    ),
    _Panel(
        "Stable rank",
        "Squared Frobenius norm over squared spectral norm: how many directions carry a layer.",
        ("spectrum.stable_rank",),
        in_view=(0.0,),
    ),
    _Panel(
        "Spectral norm",
        "Largest singular value of a layer.",
        ("spectrum.spectral_norm",),
        in_view=(0.0,),
    ),
    _Panel(
        "Distance to Marchenko-Pastur",
        "KS distance between the spectrum of the shuffled layer and the law of pure noise.",
        ("marchenko_pastur.ks_distance",),
        in_view=(0.0,),
    ),
    _Panel(
        "Its p-value",
        "Chance of so large a distance for noise, by simulation.",
        ("marchenko_pastur.ks_p_value",),
        in_view=(0.0, 1.0),
    ),
    _Panel(
        "Size of the largest trap",
        "Largest eigenvalue of the shuffled layer over the edge of noise.",
        ("traps.ratio",),
        in_view=(1.0,),
    ),
    _Panel(
        "Quality of the exponent",
        "KS distance between the tail of a spectrum and the power law fitted to it.",
        ("htsr.ks_distance",),
        in_view=(0.0,),
    ),
    _Panel(
        "Size of the tail",
        "Eigenvalues that the exponent is fitted to.",
        ("htsr.tail_size",),
        in_view=(0.0,),
    ),
    _Panel(
        "Activation sparsity",
        "Share of hidden activations that are practically zero on training points.",
        ("golechha.activation_sparsity",),
        in_view=(0.0, 1.0),
    ),
    _Panel(
        "Absolute weight entropy",
        "Sum of -|w| ln |w| over the weights; negative once weights are large.",
        ("golechha.absolute_weight_entropy",),
    ),
    _Panel(
        "Local circuit complexity",
        "How far the outputs move, in KL divergence, when a tenth of the weights is zeroed.",
        ("golechha.local_circuit_complexity",),
        in_view=(0.0,),
    ),
)
# Shown in the large charts, or no series that says anything over time.
_ELSEWHERE = frozenset(
    {
        "accuracy",
        "htsr.alpha",
        "traps.count",
        "traps.count_std",
        "marchenko_pastur.scale",
        "spectrum.size",
    }
)


def small_multiples(
    trace: Trace,
    at: Milestones,
    palette: Palette,
    width: Width = "container",
    height: int = 120,
) -> list[Multiple]:
    """Return a small chart for every other measure that was read, known ones first.

    Args:
        trace: At least one observation.
        at: Its milestones.
        palette: Colours.
        width: Of each chart, in pixels; or ``container``.
        height: Of each plot, in pixels.
    """
    known = {measure for panel in _PANELS for measure in panel.measures} | _ELSEWHERE
    read = [measure for measure, _ in list(trace.keys())]
    others = dict.fromkeys(measure for measure in read if measure not in known)
    panels = [*_PANELS, *(_Panel(measure, "", (measure,)) for measure in others)]
    found = []
    for panel in panels:
        lines = _lines(trace, panel, palette)
        if any(len(line.series.finite()) for line in lines):
            chart = _chart(trace, at, panel, lines, palette, width, height)
            found.append(Multiple(panel.title, panel.meaning, chart))
    return found


def _lines(trace: Trace, panel: _Panel, palette: Palette) -> list[Line]:
    if len(panel.measures) > 1:
        # Noise in three steps towards the colour of the score; what is not noise is dashed.
        shades = dict(zip(panel.measures, palette.neighbourhood, strict=True))
        dashes = {_NEIGHBOURHOOD + "mixture": (6, 3), _NEIGHBOURHOOD + "shift": (2, 2)}
        return [
            Line(
                measure.removeprefix(_NEIGHBOURHOOD).replace("_", " "),
                trace.series(measure, "train"),
                shades[measure],
                dashes.get(measure, ()),
            )
            for measure in panel.measures
            if len(trace.series(measure, "train"))
        ]
    (measure,) = panel.measures
    lines = {line.name: line for line in layer_lines(trace, measure, palette)}
    for subject in trace.subjects(measure):
        if subject not in lines:
            colour = palette.ink if subject in ("test", "model") else palette.muted
            lines[subject] = Line(subject, trace.series(measure, subject), colour)
    return list(lines.values())


def _chart(
    trace: Trace,
    at: Milestones,
    panel: _Panel,
    lines: Sequence[Line],
    palette: Palette,
    width: Width,
    height: int,
) -> alt.LayerChart:
    shown = [line.series for line in lines]
    positive = any((series.values > 0).any() for series in shown)
    scale = fitting_scale(shown, panel.kind if positive else "linear", panel.in_view)
    x = step_channel(at, short=True)
    layers = [bands(trace, palette, x), *line_layers(lines, x, scale, height, _LABELS)]
    return dressed(layers, palette, width, height, _LABELS)
