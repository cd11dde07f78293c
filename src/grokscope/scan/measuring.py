"""The results of all rows: kept from an earlier scan, or measured by child processes."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from grokscope.errors import InputError, MissingResource, UsageError
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
_BYTES = {"float64": 8, "float32": 4, "float16": 2, "bfloat16": 2}
_GROUP = 16  # matrices of one shape that a GPU takes at once


def refusal(answer: Mapping[str, Any], what: str) -> Exception:
    """Return the error for an answer that is none.

    Args:
        answer: Of a child process.
        what: What was read, for the message.
    """
    if "refused" in answer:
        kinds = {kind.__name__: kind for kind in (InputError, MissingResource, UsageError)}
        return kinds.get(str(answer.get("kind")), InputError)(str(answer["refused"]))
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
    unchanged: Callable[[], bool],
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
        unchanged: Says whether the files still are what they were when they were digested.
        progress: Called on the way.

    Raises:
        InputError: A tensor can no longer be read, or a file was changed meanwhile.
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
        if made_from["tensors"] == made_from["subtracted"]:
            results[i] = _skipped("the same numbers as in the base")
            continue
        same = seen.setdefault(cache_key(made_from), planned.name)
        if same != planned.name:
            results[i] = _skipped(f"the same numbers as {same}")
            continue
        if _memory(row) > memory:
            needed = max(0.1, _memory(row) / 2**30)
            results[i] = _lost(f"it takes about {needed:.1f} GiB; allow that with --memory")
            continue
        keys[i] = cache_key(
            {**made_from, "name": planned.name, "settings": dataclasses.asdict(settings)}
        )
        kept = cache.get(keys[i])
        results[i] = kept if kept is not None and _is_sound([kept], 1) else {}

    # The largest first: they would hold up the end.
    todo = sorted((i for i in keys if not results[i]), key=lambda i: -_work(rows[i], settings))
    groups = _groups(rows, todo, memory) if gpu else [[i] for i in todo]
    threads = max(1, workers // max(1, len(groups)))
    nulls = _nulls(children, [rows[i] for i in todo], settings, cache, memory, progress)
    tasks = [
        _task(
            [rows[i] for i in group],
            settings,
            threads,
            memory,
            nulls.get(_null_shape(rows[group[0]])),
        )
        for group in groups
    ]
    total = sum(_work(rows[i], settings) for i in todo)
    done = 0.0
    for index, answer in children.run(tasks, memory):
        group = groups[index]
        answers: Any = answer.get("measured")
        if not unchanged():
            raise InputError("A file was changed while it was read. Scan it when it is finished.")
        if not _is_sound(answers, len(group)):
            answers = [_lost(_failure(answer)) for _ in group]
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


def _null_shape(row: Row) -> tuple[int, int] | None:
    """Return the shape of the noise that alpha is compared with, longer side first, if it is."""
    matrix = _matrix(row)
    if matrix.count > 1 or matrix.kind == "lora":
        return None
    return max(matrix.shape), min(matrix.shape)


def _nulls(
    children: Children,
    rows: Sequence[Row],
    settings: Settings,
    cache: Cache,
    memory: int,
    progress: Progress,
) -> dict[tuple[int, int] | None, dict[str, Any]]:
    """Return the exponents of noise of every shape; they depend on nothing else, and are kept."""
    if not settings.null_draws or settings.convention == "weightwatcher":
        return {}
    shapes = sorted({shape for row in rows if (shape := _null_shape(row))}, reverse=True)
    questions = [{"ask": "null", "shape": s, "draws": settings.null_draws} for s in shapes]
    keys = [cache_key(question) for question in questions]
    found = {shape: cache.get(key) for shape, key in zip(shapes, keys, strict=True)}
    todo = [i for i, shape in enumerate(shapes) if found[shape] is None]
    for done, (index, answer) in enumerate(
        children.run([Task(questions[i]) for i in todo], memory), start=1
    ):
        null = answer.get("null")
        if isinstance(null, dict):
            found[shapes[todo[index]]] = null
            cache.put(keys[todo[index]], null)
        progress("noise of equal shapes", done / len(todo))
    return {shape: null for shape, null in found.items() if null is not None}


def _task(
    rows: Sequence[Row],
    settings: Settings,
    threads: int,
    memory: int,
    null: dict[str, Any] | None,
) -> Task:
    needed = sum(_memory(row) for row in rows)
    # Where traps are found, locating them takes more; where that is too much, they are counted.
    locating = needed + max(_memory_of_traps(row) for row in rows)
    return Task(
        {
            "ask": "measure",
            "settings": dataclasses.asdict(settings),
            "threads": threads,
            "null": null,
            "locate": locating <= memory,
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
        memory=min(locating, max(memory, needed)),
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
    exact = bool(row.subtracted) or matrix.kind == "lora"
    size = 8 if exact else _BYTES.get(row.tensors[0][1].dtype, 8)
    # The matrix, its source, a shuffle and its order; the Gram matrix and its copies; blocks.
    grams = 5 * 8 * min(matrix.shape) ** 2 * matrix.count
    return (3 * size + 4) * entries + grams + min(2**26, 16 * entries)


def _memory_of_traps(row: Row) -> int:
    """Return about how many bytes locating traps takes besides: float64 copies of the matrix."""
    return 7 * 8 * math.prod(_matrix(row).shape)


def _work(row: Row, settings: Settings) -> float:
    """Return about how many floating-point operations measuring a row takes."""
    matrix = _matrix(row)
    n, m = max(matrix.shape), min(matrix.shape)
    spectrum = matrix.count * (n * m**2 + 4.0 * m**3)
    return spectrum * (1 + settings.shuffles) + 1e7


def _is_sound(results: Any, count: int) -> bool:
    """Say whether results have the form that everything after this relies on."""
    return (
        isinstance(results, list)
        and len(results) == count
        and all(
            isinstance(each, dict)
            and isinstance(each.get("record"), dict)
            and isinstance(each["record"].get("status"), str)
            and isinstance(each["record"].get("missing"), dict)
            and isinstance(each.get("spectrum"), dict)
            for each in results
        )
    )


def _skipped(reason: str) -> dict[str, Any]:
    return _unmeasured("skipped", reason)


def _lost(reason: str) -> dict[str, Any]:
    """Return the result of a matrix that should have been measured and was not."""
    return _unmeasured("lost", reason)


def _unmeasured(status: str, reason: str) -> dict[str, Any]:
    return {"record": {"status": status, "reason": reason, "missing": {}}, "spectrum": None}


def _failure(answer: Mapping[str, Any]) -> str:
    """Return why a matrix was not measured; one fault must not cost the others."""
    if "defect" in answer:
        last = str(answer["defect"]).strip().rpartition("\n")[2]
        return f"a defect of grokscope, worth a report: {last}"
    return str(answer.get("lost") or answer.get("refused") or "no answer came")
