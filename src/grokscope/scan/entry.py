"""What is known of a tensor in a file before any of its numbers is read."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass

_READABLE = frozenset(
    ["bool", "uint8", "uint16", "uint32", "uint64", "int8", "int16", "int32", "int64"]
) | {"float16", "bfloat16", "float32", "float64"}


@dataclass(frozen=True, slots=True)
class TensorEntry:
    """One tensor of a checkpoint.

    Attributes:
        name: As the file has it: any text that is valid Unicode, control characters included.
        dtype: As torch spells it, without ``torch.``: ``"float32"``.
        shape: Its dimensions.
        file: Which of the files of the checkpoint holds it.
        begin: First byte in that file; 0 in a torch file, where torch finds the bytes.
        end: One past the last byte; 0 likewise.
        unavailable: Why its numbers cannot be read; empty if they can.
        same_as: The first tensor, in order of names, that is the same memory of a torch file.
    """

    name: str
    dtype: str
    shape: tuple[int, ...]
    file: int = 0
    begin: int = 0
    end: int = 0
    unavailable: str = ""
    same_as: str = ""


def dtype_unavailable(dtype: str) -> str:
    """Say why tensors of a dtype are not read; empty if they are."""
    if dtype in _READABLE:
        return ""
    if dtype.startswith("complex"):
        return f"complex numbers ({dtype})"
    if dtype.startswith(("float8", "float6", "float4")):
        return f"{dtype} numbers mean nothing without the scales kept beside them"
    if dtype.startswith(("qint", "quint")):
        return f"quantised ({dtype})"
    return f"unknown dtype {dtype}"


def digest_of(dtype: str, shape: tuple[int, ...], chunks: Iterable[memoryview]) -> str:
    """Return the SHA-256 of a tensor: its dtype, shape and bytes in C order, whatever its file."""
    digest = hashlib.sha256(f"{dtype} {list(shape)}\n".encode())
    for chunk in chunks:
        digest.update(chunk)
    return digest.hexdigest()
