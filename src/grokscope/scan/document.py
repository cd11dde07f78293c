"""Scan a checkpoint: every matrix in it, what was measured, and what deserves a look."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import re
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from grokscope._version import __version__
from grokscope.errors import UsageError, unknown
from grokscope.phases.rules import THRESHOLDS
from grokscope.probes.matrices import Heads
from grokscope.scan.cache import Cache
from grokscope.scan.children import Children, Task
from grokscope.scan.files import OpenCheckpoint, open_checkpoint
from grokscope.scan.findings import NO_SPREAD, find, shows_traps
from grokscope.scan.inventory import Inventory, inventory_from_json
from grokscope.scan.limits import ALLOWABLE_GLOBALS, Limits
from grokscope.scan.measuring import SLOWEST_DISK, Progress, measured, refusal
from grokscope.scan.open_file import stamp
from grokscope.scan.rows import Row, find_checkpoints, rows_of
from grokscope.scan.settings import Settings
from grokscope.store.checkpoints import CHECKPOINTS

SCHEMA = 1
_MOST_NOTES = 40


@dataclass(frozen=True, slots=True)
class Scan:
    """What a scan has found.

    Attributes:
        document: Plain JSON: ``layers``, ``findings``, ``summary`` and what was asked for; see
            docs/output.md.
        spectra: One object for each layer with a finding, for drawing.
    """

    document: dict[str, Any]
    spectra: list[dict[str, Any]]


def scan(
    path: Path,
    *,
    base: Path | None = None,
    settings: Settings | None = None,
    layers: str | None = None,
    heads: Heads | Literal["auto"] | None = None,
    key: str | None = None,
    allow_globals: Sequence[str] = (),
    follow_symlinks: bool = False,
    limits: Limits | None = None,
    memory: int | None = None,
    workers: int | None = None,
    device: Literal["cpu", "cuda"] = "cpu",
    cache: Path | None = None,
    progress: Progress = lambda _stage, _share: None,
) -> Scan:
    """Measure every matrix of a checkpoint; nothing in it is ever executed.

    Files are read by child processes with limits on memory and time, tensor by tensor.

    Args:
        path: A safetensors or torch file, a folder of them, a grokscope run (all of its
            checkpoints) or one of its checkpoints.
        base: A second model; what is measured is ``path - base``, tensor by tensor.
        settings: How matrices are measured. Without a seed, that of the run which the files
            belong to, so that the readings of its trace are repeated.
        layers: Regular expression; only matrices whose name it is found in are measured.
        heads: Cut attention projections by head; ``"auto"`` takes their number from config.json.
        key: Where in a torch file the state dict lies, ``"a.b"``, if that is not plain.
        allow_globals: Harmless globals that a torch file may name besides those of tensors.
        follow_symlinks: Whether files may be symbolic links.
        limits: Caps on what a file may hold.
        memory: Bytes that all children together may take; half of this machine's by default.
        workers: Child processes; one for each core by default, one for a GPU.
        device: Where spectra are computed.
        cache: Folder in which results are kept by digest; None keeps none.
        progress: Called as the scan proceeds.

    Returns:
        The document, and the spectra of flagged layers.

    Raises:
        InputError: The files are refused, or do not fit each other.
        MissingResource: torch is too old to read a torch file safely.
        UsageError: A pattern that is none, heads that nothing tells, a global that is not harmless.
    """
    limits = Limits() if limits is None else limits
    memory = _half_of_memory() if memory is None else memory
    workers = workers or (1 if device == "cuda" else len(os.sched_getaffinity(0)))
    pattern = _compiled(layers)
    for name in allow_globals:
        if name not in ALLOWABLE_GLOBALS:
            raise unknown("harmless global", name, ALLOWABLE_GLOBALS)
    paths, seed = find_checkpoints(path, limits)
    if base is not None and (base / "run.json").is_file():
        raise UsageError(
            f"--base {base} is a run; name one of the folders in {base / CHECKPOINTS}."
        )
    settings = Settings() if settings is None else settings
    if settings.seed is None:
        settings = dataclasses.replace(settings, seed=seed)
    with contextlib.ExitStack() as stack:
        opened = [
            stack.enter_context(
                open_checkpoint(each, follow_symlinks=follow_symlinks, limits=limits)
            )
            for each in [*paths, *([] if base is None else [base])]
        ]
        setup = {
            "checkpoints": [dataclasses.asdict(each) for each in opened],
            "limits": dataclasses.asdict(limits),
            "key": key,
            "allow_globals": list(allow_globals),
            "device": device,
            "memory": memory,
        }
        descriptors = [descriptor for each in opened for descriptor in each.descriptors]
        opened_at = {descriptor: stamp(descriptor) for descriptor in descriptors}
        children = stack.enter_context(Children(descriptors, setup, count=workers))
        inventories = _inventories(children, opened, limits, memory, progress)
        scanned = inventories[: len(paths)]
        rows = [
            row
            for index, inventory in enumerate(scanned)
            for row in rows_of(
                index,
                opened[index],
                inventory.entries,
                base=None if base is None else (len(paths), inventories[-1].entries),
                limits=limits,
                pattern=pattern,
                heads=heads,
            )
        ]
        if pattern is not None and not rows:
            raise UsageError(f"--layers {layers!r} matches no layer of {path}.")
        keeper = Cache(cache)
        results = measured(
            children,
            rows,
            settings,
            cache=keeper,
            memory=memory,
            workers=workers,
            gpu=device == "cuda",
            unchanged=lambda: all(stamp(each) == at for each, at in opened_at.items()),
            progress=progress,
        )
    records = [_layer(row, result["record"]) for row, result in zip(rows, results, strict=True)]
    notes = [note for each in scanned for note in each.notes]
    if pattern is not None:
        notes.append(f"Only layers whose name matches {layers!r} are shown.")
    if keeper.fault:
        notes.append(f"Results are not kept for the next scan: {keeper.fault}")
    findings = find(records)
    flagged = {(finding["step"], finding["layer"]) for finding in findings}
    return Scan(
        document={
            "schema": SCHEMA,
            "grokscope": __version__,
            "path": str(path),
            "base": None if base is None else str(base),
            "source": opened[0].kind,
            **dataclasses.asdict(settings),
            "notes": _capped(notes),
            "summary": [
                _summary(step, [each for each in records if each["step"] == step], settings)
                for step in dict.fromkeys(record["step"] for record in records)
            ],
            "findings": findings,
            "layers": records,
        },
        spectra=[
            {"layer": row.planned.name, "step": row.step, **result["spectrum"]}
            for row, result in zip(rows, results, strict=True)
            if (row.step, row.planned.name) in flagged and result["spectrum"]
        ],
    )


def _capped(notes: Sequence[str]) -> list[str]:
    """Return the notes without repetition, and not more than people read."""
    once = list(dict.fromkeys(notes))
    left = len(once) - _MOST_NOTES
    return [*once[:_MOST_NOTES], f"And {left} more notes."] if left > 0 else once


def _half_of_memory() -> int:
    return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2


def _compiled(layers: str | None) -> re.Pattern[str] | None:
    try:
        return None if layers is None else re.compile(layers)
    except re.error as error:
        raise UsageError(
            f"--layers {layers!r} is no regular expression: {error}. "
            r"A dot, a star and a bracket are written \. \* \[ there."
        ) from None


def _inventories(
    children: Children,
    opened: Sequence[OpenCheckpoint],
    limits: Limits,
    memory: int,
    progress: Progress,
) -> list[Inventory]:
    """Ask for what every checkpoint holds."""
    tasks = [
        Task(
            {"ask": "inventory", "checkpoint": index},
            # Checksums are verified on the way.
            seconds=limits.parse_seconds + sum(file.size for file in each.files) / SLOWEST_DISK,
        )
        for index, each in enumerate(opened)
    ]
    found: dict[int, Inventory] = {}
    for index, answer in children.run(tasks, memory):
        if "inventory" not in answer:
            raise refusal(answer, opened[index].path)
        try:
            found[index] = inventory_from_json(answer["inventory"])
        except (TypeError, KeyError, ValueError, AttributeError):
            raise refusal({"lost": "its inventory cannot be read"}, opened[index].path) from None
        progress("checking", len(found) / len(tasks))
    return [found[index] for index in range(len(tasks))]


def _layer(row: Row, record: Mapping[str, Any]) -> dict[str, Any]:
    planned = row.planned
    return {
        "name": planned.name,
        "kind": planned.kind,
        "shape": list(planned.shape),
        "sources": list(planned.sources),
        "step": row.step,
        "note": getattr(planned, "note", ""),
        "alpha": None,
        "D": None,
        "xmin": None,
        "num_pl_spikes": None,
        "traps": None,
        **record,
    }


def _family(layer: Mapping[str, Any], settings: Settings) -> str:
    """Return what a layer may be averaged with; empty for what is in no mean."""
    name = layer["name"]
    if layer["kind"] == "positional embedding" or (layer["alpha"] or 0.0) > NO_SPREAD:
        return ""
    if settings.convention == "weightwatcher":
        # The package pools the slices of a kernel, and knows none that is flattened.
        return "" if name.endswith("[flattened]") else "matrices"
    if layer["alpha"] is None or layer["size"] < THRESHOLDS.minimum_rank:
        return ""
    if name.endswith("[slices]"):
        return "slices"
    if layer["kind"] == "experts":
        return "experts"
    return "heads" if re.search(r"[\[ ]head \d+\]$", name) else "matrices"


def _summary(
    step: int | None, layers: Sequence[Mapping[str, Any]], settings: Settings
) -> dict[str, Any]:
    """Return counts, and means of alpha for each family; a failed fit is in no mean."""
    statuses = [layer["status"] for layer in layers]
    families: dict[str, list[Mapping[str, Any]]] = {}
    for layer in layers:
        if layer["alpha"] is not None and (family := _family(layer, settings)):
            families.setdefault(family, []).append(layer)
    means = {family: _means(members) for family, members in families.items()}
    return {
        "step": step,
        "rows": len(layers),
        **{status: statuses.count(status) for status in ("ok", "failed", "lost", "skipped")},
        **means.get("matrices", _means([])),
        "families": means,
        "with_traps": sum(shows_traps(layer) for layer in layers),
    }


def _means(layers: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    alphas = [layer["alpha"] for layer in layers]
    sizes = [layer["shape"][0] * layer["shape"][1] for layer in layers]
    weighted = sum(alpha * size for alpha, size in zip(alphas, sizes, strict=True))
    return {
        "alpha_layers": len(alphas),
        "alpha_mean": statistics.fmean(alphas) if alphas else None,
        "alpha_median": statistics.median(alphas) if alphas else None,
        "alpha_weighted_mean": weighted / sum(sizes) if alphas else None,
    }
