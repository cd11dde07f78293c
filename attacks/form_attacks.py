"""Files of forms that cannot be read safely, whatever their names say."""

from __future__ import annotations

import gzip
import io
import os
import pickle
from pathlib import Path

import numpy as np
import torch
from registry import MARKER, refused
from safetensors_attacks import one


class Payload:
    """Unpickled, it makes a folder: the proof that code has run."""

    def __init__(self, folder: Path) -> None:
        """Choose where."""
        self._marker = str(folder / MARKER)

    def __reduce__(self) -> tuple[object, tuple[str]]:
        """Tell the unpickler to call ``os.mkdir``."""
        return os.mkdir, (self._marker,)


@refused("legacy torch file")
def legacy_torch(folder: Path) -> bytes:
    """The stream of pickles that torch wrote before version 1.6."""
    buffer = io.BytesIO()
    content = {"a": torch.ones(2), "b": Payload(folder)}
    torch.save(content, buffer, _use_new_zipfile_serialization=False)
    return buffer.getvalue()


@refused("raw pickle")
def raw_pickle(folder: Path) -> bytes:
    """A pickle that runs code."""
    return pickle.dumps(Payload(folder), protocol=2)


@refused("raw pickle")
def raw_pickle_4(folder: Path) -> bytes:
    """The same in protocol 4, whose frame looks like the length of a header."""
    return pickle.dumps(Payload(folder), protocol=4) + bytes(100)


@refused("no known form")
def raw_pickle_0(folder: Path) -> bytes:
    """The same in plain text."""
    return pickle.dumps(Payload(folder), protocol=0)


@refused("numpy array")
def numpy_array(folder: Path) -> bytes:
    """A numpy array of objects, which is a pickle."""
    buffer = io.BytesIO()
    np.save(buffer, np.array([Payload(folder)], dtype=object))
    return buffer.getvalue()


@refused("without data.pkl")
def numpy_archive(folder: Path) -> bytes:
    """A zip archive, but of numpy arrays."""
    buffer = io.BytesIO()
    np.savez(buffer, a=np.ones(3), b=np.array([Payload(folder)], dtype=object))
    return buffer.getvalue()


@refused("GGUF")
def gguf(_: Path) -> bytes:
    """A file of llama.cpp."""
    return b"GGUF" + (3).to_bytes(4, "little") + bytes(100)


@refused("HDF5")
def hdf5(_: Path) -> bytes:
    """A file of Keras."""
    return b"\x89HDF\r\n\x1a\n" + bytes(100)


@refused("weight_map")
def plain_json(_: Path) -> bytes:
    """JSON that is no index."""
    return b'{"hidden_size": 768}'


@refused("no known form")
def compressed_safetensors(_: Path) -> bytes:
    """A good file, compressed."""
    return gzip.compress(one())


@refused("no known form")
def text(_: Path) -> bytes:
    """The page of an error instead of a file; or a pointer of Git LFS."""
    return b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n"
