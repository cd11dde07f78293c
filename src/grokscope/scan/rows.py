"""Which checkpoints a path means, and which matrices are in them."""

from __future__ import annotations

import re
import stat
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from grokscope.errors import InputError, UsageError
from grokscope.probes.matrices import Heads, Matrix, Parameter, Skipped, plan_matrices
from grokscope.scan.entry import TensorEntry
from grokscope.scan.files import OpenCheckpoint
from grokscope.scan.limits import Limits
from grokscope.scan.open_file import shown
from grokscope.store.checkpoints import CHECKPOINTS, list_checkpoints
from grokscope.store.run_directory import RunDirectory

_MOST_HEADS = 4096  # no model has so many in a layer


@dataclass(frozen=True, slots=True)
class Row:
    """One line of the table before it is measured.

    Attributes:
        step: Of its checkpoint, None where that is unknown.
        planned: What it is.
        tensors: (checkpoint, tensor) for each source of a matrix; checkpoints are numbered as child
            processes know them. Empty for what is skipped.
        subtracted: The same of the model that is subtracted; empty if none is.
    """

    step: int | None
    planned: Matrix | Skipped
    tensors: tuple[tuple[int, TensorEntry], ...] = ()
    subtracted: tuple[tuple[int, TensorEntry], ...] = ()


def find_checkpoints(path: Path, limits: Limits) -> tuple[list[Path], int]:
    """Return the checkpoints that a path means, oldest first, and the seed of their run.

    Args:
        path: A run of grokscope, or anything else, which is its own only checkpoint.
        limits: Caps; of them, that on the size of JSON files.

    Raises:
        InputError: A run without checkpoints, or one that is damaged.
    """
    if _is_run(path, limits):
        found = [folder for _, folder in list_checkpoints(path)]
        if not found:
            raise InputError(
                f"{path} holds no checkpoint. What was seen in training is in its report: "
                f"grokscope report {path}"
            )
        return found, _seed(path)
    run = path.absolute().parent.parent
    if path.absolute().parent.name == CHECKPOINTS and _is_run(run, limits):
        return [path], _seed(run)
    return [path], 0


def _is_run(folder: Path, limits: Limits) -> bool:
    """Say whether a folder is a run, and one that can be opened without harm."""
    manifest = folder / "run.json"
    try:
        status = manifest.lstat()
        linked = (folder / CHECKPOINTS).is_symlink()
    except OSError:
        return False
    if not stat.S_ISREG(status.st_mode) or linked:
        raise InputError(f"{folder} is refused: run.json or {CHECKPOINTS} in it is a link.")
    if status.st_size > limits.header_bytes:
        raise InputError(
            f"{manifest} is refused: it is larger than the limit of {limits.header_bytes} bytes. "
            "Raise it with --limit header_bytes=NUMBER."
        )
    return True


def _seed(run: Path) -> int:
    seed = (RunDirectory.open(run).manifest.get("config") or {}).get("seed", 0)
    return seed if isinstance(seed, int) and seed >= 0 else 0


def rows_of(
    index: int,
    checkpoint: OpenCheckpoint,
    entries: Sequence[TensorEntry],
    *,
    base: tuple[int, Sequence[TensorEntry]] | None = None,
    limits: Limits,
    pattern: re.Pattern[str] | None = None,
    heads: Heads | Literal["auto"] | None = None,
) -> Iterator[Row]:
    """Yield every matrix of a checkpoint, and every tensor that holds none with the reason.

    Args:
        index: Number of the checkpoint.
        checkpoint: It.
        entries: Its tensors.
        base: Number and tensors of the model to subtract.
        limits: Caps; of them, that on the number of matrices.
        pattern: What must be found in the name of a row.
        heads: Cut attention by head; ``"auto"`` for the numbers of the model's configuration.

    Raises:
        InputError: There are too many matrices, or the base lacks a tensor or has another shape.
        UsageError: No configuration tells the number of heads.
    """
    by_head = heads is not None
    if heads is None or heads == "auto":
        heads = _known_heads(checkpoint)
    if by_head and heads is None:
        raise UsageError(
            f"--heads auto: no config.json beside {checkpoint.path} tells the number of heads. "
            "Give it: --heads 32, or --heads 32/8 where there are fewer key and value heads."
        )
    entries = sorted(entries, key=lambda entry: _as_counted(entry.name))
    by_name = {entry.name: entry for entry in entries}
    readable = [
        Parameter(entry.name, entry.shape, entry.dtype)
        for entry in entries
        if not (entry.unavailable or entry.same_as)
    ]
    at_most = sum(p.shape[0] if len(p.shape) == 3 else 3 for p in readable if len(p.shape) > 1)
    at_most *= heads.queries if by_head and heads is not None else 1
    if at_most > limits.matrices:
        raise InputError(
            f"{checkpoint.path} may hold {at_most:,} matrices, above the limit of "
            f"{limits.matrices:,}. Raise it with --limit matrices={at_most}."
        )
    plan = [
        *plan_matrices(readable, heads=heads, by_head=by_head),
        *(
            Skipped(
                entry.name,
                "",
                entry.shape,
                (entry.name,),
                entry.unavailable or f"the same tensor as {entry.same_as}",
            )
            for entry in entries
            if entry.unavailable or entry.same_as
        ),
    ]
    if pattern is not None:
        plan = [planned for planned in plan if pattern.search(planned.name)]
    others = {} if base is None else {entry.name: entry for entry in base[1]}
    if base is not None:
        _require_same(checkpoint, plan, by_name, others)
    for planned in plan:
        if isinstance(planned, Skipped):
            yield Row(checkpoint.step, planned)
            continue
        tensors = tuple((index, by_name[source]) for source in planned.sources)
        subtracted = (
            () if base is None else tuple((base[0], others[source]) for source in planned.sources)
        )
        yield Row(checkpoint.step, planned, tensors, subtracted)


def _as_counted(name: str) -> list[tuple[bool, int, str]]:
    """Return a key that sorts ``layers.2`` before ``layers.10``."""
    return [
        (not part.isdecimal(), int(part) if part.isdecimal() else 0, part)
        for part in re.split(r"(\d{1,18})", name)
    ]


def _known_heads(checkpoint: OpenCheckpoint) -> Heads | None:
    """Return the heads of the model's configuration, None if it tells none that can be."""
    queries, keys = checkpoint.query_heads, checkpoint.key_value_heads
    if queries is None or queries > _MOST_HEADS:
        return None
    try:
        return Heads(queries, keys or queries)
    except ValueError:
        return None


def _require_same(
    checkpoint: OpenCheckpoint,
    plan: Sequence[Matrix | Skipped],
    entries: Mapping[str, TensorEntry],
    others: Mapping[str, TensorEntry],
) -> None:
    """Refuse a base without a counterpart to every tensor, so that none is left unsubtracted."""
    needed = {source for each in plan if isinstance(each, Matrix) for source in each.sources}
    unlike = sorted(
        name
        for name in needed
        if name not in others
        or others[name].unavailable
        or others[name].shape != entries[name].shape
    )
    if unlike:
        raise InputError(
            f"{len(unlike)} of {len(needed)} tensors of {checkpoint.path} have no counterpart of "
            f"equal shape in the base, such as {shown(unlike[0])}. Name the model that it was made "
            "from, or scan only what both have with --layers."
        )
