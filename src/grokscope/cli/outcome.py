"""How a run is told: the verdict and claims, for people and as JSON."""

from __future__ import annotations

import json
import math
import textwrap
from typing import Any

from rich.console import Console
from rich.table import Table

from grokscope.experiments import Claim, Finding, evaluate_run
from grokscope.phases import RULES, agreement
from grokscope.store.run_directory import RunDirectory
from grokscope.store.trace import Trace

SCHEMA = 1

_TABLE_WIDTH = 72  # columns; below, a table would break words

_MARKS = {"holds": "[green]holds[/]", "fails": "[red]fails[/]", "inconclusive": "[yellow]open[/]"}


def as_document(
    run: RunDirectory, trace: Trace, findings: list[tuple[Claim, Finding]]
) -> dict[str, Any]:
    """Return the JSON document of a run: see docs/output.md for its fields."""
    verdicts = {}
    for rule in RULES:
        verdict = trace.verdict(rule)
        if verdict is not None:
            verdicts[rule] = {
                "phase": verdict.phase,
                "since": verdict.since,
                "step": verdict.step,
                "evidence": verdict.evidence,
                "agreement": _number(agreement(trace, rule)),
            }
    return {
        "schema": SCHEMA,
        "run": str(run.path),
        "report": str(run.report_path),
        "experiment": run.manifest["experiment"],
        "preset": run.manifest["preset"],
        "status": run.manifest["status"],
        "data": run.manifest.get("data", {}),
        "reached_step": run.manifest["reached_step"],
        "verdict": verdicts.get("observed"),
        "verdicts": verdicts,
        "claims": [
            {
                "id": claim.id,
                "statement": claim.statement,
                "source": claim.source,
                "published": claim.published,
                "criterion": claim.criterion,
                "outcome": finding.outcome,
                "measured": finding.measured,
                "values": {name: _number(value) for name, value in finding.values.items()},
            }
            for claim, finding in findings
        ],
    }


def show(run: RunDirectory, trace: Trace, as_json: bool) -> bool:
    """Print the outcome of a run.

    Returns:
        Whether some claim fails.
    """
    findings = evaluate_run(run, trace)
    if as_json:
        print(json.dumps(as_document(run, trace, findings), indent=2, allow_nan=False))
    else:
        _print(run, trace, findings)
    return any(finding.outcome == "fails" for _, finding in findings)


def _print(run: RunDirectory, trace: Trace, findings: list[tuple[Claim, Finding]]) -> None:
    console = Console(highlight=False)
    for rule in RULES:
        verdict = trace.verdict(rule)
        if verdict is None:
            continue
        right = agreement(trace, rule)
        known = rule != "observed" and math.isfinite(right)
        share = f", right about collapse {right:.0%} of the time" if known else ""
        console.print(
            f"[bold]{verdict.phase}[/] ({rule}{share}), since step {verdict.since:,}",
            soft_wrap=True,
        )
        console.print(
            textwrap.indent(textwrap.fill(verdict.evidence, max(30, console.width - 3)), "  "),
            markup=False,
            soft_wrap=True,
        )
    undecided = [claim for claim, finding in findings if finding.outcome == "inconclusive"]
    if findings and len(undecided) == len(findings):
        console.print(f"\nClaims: all {len(findings)} open; the report says why.")
    elif findings and console.width < _TABLE_WIDTH:
        for claim, finding in findings:
            console.print(f"\n[bold]{claim.id}[/]: {_MARKS[finding.outcome]}")
            for name, text in (("published", claim.published), ("here", finding.measured)):
                console.print(f"  {name}: {text}", markup=False)
    elif findings:
        table = Table(box=None, pad_edge=False, show_edge=False, header_style="bold")
        for column in ("claim", "outcome", "published", "here"):
            table.add_column(column, overflow="fold")
        for claim, finding in findings:
            table.add_row(claim.id, _MARKS[finding.outcome], claim.published, finding.measured)
        console.print()
        console.print(table)
    console.print()
    console.print(f"Report: {run.report_path}", markup=False, soft_wrap=True)


def _number(value: float) -> float | None:
    return float(value) if math.isfinite(value) else None
