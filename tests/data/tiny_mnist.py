"""Small files in the format of MNIST, written independently of the code that reads them."""

from __future__ import annotations

import gzip
from pathlib import Path

import numpy as np


def idx_bytes(values: np.ndarray) -> bytes:
    """Encode as the format is described: two zeros, type, number of axes, sizes, values."""
    header = bytes([0, 0, 8, values.ndim])
    sizes = b"".join(int(length).to_bytes(4, "big") for length in values.shape)
    return header + sizes + values.astype(np.uint8).tobytes()


def write_part(folder: Path, part: str, n: int, *, side: int = 4, compressed: bool = True) -> None:
    """Write images and labels of one part: image i is grey level i % 256, its label i % 10."""
    folder.mkdir(parents=True, exist_ok=True)
    grey = (np.arange(n) % 256)[:, None, None]
    contents = {
        f"{part}-images-idx3-ubyte": np.broadcast_to(grey, (n, side, side)),
        f"{part}-labels-idx1-ubyte": np.arange(n) % 10,
    }
    for stem, values in contents.items():
        if compressed:
            (folder / f"{stem}.gz").write_bytes(gzip.compress(idx_bytes(values)))
        else:
            (folder / stem).write_bytes(idx_bytes(values))
