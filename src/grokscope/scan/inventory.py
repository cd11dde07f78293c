"""The tensors of a checkpoint, whatever its form, and their numbers one tensor at a time."""

from __future__ import annotations

import dataclasses
import hashlib
import os
from collections.abc import Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

import grokscope.scan.safetensors_file as safetensors_file
from grokscope.scan.entry import TensorEntry, digest_of
from grokscope.scan.files import Kind, OpenCheckpoint
from grokscope.scan.limits import Limits
from grokscope.scan.open_file import OpenFile, above, listed, refused, shown

if TYPE_CHECKING:
    from torch import Tensor

    from grokscope.scan.torch_file import TorchFile

_NETWORK = "model."  # what a grokscope checkpoint puts before the names of parameters


@dataclass(frozen=True)
class Inventory:
    """What a checkpoint holds; plain data (`dataclasses.asdict` and `inventory_from_json`).

    Attributes:
        path: What the user named.
        kind: The form of its files.
        files: Its files, open.
        entries: Its tensors, in order of their names.
        notes: What was not looked at, and why, in sentences.
        limits: Caps under which it was read.
        key: The dictionary of a torch file that was asked for; empty for the likeliest.
        allow_globals: What the pickle of a torch file was allowed to name.
    """

    path: str
    kind: Kind
    files: tuple[OpenFile, ...]
    entries: tuple[TensorEntry, ...]
    notes: tuple[str, ...] = ()
    limits: Limits = field(default_factory=Limits)
    key: str = ""
    allow_globals: tuple[str, ...] = ()

    @cached_property
    def _mapped(self) -> dict[int, TorchFile]:
        """Torch files that were mapped in this process so far."""
        return {}


def inventory_from_json(data: dict[str, Any]) -> Inventory:
    """Build an inventory from what `dataclasses.asdict` made of one, via JSON or not."""
    return Inventory(
        **{
            **data,
            "files": tuple(OpenFile(**file) for file in data["files"]),
            "entries": tuple(
                TensorEntry(**{**entry, "shape": tuple(entry["shape"])})
                for entry in data["entries"]
            ),
            "notes": tuple(data["notes"]),
            "limits": Limits(**data["limits"]),
            "allow_globals": tuple(data["allow_globals"]),
        }
    )


def read_inventory(
    checkpoint: OpenCheckpoint,
    limits: Limits,
    *,
    key: str = "",
    allow_globals: Sequence[str] = (),
) -> Inventory:
    """Check every file of a checkpoint and list its tensors.

    Of a grokscope checkpoint only the network's tensors are listed, without the ``model.`` that
    stands before their names there.

    Args:
        checkpoint: Its open files.
        limits: Caps on everything.
        key: Path of the dictionary to take from a torch file, keys joined by dots.
        allow_globals: Some of `limits.ALLOWABLE_GLOBALS`.

    Returns:
        At least one tensor.

    Raises:
        InputError: A file is damaged, hostile, above a cap, or has no tensors.
        UsageError: ``key`` names nothing in a torch file.
        ValueError: ``allow_globals`` names something else.
    """
    if checkpoint.tensors_sha256:
        _check_digest(checkpoint.files[0], checkpoint.tensors_sha256)
    entries: list[TensorEntry] = []
    notes = list(checkpoint.notes)
    for index, file in enumerate(checkpoint.files):
        if checkpoint.kind == "torch":
            from grokscope.scan.torch_file import read_torch

            content = read_torch(file, limits, index=index, key=key, allow_globals=allow_globals)
            entries += content.entries
            notes += content.notes
        else:
            entries += safetensors_file.read_header(file, limits, index=index)
        if len(entries) > limits.tensors:
            what = f"it has more than {limits.tensors} tensors"
            raise refused(checkpoint.path, above(what, limits, "tensors", len(entries)))
    _check_names(checkpoint, entries, notes)
    if checkpoint.kind == "grokscope":
        rest = [entry.name for entry in entries if not entry.name.startswith(_NETWORK)]
        if rest:
            notes.append(f"Optimiser state, not looked at: {listed(rest)}.")
        entries = [
            dataclasses.replace(entry, name=entry.name.removeprefix(_NETWORK))
            for entry in entries
            if entry.name.startswith(_NETWORK)
        ]
    if not entries:
        raise refused(checkpoint.path, "it holds no tensors of a network")
    return Inventory(
        path=checkpoint.path,
        kind=checkpoint.kind,
        files=checkpoint.files,
        entries=tuple(sorted(entries, key=lambda entry: entry.name)),
        notes=tuple(notes),
        limits=limits,
        key=key,
        allow_globals=tuple(allow_globals),
    )


def load_tensor(inventory: Inventory, entry: TensorEntry) -> Tensor:
    """Read one tensor.

    Args:
        inventory: Of this process or, by way of JSON, of one that had the same descriptors.
        entry: One of its entries that is available.

    Returns:
        The tensor in its own dtype, on the CPU. Of a torch file it is a view of the file, which is
        not to be written to; `release` gives its memory back.

    Raises:
        InputError: The file was changed meanwhile, or the disk fails.
        MissingResource: The memory does not hold it.
        ValueError: The entry is unavailable.
    """
    if inventory.kind == "torch" and not entry.unavailable:
        return _torch_tensor(inventory, entry)[0]
    return safetensors_file.read_tensor(inventory.files[entry.file], entry)


def digest(inventory: Inventory, entry: TensorEntry) -> str:
    """Return the SHA-256 of a tensor's dtype, shape and bytes, equal for all forms of file.

    Torch is not needed for a safetensors file. Arguments and errors as `load_tensor`.
    """
    if inventory.kind == "torch" and not entry.unavailable:
        from grokscope.scan.torch_file import chunks, release

        tensor, file = _torch_tensor(inventory, entry)
        result = digest_of(entry.dtype, entry.shape, chunks(tensor))
        release(tensor, file)
        return result
    return safetensors_file.digest(inventory.files[entry.file], entry)


def release(inventory: Inventory, entry: TensorEntry) -> None:
    """Give back the memory of a tensor that was loaded, once neither it nor a view is in use.

    Only tensors of torch files hold any; another `load_tensor` finds them again.
    """
    if inventory.kind == "torch" and not entry.unavailable:
        from grokscope.scan.torch_file import release

        release(*_torch_tensor(inventory, entry))


def _torch_tensor(inventory: Inventory, entry: TensorEntry) -> tuple[Tensor, TorchFile]:
    from grokscope.scan.torch_file import read_torch

    file = inventory.files[entry.file]
    if entry.file not in inventory._mapped:
        inventory._mapped[entry.file] = read_torch(
            file,
            inventory.limits,
            index=entry.file,
            key=inventory.key,
            allow_globals=inventory.allow_globals,
            checksums=False,  # they were right when the inventory was read
        )
    content = inventory._mapped[entry.file]
    tensor = content.tensors.get(entry.name)
    if tensor is None or tensor.shape != entry.shape:
        raise refused(file.name, f"tensor {shown(entry.name)} was changed while it was read")
    return tensor, content


def _check_digest(file: OpenFile, expected: str) -> None:
    digest = hashlib.sha256()
    for chunk in file.chunks(0, file.size):
        digest.update(chunk)
    if digest.hexdigest() != expected:
        raise refused(file.name, "it does not match its digest", "Use another checkpoint.")


def _check_names(
    checkpoint: OpenCheckpoint, entries: Sequence[TensorEntry], notes: list[str]
) -> None:
    """Refuse names that two files hold, and an index that does not agree with its files."""
    holders: dict[str, str] = {}
    for entry in entries:
        holder = os.path.basename(checkpoint.files[entry.file].name)
        if entry.name in holders:
            raise refused(checkpoint.path, f"two files hold a tensor {shown(entry.name)}")
        holders[entry.name] = holder
    weight_map = checkpoint.weight_map
    if weight_map is None:
        return
    wrong = [name for name, shard in weight_map.items() if holders.get(name) != shard]
    if wrong:
        raise refused(
            checkpoint.path, f"its index names tensors that its files do not hold: {listed(wrong)}"
        )
    unknown = [name for name in holders if name not in weight_map]
    if unknown:
        notes.append(f"Tensors that the index does not name: {listed(unknown)}.")
