"""How much of everything, and what at all, a checkpoint may hold before it is refused."""

from __future__ import annotations

from dataclasses import dataclass

ALLOWABLE_GLOBALS = (
    "argparse.Namespace",
    "numpy.core.multiarray._reconstruct",
    "numpy._core.multiarray._reconstruct",
    "numpy.core.multiarray.scalar",
    "numpy._core.multiarray.scalar",
    "numpy.dtype",
    "numpy.ndarray",
    "pathlib.PosixPath",
)
"""What a file may name beyond tensors and plain containers, if the user says so."""


@dataclass(frozen=True, slots=True)
class Limits:
    """Caps on what a file may ask of its reader; each far above what published models need.

    Attributes:
        tensors: Tensors of a checkpoint, over all its files.
        matrices: Matrices that they may be cut into.
        files: Shards of a checkpoint; each holds a descriptor while it is read.
        members: Members of a zip archive.
        header_bytes: The header of a safetensors file, and any JSON file beside it.
        pickle_bytes: The pickle of a torch file, which describes its tensors.
        rank: Dimensions of a tensor.
        nesting: Dictionaries within dictionaries of a torch file.
        name_length: Characters in the name of a tensor.
        parse_seconds: Wall time that reading the inventory may take in a child process.
    """

    tensors: int = 100_000
    matrices: int = 200_000
    files: int = 500
    members: int = 100_000
    header_bytes: int = 10_000_000
    pickle_bytes: int = 50_000_000
    rank: int = 8
    nesting: int = 100
    name_length: int = 512
    parse_seconds: float = 60.0
