"""The colours of charts and pages: one palette, in a light and a dark form.

Phases and layers each have their own family of colours. All phases stay apart under the three
common kinds of colour blindness, and none relies on colour alone: wherever one is drawn it is also
named. Layers lie on a ramp that rises in lightness with depth.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, fields

FONT = '"Helvetica Neue", Helvetica, Arial, "Liberation Sans", sans-serif'


@dataclass(frozen=True)
class Palette:
    """Colours by their role, as anything that SVG takes for a colour.

    Attributes:
        paper: Behind everything.
        ink: Text, and the line that matters most.
        muted: Secondary text and lines.
        faint: Axes and grid.
        accent: Neighbourhood consistency; links.
        fit: A power law that was fitted to a spectrum.
        phases: Fill of each phase.
        on_phases: Text on that fill.
        ramp: First, middle and last layer.
        neighbourhood: The five neighbourhood measures: noise of three sizes, mixture, shift.
    """

    paper: str
    ink: str
    muted: str
    faint: str
    accent: str
    fit: str
    phases: Mapping[str, str]
    on_phases: Mapping[str, str]
    ramp: tuple[str, str, str]
    neighbourhood: tuple[str, str, str, str, str]

    def layer(self, index: int, count: int) -> str:
        """Return the colour of one of ``count`` layers, by its place in the model."""
        place = 2 * index / (count - 1) if count > 1 else 0.0
        first = min(int(place), 1)
        return mixed(self.ramp[first], self.ramp[first + 1], place - first)


def mixed(start: str, end: str, share: float) -> str:
    """Return the colour at ``share`` of the way between two; works for CSS variables too."""
    if not 0 < share < 1:
        return end if share >= 1 else start
    if not start.startswith("#"):
        return f"color-mix(in srgb, {end} {100 * share:.1f}%, {start})"
    parts = [(int(start[i : i + 2], 16), int(end[i : i + 2], 16)) for i in (1, 3, 5)]
    return "#" + "".join(f"{round(a + (b - a) * share):02x}" for a, b in parts)


LIGHT = Palette(
    paper="#ffffff",
    ink="#1b1f24",
    muted="#626a75",
    faint="#d5d9de",
    accent="#1f4fd8",
    fit="#b3206e",
    phases={
        "fitting": "#cfd2d6",
        "pre-grokking": "#dda21f",
        "grokking": "#6fb3e6",
        "generalised": "#0f766e",
        "anti-grokking": "#c43c26",
        "unstable": "#6f3a96",
        "not-determined": "#f1f2f4",
    },
    on_phases={
        "fitting": "#1b1f24",
        "pre-grokking": "#1b1f24",
        "grokking": "#1b1f24",
        "generalised": "#ffffff",
        "anti-grokking": "#ffffff",
        "unstable": "#ffffff",
        "not-determined": "#626a75",
    },
    ramp=("#3b2a8c", "#12908a", "#c07c00"),
    neighbourhood=("#8fa8f0", "#4f74e3", "#1f3fae", "#a3246e", "#626a75"),
)

DARK = Palette(
    paper="#14161a",
    ink="#eceef1",
    muted="#9aa2ad",
    faint="#343a43",
    accent="#8fb0ff",
    fit="#f08ac0",
    phases={
        "fitting": "#4d535c",
        "pre-grokking": "#e6b84a",
        "grokking": "#93cdf2",
        "generalised": "#23998c",
        "anti-grokking": "#ea5f40",
        "unstable": "#9157b0",
        "not-determined": "#22262c",
    },
    on_phases={
        "fitting": "#eceef1",
        "pre-grokking": "#14161a",
        "grokking": "#14161a",
        "generalised": "#14161a",
        "anti-grokking": "#14161a",
        "unstable": "#ffffff",
        "not-determined": "#9aa2ad",
    },
    ramp=("#a79bf2", "#3fbfae", "#f0bd4a"),
    neighbourhood=("#5573c9", "#8fb0ff", "#c6d6ff", "#f08ac0", "#9aa2ad"),
)


def _flat(palette: Palette) -> dict[str, str]:
    named: dict[str, str] = {}
    for field in fields(palette):
        value = getattr(palette, field.name)
        key = field.name.replace("_", "-")
        if isinstance(value, str):
            named[f"--{key}"] = value
        elif isinstance(value, Mapping):
            named.update({f"--{key}-{name}": colour for name, colour in value.items()})
        else:
            named.update({f"--{key}-{i}": colour for i, colour in enumerate(value)})
    return named


def css_variables(palette: Palette) -> str:
    """Return the palette as CSS declarations, ``--phases-grokking: #6fb3e6;`` and so on."""
    return " ".join(f"{name}: {colour};" for name, colour in _flat(palette).items())


def _variables(palette: Palette) -> Palette:
    def keys(name: str, of: Mapping[str, str]) -> dict[str, str]:
        return {key: f"var(--{name}-{key})" for key in of}

    shades = [f"var(--neighbourhood-{i})" for i in range(5)]
    return Palette(
        paper="var(--paper)",
        ink="var(--ink)",
        muted="var(--muted)",
        faint="var(--faint)",
        accent="var(--accent)",
        fit="var(--fit)",
        phases=keys("phases", palette.phases),
        on_phases=keys("on-phases", palette.on_phases),
        ramp=("var(--ramp-0)", "var(--ramp-1)", "var(--ramp-2)"),
        neighbourhood=(shades[0], shades[1], shades[2], shades[3], shades[4]),
    )


PAGE = _variables(LIGHT)
"""The palette as CSS variables: a chart drawn in it as SVG follows the page from light to dark."""
