"""The main chart as a picture for papers and READMEs, drawn without a browser."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

import vl_convert

from grokscope.errors import UsageError
from grokscope.phases import find_milestones
from grokscope.report import words
from grokscope.report.charts import main_chart
from grokscope.report.theme import LIGHT
from grokscope.store.atomic import write_atomically
from grokscope.store.trace import Trace

_WIDTH = 900  # pixels, labels and all
_SCALE = 2  # pixels of the PNG for one of the chart

_Spec = dict[str, Any]
_CONVERTERS: dict[str, Callable[[_Spec], bytes | str]] = {
    ".png": partial(vl_convert.vegalite_to_png, scale=_SCALE),
    ".svg": vl_convert.vegalite_to_svg,
    ".pdf": vl_convert.vegalite_to_pdf,
}


def write_figure(trace: Trace, manifest: Mapping[str, Any], path: Path) -> None:
    """Write the main chart, whole or not at all.

    Args:
        trace: At least one observation.
        manifest: ``experiment``, ``preset`` and ``config``, for the title.
        path: Ends in ``.png``, ``.svg`` or ``.pdf``, which decides the kind.

    Raises:
        UsageError: For any other ending.
        MissingResource: The disk refuses.
    """
    convert = _CONVERTERS.get(path.suffix.lower())
    if convert is None:
        raise UsageError(
            f"{path.name!r}: the kind of a figure is told by its ending, which can be .png, .svg "
            "or .pdf."
        )
    chart = main_chart(trace, find_milestones(trace), LIGHT, _WIDTH, legend=True)
    spec = chart.properties(title=_title(trace, manifest), background=LIGHT.paper).to_dict()
    drawn = convert(spec)
    write_atomically(path, drawn.encode() if isinstance(drawn, str) else drawn)


def _title(trace: Trace, manifest: Mapping[str, Any]) -> dict[str, Any]:
    name, seed = words.run_name(manifest), words.seed_of(manifest)
    text = name if seed is None else f"{name}, seed {seed}"
    title: dict[str, Any] = {"text": text, "anchor": "start", "offset": 12}
    verdict = trace.verdict("observed")
    if verdict is not None:
        title["subtitle"] = f"{verdict.phase} since step {verdict.since:,}: {verdict.evidence}"
    return title | {"fontSize": 13, "color": LIGHT.ink, "subtitleColor": LIGHT.muted}
