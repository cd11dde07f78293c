"""What kind of checkpoint a path is, told by its content, and the files of it, opened once."""

from __future__ import annotations

import hashlib
import os
import stat
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import TracebackType
from typing import Any, Literal, Self

from grokscope.errors import InputError
from grokscope.scan.limits import Limits
from grokscope.scan.open_file import (
    OpenFile,
    above,
    listed,
    open_path,
    parse_json,
    refused,
    regular_file,
    shown,
)
from grokscope.store.checkpoints import FORMAT

Kind = Literal["safetensors", "torch", "grokscope"]

_STATE = "state.json"
_CONFIG = "config.json"
# The order in which Hugging Face's libraries look for a model, then for an adapter.
_MODELS = (
    "model.safetensors",
    "model.safetensors.index.json",
    "pytorch_model.bin",
    "pytorch_model.bin.index.json",
    "adapter_model.safetensors",
    "adapter_model.bin",
)
_INDEX = ".index.json"
_WEIGHTS = (".safetensors", ".bin", ".pt", ".pth", ".ckpt", ".gguf", ".h5")
_LEGACY_TORCH = bytes.fromhex("80028a0a6cfc9c46f9206aa85019")


@dataclass(frozen=True, slots=True)
class OpenCheckpoint:
    """A checkpoint whose files are open; a context manager that closes them.

    Plain data (`dataclasses.asdict` and `checkpoint_from_json`), so that a child process which
    inherits the descriptors can take over.

    Attributes:
        path: What the user named.
        kind: The form of its files. ``grokscope`` is safetensors with optimiser state.
        files: Those that hold tensors.
        weight_map: Tensor to name of the file, where an index says so; else None.
        tensors_sha256: What the one file must digest to, of a grokscope checkpoint; else empty.
        step: Optimiser steps taken, of a grokscope checkpoint; else None.
        query_heads: Attention heads that the model's configuration names, or None.
        key_value_heads: Key and value heads, where they are fewer; or None.
        notes: What else was found, in sentences.
    """

    path: str
    kind: Kind
    files: tuple[OpenFile, ...]
    weight_map: dict[str, str] | None = None
    tensors_sha256: str = ""
    step: int | None = None
    query_heads: int | None = None
    key_value_heads: int | None = None
    notes: tuple[str, ...] = field(default=())

    @property
    def descriptors(self) -> tuple[int, ...]:
        """What a child process must inherit to read the tensors."""
        return tuple(file.descriptor for file in self.files)

    def close(self) -> None:
        """Close the files; once."""
        for file in self.files:
            os.close(file.descriptor)

    def __enter__(self) -> Self:
        """Return the checkpoint."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Close the files."""
        self.close()


def checkpoint_from_json(data: dict[str, Any]) -> OpenCheckpoint:
    """Build a checkpoint from what `dataclasses.asdict` made of one, via JSON or not."""
    files = tuple(OpenFile(**file) for file in data["files"])
    return OpenCheckpoint(**{**data, "files": files, "notes": tuple(data["notes"])})


def open_checkpoint(
    path: str | Path, *, follow_symlinks: bool = False, limits: Limits | None = None
) -> OpenCheckpoint:
    """Open a checkpoint: one file, a Hugging Face folder, or one checkpoint folder of grokscope.

    Only the first bytes of the tensor files are read; JSON files beside them are read whole.

    Args:
        path: A safetensors file, a torch file, a Hugging Face folder or its index file, or a folder
            ``step-...`` of a grokscope run.
        follow_symlinks: Whether the path and the files in the folder may be symbolic links, as they
            are in the cache of the Hugging Face hub.
        limits: Caps on the number of files and the size of JSON files.

    Returns:
        The open files; the caller closes them.

    Raises:
        InputError: There is nothing of that name, it is no checkpoint, its form is one that cannot
            be read safely, or a part of it is missing.
    """
    opening = _Opening(Path(path), follow_symlinks, limits or Limits())
    try:
        return opening.checkpoint()
    except BaseException:
        opening.close_files()
        raise
    finally:
        opening.close_folder()


def sniff(file: OpenFile) -> Literal["safetensors", "torch"]:
    """Tell the form of a file by its first bytes.

    Raises:
        InputError: A form that cannot be read safely, or none that is known.
    """
    head = file.read(0, min(file.size, 16))
    convert = "Convert it to safetensors, or save it anew with torch.save."
    for magic, what in (
        (_LEGACY_TORCH, "it is a legacy torch file (before torch 1.6), whose pickle is not safe"),
        (b"\x93NUMPY", "it is a numpy array, not a checkpoint"),
        (b"GGUF", "it is a GGUF file, whose weights are quantised"),
        (b"\x89HDF\r\n\x1a\n", "it is an HDF5 file, which is not supported"),
    ):
        if head.startswith(magic):
            raise refused(file.name, what, convert)
    if head.startswith(b"PK"):
        return "torch"
    # Before pickles: their first bytes could also be the length of a header.
    if head[8:9] == b"{":
        return "safetensors"
    if head[:1] == b"\x80" and head[1:2] in (b"\x02", b"\x03", b"\x04", b"\x05"):
        raise refused(file.name, "it is a raw pickle, which can run code", convert)
    if len(head) >= 8 and int.from_bytes(head[:8], "little") <= file.size - 8:
        return "safetensors"
    if head.lstrip()[:1] == b"{":
        raise refused(
            file.name,
            "it is JSON without a weight_map",
            "Name the index of a sharded checkpoint, or a file with tensors.",
        )
    raise refused(file.name, "it is no known form of checkpoint", convert)


class _Opening:
    """What is open while a checkpoint is opened."""

    def __init__(self, path: Path, follow_symlinks: bool, limits: Limits) -> None:
        self._path = path
        self._follow = follow_symlinks
        self._limits = limits
        self._folder: int | None = None
        self._files: list[OpenFile] = []
        self._notes: list[str] = []

    def close_files(self) -> None:
        for file in self._files:
            os.close(file.descriptor)

    def close_folder(self) -> None:
        if self._folder is not None:
            os.close(self._folder)

    def checkpoint(self) -> OpenCheckpoint:
        descriptor, status = open_path(self._path, follow_symlinks=self._follow)
        if stat.S_ISDIR(status.st_mode):
            self._folder = descriptor
            return self._in_folder()
        file = regular_file(str(self._path), descriptor, status)
        self._files.append(file)
        if file.read(0, 1) == b"{" and self._path.name.endswith(_INDEX):
            self._files.remove(file)
            os.close(descriptor)
            index, self._path = self._path.name, self._path.parent
            # The folder is the user's own word, as every part of a path but its last is.
            self._folder, _ = open_path(self._path, follow_symlinks=True)
            return self._hugging_face(index, sorted(os.listdir(self._folder)))
        return OpenCheckpoint(str(self._path), sniff(file), (file,))

    def _in_folder(self) -> OpenCheckpoint:
        assert self._folder is not None
        names = sorted(os.listdir(self._folder))
        if _STATE in names and "tensors.safetensors" in names:
            return self._grokscope()
        indices = [name for name in names if name.endswith(_INDEX)]
        found = [name for name in _MODELS if name in names]
        if not found and len(indices) == 1:
            found = indices
        if found:
            return self._hugging_face(found[0], names)
        weights = [name for name in names if name.endswith(_WEIGHTS)] + indices
        if ".metadata" in names or any(name.endswith(".distcp") for name in names):
            raise refused(
                str(self._path),
                "it is a distributed checkpoint, whose .metadata is a pickle that can run code",
                "Convert it with torch.distributed.checkpoint.format_utils where it was made.",
            )
        raise refused(
            str(self._path),
            "the folder holds no checkpoint under a name that is known",
            f"Name one of its files: {listed(weights)}." if weights else "Check the name.",
        )

    def _grokscope(self) -> OpenCheckpoint:
        sealed = self._json(_STATE)
        head, newline, rest = sealed.partition(b"\n")
        digest = hashlib.sha256(newline + rest).hexdigest()
        state_name = str(self._path / _STATE)
        if head != b'{"sha256": "' + digest.encode() + b'",':
            raise refused(state_name, "it does not match its digest", "Use another checkpoint.")
        state = self._parsed(_STATE, sealed)
        step, tensors_sha256 = state.get("step"), state.get("tensors_sha256")
        if state.get("format") != FORMAT or type(step) is not int or step < 0:
            raise refused(
                state_name,
                f"it is of checkpoint format {shown(state.get('format'))}, not {FORMAT}",
                "Use the version of grokscope that run.json names.",
            )
        if not isinstance(tensors_sha256, str):
            raise refused(state_name, "it has no digest of the tensors", "Use another checkpoint.")
        file = self._open("tensors.safetensors")
        if sniff(file) != "safetensors":
            raise refused(file.name, "it is no safetensors file", "Use another checkpoint.")
        return OpenCheckpoint(
            str(self._path), "grokscope", (file,), tensors_sha256=tensors_sha256, step=step
        )

    def _hugging_face(self, name: str, names: Sequence[str]) -> OpenCheckpoint:
        weight_map = self._weight_map(name) if name.endswith(_INDEX) else None
        shards = sorted(set(weight_map.values())) if weight_map is not None else [name]
        missing = [shard for shard in shards if shard not in names]
        if missing:
            raise refused(
                str(self._path / name),
                f"it names files that are not in its folder: {listed(missing)}",
                "Fetch the missing files.",
            )
        if len(shards) > self._limits.files:
            what = f"it names {len(shards)} files, above the limit of {self._limits.files}"
            raise refused(str(self._path / name), above(what, self._limits, "files", len(shards)))
        kinds = {sniff(self._open(shard)) for shard in shards}
        if len(kinds) != 1:
            raise refused(str(self._path / name), "the files that it names are of several forms")
        rest = [n for n in names if n.endswith(_WEIGHTS) and n not in shards]
        if rest:
            self._notes.append(f"Not looked at: {listed(rest)}.")
        query_heads, key_value_heads = self._heads() if _CONFIG in names else (None, None)
        return OpenCheckpoint(
            str(self._path),
            kinds.pop(),
            tuple(self._files),
            weight_map=weight_map,
            query_heads=query_heads,
            key_value_heads=key_value_heads,
            notes=tuple(self._notes),
        )

    def _weight_map(self, name: str) -> dict[str, str]:
        weight_map = self._parsed(name, self._json(name)).get("weight_map")
        where = str(self._path / name)
        if not isinstance(weight_map, dict) or not weight_map:
            raise refused(where, "it has no weight_map")
        if len(weight_map) > self._limits.tensors:
            what = f"it names more than {self._limits.tensors} tensors"
            raise refused(where, above(what, self._limits, "tensors", len(weight_map)))
        for shard in weight_map.values():
            if not isinstance(shard, str) or not _plain(shard):
                raise refused(where, f"{shown(shard)} is not the name of a file in its folder")
        return weight_map

    def _heads(self) -> tuple[int | None, int | None]:
        """Read the numbers of attention heads; a damaged configuration costs only them."""
        try:
            config = self._parsed(_CONFIG, self._json(_CONFIG))
        except InputError as error:
            self._notes.append(f"The number of attention heads is not known. {error}")
            return None, None
        query = config.get("num_attention_heads", config.get("n_head"))
        key_value = config.get("num_key_value_heads")
        return _count(query), _count(key_value)

    def _open(self, name: str) -> OpenFile:
        """Open a file of the folder that holds tensors."""
        descriptor, status = open_path(name, follow_symlinks=self._follow, folder=self._folder)
        file = regular_file(str(self._path / name), descriptor, status)
        self._files.append(file)
        return file

    def _json(self, name: str) -> bytes:
        """Read a small file of the folder whole, and close it."""
        descriptor, status = open_path(name, follow_symlinks=self._follow, folder=self._folder)
        file = regular_file(str(self._path / name), descriptor, status)
        try:
            if file.size > self._limits.header_bytes:
                what = f"it is larger than the limit of {self._limits.header_bytes} bytes"
                raise refused(file.name, above(what, self._limits, "header_bytes", file.size))
            return file.read(0, file.size)
        finally:
            os.close(descriptor)

    def _parsed(self, name: str, data: bytes) -> dict[str, Any]:
        try:
            parsed = parse_json(data)
        except ValueError as error:
            raise refused(str(self._path / name), f"it is not valid JSON ({error})") from None
        if not isinstance(parsed, dict):
            raise refused(str(self._path / name), "it is not a JSON object")
        return parsed


def _plain(name: str) -> bool:
    """Whether a name stays inside its folder, on any system."""
    return (
        0 < len(name) <= 255
        and name not in (".", "..")
        and not set(name) & set("/\\:\0")
        and name.isprintable()
    )


def _count(value: Any) -> int | None:
    return value if type(value) is int and 0 < value < 2**31 else None
