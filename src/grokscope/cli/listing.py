"""The command that lists experiments, measures and runs."""

from __future__ import annotations

import ast
import json
import re
import sys
from importlib.resources import files
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table

from grokscope.experiments import EXPERIMENTS
from grokscope.store.run_directory import UnreadableRun, find_runs


def _print(rows: list[dict[str, Any]], as_json: bool) -> None:
    if as_json:
        print(json.dumps(rows, indent=2))
        return
    table = Table(box=None, pad_edge=False, header_style="bold")
    for column in rows[0] if rows else []:
        table.add_column(column, overflow="fold")
    for row in rows:
        table.add_row(*row.values())
    Console(highlight=False, markup=False).print(table)


def list_experiments(as_json: bool) -> None:
    """List every preset of every experiment."""
    _print(
        [
            {
                "experiment": experiment.id,
                "preset": name
                + (" (default)" if name == experiment.default and not as_json else ""),
                "shows": preset.summary,
                **({"differences": list(preset.differences)} if as_json else {}),
            }
            for experiment in EXPERIMENTS.values()
            for name, preset in experiment.presets.items()
        ],
        as_json,
    )


def list_measures(as_json: bool) -> None:
    """List every public function of the measures, with the first line of what it says of itself.

    They are read, not imported: importing them would import torch.
    """
    rows = []
    for file in sorted(files("grokscope.measures").iterdir(), key=lambda f: f.name):
        if not file.name.endswith(".py") or file.name.startswith("_"):
            continue
        for node in ast.parse(file.read_text(encoding="utf-8")).body:
            if isinstance(node, ast.FunctionDef) and not node.name.startswith("_"):
                text = ast.get_docstring(node) or ""
                rows.append(
                    {
                        "measure": node.name,
                        "in grokscope.measures": file.name.removesuffix(".py"),
                        "what": _plain(text.split("\n\n")[0]),
                    }
                )
    _print(rows, as_json)


def _plain(text: str) -> str:
    """Take the markup out of a docstring's first sentence."""
    return re.sub(r":[a-z]+:|`", "", text).replace("\n", " ")


def list_runs(folder: Path, as_json: bool) -> None:
    """List the runs below a folder, damaged ones with what is wrong."""
    if not folder.exists() and folder == Path("runs"):
        print("No runs yet. Begin with: grokscope run anti-grokking", file=sys.stderr)
        _print([], as_json)
        return
    rows = []
    for found in find_runs(folder):
        row = {"run": str(found.path), "experiment": "", "preset": "", "status": "", "step": ""}
        if isinstance(found, UnreadableRun):
            row["status"] = found.problem
        else:
            manifest = found.manifest
            row["experiment"], row["preset"] = manifest["experiment"], manifest["preset"]
            killed = manifest["status"] == "running" and not found.is_live()
            row["status"] = "killed" if killed else manifest["status"]
            row["step"] = (
                f"{manifest['reached_step']:,}" if not as_json else manifest["reached_step"]
            )
        rows.append(row)
    _print(rows, as_json)
