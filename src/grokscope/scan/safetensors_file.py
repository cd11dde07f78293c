"""Safetensors files, checked byte by byte before anything is believed.

Stricter than the package of that name, which accepts duplicate keys, blanks before the header and
headers of 100 MB. The format has no checksum: damage to the numbers themselves goes unnoticed.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from grokscope.errors import MissingResource
from grokscope.scan.entry import TensorEntry, digest_of, dtype_unavailable
from grokscope.scan.limits import Limits
from grokscope.scan.open_file import OpenFile, above, parse_json, refused, shown

if TYPE_CHECKING:
    from torch import Tensor

_MOST = 2**63 - 1

# Format's name: torch's name, bits per element.
_DTYPES = {
    "BOOL": ("bool", 8),
    "U8": ("uint8", 8),
    "U16": ("uint16", 16),
    "U32": ("uint32", 32),
    "U64": ("uint64", 64),
    "I8": ("int8", 8),
    "I16": ("int16", 16),
    "I32": ("int32", 32),
    "I64": ("int64", 64),
    "F16": ("float16", 16),
    "BF16": ("bfloat16", 16),
    "F32": ("float32", 32),
    "F64": ("float64", 64),
    "C64": ("complex64", 64),
    "F8_E4M3": ("float8_e4m3fn", 8),
    "F8_E4M3FNUZ": ("float8_e4m3fnuz", 8),
    "F8_E5M2": ("float8_e5m2", 8),
    "F8_E5M2FNUZ": ("float8_e5m2fnuz", 8),
    "F8_E8M0": ("float8_e8m0fnu", 8),
    "F6_E2M3": ("float6_e2m3", 6),
    "F6_E3M2": ("float6_e3m2", 6),
    "F4": ("float4_e2m1", 4),
}


def read_header(file: OpenFile, limits: Limits, *, index: int = 0) -> list[TensorEntry]:
    """Check the structure of a safetensors file and list its tensors.

    The tensors must tile the data exactly: no overlap, no hole, nothing behind the last. A tensor
    of an unknown dtype is listed as unavailable, since its size cannot be checked.

    Source: the format's README (github.com/huggingface/safetensors).

    Args:
        file: Its bytes.
        limits: Caps on header, names, ranks and number of tensors.
        index: Which file of the checkpoint this is.

    Returns:
        The tensors in order of their bytes; may be empty.

    Raises:
        InputError: Anything that is not exactly as the format says, or above a cap.
    """
    if file.size < 8:
        raise refused(file.name, "it is too short for a safetensors file")
    length = int.from_bytes(file.read(0, 8), "little")
    if length > file.size - 8:
        raise refused(
            file.name, f"its header length ({length}) reaches beyond its end; it may be cut short"
        )
    if length > limits.header_bytes:
        what = f"its header length ({length}) is above the limit of {limits.header_bytes}"
        raise refused(file.name, above(what, limits, "header_bytes", length))
    data = file.read(8, length)
    if not data.startswith(b"{"):
        raise refused(file.name, "its header does not begin with '{'")
    try:
        header = parse_json(data)
    except ValueError as error:
        raise refused(file.name, f"its header is not valid JSON ({error})") from None
    try:
        _check_metadata(header.pop("__metadata__", {}))
        if len(header) > limits.tensors:
            what = f"it has more than {limits.tensors} tensors"
            raise above(what, limits, "tensors", len(header))
        entries = [
            _entry(name, info, index, 8 + length, file.size, limits)
            for name, info in header.items()
        ]
        entries.sort(key=lambda entry: (entry.begin, entry.end, entry.name))
        _check_tiling(entries, 8 + length, file.size)
    except ValueError as error:
        raise refused(file.name, error) from None
    return entries


def read_tensor(file: OpenFile, entry: TensorEntry) -> Tensor:
    """Read one tensor, holding nothing but itself.

    Args:
        file: Which holds it.
        entry: One that is available, of that file.

    Returns:
        A new tensor of the entry's dtype and shape, on the CPU.

    Raises:
        InputError: The file has become shorter, or the disk fails.
        MissingResource: The memory does not hold it.
        ValueError: The entry is unavailable.
    """
    import torch

    if entry.unavailable:
        raise ValueError(f"read_tensor: {entry.name!r} is unavailable: {entry.unavailable}.")
    try:
        tensor = torch.empty(entry.shape, dtype=getattr(torch, entry.dtype))
    except (RuntimeError, MemoryError):
        raise MissingResource(
            f"There is no memory for tensor {shown(entry.name)} of {file.name} "
            f"({entry.end - entry.begin} bytes). Allow more, or leave it out of the scan."
        ) from None
    if tensor.numel():
        file.read_into(entry.begin, tensor.view(-1).view(torch.uint8).numpy().data)
    return tensor


def digest(file: OpenFile, entry: TensorEntry) -> str:
    """Return the SHA-256 of a tensor's dtype, shape and bytes.

    Raises:
        InputError: The file has become shorter, or the disk fails.
    """
    return digest_of(entry.dtype, entry.shape, file.chunks(entry.begin, entry.end))


def check_name(name: str, limits: Limits) -> None:
    """Refuse a tensor's name that is too long or no text.

    Raises:
        ValueError: With a clause that says so.
    """
    if len(name) > limits.name_length:
        what = f"the name {shown(name)} of a tensor is longer than {limits.name_length} characters"
        raise above(what, limits, "name_length", len(name))
    try:
        name.encode()
    except UnicodeEncodeError:
        raise ValueError(f"the name {shown(name)} of a tensor is not valid Unicode") from None


def _check_metadata(metadata: Any) -> None:
    if not isinstance(metadata, dict) or not all(isinstance(v, str) for v in metadata.values()):
        raise ValueError("the metadata in its header are not text")
    for value in metadata.values():
        value.encode()  # half a surrogate pair is no text either


def _entry(name: str, info: Any, index: int, start: int, size: int, limits: Limits) -> TensorEntry:
    """Check what the header says of one tensor whose data begin at ``start`` of the file."""
    check_name(name, limits)
    if not isinstance(info, dict) or info.keys() != {"dtype", "shape", "data_offsets"}:
        raise ValueError(f"tensor {shown(name)} is not described by dtype, shape, data_offsets")
    dtype, shape, offsets = info["dtype"], info["shape"], info["data_offsets"]
    if not isinstance(dtype, str) or not _whole(shape) or not _whole(offsets) or len(offsets) != 2:
        raise ValueError(f"dtype, shape or data_offsets of tensor {shown(name)} are malformed")
    if len(shape) > limits.rank:
        what = f"tensor {shown(name)} has rank {len(shape)}, above {limits.rank}"
        raise above(what, limits, "rank", len(shape))
    begin, end = offsets
    if not begin <= end <= size - start:
        raise ValueError(f"the data_offsets of tensor {shown(name)} are outside the file")
    known = _DTYPES.get(dtype)
    if known is None:
        reason = f"unknown dtype {shown(dtype)}"
        return TensorEntry(name, "unknown", tuple(shape), index, start + begin, start + end, reason)
    spelling, bits = known
    # Without the zeros: what a library multiplies before it meets the zero must fit as well.
    if math.prod(side for side in shape if side) * bits > _MOST:
        raise ValueError(f"the shape of tensor {shown(name)} overflows")
    if math.prod(shape) * bits != (end - begin) * 8:
        raise ValueError(f"the shape of tensor {shown(name)} does not fit its data_offsets")
    reason = dtype_unavailable(spelling)
    return TensorEntry(name, spelling, tuple(shape), index, start + begin, start + end, reason)


def _whole(value: Any) -> bool:
    """Whether this is a list of integers from 0 on (True is none)."""
    return isinstance(value, list) and all(type(n) is int and n >= 0 for n in value)


def _check_tiling(entries: list[TensorEntry], start: int, size: int) -> None:
    position = start
    for entry in entries:
        if entry.begin < position:
            raise ValueError(f"tensor {shown(entry.name)} overlaps another")
        if entry.begin > position:
            raise ValueError(f"there is a hole before tensor {shown(entry.name)}")
        position = entry.end
    if position != size:
        raise ValueError(f"{size - position} bytes follow the last tensor")
