"""Folders: Hugging Face's shards and indices, grokscope's checkpoints, and what is no file."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import numpy as np
import torch
from form_attacks import Payload
from registry import refused
from safetensors_attacks import ONE, one, safetensors
from torch_attacks import saved

from grokscope.store.checkpoints import save_checkpoint

INDEX = "model.safetensors.index.json"


def sharded(folder: Path, weight_map: Any, shards: dict[str, bytes] | None = None) -> Path:
    """Write a folder with an index; return it."""
    model = folder / "model"
    model.mkdir()
    text = (
        weight_map
        if isinstance(weight_map, bytes)
        else json.dumps({"weight_map": weight_map}).encode()
    )
    (model / INDEX).write_bytes(text)
    for name, data in (shards or {"one.safetensors": one()}).items():
        (model / name).write_bytes(data)
    return model


@refused("not the name of a file in its folder")
def shard_above_folder(folder: Path) -> Path:
    """A shard outside the folder."""
    (folder / "one.safetensors").write_bytes(one())
    return sharded(folder, {"a": "../one.safetensors"})


@refused("not the name of a file in its folder")
def absolute_shard(folder: Path) -> Path:
    """A shard anywhere."""
    return sharded(folder, {"a": "/etc/passwd"})


@refused("not the name of a file in its folder")
def shard_with_nul(folder: Path) -> Path:
    """A name that ends early for the system."""
    return sharded(folder, {"a": "one.safetensors\0.txt"})


@refused("not the name of a file in its folder")
def shard_is_number(folder: Path) -> Path:
    """A shard that is no text."""
    return sharded(folder, {"a": 1})


@refused("not in its folder")
def shard_missing(folder: Path) -> Path:
    """A shard that was not fetched."""
    return sharded(folder, {"a": "one.safetensors", "b": "two.safetensors"})


@refused("do not hold")
def tensor_missing(folder: Path) -> Path:
    """A tensor that the shard does not have."""
    return sharded(folder, {"a": "one.safetensors", "b": "one.safetensors"})


@refused("two files hold")
def tensor_in_two_shards(folder: Path) -> Path:
    """One name for two tensors."""
    other = safetensors({"a": ONE, "b": {**ONE, "data_offsets": [4, 8]}}, bytes(8))
    return sharded(
        folder,
        {"a": "one.safetensors", "b": "two.safetensors"},
        {"one.safetensors": one(), "two.safetensors": other},
    )


@refused("several forms")
def shards_of_two_forms(folder: Path) -> Path:
    """A torch file among safetensors."""
    return sharded(
        folder,
        {"a": "one.safetensors", "b": "two.safetensors"},
        {"one.safetensors": one(), "two.safetensors": saved({"b": torch.ones(2)})},
    )


@refused("raw pickle")
def pickle_named_safetensors(folder: Path) -> Path:
    """A pickle under a harmless name."""
    import pickle

    return sharded(
        folder, {"a": "one.safetensors"}, {"one.safetensors": pickle.dumps(Payload(folder), 2)}
    )


@refused("above the limit")
def too_many_shards(folder: Path) -> Path:
    """More files than a process may open."""
    names = [f"{i}.safetensors" for i in range(501)]
    return sharded(folder, {name: name for name in names}, dict.fromkeys(names, b""))


@refused("same key twice")
def equal_keys_in_index(folder: Path) -> Path:
    """A tensor with two shards."""
    return sharded(folder, b'{"weight_map": {"a": "one.safetensors", "a": "two.safetensors"}}')


@refused("nested too deeply")
def deeply_nested_index(folder: Path) -> Path:
    """Brackets deeper than a parser's stack."""
    return sharded(folder, b'{"weight_map": ' + b"[" * 200_000)


@refused("no weight_map")
def index_without_map(folder: Path) -> Path:
    """An index of nothing."""
    return sharded(folder, {})


@refused("not a JSON object")
def index_is_list(folder: Path) -> Path:
    """An index that is a list."""
    return sharded(folder, b"[]")


@refused("larger than the limit")
def huge_index(folder: Path) -> Path:
    """An index of 100 GB, mostly a hole."""
    model = sharded(folder, {"a": "one.safetensors"})
    os.truncate(model / INDEX, 100_000_000_000)
    return model


@refused("FIFO")
def fifo(folder: Path) -> Path:
    """A file that nobody writes to: reading it waits for ever."""
    os.mkfifo(folder / "checkpoint")
    return folder / "checkpoint"


@refused("FIFO")
def fifo_as_shard(folder: Path) -> Path:
    """The same among shards."""
    model = sharded(folder, {"a": "one.safetensors", "b": "two.safetensors"})
    os.mkfifo(model / "two.safetensors")
    return model


@refused("a folder")
def folder_as_file(folder: Path) -> Path:
    """A folder in the place of a file."""
    (folder / "model.safetensors").mkdir()
    return folder


@refused("symbolic link")
def link(folder: Path) -> Path:
    """A link to somewhere else."""
    (folder / "real").write_bytes(one())
    (folder / "checkpoint").symlink_to("real")
    return folder / "checkpoint"


@refused("symbolic link")
def link_as_shard(folder: Path) -> Path:
    """A link to a file outside the folder."""
    model = sharded(folder, {"a": "one.safetensors"})
    (model / "one.safetensors").rename(folder / "real")
    (model / "one.safetensors").symlink_to(folder / "real")
    return model


@refused("symbolic link")
def link_to_itself(folder: Path) -> Path:
    """A link without end."""
    (folder / "checkpoint").symlink_to("checkpoint")
    return folder / "checkpoint"


@refused("distributed checkpoint")
def distributed(folder: Path) -> Path:
    """A distributed checkpoint, whose metadata is a pickle."""
    import pickle

    model = folder / "model"
    model.mkdir()
    (model / ".metadata").write_bytes(pickle.dumps(Payload(folder)))
    (model / "__0_0.distcp").write_bytes(bytes(10))
    return model


@refused("no checkpoint under a name")
def empty_folder(folder: Path) -> Path:
    """Nothing to scan."""
    return folder


def checkpoint(folder: Path) -> Path:
    """Write a sound checkpoint of grokscope."""
    return save_checkpoint(folder, 3, {"model.a": np.ones((2, 3))}, {"numbers": {"x": 1.5}})


@refused("tensors.safetensors is refused: it does not match its digest")
def damaged_run_tensors(folder: Path) -> Path:
    """A flipped bit in the numbers, which only the digest shows."""
    made = checkpoint(folder)
    data = bytearray((made / "tensors.safetensors").read_bytes())
    data[-1] ^= 1
    (made / "tensors.safetensors").write_bytes(data)
    return made


@refused("state.json is refused: it does not match its digest")
def damaged_run_state(folder: Path) -> Path:
    """A changed step."""
    made = checkpoint(folder)
    data = (made / "state.json").read_bytes()
    (made / "state.json").write_bytes(data.replace(b'"step": 3', b'"step": 4'))
    return made


@refused("no tensors of a network")
def run_without_model(folder: Path) -> Path:
    """A checkpoint of grokscope with optimiser state only."""
    return save_checkpoint(folder, 3, {"optimizer.a": np.ones((2, 3))}, {})
