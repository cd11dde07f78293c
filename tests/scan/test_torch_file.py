"""Torch files: what is read, which tensors are the network's, and what it costs."""

import argparse
import dataclasses
import io
import json
import subprocess
import sys
import textwrap
import warnings
import zipfile

import numpy as np
import pytest
import safetensors.torch
import torch
from torch_attacks import edited, saved
from zip_building import archive, members_of

from grokscope.errors import InputError, UsageError
from grokscope.scan import torch_file
from grokscope.scan.files import checkpoint_from_json, open_checkpoint
from grokscope.scan.inventory import (
    digest,
    inventory_from_json,
    load_tensor,
    read_inventory,
    release,
)
from grokscope.scan.limits import Limits
from grokscope.scan.zip_file import read_members


@pytest.fixture
def scan(tmp_path):
    """Read a torch file of some content; return its inventory, open until the test ends."""
    opened = []

    def read(content, limits=None, **options):
        path = tmp_path / f"{len(opened)}.pt"
        path.write_bytes(content if isinstance(content, bytes) else saved(content))
        opened.append(open_checkpoint(path))
        return read_inventory(opened[-1], limits or Limits(), **options)

    yield read
    for checkpoint in opened:
        checkpoint.close()


def tensors(inventory):
    return {entry.name: load_tensor(inventory, entry) for entry in inventory.entries}


def names(inventory):
    return [entry.name for entry in inventory.entries]


NETWORK = {"fc.weight": torch.arange(6.0).reshape(2, 3), "fc.bias": torch.ones(2)}
OPTIMISER = {"state": {0: {"exp_avg": torch.ones(2, 3)}}, "param_groups": [{"lr": 0.1}]}


@pytest.mark.parametrize(
    "dtype", [torch.float64, torch.float32, torch.bfloat16, torch.float16, torch.int8, torch.bool]
)
def test_every_number_comes_back(dtype, scan):
    state = {"a": torch.arange(12).reshape(3, 4).to(dtype), "scalar": torch.tensor(1).to(dtype)}
    back = tensors(scan(state | {"empty": torch.zeros(0, 5, dtype=dtype)}))
    assert back["a"].dtype == dtype
    assert torch.equal(back["a"], state["a"])
    assert torch.equal(back["scalar"], state["scalar"])
    assert back["empty"].shape == (0, 5)


def test_transposed_parameters_and_buffers(scan):
    module = torch.nn.BatchNorm1d(3)
    weight = torch.nn.Parameter(torch.arange(6.0).reshape(2, 3).T)
    back = tensors(scan({**module.state_dict(), "w": weight}))
    assert torch.equal(back["w"], weight)
    assert not back["w"].requires_grad
    assert back["num_batches_tracked"] == 0


def test_digests_equal_those_of_safetensors(scan, tmp_path):
    state = {
        "a": torch.randn(30, 4),
        "b": torch.tensor(2.0),
        "c": torch.ones(3, dtype=torch.bfloat16),
    }
    inventory = scan({**state, "a": torch.randn(4, 30).T.copy_(state["a"])})
    safetensors.torch.save_file(state, tmp_path / "x")
    with open_checkpoint(tmp_path / "x") as checkpoint:
        other = read_inventory(checkpoint, Limits())
        for one, two in zip(inventory.entries, other.entries, strict=True):
            assert digest(inventory, one) == digest(other, two)


def test_plain_json_is_enough_for_another_process(scan, tmp_path):
    inventory = scan(NETWORK)
    copy = inventory_from_json(json.loads(json.dumps(dataclasses.asdict(inventory))))
    assert copy == inventory
    assert torch.equal(tensors(copy)["fc.weight"], NETWORK["fc.weight"])
    with open_checkpoint(tmp_path / "0.pt") as checkpoint:
        assert (
            checkpoint_from_json(json.loads(json.dumps(dataclasses.asdict(checkpoint))))
            == checkpoint
        )


@pytest.mark.parametrize(
    ("content", "found", "left"),
    [
        (NETWORK, "", []),
        ({"state_dict": NETWORK, "epoch": 3}, "state_dict", []),
        ({"optimizer": OPTIMISER, "model": NETWORK}, "model", ["optimizer"]),
        ({"ema": NETWORK, "model": NETWORK | {}}, "model", ["ema"]),
        ({"model": {"state_dict": NETWORK}, "rng": torch.ones(2)}, "model.state_dict", ["rng"]),
        ({"run": {"module": NETWORK, "ema": NETWORK | {}}}, "run.module", ["run.ema"]),
        ({"anything": NETWORK, "lr_scheduler": {"a": torch.ones(2)}}, "anything", ["lr_scheduler"]),
        ([NETWORK], "0", []),
    ],
)  # fmt: skip
def test_the_network_is_found(content, found, left, scan):
    inventory = scan(content)
    assert names(inventory) == ["fc.bias", "fc.weight"]
    notes = "\n".join(inventory.notes)
    assert f"keeps under '{found}'." in notes or not found
    assert all(f"Not looked at: '{name}' (" in notes for name in left)
    assert len(inventory.notes) == bool(found) + len(left)


def test_several_networks_are_all_looked_at(scan):
    inventory = scan({"generator": NETWORK, "critic": [torch.ones(2, 2)], "optimizer_g": OPTIMISER})
    assert names(inventory) == ["critic.0", "generator.fc.bias", "generator.fc.weight"]
    assert inventory.notes == ("Not looked at: 'optimizer_g' (1 tensors).",)


def test_a_key_is_obeyed(scan):
    content = {"a": {"b.c": NETWORK}, "model": {"x": torch.ones(2)}, "optimizer": OPTIMISER}
    assert names(scan(content, key="a.b.c")) == ["fc.bias", "fc.weight"]
    assert names(scan(content, key="optimizer")) == ["state.0.exp_avg"]
    with pytest.raises(UsageError) as caught:
        scan(content | {"x\033[2J": NETWORK, "y" * 100: NETWORK}, key="modl")
    assert str(caught.value) == (
        "Unknown --key 'modl'. Did you mean 'model'? Known: a, a.b.c, model, optimizer, "
        "optimizer.state, optimizer.state.0."
    )
    with pytest.raises(UsageError, match="keeps no dictionary of tensors in another"):
        scan(NETWORK, key="model")


def test_a_key_among_very_many(scan):
    with pytest.raises(UsageError) as caught:
        scan({f"{i:070}": {"a": NETWORK} for i in range(300)}, key="a")
    assert len(str(caught.value)) < 2000


def test_a_bare_tensor(scan):
    assert names(scan(torch.ones(2, 2))) == ["tensor"]


def test_ties_are_told(scan):
    shared = torch.ones(2, 3)
    entries = scan({"head": shared, "embed": shared, "own": torch.ones(2, 3)}).entries
    assert [entry.same_as for entry in entries] == ["", "embed", ""]


def test_20000_names_of_one_storage(scan):
    shared = torch.ones(2, 3)
    entries = scan({f"{i:05}": shared for i in range(20_000)}).entries
    assert {entry.same_as for entry in entries[1:]} == {"00000"}


def test_views_are_tensors_of_their_own(scan):
    base = torch.arange(12.0).reshape(4, 3)
    views = {"a": base, "b": base[:2], "c": base[2:], "d": base.T, "e": base.view(3, 4)}
    inventory = scan(views)
    assert {entry.same_as for entry in inventory.entries} == {""}
    back = tensors(inventory)
    assert back.keys() == views.keys()
    assert all(torch.equal(back[name], views[name]) for name in views)


def test_views_of_one_storage_are_read_four_times_over(scan):
    base = torch.arange(80_000.0)
    entries = scan({f"{i:05}": base[i : i + 60_000] for i in range(20_000)}).entries
    assert sum(not entry.unavailable for entry in entries) == 5  # of 0.75 storages each
    assert entries[5].unavailable == (
        "it shares its storage with '00000' and others, together more than 4 times its bytes"
    )


@pytest.mark.parametrize(
    ("value", "allowed"),
    [
        (argparse.Namespace(lr=0.1), ["argparse.Namespace"]),
        (np.float64(0.5), ["numpy._core.multiarray.scalar", "numpy.dtype"]),
        (
            np.arange(3),
            ["numpy._core.multiarray._reconstruct", "numpy.dtype", "numpy.ndarray"],
        ),
    ],
    ids=["namespace", "scalar", "array"],
)
def test_what_is_allowed_is_read(value, allowed, scan):
    content = {"model": NETWORK, "other": value}
    assert names(scan(content, allow_globals=allowed)) == ["fc.bias", "fc.weight"]
    flags = " ".join(f"--allow-global {name}" for name in allowed)
    with pytest.raises(
        InputError, match=rf"holds {', '.join(allowed)}, which .* harmless.*{flags}\."
    ):
        scan(content)
    with pytest.raises(InputError, match=rf"holds {allowed[0]}, .* --allow-global {allowed[0]}\."):
        scan(content, allow_globals=allowed[1:])


def test_no_flag_is_offered_beside_what_could_run_code(scan):
    with pytest.raises(InputError) as caught:
        scan({"model": NETWORK, "args": argparse.Namespace(), "module": torch.nn.Linear(2, 2)})
    message = str(caught.value)
    assert "torch.nn.modules.linear.Linear', which could run code" in message
    assert "argparse" not in message
    assert "--allow-global" not in message


def test_torchscript_is_called_by_its_name(scan):
    buffer = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it is on its way out
        torch.jit.save(torch.jit.trace(torch.nn.Linear(3, 2), torch.ones(1, 3)), buffer)
    with pytest.raises(InputError, match="it is TorchScript, which holds code"):
        scan(buffer.getvalue())


def test_only_listed_globals_can_be_allowed(scan):
    with pytest.raises(ValueError, match=r"expected a global of .*, got 'os.system'"):
        scan(NETWORK, allow_globals=["os.system"])


def test_old_torch_is_refused(scan, monkeypatch):
    monkeypatch.setattr(torch, "__version__", type(torch.__version__)("2.9.1"))
    with pytest.raises(InputError, match=r"torch 2\.10\.0 or newer, this is 2\.9\.1"):
        scan(NETWORK)


def test_caps_are_the_callers(scan):
    count = len(members_of(saved(NETWORK)))
    scan(NETWORK, Limits(members=count, tensors=2, name_length=9))
    size = len(members_of(saved(NETWORK))["archive/data.pkl"])
    for limits, message in (
        (Limits(members=1), f"has {count} members.* --limit members={count}"),
        (Limits(tensors=1), "more than 1 tensors.* --limit tensors=2"),
        (Limits(name_length=8), "longer than 8.* --limit name_length=16"),
        (Limits(pickle_bytes=50), f"limit of 50 bytes.* --limit pickle_bytes={size}"),
    ):
        with pytest.raises(InputError, match=rf"{message}\.$"):
            scan(NETWORK, limits)
    with pytest.raises(InputError, match=r"nested deeper than 2 levels. Raise it with .*nesting=4"):
        scan({"a": {"b": {"c": NETWORK}}}, Limits(nesting=2))
    entries = scan(NETWORK, Limits(rank=1)).entries
    assert entries[1].unavailable == "rank 2, above 1; see --limit rank=2"


@pytest.mark.parametrize("write", ["ours", "python", "python, 64 bits"])
def test_archives_of_other_writers(write, scan, tmp_path):
    members = members_of(saved(NETWORK))
    data = archive(members)
    if write != "ours":
        with zipfile.ZipFile(tmp_path / "x", "w") as file:
            for name, content in members.items():
                with file.open(name, "w", force_zip64="64" in write) as member:
                    member.write(content)
        data = (tmp_path / "x").read_bytes()
    assert torch.equal(tensors(scan(data))["fc.weight"], NETWORK["fc.weight"])


def test_a_file_without_byteorder_is_little_endian(scan):
    data = edited(NETWORK, lambda members: members.pop("archive/byteorder"))
    assert torch.equal(tensors(scan(data))["fc.weight"], NETWORK["fc.weight"])


def test_members_are_those_of_zipfile(tmp_path):
    path = tmp_path / "x.pt"
    torch.save(NETWORK, path)
    with open_checkpoint(path) as checkpoint, zipfile.ZipFile(path) as file:
        ours = {m.name: m.crc for m in read_members(checkpoint.files[0], Limits())}
        assert ours == {info.filename: info.CRC for info in file.infolist()}


def test_changed_between_inventory_and_reading(scan, tmp_path):
    inventory = scan(NETWORK)
    (tmp_path / "0.pt").write_bytes(
        saved({"fc.weight": torch.ones(3, 2), "fc.bias": torch.ones(2)})
    )
    with pytest.raises(InputError, match="changed while it was read"):
        load_tensor(inventory, inventory.entries[1])


def test_without_knowing_what_is_mapped(scan, monkeypatch):
    monkeypatch.setattr(torch_file.sys, "platform", "darwin")
    inventory = scan(NETWORK)
    back = tensors(inventory)
    for entry in inventory.entries:
        release(inventory, entry)
    assert torch.equal(back["fc.weight"], NETWORK["fc.weight"])


def test_replaced_where_it_must_be_opened_again(tmp_path, monkeypatch):
    monkeypatch.setattr(torch_file.sys, "platform", "darwin")
    path = tmp_path / "x.pt"
    torch.save(NETWORK, path)
    with open_checkpoint(path) as checkpoint:
        path.rename(tmp_path / "old.pt")
        torch.save(NETWORK, path)
        with pytest.raises(InputError, match="replaced while it was read"):
            read_inventory(checkpoint, Limits())


def test_released_numbers_come_back(scan):
    inventory = scan({"a": torch.arange(1_000_000.0), "b": torch.ones(1_000_000)})
    before = tensors(inventory)
    for entry in inventory.entries:
        release(inventory, entry)
    assert torch.equal(before["a"], torch.arange(1_000_000.0))
    assert torch.equal(before["b"], torch.ones(1_000_000))


def test_memory_is_that_of_one_tensor(tmp_path):
    """400 MB in tensors of 10 MB, each read whole: after the first, the peak hardly rises."""
    path = tmp_path / "x.pt"
    torch.save({f"{i}": torch.full((2_500_000,), float(i)) for i in range(40)}, path)
    code = textwrap.dedent(
        f"""
        import re
        from grokscope.scan.files import open_checkpoint
        from grokscope.scan.inventory import digest, load_tensor, read_inventory, release
        from grokscope.scan.limits import Limits
        def peak():  # not ru_maxrss, which a child inherits from whoever started it
            status = open("/proc/self/status").read()
            return int(re.search(r"VmHWM:\\s+(\\d+) kB", status)[1]) * 1024
        checkpoint = open_checkpoint({str(path)!r})
        inventory = read_inventory(checkpoint, Limits())
        peaks = []
        for entry in inventory.entries:
            digest(inventory, entry)
            assert float(load_tensor(inventory, entry).max()) == float(entry.name)
            release(inventory, entry)
            peaks.append(peak())
        print(peaks[-1] - peaks[0])
        """
    )
    out = subprocess.run(
        [sys.executable, "-c", code], check=True, capture_output=True, text=True
    ).stdout
    assert int(out) < 20_000_000
