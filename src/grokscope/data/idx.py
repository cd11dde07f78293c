"""The IDX format of the original MNIST files: a header of sizes, then one byte a value."""

from __future__ import annotations

import gzip
import math
import zlib
from pathlib import Path
from typing import BinaryIO

import numpy as np
from numpy.typing import NDArray

from grokscope.errors import InputError

_GZIP = b"\x1f\x8b"
_UNSIGNED_BYTE = 0x08
# Deflate cannot shrink by more than this; a header that claims more lies.
_MAX_RATIO = 1032


def read_idx(path: Path, axes: int) -> NDArray[np.uint8]:
    """Read an IDX file of unsigned bytes, plain or compressed with gzip.

    Which of both it is is told from its content. The sizes in the header are checked against the
    size of the file before anything is read by them.

    Args:
        path: The file.
        axes: Number of axes that it must have: 1 for labels, 3 for images.

    Returns:
        The values, with as many axes.

    Raises:
        InputError: If the file cannot be read, is no such IDX file, or is damaged.
    """
    try:
        with path.open("rb") as plain:
            size = plain.seek(0, 2)
            plain.seek(0)
            compressed = plain.read(2) == _GZIP
            plain.seek(0)
            if not compressed:
                return _read(path, plain, axes, size)
            with gzip.open(plain) as unpacked:
                return _read(path, unpacked, axes, size * _MAX_RATIO)
    except (EOFError, zlib.error, gzip.BadGzipFile) as error:
        raise InputError(f"{path} is damaged: {error}. Replace it by an intact copy.") from error
    except OSError as error:
        raise InputError(f"{path} cannot be read: {error.strerror or error}.") from error


def _read(path: Path, file: BinaryIO | gzip.GzipFile, axes: int, most: int) -> NDArray[np.uint8]:
    """Read an uncompressed stream that holds ``most`` bytes at the outside."""
    header = file.read(4 + 4 * axes)
    magic = bytes((0, 0, _UNSIGNED_BYTE, axes))
    if header[:4] != magic:
        raise InputError(
            f"{path} is no IDX file of bytes with {axes} axes: expected it to begin with "
            f"{magic.hex()}, got {header[:4].hex() or 'nothing'}."
        )
    if len(header) < 4 + 4 * axes:
        raise InputError(f"{path} is cut short: its header ends after {len(header)} bytes.")
    shape = tuple(int(length) for length in np.frombuffer(header, ">u4", offset=4))
    expected = math.prod(shape)
    claim = f"its header announces {expected:,} values, shape {shape}"
    if len(header) + expected > most:
        raise InputError(f"{path} is damaged: {claim}, more than the file can hold.")
    values = file.read(expected)
    if len(values) < expected:
        raise InputError(f"{path} is cut short: {claim}, got {len(values):,}.")
    if file.read(1):
        raise InputError(f"{path} is damaged: {claim}, and more follow.")
    return np.frombuffer(values, np.uint8).reshape(shape)
