"""Malformed safetensors files."""

from __future__ import annotations

import json
import struct
from pathlib import Path
from typing import Any

from registry import refused, reported

ONE = {"dtype": "F32", "shape": [1], "data_offsets": [0, 4]}


def safetensors(header: Any, data: bytes = b"") -> bytes:
    """Put a file together; the header is bytes, or is written as JSON."""
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + data


def one(dtype: str = "F32", shape: Any = (1,), offsets: Any = (0, 4), size: int = 4) -> bytes:
    """Put a file of one tensor together."""
    info = {"dtype": dtype, "shape": shape, "data_offsets": offsets}
    return safetensors({"a": info}, bytes(size))


def beside(dtype: str, size: int) -> bytes:
    """Put a file with a good tensor and a bad one of 8 elements together."""
    bad = {"dtype": dtype, "shape": [8], "data_offsets": [4, 4 + size]}
    return safetensors({"good": ONE, "bad": bad}, bytes(4 + size))


def sparse_file(folder: Path, head: bytes, size: int) -> Path:
    """Write a file that is mostly a hole."""
    path = folder / "checkpoint"
    path.write_bytes(head)
    with path.open("r+b") as file:
        file.truncate(size)
    return path


@refused("empty")
def empty_file(_: Path) -> bytes:
    """No bytes at all."""
    return b""


@refused("no known form")
def five_bytes(_: Path) -> bytes:
    """Shorter than the length of a header."""
    return b"\x02\0\0\0\0"


@refused("beyond its end")
def header_length_2_63(_: Path) -> bytes:
    """A header length that is negative as a signed number."""
    return struct.pack("<Q", 2**63) + b"{}"


@refused("beyond its end")
def header_longer_than_file(_: Path) -> bytes:
    """A header that is cut short."""
    return one()[:20]


@refused("above the limit")
def header_of_100_megabytes(folder: Path) -> Path:
    """A header above the cap."""
    return sparse_file(folder, struct.pack("<Q", 100_000_000) + b"{}", 100_000_008)


@refused("begin with '{'")
def blanks_before_header(_: Path) -> bytes:
    """White space before the header, which the format forbids and its package accepts."""
    return safetensors(b"  " + json.dumps({"a": ONE}).encode(), bytes(4))


@refused("begin with '{'")
def header_is_list(_: Path) -> bytes:
    """A header that is not an object."""
    return safetensors(b"[1, 2]")


@refused("begin with '{'")
def header_is_empty(_: Path) -> bytes:
    """A header of no bytes."""
    return safetensors(b"", bytes(8))


@refused("not valid JSON")
def header_is_not_json(_: Path) -> bytes:
    """Braces that never close."""
    return safetensors(b'{"a": ')


@refused("not valid JSON")
def header_is_not_utf8(_: Path) -> bytes:
    """A name in Latin-1."""
    return safetensors(b'{"\xe9": {"dtype":"F32","shape":[1],"data_offsets":[0,4]}}', bytes(4))


@refused("not valid JSON")
def header_is_utf16(_: Path) -> bytes:
    """JSON in an encoding that Python guesses and others refuse."""
    return safetensors(json.dumps({"a": ONE}).encode("utf-16-le"), bytes(4))


@refused("surrogates")
def half_a_surrogate_pair(_: Path) -> bytes:
    """A name that no encoding can write."""
    return safetensors({"\ud800": ONE}, bytes(4))


@refused("surrogates")
def half_a_surrogate_pair_in_metadata(_: Path) -> bytes:
    """Metadata that no encoding can write."""
    return safetensors({"__metadata__": {"a": "\udfff"}, "a": ONE}, bytes(4))


@refused("nested too deeply")
def deeply_nested_header(_: Path) -> bytes:
    """Brackets deeper than a parser's stack."""
    return safetensors(b'{"a": ' + b"[" * 200_000 + b"]" * 200_000 + b"}")


@refused("not JSON")
def not_a_number(_: Path) -> bytes:
    """NaN, which Python accepts as JSON."""
    return safetensors(b'{"a": {"dtype":"F32","shape":[NaN],"data_offsets":[0,4]}}', bytes(4))


@refused("20 digits")
def integer_of_5000_digits(_: Path) -> bytes:
    """A dimension that takes long to convert."""
    digits = b"9" * 5000
    return safetensors(
        b'{"a": {"dtype":"F32","shape":[' + digits + b'],"data_offsets":[0,4]}}', bytes(4)
    )


@refused("same key twice")
def equal_names(_: Path) -> bytes:
    """One name for two tensors; readers keep the first or the last."""
    info = json.dumps(ONE).encode()
    other = info.replace(b"[0, 4]", b"[4, 8]")
    return safetensors(b'{"a": ' + info + b', "a": ' + other + b"}", bytes(8))


@refused("same key twice")
def equal_names_and_offsets(_: Path) -> bytes:
    """The same tensor twice, which the package accepts."""
    info = json.dumps(ONE).encode()
    return safetensors(b'{"a": ' + info + b', "\\u0061": ' + info + b"}", bytes(4))


@refused("same key twice")
def equal_keys_in_metadata(_: Path) -> bytes:
    """Metadata with a key twice."""
    return safetensors(b'{"__metadata__": {"a": "1", "a": "2"}}')


@refused("metadata")
def metadata_with_numbers(_: Path) -> bytes:
    """Metadata that are not text."""
    return safetensors({"__metadata__": {"a": 1}, "a": ONE}, bytes(4))


@refused("not described by")
def no_dtype(_: Path) -> bytes:
    """A tensor without dtype."""
    return safetensors({"a": {"shape": [1], "data_offsets": [0, 4]}}, bytes(4))


@refused("not described by")
def unknown_field(_: Path) -> bytes:
    """A tensor with a field that could change what the others mean."""
    return safetensors({"a": {**ONE, "strides": [0]}}, bytes(4))


@refused("not described by")
def description_is_list(_: Path) -> bytes:
    """A tensor described by position, which the package accepts."""
    return safetensors({"a": ["F32", [1], [0, 4]]}, bytes(4))


@refused("malformed")
def negative_dimension(_: Path) -> bytes:
    """Two negative dimensions whose product is positive."""
    return one(shape=[-1, -1])


@refused("malformed")
def negative_zero_dimension(_: Path) -> bytes:
    """A dimension of -0."""
    return safetensors(b'{"a": {"dtype":"F32","shape":[-0],"data_offsets":[0,0]}}')


@refused("malformed")
def fractional_dimension(_: Path) -> bytes:
    """A dimension of 1.0."""
    return one(shape=[1.0])


@refused("malformed")
def true_dimension(_: Path) -> bytes:
    """A dimension of true, which Python takes for 1."""
    return one(shape=[True])


@refused("malformed")
def three_offsets(_: Path) -> bytes:
    """Three data offsets."""
    return one(offsets=[0, 4, 4])


@refused("malformed")
def dtype_is_number(_: Path) -> bytes:
    """A dtype that is not text."""
    return safetensors({"a": {**ONE, "dtype": 32}}, bytes(4))


@refused("overflows")
def shape_that_overflows(_: Path) -> bytes:
    """A product of dimensions that is 0 in 64 bits."""
    return one(shape=[2**32, 2**32], offsets=[0, 0], size=0)


@refused("overflows")
def huge_dimension_beside_zero(_: Path) -> bytes:
    """No elements, but strides that overflow; the package accepts it."""
    return one(shape=[2**62, 0], offsets=[0, 0], size=0)


@refused("rank 70")
def rank_70(_: Path) -> bytes:
    """More dimensions than any library handles."""
    return one(shape=[1] * 70)


@refused("does not fit")
def shape_larger_than_data(_: Path) -> bytes:
    """A shape that asks for 8 TB out of 4 bytes."""
    return one(shape=[10**6, 2 * 10**6])


@refused("does not fit")
def shape_smaller_than_data(_: Path) -> bytes:
    """Bytes that no element covers."""
    return one(offsets=[0, 8], size=8)


@refused("does not fit")
def half_a_byte(_: Path) -> bytes:
    """Three elements of four bits."""
    return one(dtype="F4", shape=[3], offsets=[0, 1], size=1)


@refused("outside the file")
def offsets_beyond_end(_: Path) -> bytes:
    """Data that the file does not have."""
    return one(size=3)


@refused("outside the file")
def offsets_reversed(_: Path) -> bytes:
    """An end before the beginning."""
    return one(offsets=[4, 0])


@refused("overlaps")
def overlap(_: Path) -> bytes:
    """Two tensors that share bytes."""
    other = {**ONE, "data_offsets": [2, 6]}
    return safetensors({"a": ONE, "b": other}, bytes(6))


@refused("overlaps")
def same_bytes(_: Path) -> bytes:
    """Two tensors of the same bytes: a small file that is many large tensors."""
    return safetensors({"a": ONE, "b": ONE}, bytes(4))


@refused("hole")
def hole(_: Path) -> bytes:
    """Bytes between tensors, which can hide another file."""
    other = {**ONE, "data_offsets": [5, 9]}
    return safetensors({"a": ONE, "b": other}, bytes(9))


@refused("hole")
def hole_before_first(_: Path) -> bytes:
    """Bytes before the first tensor."""
    return one(offsets=[4, 8], size=8)


@refused("follow the last")
def trailing_bytes(_: Path) -> bytes:
    """A zip archive behind the last tensor: two files in one."""
    return one() + b"PK\5\6" + bytes(18)


@refused("longer than")
def long_name(_: Path) -> bytes:
    """A name of a million characters."""
    return safetensors({"a" * 1_000_000: ONE}, bytes(4))


@refused("more than 100000 tensors")
def too_many_tensors(_: Path) -> bytes:
    """A header that takes long and much memory."""
    info = b'{"dtype":"U8","shape":[0],"data_offsets":[0,0]}'
    return safetensors(b"{" + b",".join(b'"%x":%s' % (i, info) for i in range(100_001)) + b"}")


@refused("no tensors")
def no_tensors(_: Path) -> bytes:
    """Nothing to scan."""
    return safetensors({})


@reported("unknown dtype")
def unknown_dtype(_: Path) -> bytes:
    """A dtype that does not exist; its size cannot be checked."""
    return beside("F31<script>", 12)


@reported("scales")
def float8(_: Path) -> bytes:
    """Floats whose scales are kept elsewhere."""
    return beside("F8_E4M3", 8)


@reported("scales")
def float4(_: Path) -> bytes:
    """Two elements in a byte."""
    return beside("F4", 4)


@reported("complex")
def complex64(_: Path) -> bytes:
    """Complex numbers."""
    return beside("C64", 64)
