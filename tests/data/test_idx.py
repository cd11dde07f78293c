from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from tiny_mnist import idx_bytes

from grokscope.data.idx import read_idx
from grokscope.errors import InputError

LABELS = np.arange(20, dtype=np.uint8)


@settings(deadline=None, max_examples=50)
@given(
    hnp.arrays(np.uint8, hnp.array_shapes(min_dims=1, max_dims=3, min_side=0, max_side=7)),
    st.booleans(),
)
def test_round_trip(tmp_path_factory: pytest.TempPathFactory, a: np.ndarray, packed: bool) -> None:
    path = tmp_path_factory.mktemp("idx") / "file"
    path.write_bytes(gzip.compress(idx_bytes(a)) if packed else idx_bytes(a))
    found = read_idx(path, a.ndim)
    assert found.dtype == np.uint8
    assert found.shape == a.shape
    assert (found == a).all()


def write(tmp_path: Path, content: bytes) -> Path:
    path = tmp_path / "labels"
    path.write_bytes(content)
    return path


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", r"expected it to begin with 00000801, got nothing"),
        (b"<html>", r"expected it to begin with 00000801, got 3c68746d"),
        (bytes([0, 0, 9, 1]) + idx_bytes(LABELS)[4:], r"begin with 00000801, got 00000901"),
        (idx_bytes(LABELS.reshape(4, 5)), r"begin with 00000801, got 00000802"),
        (idx_bytes(LABELS)[:6], r"cut short: its header ends after 6 bytes"),
        (idx_bytes(LABELS)[:-1], r"(cut short|more than the file can hold)"),
        (idx_bytes(LABELS) + b"\0", r"announces 20 values, shape \(20,\), and more follow"),
        (
            bytes([0, 0, 8, 1]) + b"\xff" * 4 + b"\1" * 20,
            r"announces 4,294,967,295 values, shape \(4294967295,\), more than the file can hold",
        ),
    ],
)
def test_damaged_content(tmp_path: Path, content: bytes, message: str, packed: bool) -> None:
    path = write(tmp_path, gzip.compress(content) if packed else content)
    if not packed and not content:
        message = r"got nothing"
    with pytest.raises(InputError, match=message) as caught:
        read_idx(path, 1)
    assert str(path) in str(caught.value)
    assert caught.value.exit_code == 3


def test_sizes_that_overflow_are_not_believed(tmp_path: Path) -> None:
    path = write(tmp_path, bytes([0, 0, 8, 3]) + b"\xff" * 12 + b"\1" * 99)
    with pytest.raises(InputError, match="more than the file can hold"):
        read_idx(path, 3)


def test_damaged_compression(tmp_path: Path) -> None:
    whole = gzip.compress(idx_bytes(LABELS))
    with pytest.raises(InputError, match=r"labels is damaged: .* Replace it by an intact copy"):
        read_idx(write(tmp_path, whole[:-4]), 1)  # cut short
    flipped = bytearray(whole)
    flipped[-6] ^= 1  # the checksum
    with pytest.raises(InputError, match=r"is damaged: CRC check failed"):
        read_idx(write(tmp_path, bytes(flipped)), 1)
    with pytest.raises(InputError, match=r"is damaged: Not a gzipped file"):
        read_idx(write(tmp_path, whole + b"junk"), 1)
    with pytest.raises(InputError, match=r"is damaged: "):
        read_idx(write(tmp_path, whole[:10] + b"\xff" * 20), 1)


@settings(deadline=None, max_examples=200)
@given(st.binary(max_size=60), st.booleans())
def test_any_bytes_are_read_or_refused(
    tmp_path_factory: pytest.TempPathFactory, tail: bytes, packed: bool
) -> None:
    path = tmp_path_factory.getbasetemp() / "any"
    path.write_bytes((b"\x1f\x8b\x08\x00" if packed else bytes([0, 0, 8])) + tail)
    try:
        found = read_idx(path, 1)
    except InputError:
        return
    assert found.size <= len(tail)


def test_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"gone cannot be read: No such file"):
        read_idx(tmp_path / "gone", 1)
    with pytest.raises(InputError, match=r"cannot be read: Is a directory"):
        read_idx(tmp_path, 1)
