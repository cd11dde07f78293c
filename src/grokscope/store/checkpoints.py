"""Checkpoints: tensors and state of one step, written whole or not at all, checked when read.

A checkpoint is a folder ``checkpoints/step-000000001234`` of the run, with ``tensors.safetensors``
and ``state.json``; the latter holds the digest of the former and begins with the digest of its own
remainder. It is written under another name and renamed when the disk has all of it, so a folder of
the right name is whole.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import re
import shutil
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import safetensors.numpy

from grokscope.errors import InputError
from grokscope.store.atomic import reading, sync_folder, write_synced, writing

FORMAT = 1
CHECKPOINTS = "checkpoints"
_TENSORS = "tensors.safetensors"
_STATE = "state.json"
_PARTIAL = ".partial-"
_REPLACED = ".replaced"
_NAME = re.compile(r"step-(\d{12,})(\.replaced)?")


@dataclass(frozen=True)
class Checkpoint:
    """One checkpoint, read and verified.

    Attributes:
        step: Optimiser steps taken when it was saved.
        tensors: Name to array, in the dtypes that were saved; writable.
        state: What the caller stored beside the tensors (plain JSON values).
        path: Its folder.
    """

    step: int
    tensors: dict[str, np.ndarray]
    state: dict[str, Any]
    path: Path


def save_checkpoint(
    run: Path, step: int, tensors: Mapping[str, np.ndarray], state: Mapping[str, Any]
) -> Path:
    """Write one checkpoint; when this returns it survives a power cut.

    Leftovers of writes that were interrupted are removed first. A checkpoint of the same step is
    replaced, and given up only when the new one is in its place.

    Args:
        run: The folder of the run, which must exist.
        step: Optimiser steps taken, not negative.
        tensors: Name to array, any dtype that safetensors knows.
        state: Everything else that resuming needs, as plain JSON values; the caller puts the hash
            of the configuration in it.

    Returns:
        The folder of the checkpoint.

    Raises:
        ValueError: Negative step, or a state that is not plain JSON (NaN included).
        MissingResource: Full, read-only or failing disk; older checkpoints are intact.
    """
    if step < 0:
        raise ValueError(f"save_checkpoint: expected a step of at least 0, got {step}.")
    # safetensors writes the memory as it lies, so a transposed view would come back scrambled.
    data = safetensors.numpy.save({k: np.asarray(v, order="C") for k, v in tensors.items()})
    sealed = _seal(
        {
            "format": FORMAT,
            "step": int(step),
            "tensors_sha256": hashlib.sha256(data).hexdigest(),
            "state": dict(state),
        }
    )
    folder = run / CHECKPOINTS
    final = folder / f"step-{step:012d}"
    partial = folder / f"{_PARTIAL}{final.name}"
    replaced = folder / f"{final.name}{_REPLACED}"
    with writing(final):
        if not folder.is_dir():
            folder.mkdir()
            sync_folder(run)
        _clean(folder)
        try:
            partial.mkdir()
            write_synced(partial / _TENSORS, data)
            write_synced(partial / _STATE, sealed)
            sync_folder(partial)
            if final.exists():
                os.replace(final, replaced)
            os.replace(partial, final)
            sync_folder(folder)
        except BaseException:
            shutil.rmtree(partial, ignore_errors=True)
            with contextlib.suppress(OSError):
                _clean(folder)
            raise
        _clean(folder)
    return final


def load_checkpoint(path: Path) -> Checkpoint:
    """Read one checkpoint and verify it against its digests.

    Args:
        path: Its folder.

    Returns:
        The checkpoint, equal to what was saved bit by bit.

    Raises:
        InputError: A file is missing, damaged, or of another format.
    """
    with reading(path / _STATE):
        sealed = (path / _STATE).read_bytes()
    with reading(path / _TENSORS):
        data = (path / _TENSORS).read_bytes()
    body = _unseal(sealed, path)
    if body.get("format") != FORMAT:
        raise InputError(
            f"{path} is of checkpoint format {body.get('format')}, this grokscope reads {FORMAT}. "
            "Use the version of grokscope that run.json names."
        )
    if hashlib.sha256(data).hexdigest() != body["tensors_sha256"]:
        raise _damaged(path, _TENSORS)
    return Checkpoint(body["step"], safetensors.numpy.load(data), body["state"], path)


def list_checkpoints(run: Path) -> list[tuple[int, Path]]:
    """Return (step, folder) of every checkpoint, oldest first; nothing is read or verified.

    Args:
        run: The folder of the run.

    Raises:
        InputError: The folder cannot be listed.
    """
    with reading(run / CHECKPOINTS):
        found = dict(reversed(_found(run / CHECKPOINTS)))
    return sorted(found.items())


def latest_checkpoint(run: Path) -> tuple[Checkpoint | None, list[str]]:
    """Read the newest checkpoint that is undamaged.

    Args:
        run: The folder of the run.

    Returns:
        The checkpoint, or None if there is no good one; and one sentence for each newer one that
        had to be passed over, newest first.
    """
    damaged: list[str] = []
    with reading(run / CHECKPOINTS):
        found = _found(run / CHECKPOINTS)
    for _, path in found:
        try:
            return load_checkpoint(path), damaged
        except InputError as error:
            damaged.append(str(error))
    return None, damaged


def prune_checkpoints(
    run: Path, step: int, keep_last: int = 2, keep_steps: Collection[int] = frozenset()
) -> None:
    """Remove old checkpoints; called after a new one was saved.

    Checkpoints of later steps are left alone and do not count: a run that passed over damaged ones
    goes on behind them, and must keep what it saves until it has overtaken them.

    Args:
        run: The folder of the run.
        step: The step that was saved.
        keep_last: How many of the newest up to ``step`` to keep, at least 1.
        keep_steps: Steps whose checkpoints are kept however old they are.

    Raises:
        ValueError: ``keep_last`` below 1.
        MissingResource: The disk does not allow the removal.
    """
    if keep_last < 1:
        raise ValueError(f"prune_checkpoints: expected keep_last of at least 1, got {keep_last}.")
    folder = run / CHECKPOINTS
    with writing(folder):
        _clean(folder)
        found = [(at, path) for at, path in _found(folder) if at <= step]
        for at, path in found[keep_last:]:
            if at not in keep_steps:
                # Renamed first: a removal that is interrupted must not look like a checkpoint.
                os.replace(path, folder / f"{_PARTIAL}{path.name}")
        _clean(folder)


def _found(folder: Path) -> list[tuple[int, Path]]:
    """Return (step, folder) of every checkpoint, newest first."""
    names = [path.name for path in folder.iterdir()] if folder.is_dir() else []
    matches = [match for match in map(_NAME.fullmatch, names) if match]
    # Of one step, the replaced one comes last: it counts only where its successor is missing.
    matches.sort(key=lambda match: (-int(match[1]), match[2] is not None))
    return [(int(match[1]), folder / match[0]) for match in matches]


def _clean(folder: Path) -> None:
    """Finish or undo what an interrupted write left behind."""
    if not folder.is_dir():
        return
    for path in list(folder.iterdir()):
        if path.name.startswith(_PARTIAL):
            shutil.rmtree(path)
        elif path.name.endswith(_REPLACED):
            successor = path.with_name(path.name.removesuffix(_REPLACED))
            if successor.exists():
                shutil.rmtree(path)
            else:
                os.replace(path, successor)


def _damaged(path: Path, name: str) -> InputError:
    return InputError(
        f"Checkpoint {path} is damaged: {name} does not match its digest. Use an earlier one, as "
        "`grokscope resume` does."
    )


def _head(rest: bytes) -> bytes:
    return b'{"sha256": "' + hashlib.sha256(rest).hexdigest().encode() + b'",'


def _seal(body: Mapping[str, Any]) -> bytes:
    """Write ``body`` as a JSON object whose first line is the digest of the bytes after it."""
    try:
        text = json.dumps(body, indent=1, allow_nan=False)
    except (TypeError, ValueError) as error:
        raise ValueError(f"save_checkpoint: expected a state of plain JSON, got {error}.") from None
    rest = text.removeprefix("{").encode()
    return _head(rest) + rest


def _unseal(sealed: bytes, path: Path) -> dict[str, Any]:
    head, newline, rest = sealed.partition(b"\n")
    if head != _head(newline + rest):
        raise _damaged(path, _STATE)
    body: dict[str, Any] = json.loads(sealed)
    return body
