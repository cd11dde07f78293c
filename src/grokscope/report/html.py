"""What every page is made with: templates, charts drawn by one script, colours, light and dark."""

from __future__ import annotations

import functools
import re
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any

import altair as alt
import altair.utils.schemapi
import jinja2
import vl_convert

from grokscope._text import visible
from grokscope.report import words
from grokscope.report.theme import DARK, LIGHT, css_variables

_FOLDER = Path(__file__).parent


class Charts:
    """The charts of a page: their specifications, by the keys that its places name."""

    def __init__(self) -> None:
        self.specs: dict[str, dict[str, Any]] = {}

    def place(self, chart: alt.LayerChart) -> str:
        """Keep a chart for the script of the page, and return its key."""
        key = f"chart-{len(self.specs)}"
        spec = chart.to_dict(validate=False)
        spec.pop("$schema", None)
        self.specs[key] = spec
        return key


def unchecked() -> AbstractContextManager[None]:
    """Return a context in which Altair does not check what charts are made of.

    It checks every part against its schema, again and again, which takes more than half of the
    time; the tests build the same charts with these checks.
    """
    return altair.utils.schemapi.debug_mode(False)


def render(template: str, charts: Charts, **context: Any) -> str:
    """Return a page as HTML that needs no other file.

    Args:
        template: File name of a template that extends ``base.html``.
        charts: What the page draws.
        context: What the template names besides.
    """
    return (
        _environment()
        .get_template(template)
        .render(
            **context,
            specs=charts.specs,
            light=css_variables(LIGHT),
            dark=css_variables(DARK),
            bundle=_bundle(),
        )
    )


@functools.cache
def _environment() -> jinja2.Environment:
    environment = jinja2.Environment(
        loader=jinja2.FileSystemLoader(_FOLDER),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.tests["arxiv"] = lambda word: re.fullmatch(r"\d{4}\.\d{4,5}(v\d+)?", word)
    environment.filters["number"] = words.number
    environment.filters["percent"] = words.percent
    environment.filters["duration"] = words.duration
    environment.filters["typeset"] = words.typeset
    environment.filters["visible"] = visible
    return environment


@functools.cache
def _bundle() -> str:
    """Return Vega, Vega-Lite and Vega-Embed as one script that can stand inside a page."""
    script: str = vl_convert.javascript_bundle("window.vegaEmbed = vegaEmbed;")
    return script.replace("</script", "<\\/script")
