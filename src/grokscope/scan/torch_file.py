"""Torch files (zip archives around a pickle), read without running anything they say.

The archive is checked before torch sees it; torch's reader of weights does the rest, and there is
no other. Tensors are mapped, not copied: what is not looked at costs no memory.
"""

from __future__ import annotations

import ctypes
import importlib
import io
import math
import mmap
import os
import pickletools
import sys
import warnings
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from grokscope.errors import InputError
from grokscope.scan.entry import TensorEntry, dtype_unavailable
from grokscope.scan.limits import ALLOWABLE_GLOBALS, Limits
from grokscope.scan.open_file import OpenFile, above, refused, shown
from grokscope.scan.state_dict import find_state_dict
from grokscope.scan.zip_file import Member, names_in_directory, read_members, verify

# The first release whose weights_only reader is safe (CVE-2026-24747).
_SAFE = "2.10.0"

_CHUNK = 1 << 20
# Views of one storage are read until together they come to so many times its bytes.
_OVERLAP = 4


@dataclass(frozen=True, slots=True)
class TorchFile:
    """A torch file, mapped.

    Attributes:
        entries: The network's tensors, in order of their names.
        tensors: Those of them that are available, by name; views of the file.
        notes: How the network was told from the rest.
        mapping: Where the system maps it.
    """

    entries: list[TensorEntry]
    tensors: dict[str, Tensor]
    notes: list[str]
    mapping: _Mapping


def read_torch(
    file: OpenFile,
    limits: Limits,
    *,
    index: int = 0,
    key: str = "",
    allow_globals: Sequence[str] = (),
    checksums: bool = True,
) -> TorchFile:
    """Check a torch file, map its tensors and choose the network's.

    Args:
        file: Its bytes.
        limits: Caps on its structure.
        index: Which file of the checkpoint this is.
        key: Path of the dictionary to take (`state_dict.find_state_dict`); empty for the likeliest.
        allow_globals: Some of `ALLOWABLE_GLOBALS`.
        checksums: Whether to read the whole file for its CRC-32, which one process need do.

    Returns:
        Its tensors. What cannot be measured (meta, sparse, quantised, complex, more elements than
        bytes, ...) is listed with the reason.

    Raises:
        InputError: Anything else than a sound archive with a network in it.
        UsageError: It keeps nothing under ``key``.
        ValueError: ``allow_globals`` names something else.
    """
    allowed = [pair for name in allow_globals for pair in _allowed(name)]
    if torch.__version__ < _SAFE:
        raise refused(
            file.name,
            f"reading it safely needs torch {_SAFE} or newer, this is {torch.__version__}",
            "Update torch, or convert the file to safetensors.",
        )
    names = names_in_directory(file, limits)
    if any("/code/" in name or name.endswith("/constants.pkl") for name in names):
        raise refused(
            file.name,
            "it is TorchScript, which holds code",
            "Save the state_dict() of the module instead.",
        )
    members = read_members(file, limits)
    prefix = _check_layout(file, members, limits)
    if checksums:
        verify(file, members)
    with torch.serialization.safe_globals(allowed), warnings.catch_warnings():
        warnings.simplefilter("ignore")
        content = _load(file, members, prefix)
        mapping = _Mapping(file, members, prefix)
        try:
            chosen = find_state_dict(content, limits, key=key)
        except ValueError as error:
            raise refused(file.name, error) from None
        entries = _entries(chosen.tensors, index, limits, mapping)
    available = {
        entry.name: chosen.tensors[entry.name].detach()
        for entry in entries
        if not entry.unavailable
    }
    return TorchFile(entries, available, chosen.notes, mapping)


def chunks(tensor: Tensor) -> Iterator[memoryview]:
    """Yield the bytes of a tensor, in C order, in pieces."""
    if tensor.numel():
        # Not view(-1): one that is contiguous may still have any stride where a side is 1.
        flat = tensor.contiguous().as_strided((tensor.numel(),), (1,))
        data = flat.view(torch.uint8).numpy().data
        for begin in range(0, len(data), _CHUNK):
            yield data[begin : begin + _CHUNK]


def release(tensor: Tensor, file: TorchFile) -> None:
    """Give back the memory that a mapped file takes; it is read from disk again when used.

    All of the file, not the tensor alone: the system maps pages in large pieces, and what a piece
    holds of the neighbours would stay. Does nothing where the system does not tell what is mapped.

    Args:
        tensor: One of the file's own, not a copy.
        file: Which maps it.
    """
    storage = tensor.untyped_storage()
    # Only what is certainly the file: the same advice empties ordinary memory for good.
    found = file.mapping.holding(storage.data_ptr(), storage.nbytes())
    if found is not None:
        low, high, _ = found
        libc = ctypes.CDLL(None, use_errno=True)
        libc.madvise(ctypes.c_void_p(low), ctypes.c_size_t(high - low), mmap.MADV_DONTNEED)


def _check_layout(file: OpenFile, members: list[Member], limits: Limits) -> str:
    """Check what the archive holds; return the folder that all its members are in."""
    by_name = {member.name: member for member in members}
    prefixes = {name.partition("/")[0] for name in by_name}
    pickles = [name for name in by_name if name.endswith("/data.pkl")]
    if not pickles:
        raise refused(file.name, "it is a zip archive without data.pkl, not a torch file")
    if len(prefixes) != 1 or pickles != [f"{next(iter(prefixes))}/data.pkl"]:
        raise refused(file.name, "it holds more than one folder or data.pkl")
    prefix = prefixes.pop()
    for name in by_name:
        # Torch takes BYTEORDER for byteorder; what reads otherwise here must not exist.
        inside = name.removeprefix(f"{prefix}/")
        if inside != inside.lower():
            raise refused(file.name, f"its member {shown(name)} has capitals, as torch writes none")
    size = by_name[pickles[0]].size
    if size > limits.pickle_bytes:
        what = f"its data.pkl is above the limit of {limits.pickle_bytes} bytes"
        raise refused(file.name, above(what, limits, "pickle_bytes", size))
    order = by_name.get(f"{prefix}/byteorder")  # older torch wrote none, and little-endian
    if order is not None and file.read(order.begin, min(order.size, 16)) != b"little":
        raise refused(file.name, "its byteorder is not little-endian")
    return prefix


def _load(file: OpenFile, members: list[Member], prefix: str) -> Any:
    """Have torch unpickle the file; the one place where that happens."""
    pickle = next(member for member in members if member.name == f"{prefix}/data.pkl")
    path = _path(file)
    try:
        unsafe = set(torch.serialization.get_unsafe_globals_in_checkpoint(path))
    except Exception as error:
        unsafe = _globals(file.read(pickle.begin, pickle.size))
        if not unsafe:
            raise _unreadable(file, error) from None
    if unsafe:
        raise _asks_for(file, unsafe)
    try:
        return torch.load(path, map_location="cpu", weights_only=True, mmap=True)
    except Exception as error:  # torch lets out whatever garbage makes it raise
        raise _unreadable(file, error) from None


def _asks_for(file: OpenFile, names: set[str]) -> InputError:
    """Build the error for a pickle that names what was not allowed."""
    dangerous = sorted(names.difference(ALLOWABLE_GLOBALS))
    if dangerous:
        return refused(
            file.name,
            f"its pickle asks for {', '.join(map(shown, dangerous[:10]))}, which could run code",
            "Save the state_dict() alone.",
        )
    harmless = sorted(names)
    are, them = ("is", "it") if len(harmless) == 1 else ("are", "them")
    return refused(
        file.name,
        f"it holds {', '.join(harmless)}, which {are} harmless",
        f"Allow {them} with --allow-global {' --allow-global '.join(harmless)}.",
    )


def _unreadable(file: OpenFile, error: Exception) -> InputError:
    # Its own message is not passed on: it advises weights_only=False.
    return refused(file.name, f"its pickle cannot be read ({type(error).__name__})")


def _path(file: OpenFile) -> str:
    """Return a path at which torch can open the very file that was checked."""
    if sys.platform == "linux":
        return f"/proc/self/fd/{file.descriptor}"
    here, there = os.fstat(file.descriptor), os.stat(file.name)
    if (here.st_dev, here.st_ino, here.st_size) != (there.st_dev, there.st_ino, there.st_size):
        raise refused(file.name, "it was replaced while it was read", "Repeat the scan.")
    return file.name


def _globals(pickle: bytes) -> set[str]:
    """Return the globals of a pickle that torch's own list does not understand, best effort."""
    names: set[str] = set()
    strings: list[str] = []
    try:
        for opcode, argument, _ in pickletools.genops(io.BytesIO(pickle)):
            if opcode.name in ("GLOBAL", "INST"):
                names.add(str(argument).replace(" ", "."))
            elif opcode.name == "STACK_GLOBAL":
                names.add(".".join(strings[-2:]))
            elif isinstance(argument, str):
                strings.append(argument)
    except Exception:  # not a pickle from here on
        pass
    return names


def _allowed(name: str) -> list[Callable[..., Any] | tuple[Callable[..., Any], str]]:
    """Return what has to be allowed, with its names, for a global that the user allows."""
    if name not in ALLOWABLE_GLOBALS:
        raise ValueError(f"read_torch: expected a global of {ALLOWABLE_GLOBALS}, got {name!r}.")
    module, _, attribute = name.replace("numpy.core.", "numpy._core.").rpartition(".")
    value = getattr(importlib.import_module(module), attribute)
    pairs: list[Callable[..., Any] | tuple[Callable[..., Any], str]] = [(value, name)]
    if name == "numpy.dtype":  # rebuilt as objects of classes that the pickle does not name
        import numpy as np

        pairs += [(type(np.dtype(c)), f"numpy.dtypes.{c}") for c in "?bhilqBHILQefdgFDGSUMm"]
    return pairs


def _entries(
    tensors: dict[str, Tensor], index: int, limits: Limits, mapping: _Mapping
) -> list[TensorEntry]:
    """Describe the tensors in order of their names.

    Names of the very same numbers point to the first of them. Other views of a storage are tensors
    of their own, as long as those of one storage do not come to more than `_OVERLAP` times its
    bytes: views could name the same bytes without end.
    """
    first: dict[tuple[Any, ...], str] = {}
    owner: dict[int, str] = {}
    used: Counter[int] = Counter()
    entries = []
    for name in sorted(tensors):
        tensor = tensors[name]
        try:
            dtype, shape = str(tensor.dtype).removeprefix("torch."), tuple(map(int, tensor.shape))
            reason = _unavailable(tensor, limits, mapping) or dtype_unavailable(dtype)
        except InputError:
            raise
        except Exception as error:  # what a hostile tensor answers is not known beforehand
            dtype, shape, reason = "unknown", (), f"cannot be described ({type(error).__name__})"
        same_as = ""
        if not reason and tensor.numel():
            storage = tensor.untyped_storage()
            address, size = storage.data_ptr(), tensor.numel() * tensor.itemsize
            where = (tensor.data_ptr(), dtype, shape, tensor.stride())
            if where in first:
                same_as = first[where]
            elif used[address] + size > _OVERLAP * storage.nbytes():
                reason = (
                    f"it shares its storage with {shown(owner[address])} and others, "
                    f"together more than {_OVERLAP} times its bytes"
                )
            else:
                first[where] = name
                owner.setdefault(address, name)
                used[address] += size
        entries.append(TensorEntry(name, dtype, shape, index, unavailable=reason, same_as=same_as))
    return entries


def _unavailable(tensor: Tensor, limits: Limits, mapping: _Mapping) -> str:
    """Say why the numbers of a tensor cannot be read; empty if they can."""
    if tensor.layout != torch.strided:
        return f"sparse ({str(tensor.layout).removeprefix('torch.')})"
    if tensor.is_neg() or tensor.is_conj() or type(tensor) not in (Tensor, torch.nn.Parameter):
        return "a tensor of a special kind"
    if tensor.is_quantized:
        return f"quantised ({str(tensor.dtype).removeprefix('torch.')})"
    if tensor.device.type != "cpu":
        return f"on device {tensor.device.type}: the file does not hold its numbers"
    if tensor.dim() > limits.rank:
        return f"rank {tensor.dim()}, above {limits.rank}; see --limit rank={tensor.dim()}"
    storage = tensor.untyped_storage()
    # Not numel(), which can have overflowed.
    if math.prod(tensor.shape) * tensor.itemsize > storage.nbytes():
        return f"its shape asks for more than the {storage.nbytes()} bytes that it has"
    return mapping.unavailable(storage.data_ptr(), storage.nbytes())


class _Mapping:
    """Where in memory the system maps a file; nowhere, where the system does not tell."""

    def __init__(self, file: OpenFile, members: list[Member], prefix: str) -> None:
        self._file = file
        self._storages = {m.begin: m.size for m in members if m.name.startswith(f"{prefix}/data/")}
        self._ranges: list[tuple[int, int, int]] = []
        if sys.platform == "linux":
            inode = str(os.fstat(file.descriptor).st_ino)
            with open("/proc/self/maps", encoding="utf-8", errors="replace") as maps:
                for line in maps:
                    addresses, _, offset, _, number, *_ = line.split(maxsplit=5)
                    if number == inode:
                        low, _, high = addresses.partition("-")
                        self._ranges.append((int(low, 16), int(high, 16), int(offset, 16)))

    def holding(self, address: int, size: int) -> tuple[int, int, int] | None:
        """Return the range that a storage is in: first address, end, offset in the file."""
        ranges = self._ranges if size else ()
        return next((r for r in ranges if r[0] <= address and address + size <= r[1]), None)

    def unavailable(self, address: int, size: int) -> str:
        """Say why a storage is not one of the file; empty if it is, or if that is not known.

        Raises:
            InputError: It begins as one, but the pickle gives it another size than the archive.
        """
        if not size or not self._ranges:
            return ""
        found = self.holding(address, size)
        if found is None:
            return "its numbers are not in a storage of the file"
        low, _, offset = found
        if self._storages.get(address - low + offset) != size:
            raise refused(
                self._file.name, "one of its storages does not have the size that its pickle says"
            )
        return ""
