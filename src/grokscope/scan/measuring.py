"""The results of all rows: kept from an earlier scan, or measured by child processes."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from grokscope.errors import InputError, MissingResource
from grokscope.probes.matrices import Matrix, Skipped, matrix_to_json
from grokscope.scan.cache import Cache, cache_key
from grokscope.scan.children import Children, Task
from grokscope.scan.rows import Row
from grokscope.scan.settings import Settings

Progress = Callable[[str, float], None]
"""Told the stage of a scan, and which share of it is done, in [0, 1]."""

Place = tuple[int, str]  # checkpoint, name of a tensor

SLOWEST_DISK = 20e6  # bytes a second
_SLOWEST_CORE = 1e9  # floating-point operations a second
_GROUP = 16  # matrices of one shape that a GPU takes at once


def refusal(answer: Mapping[str, Any], what: str) -> Exception:
    """Return the error for an answer that is none.

    Args:
        answer: Of a child process.
        what: What was read, for the message.
    """
    if "refused" in answer:
        kind = MissingResource if answer.get("kind") == "MissingResource" else InputError
        return kind(str(answer["refused"]))
    if "defect" in answer:
        return RuntimeError(f"reading {what} failed:\n{answer['defect']}")
    reason = answer.get("lost", "it gave no answer")
    return InputError(f"{what} is refused: {reason}. If you trust it, raise --memory.")


def measured(
    children: Children,
    rows: Sequence[Row],
    settings: Settings,
    *,
    cache: Cache,
    memory: int,
    workers: int,
    gpu: bool,
    progress: Progress,
) -> list[dict[str, Any]]:
    """Return one result for each row, as `layer.measure` gives it: ``record`` and ``spectrum``.

    Args:
        children: Who measures.
        rows: What is wanted.
        settings: How.
        cache: Where results are kept, each as soon as it is there.
        memory: Bytes for all children together.
        workers: How many children there are.
        gpu: Whether they use a GPU: then matrices of one shape go together.
        progress: Called on the way.

    Raises:
        InputError: A tensor can no longer be read.
    """
    digests = _digests(children, rows, memory, progress)
    results: list[dict[str, Any]] = [{} for _ in rows]
    keys: dict[int, str] = {}
    seen: dict[str, str] = {}
    for i, row in enumerate(rows):
        planned = row.planned
        if isinstance(planned, Skipped):
            results[i] = _skipped(planned.reason)
            continue
        made_from = {
            "tensors": [digests[checkpoint, entry.name] for checkpoint, entry in row.tensors],
            "subtracted": [digests[checkpoint, entry.name] for checkpoint, entry in row.subtracted],
            "cut": [dataclasses.asdict(step) for step in planned.cut],
            "step": row.step,
        }
        same = seen.setdefault(cache_key(made_from), planned.name)
        if same != planned.name:
            results[i] = _skipped(f"the same numbers as {same}")
            continue
        if _memory(row) > memory:
            results[i] = _skipped(f"it takes about {_memory(row) / 2**30:.1f} GiB; see --memory")
            continue
        keys[i] = cache_key(
            {**made_from, "name": planned.name, "settings": dataclasses.asdict(settings)}
        )
        results[i] = cache.get(keys[i]) or {}

    # The largest first: they would hold up the end.
    todo = sorted((i for i in keys if not results[i]), key=lambda i: -_work(rows[i], settings))
    groups = _groups(rows, todo, memory) if gpu else [[i] for i in todo]
    threads = max(1, workers // max(1, len(groups)))
    tasks = [_task([rows[i] for i in group], settings, threads) for group in groups]
    total = sum(_work(rows[i], settings) for i in todo)
    done = 0.0
    for index, answer in children.run(tasks, memory):
        group = groups[index]
        if "defect" in answer:
            raise refusal(answer, rows[group[0]].planned.name)
        answers = answer.get("measured")
        if not isinstance(answers, list) or len(answers) != len(group):
            reason = answer.get("lost") or answer.get("refused") or "it was not measured"
            answers = [_skipped(str(reason)) for _ in group]
        else:
            for i, result in zip(group, answers, strict=True):
                cache.put(keys[i], result)
        for i, result in zip(group, answers, strict=True):
            results[i] = result
        done += sum(_work(rows[i], settings) for i in group)
        progress("measuring", done / total)
    return results


def _digests(
    children: Children, rows: Sequence[Row], memory: int, progress: Progress
) -> dict[Place, str]:
    """Return the digest of every tensor that is needed."""
    wanted = {
        (checkpoint, entry.name): entry
        for row in rows
        for checkpoint, entry in row.tensors + row.subtracted
    }
    places = list(wanted)
    sizes = [8 * math.prod(entry.shape) for entry in wanted.values()]
    tasks = [
        Task(
            {"ask": "digest", "checkpoint": checkpoint, "tensor": dataclasses.asdict(entry)},
            seconds=60.0 + size / SLOWEST_DISK,
        )
        for ((checkpoint, _), entry), size in zip(wanted.items(), sizes, strict=True)
    ]
    found: dict[Place, str] = {}
    done = 0
    for index, answer in children.run(tasks, memory):
        if "digest" not in answer:
            raise refusal(answer, places[index][1])
        found[places[index]] = str(answer["digest"])
        done += sizes[index]
        progress("reading", done / max(1, sum(sizes)))
    return found


def _task(rows: Sequence[Row], settings: Settings, threads: int) -> Task:
    return Task(
        {
            "ask": "measure",
            "settings": dataclasses.asdict(settings),
            "threads": threads,
            "matrices": [
                {
                    "matrix": matrix_to_json(_matrix(row)),
                    "step": row.step,
                    "tensors": [[i, dataclasses.asdict(entry)] for i, entry in row.tensors],
                    "subtracted": [[i, dataclasses.asdict(entry)] for i, entry in row.subtracted],
                }
                for row in rows
            ],
        },
        memory=sum(_memory(row) for row in rows),
        seconds=600.0 + sum(_work(row, settings) for row in rows) / _SLOWEST_CORE,
    )


def _groups(rows: Sequence[Row], todo: Sequence[int], memory: int) -> list[list[int]]:
    """Put matrices of one shape together, as many as fit."""
    groups: list[list[int]] = []
    open_groups: dict[tuple[int, ...], list[int]] = {}
    for i in todo:
        matrix = _matrix(rows[i])
        key = (matrix.count, *matrix.shape)
        group = open_groups.get(key)
        if group is None or len(group) == _GROUP or (len(group) + 1) * _memory(rows[i]) > memory:
            group = open_groups[key] = []
            groups.append(group)
        group.append(i)
    return groups


def _matrix(row: Row) -> Matrix:
    assert isinstance(row.planned, Matrix)
    return row.planned


def _memory(row: Row) -> int:
    """Return about how many bytes measuring a row takes."""
    matrix = _matrix(row)
    entries = matrix.count * math.prod(matrix.shape)
    # The matrix, a shuffle and its order, what traps are located in; the Gram matrix, its copies.
    return 8 * (7 * entries + 5 * min(matrix.shape) ** 2 * matrix.count)


def _work(row: Row, settings: Settings) -> float:
    """Return about how many floating-point operations measuring a row takes."""
    matrix = _matrix(row)
    n, m = max(matrix.shape), min(matrix.shape)
    spectrum = matrix.count * (n * m**2 + 4.0 * m**3)
    return spectrum * (1 + settings.shuffles) + 1e7


def _skipped(reason: str) -> dict[str, Any]:
    return {"record": {"status": "skipped", "reason": reason, "missing": {}}, "spectrum": None}
