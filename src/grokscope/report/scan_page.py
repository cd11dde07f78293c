"""The page of a scan: one HTML file that needs nothing else, findings first."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from grokscope._text import visible
from grokscope.phases import THRESHOLDS, find_milestones
from grokscope.report import charts, scan_tables
from grokscope.report.html import Charts, render, unchecked
from grokscope.report.scan_charts import (
    SpectrumCharts,
    history,
    overview_chart,
    spectrum_charts,
)
from grokscope.report.theme import PAGE
from grokscope.scan import words

MOST_SPECTRA = 60  # drawn on a page; more would make a browser slow


@dataclass(frozen=True)
class _Card:
    """One layer with its findings and, where it was drawn, its spectrum.

    ``left_out`` tells that there is a spectrum, but no room for it.
    """

    number: int
    layer: Mapping[str, Any]
    findings: Sequence[Mapping[str, Any]]
    facts: Sequence[tuple[str, str]]
    drawn: SpectrumCharts | None
    density: str = ""
    survival: str = ""
    left_out: bool = False


def build_scan_page(document: Mapping[str, Any], spectra: Sequence[Mapping[str, Any]]) -> str:
    """Return the page of a scan as HTML; pure, no file is read but the page's own template.

    Args:
        document: What ``grokscope scan --json`` prints. Names in it may be anything.
        spectra: Of the layers with a finding, by ``layer`` and ``step``. Of the newest step,
            `MOST_SPECTRA` are drawn: those whose findings come first in the document.

    Returns:
        A document without any reference to a file or an address that a browser would load.
    """
    newest = words.newest_step(document)
    layers = words.at_step(document["layers"], newest)
    findings = words.at_step(document["findings"], newest)
    measured = [layer for layer in layers if layer["status"] != "skipped"]
    page = Charts()
    with unchecked():
        cards = _cards(document["convention"], measured, findings, _of_step(spectra, newest), page)
        found = {
            name: {finding["finding"] for finding in group}
            for name, group in words.by(findings, "layer").items()
        }
        overview = overview_chart(measured, found, PAGE)
        context = {
            "overview": page.place(overview) if overview else None,
            **_history(document, page, newest),
        }
    summaries = [entry for entry in document["summary"] if entry.get("step") == newest]
    drawn = [card for card in cards if card.drawn]
    return render(
        "scan_template.html",
        page,
        **context,
        path=visible(document["path"]),
        headline=words.headline(findings),
        proportion=words.proportion(findings),
        newest=newest,
        about=scan_tables.about(document, layers),
        summary=scan_tables.summary_rows(summaries[0]) if summaries else [],
        kinds=[
            (words.label(kind), words.MEANINGS.get(kind, ""), len({f["layer"] for f in group}))
            for kind, group in words.by(findings, "finding").items()
        ],
        caution=words.caution(measured),
        compared=any(words.noise(layer) for layer in measured),
        shuffled=any(card.drawn.shuffled for card in drawn if card.drawn),
        law=any(card.drawn.law for card in drawn if card.drawn),
        limits=THRESHOLDS,
        edge=any(card.drawn.beyond is not None for card in drawn if card.drawn),
        cards=drawn,
        undrawn=[card for card in cards if not card.drawn],
        left_out=[words.name(card.layer["name"]) for card in cards if card.left_out],
        name_of=words.name,
        some=words.some,
        label=words.label,
        size=words.size,
        columns=scan_tables.columns(measured),
        rows=scan_tables.rows(measured, findings),
        not_computed=words.not_computed(measured),
        skipped=words.grouped((x for x in layers if x["status"] == "skipped"), "reason"),
        notes=[visible(note, 600) for note in document.get("notes") or ()],
        settings=scan_tables.settings(document),
    )


def _of_step(
    spectra: Sequence[Mapping[str, Any]], step: int | None
) -> dict[str, Mapping[str, Any]]:
    return {s["layer"]: s for s in spectra if s.get("step") == step}


def _cards(
    convention: str,
    measured: Sequence[Mapping[str, Any]],
    findings: Sequence[Mapping[str, Any]],
    spectra: Mapping[str, Mapping[str, Any]],
    page: Charts,
) -> list[_Card]:
    """Return the layers with findings, in the order of their first one."""
    numbers = {layer["name"]: (i, layer) for i, layer in enumerate(measured, 1)}
    cards, room = [], MOST_SPECTRA
    for name, found in words.by(findings, "layer").items():
        number, layer = numbers[name]
        facts = scan_tables.facts(layer, convention)
        drawn = spectrum_charts(spectra[name], layer, PAGE) if name in spectra and room else None
        if drawn is None:
            left_out = name in spectra and not room
            cards.append(_Card(number, layer, found, facts, None, left_out=left_out))
            continue
        room -= 1
        keys = page.place(drawn.density), page.place(drawn.survival)
        cards.append(_Card(number, layer, found, facts, drawn, *keys))
    return cards


def _history(document: Mapping[str, Any], page: Charts, newest: int | None) -> dict[str, Any]:
    """Return charts and table of alpha and traps by step, empty for a single checkpoint."""
    steps = {layer["step"] for layer in document["layers"]}
    if len(steps) < 2 or newest is None:
        return {"alpha": None, "traps": None, "history": []}
    measured = [layer for layer in document["layers"] if layer["status"] != "skipped"]
    trace = history(measured)
    at = find_milestones(trace)
    alpha, traps = charts.alpha_chart(trace, at, PAGE), charts.traps_chart(trace, at, PAGE)
    return {
        "alpha": page.place(alpha) if alpha else None,
        "traps": page.place(traps) if traps else None,
        "history": scan_tables.history_rows(document),
    }
