"""Files and folders of every form that is read, told by their content."""

import dataclasses
import json
import os

import numpy as np
import pytest
import safetensors.torch
import torch
from torch_attacks import saved

from grokscope.errors import InputError
from grokscope.scan.files import open_checkpoint
from grokscope.scan.inventory import load_tensor, read_inventory
from grokscope.scan.limits import Limits
from grokscope.store.checkpoints import save_checkpoint

STATE = {"fc.weight": torch.arange(6.0).reshape(2, 3), "fc.bias": torch.ones(2)}


def scan(path, **options):
    """Return an inventory and the tensors by name."""
    with open_checkpoint(path, **options) as checkpoint:
        inventory = read_inventory(checkpoint, Limits())
        return inventory, {e.name: load_tensor(inventory, e) for e in inventory.entries}


def assert_state(tensors):
    assert tensors.keys() == STATE.keys()
    assert all(torch.equal(tensors[name], STATE[name]) for name in STATE)


def shards(folder, write, pattern):
    """Write the state in two files and an index; return the folder."""
    files = {name: pattern.format(i + 1) for i, name in enumerate(STATE)}
    for name, file in files.items():
        write({name: STATE[name]}, folder / file)
    index = folder / pattern.replace("-{:05}-of-00002", "")
    index.with_name(index.name + ".index.json").write_text(
        json.dumps({"metadata": {"total_size": 32}, "weight_map": files})
    )
    return folder


def test_one_file_whatever_its_name(tmp_path):
    safetensors.torch.save_file(STATE, tmp_path / "x.pt")
    (tmp_path / "x.safetensors").write_bytes(saved(STATE))
    for name, kind in (("x.pt", "safetensors"), ("x.safetensors", "torch")):
        inventory, tensors = scan(tmp_path / name)
        assert inventory.kind == kind
        assert_state(tensors)


def test_shards(tmp_path):
    folder = shards(tmp_path, safetensors.torch.save_file, "model-{:05}-of-00002.safetensors")
    inventory, tensors = scan(folder)
    assert_state(tensors)
    assert {entry.file for entry in inventory.entries} == {0, 1}
    assert inventory.notes == ()


def test_torch_shards(tmp_path):
    assert_state(scan(shards(tmp_path, torch.save, "pytorch_model-{:05}-of-00002.bin"))[1])


def test_an_index_can_be_named(tmp_path):
    shards(tmp_path, safetensors.torch.save_file, "other.fp16-{:05}-of-00002.safetensors")
    safetensors.torch.save_file({"x": torch.ones(1)}, tmp_path / "model.safetensors")
    assert_state(scan(tmp_path / "other.fp16.safetensors.index.json")[1])


def test_the_only_index_is_taken_under_any_name(tmp_path):
    folder = shards(tmp_path, safetensors.torch.save_file, "other-{:05}-of-00002.safetensors")
    assert_state(scan(folder)[1])


@pytest.mark.parametrize("name", ["model.safetensors", "adapter_model.safetensors"])
def test_one_file_in_a_folder(name, tmp_path):
    safetensors.torch.save_file(STATE, tmp_path / name)
    assert_state(scan(tmp_path)[1])


def test_safetensors_go_before_pickles_and_the_rest_is_told(tmp_path):
    safetensors.torch.save_file(STATE, tmp_path / "model.safetensors")
    torch.save({}, tmp_path / "pytorch_model.bin")
    (tmp_path / "tf_model.h5").write_bytes(b"")
    inventory, tensors = scan(tmp_path)
    assert_state(tensors)
    assert inventory.notes == ("Not looked at: 'pytorch_model.bin', 'tf_model.h5'.",)


def test_tensors_that_the_index_does_not_name_are_told(tmp_path):
    folder = shards(tmp_path, safetensors.torch.save_file, "model-{:05}-of-00002.safetensors")
    extra = {"fc.bias": STATE["fc.bias"], "extra\x1b": torch.ones(2)}
    safetensors.torch.save_file(extra, folder / "model-00002-of-00002.safetensors")
    inventory, _ = scan(folder)
    assert inventory.notes == ("Tensors that the index does not name: 'extra\\x1b'.",)


@pytest.mark.parametrize(
    ("config", "heads"),
    [
        ({"num_attention_heads": 32, "num_key_value_heads": 8}, (32, 8)),
        ({"n_head": 12}, (12, None)),
        ({"num_attention_heads": -3, "num_key_value_heads": "8"}, (None, None)),
        ({"hidden_size": 768}, (None, None)),
    ],
)
def test_heads_come_from_the_configuration(config, heads, tmp_path):
    safetensors.torch.save_file(STATE, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_text(json.dumps(config))
    with open_checkpoint(tmp_path) as opened:
        assert (opened.query_heads, opened.key_value_heads) == heads
        assert not opened.notes


@pytest.mark.parametrize("config", [b"{", b"[]", b'{"a": 1, "a": 2}', b""])
def test_a_damaged_configuration_costs_only_the_heads(config, tmp_path):
    safetensors.torch.save_file(STATE, tmp_path / "model.safetensors")
    (tmp_path / "config.json").write_bytes(config)
    inventory, tensors = scan(tmp_path)
    assert_state(tensors)
    with open_checkpoint(tmp_path) as opened:
        assert opened.query_heads is None
    assert inventory.notes[0].startswith("The number of attention heads is not known.")


def test_a_checkpoint_of_a_run(tmp_path):
    arrays = {f"model.{name}": tensor.numpy() for name, tensor in STATE.items()}
    arrays["optimizer.count"] = np.array(3.0)
    path = save_checkpoint(tmp_path, 1234, arrays, {"numbers": {"x": float("1e300")}})
    inventory, tensors = scan(path)
    assert inventory.kind == "grokscope"
    with open_checkpoint(path) as opened:
        assert opened.step == 1234
    assert_state(tensors)
    assert inventory.notes == ("Optimiser state, not looked at: 'optimizer.count'.",)


def test_a_checkpoint_of_another_version(tmp_path, monkeypatch):
    monkeypatch.setattr("grokscope.store.checkpoints.FORMAT", 99)
    path = save_checkpoint(tmp_path, 3, {"model.a": np.ones(2)}, {})
    with pytest.raises(InputError, match="checkpoint format '99', not 1"):
        open_checkpoint(path)


def test_links_are_followed_on_request(tmp_path):
    blobs, folder = tmp_path / "blobs", tmp_path / "snapshot"
    blobs.mkdir()
    folder.mkdir()
    shards(blobs, safetensors.torch.save_file, "model-{:05}-of-00002.safetensors")
    for blob in blobs.iterdir():
        (folder / blob.name).symlink_to(blob)
    (tmp_path / "link").symlink_to(folder)
    assert_state(scan(tmp_path / "link", follow_symlinks=True)[1])
    for path in (folder, tmp_path / "link"):
        with pytest.raises(InputError, match="--follow-symlinks"):
            open_checkpoint(path)


def test_the_file_that_was_checked_is_the_file_that_is_read(tmp_path):
    """Whatever happens to the path in between."""
    path = tmp_path / "x"
    for write in (
        lambda: safetensors.torch.save_file(STATE, path),
        lambda: torch.save(STATE, path),
    ):
        write()
        with open_checkpoint(path) as checkpoint:
            path.unlink()
            path.write_bytes(b"something else")
            inventory = read_inventory(checkpoint, Limits())
            assert_state({e.name: load_tensor(inventory, e) for e in inventory.entries})
        path.unlink()


def test_several_processes_share_the_descriptors(tmp_path):
    """Nothing reads from, or moves, the position that they have in common."""
    for content in (saved(STATE), safetensors.torch.save(STATE)):
        (tmp_path / "x").write_bytes(content)
        with open_checkpoint(tmp_path / "x") as checkpoint:
            (descriptor,) = checkpoint.descriptors
            os.lseek(descriptor, 7, os.SEEK_SET)
            inventory = read_inventory(checkpoint, Limits())
            assert_state({e.name: load_tensor(inventory, e) for e in inventory.entries})
            assert os.lseek(descriptor, 0, os.SEEK_CUR) == 7
            assert dataclasses.asdict(checkpoint)["files"][0]["descriptor"] == descriptor


@pytest.mark.parametrize(
    ("path", "message"),
    [
        ("missing", "There is no .*missing"),
        ("missing/missing", "There is no .*missing"),
        ("nul\0", "no file can have that name"),
        ("x" * 300, "File name too long"),
    ],
)
def test_paths_that_lead_nowhere(path, message, tmp_path):
    with pytest.raises(InputError, match=message):
        open_checkpoint(tmp_path / path)


@pytest.mark.parametrize("device", ["/dev/null", "/dev/zero"])
def test_devices_are_refused(device):
    with pytest.raises(InputError, match="a device"):
        open_checkpoint(device)


def test_caps_of_an_index_name_their_flags(tmp_path):
    shards(tmp_path, safetensors.torch.save_file, "model-{:05}-of-00002.safetensors")
    size = (tmp_path / "model.safetensors.index.json").stat().st_size
    for limits, flag in (
        (Limits(files=1), "files=2"),
        (Limits(tensors=1), f"tensors={max(2, len(STATE))}"),
        (Limits(header_bytes=10), f"header_bytes={size}"),
    ):
        with pytest.raises(InputError, match=rf"Raise it with --limit {flag}\.$"):
            open_checkpoint(tmp_path, limits=limits)


def test_a_folder_with_other_weights_names_them(tmp_path):
    (tmp_path / "consolidated.00.pth").write_bytes(b"")
    with pytest.raises(InputError, match=r"Name one of its files: 'consolidated\.00\.pth'"):
        open_checkpoint(tmp_path)
