"""The page of a run: one HTML file that needs nothing else."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from grokscope.errors import InputError
from grokscope.experiments import EXPERIMENTS, Claim, Finding, Preset, evaluate_run
from grokscope.phases import THRESHOLDS, find_milestones
from grokscope.phases.rules import neighbourhood_score
from grokscope.report import charts, tables, words
from grokscope.report.html import Charts, render, unchecked
from grokscope.report.multiples import small_multiples
from grokscope.report.spectra import Spectrum, spectra
from grokscope.report.theme import PAGE
from grokscope.store.atomic import write_atomically
from grokscope.store.run_directory import RunDirectory
from grokscope.store.trace import Trace

_STATUS = {
    "running": "This run was still going when this page was written.",
    "stopped": "This run is not finished: the process that worked on it is gone.",
    "interrupted": "This run was interrupted.",
    "failed": "This run failed: training broke down. What it reached is shown.",
}


def write_report(run: RunDirectory) -> Path:
    """Write ``report.html`` of a run, whole or not at all, from what its folder holds.

    Args:
        run: Finished or not; a run of no known experiment has no claims.

    Returns:
        Where the page is.

    Raises:
        InputError: The trace is damaged, or holds no observation yet.
        MissingResource: The disk refuses.
    """
    with run.trace(readonly=True) as database:
        trace = database.load()
    if not len(trace.steps()):
        raise InputError(f"{run.path} holds no observation yet; there is nothing to report.")
    manifest = dict(run.manifest)
    if manifest["status"] == "running" and not run.is_live():
        manifest["status"] = "stopped"
    experiment = EXPERIMENTS.get(manifest["experiment"])
    preset = None if experiment is None else experiment.presets.get(manifest["preset"])
    page = build_page(trace, manifest, evaluate_run(run, trace), preset)
    write_atomically(run.report_path, page.encode())
    return run.report_path


def build_page(
    trace: Trace,
    manifest: Mapping[str, Any],
    findings: Sequence[tuple[Claim, Finding]] = (),
    preset: Preset | None = None,
) -> str:
    """Return the page of a run as HTML; pure, no file is read but the page's own template.

    Args:
        trace: What was recorded; at least one observation.
        manifest: ``experiment``, ``preset``, ``status``, ``config`` and, where known,
            ``environment``, ``data``, ``started``, ``ended``, ``message``.
        findings: Claims with what they came to.
        preset: What the run was made from, where that is known.

    Returns:
        A document without any reference to a file or an address that a browser would load.

    Raises:
        ValueError: If the trace holds no observation.
    """
    if not len(trace.steps()):
        raise ValueError("the trace holds no observation; a page needs at least one.")
    at = find_milestones(trace)
    page = Charts()
    with unchecked():
        alpha, traps = charts.alpha_chart(trace, at, PAGE), charts.traps_chart(trace, at, PAGE)
        drawn = {
            "main": page.place(charts.main_chart(trace, at, PAGE)),
            "alpha": page.place(alpha) if alpha else None,
            "traps": page.place(traps) if traps else None,
            "multiples": [(m, page.place(m.chart)) for m in small_multiples(trace, at, PAGE)],
            "spectra": _by_layer([(s, page.place(s.chart)) for s in spectra(trace, at, PAGE)]),
        }
    opinions = tables.opinions(trace)
    lead = tables.leading_rule(opinions)
    leading = opinions.pop(lead, None)
    unobserved = opinions.pop("observed", None)  # left over where it has nothing to speak from
    costs = tables.cost_rows(trace)
    config = manifest.get("config") or {}
    context = {
        "name": words.run_name(manifest),
        "control": preset is not None and preset.control,
        "started": _readable_time(manifest.get("started")),
        "state": manifest["status"],
        "status": _STATUS.get(manifest["status"], ""),
        "resumable": manifest["status"] == "interrupted" and manifest["experiment"] in EXPERIMENTS,
        "message": manifest.get("message", ""),
        "reached": int(trace.steps()[-1]),
        "stop": config.get("steps"),
        "seed": words.seed_of(manifest),
        "observations": len(trace.steps()),
        "lead": lead,
        "leading": leading,
        "unobserved": unobserved,
        "opinions": opinions,
        "phases": charts.phases_seen(trace),
        "limits": THRESHOLDS,
        "has_accuracy": bool(trace.subjects("accuracy")),
        "has_score": bool(len(neighbourhood_score(trace))),
        "findings": findings,
        "outcomes": _outcomes(findings),
        "costs": costs,
        "watching": sum(row.share for row in costs if row.part != "training"),
        "events": trace.events,
        "missing": tables.note_rows(trace, missing=True),
        "qualified": tables.note_rows(trace, missing=False),
        "config": list(tables.flattened(config)),
        "data": list(tables.flattened(manifest.get("data") or {})),
        "environment": list(tables.flattened(manifest.get("environment") or {})),
        "context": preset.context if preset is not None else "",
        "differences": preset.differences if preset is not None else (),
        "layer_colours": _layer_colours(trace),
    }
    return render("template.html", page, **context, **drawn)


def _readable_time(stamp: str | None) -> str:
    """Return an ISO 8601 time in UTC as people write it."""
    return (stamp or "").replace("T", " ").replace("+00:00", " UTC")


def _outcomes(findings: Sequence[tuple[Claim, Finding]]) -> str:
    """Return how many claims came to what, in words."""
    counts = dict.fromkeys(("holds", "fails", "inconclusive"), 0)
    for _, finding in findings:
        counts[finding.outcome] += 1
    return ", ".join(
        f"{count} {name if count == 1 else name.removesuffix('s')}"
        for name, count in counts.items()
        if count
    )


def _layer_colours(trace: Trace) -> dict[str, str]:
    layers = charts.layers_of(trace)
    return {layer: PAGE.layer(i, len(layers)) for i, layer in enumerate(layers)}


def _by_layer(cells: Sequence[tuple[Spectrum, str]]) -> dict[str, list[tuple[Spectrum, str]]]:
    rows: dict[str, list[tuple[Spectrum, str]]] = {}
    for spectrum, key in cells:
        rows.setdefault(spectrum.layer, []).append((spectrum, key))
    return rows
