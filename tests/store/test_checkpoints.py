"""A checkpoint is whole or absent, whatever stops its writer, and damage never passes as good."""

import errno
import itertools
import json
import os
import pathlib
import random
import re
import shutil
import subprocess
import sys
import time

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from grokscope.errors import InputError, MissingResource
from grokscope.store import atomic
from grokscope.store.checkpoints import (
    latest_checkpoint,
    load_checkpoint,
    prune_checkpoints,
    save_checkpoint,
)

FILES = ("tensors.safetensors", "state.json")


def content(step):
    tensors = {"weight": np.full((5, 3), float(step)), "count": np.array(step)}
    return tensors, {"config_hash": "abc", "numbers": {"step": step, "rate": 0.1}}


def save(run, step):
    return save_checkpoint(run, step, *content(step))


def assert_good(checkpoint):
    tensors, state = content(checkpoint.step)
    assert checkpoint.state == state
    assert checkpoint.tensors.keys() == tensors.keys()
    for name, array in tensors.items():
        np.testing.assert_array_equal(checkpoint.tensors[name], array)


def names(run):
    return sorted(os.listdir(run / "checkpoints"))


@pytest.mark.parametrize("dtype", [np.float32, np.float64, np.int64, np.uint8, np.bool_])
def test_every_bit_comes_back(tmp_path, dtype):
    bits = np.random.default_rng(0).integers(0, 256, size=(6, 8), dtype=np.uint8)
    array = bits.view(dtype) if dtype != np.bool_ else bits > 127
    path = save_checkpoint(tmp_path, 7, {"x": array}, {})
    back = load_checkpoint(path).tensors["x"]
    assert back.dtype == array.dtype
    assert back.shape == array.shape
    assert back.tobytes() == array.tobytes()
    assert back.flags.writeable


def test_special_values_views_and_empty_arrays_come_back(tmp_path):
    base = np.arange(24.0).reshape(4, 6)
    arrays = {
        "special": np.array([np.nan, np.inf, -np.inf, -0.0, 5e-324]),
        "transposed": base.T,  # safetensors alone would save these two scrambled
        "every other": base[:, ::2],
        "scalar": np.array(3.5, np.float32),
        "empty": np.zeros((0, 5)),
        "": np.array([1]),
    }
    path = save_checkpoint(tmp_path, 0, arrays, {"rng": [1, 2], "note": "ünïcode", "lr": 1e-3})
    back = load_checkpoint(path)
    assert back.step == 0
    assert back.path == path
    assert back.state == {"rng": [1, 2], "note": "ünïcode", "lr": 1e-3}
    assert back.tensors.keys() == arrays.keys()
    for name, array in arrays.items():
        assert back.tensors[name].shape == array.shape
        assert back.tensors[name].tobytes() == array.tobytes()


@settings(max_examples=30, deadline=None)
@given(
    array=hnp.arrays(
        st.sampled_from([np.float32, np.float64, np.int64]),
        hnp.array_shapes(min_side=0, max_side=4),
    ),
    number=st.floats(allow_nan=False, allow_infinity=False),
)
def test_anything_comes_back(tmp_path_factory, array, number):
    run = tmp_path_factory.getbasetemp()
    back = load_checkpoint(save_checkpoint(run, 1, {"x": array}, {"number": number}))
    assert back.tensors["x"].tobytes() == array.tobytes()
    assert back.tensors["x"].shape == array.shape
    assert np.float64(back.state["number"]).tobytes() == np.float64(number).tobytes()


def test_layout_on_disk(tmp_path):
    path = save(tmp_path, 1234)
    assert path == tmp_path / "checkpoints" / "step-000000001234"
    assert sorted(os.listdir(path)) == sorted(FILES)
    document = json.loads((path / "state.json").read_bytes())
    assert document["step"] == 1234
    assert document["state"] == content(1234)[1]
    assert names(tmp_path) == ["step-000000001234"]


def test_a_wrong_call_writes_nothing(tmp_path):
    with pytest.raises(ValueError, match=r"step of at least 0, got -1"):
        save(tmp_path, -1)
    with pytest.raises(ValueError, match=r"expected a state of plain JSON, got .*not JSON compl"):
        save_checkpoint(tmp_path, 1, {}, {"loss": float("nan")})
    with pytest.raises(ValueError, match=r"plain JSON, got Object of type ndarray"):
        save_checkpoint(tmp_path, 1, {}, {"rng": np.zeros(3)})
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("name", FILES)
def test_every_flipped_bit_is_found(tmp_path, name):
    file = save(tmp_path, 1) / name
    good = file.read_bytes()
    for position in range(len(good)):
        bit = 1 << random.Random(position).randrange(8)
        file.write_bytes(good[:position] + bytes([good[position] ^ bit]) + good[position + 1 :])
        with pytest.raises(InputError, match=r"step-000000000001 is damaged: .* its digest"):
            load_checkpoint(file.parent)
    file.write_bytes(good)
    assert_good(load_checkpoint(file.parent))


@pytest.mark.parametrize("name", FILES)
@pytest.mark.parametrize("keep", [0, 1, 100, -1])
def test_a_torn_file_is_found(tmp_path, name, keep):
    file = save(tmp_path, 1) / name
    file.write_bytes(file.read_bytes()[:keep])
    with pytest.raises(InputError, match=rf"damaged: {name} does not match its digest"):
        load_checkpoint(file.parent)


@pytest.mark.parametrize("name", FILES)
def test_a_missing_file_is_named(tmp_path, name):
    path = save(tmp_path, 1)
    (path / name).unlink()
    with pytest.raises(InputError, match=rf"There is no .*{name}"):
        load_checkpoint(path)


def test_files_of_two_checkpoints_do_not_mix(tmp_path):
    one, two = save(tmp_path, 1), save(tmp_path, 2)
    shutil.copyfile(one / "tensors.safetensors", two / "tensors.safetensors")
    with pytest.raises(InputError, match=r"tensors\.safetensors does not match"):
        load_checkpoint(two)


def test_another_format_is_told(tmp_path, monkeypatch):
    monkeypatch.setattr("grokscope.store.checkpoints.FORMAT", 2)
    path = save(tmp_path, 1)
    monkeypatch.undo()
    with pytest.raises(InputError, match=r"checkpoint format 2, this grokscope reads 1"):
        load_checkpoint(path)


def test_the_newest_good_one_is_found_and_the_damaged_are_said(tmp_path):
    assert latest_checkpoint(tmp_path) == (None, [])
    for step in (5, 40, 300, 2000):
        save(tmp_path, step)
    checkpoint, damaged = latest_checkpoint(tmp_path)
    assert (checkpoint.step, damaged) == (2000, [])
    for step, name in ((2000, "state.json"), (300, "tensors.safetensors")):
        file = tmp_path / "checkpoints" / f"step-{step:012d}" / name
        file.write_bytes(file.read_bytes()[:-1])
    checkpoint, damaged = latest_checkpoint(tmp_path)
    assert_good(checkpoint)
    assert checkpoint.step == 40
    assert len(damaged) == 2
    assert "step-000000002000 is damaged: state.json" in damaged[0]
    assert "step-000000000300 is damaged: tensors.safetensors" in damaged[1]
    for step in (5, 40):
        shutil.rmtree(tmp_path / "checkpoints" / f"step-{step:012d}")
    assert latest_checkpoint(tmp_path)[0] is None


def test_steps_are_ordered_as_numbers(tmp_path):
    save(tmp_path, 999_999_999_999)
    save(tmp_path, 10**12)
    assert latest_checkpoint(tmp_path)[0].step == 10**12


def test_pruning_keeps_the_last_and_the_named(tmp_path):
    for step in (1, 2, 3, 4, 5):
        save(tmp_path, step)
    (tmp_path / "checkpoints" / "notes.txt").write_text("mine")
    prune_checkpoints(tmp_path, 99, keep_last=2, keep_steps=frozenset({2, 99}))
    kept = [f"step-{step:012d}" for step in (2, 4, 5)]
    assert names(tmp_path) == ["notes.txt", *kept]
    prune_checkpoints(tmp_path, 99, keep_last=7)
    assert names(tmp_path) == ["notes.txt", *kept]
    with pytest.raises(ValueError, match=r"keep_last of at least 1, got 0"):
        prune_checkpoints(tmp_path, 99, keep_last=0)
    prune_checkpoints(tmp_path / "nothing", 99)


def test_the_same_step_is_replaced(tmp_path):
    save_checkpoint(tmp_path, 3, {"x": np.zeros(2)}, {"which": "old"})
    path = save_checkpoint(tmp_path, 3, {"x": np.ones(2)}, {"which": "new"})
    assert load_checkpoint(path).state == {"which": "new"}
    assert names(tmp_path) == ["step-000000000003"]


class Calls:
    """Every call that changes the disk, with something to do before each."""

    def __init__(self, monkeypatch, before):
        self.count = 0
        self.before = before
        self.busy = False
        for name in ("mkdir", "fsync", "replace", "unlink", "rmdir"):
            monkeypatch.setattr(os, name, self.announced(getattr(os, name)))
        monkeypatch.setattr(atomic, "open", self.open, raising=False)

    def announced(self, real):
        def call(*args, **kwargs):
            self.announce()
            return real(*args, **kwargs)

        return call

    def announce(self):
        if not self.busy:
            self.count += 1
            self.busy = True
            try:
                self.before(self.count)
            finally:
                self.busy = False

    def open(self, *args, **kwargs):
        self.announce()
        return Torn(open(*args, **kwargs), self)


class Torn:
    """A file that takes half of what it is given, so that there is a moment in between."""

    def __init__(self, file, calls):
        self.file, self.calls = file, calls

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.file.close()

    def fileno(self):
        return self.file.fileno()

    def write(self, data):
        self.calls.announce()
        return self.file.write(data[: max(1, len(data) // 2)])


def test_a_kill_before_any_call_leaves_the_old_or_the_new(tmp_path, monkeypatch):
    """Each copy is what a kill at that moment would leave."""
    run, copies = tmp_path / "run", tmp_path / "copies"
    run.mkdir()
    save(run, 1)
    save(run, 2)
    calls = Calls(monkeypatch, lambda number: shutil.copytree(run, copies / f"{number:03d}"))
    save(run, 3)
    save(run, 3)  # replaces
    prune_checkpoints(run, 10**9, keep_last=1)
    monkeypatch.undo()

    assert calls.count > 30
    steps = []
    for copy in sorted(copies.iterdir()):
        checkpoint, damaged = latest_checkpoint(copy)
        assert damaged == []
        assert_good(checkpoint)
        steps.append(checkpoint.step)
        for name in names(copy):
            if len(name) == 17:  # what has the name of a checkpoint is whole
                load_checkpoint(copy / "checkpoints" / name)
        save(copy, 4)
        assert latest_checkpoint(copy)[0].step == 4
        assert all(name.startswith("step-") and len(name) == 17 for name in names(copy))
    assert steps == sorted(steps)
    assert set(steps) == {2, 3}


@pytest.mark.parametrize(
    ("code", "message", "first"),
    [
        (errno.ENOSPC, r"No room to write .*step-.*free some space", 2),
        (errno.EROFS, r"step-.* cannot be written \(Read-only.*--out", 3),  # replaces its own step
    ],
)
def test_a_refusal_at_any_call_keeps_the_old(tmp_path, monkeypatch, code, message, first):
    def fail(number):
        if number == failing:
            raise OSError(code, os.strerror(code))

    for failing in itertools.count(1):
        run = tmp_path / str(failing)
        run.mkdir()
        save(run, 1)
        save(run, first)
        with monkeypatch.context() as patch:
            calls = Calls(patch, fail)
            try:
                save(run, 3)
            except MissingResource as error:
                refusal = str(error)
            else:
                refusal = ""
        if calls.count < failing:
            assert refusal == ""
            break
        assert re.search(message, refusal), refusal
        checkpoint, damaged = latest_checkpoint(run)
        assert damaged == []
        assert checkpoint.step in (first, 3)
        assert_good(checkpoint)
        save(run, 4)
        assert latest_checkpoint(run)[0].step == 4
        assert all(len(name) == 17 for name in names(run))
    assert failing > 8


def test_the_order_of_reaching_the_disk(tmp_path, monkeypatch):
    save(tmp_path, 1)
    log = []
    real_fsync, real_replace = os.fsync, os.replace

    def fsync(descriptor):
        log.append("sync " + os.path.basename(os.readlink(f"/proc/self/fd/{descriptor}")))
        real_fsync(descriptor)

    def replace(old, new):
        log.append(f"rename to {os.path.basename(new)}")
        real_replace(old, new)

    monkeypatch.setattr(os, "fsync", fsync)
    monkeypatch.setattr(os, "replace", replace)
    save(tmp_path, 2)
    assert log == [
        "sync tensors.safetensors",
        "sync state.json",
        "sync .partial-step-000000000002",
        "rename to step-000000000002",
        "sync checkpoints",
    ]


def test_a_saver_killed_at_random_leaves_a_good_checkpoint(tmp_path):
    program = (
        "import sys, pathlib, numpy as np\n"
        "from grokscope.store.checkpoints import *\n"
        "run = pathlib.Path(sys.argv[1])\n"
        "found, damaged = latest_checkpoint(run)\n"
        "assert not damaged, damaged\n"
        "step = found.step if found else 0\n"
        "while True:\n"
        "    step += 1\n"
        "    tensors = {'x': np.full(20_000, float(step))}\n"
        "    save_checkpoint(run, step, tensors, {'step': step})\n"
        "    if step % 3 == 0:  # as after a resume that goes back\n"
        "        save_checkpoint(run, step, tensors, {'step': step})\n"
        "    prune_checkpoints(run, 10**9)\n"
    )
    moments = random.Random(0)
    reached = 0
    for _ in range(5):
        child = subprocess.Popen([sys.executable, "-c", program, str(tmp_path)])
        deadline = time.monotonic() + 30
        while not (tmp_path / "checkpoints" / f"step-{reached + 1:012d}").exists():
            assert child.poll() is None, "the child failed"
            assert time.monotonic() < deadline, "the child saves nothing"
            time.sleep(0.001)
        time.sleep(moments.random() * 0.1)
        child.kill()
        child.wait()
        checkpoint, damaged = latest_checkpoint(tmp_path)
        assert damaged == []
        assert checkpoint.step > reached
        assert checkpoint.state == {"step": checkpoint.step}
        assert set(checkpoint.tensors["x"]) == {float(checkpoint.step)}
        reached = checkpoint.step


def test_what_is_saved_behind_passed_over_checkpoints_is_kept(tmp_path: pathlib.Path) -> None:
    tensors = {"w": np.zeros(2, np.float32)}
    for step in (10, 500, 600):
        save_checkpoint(tmp_path, step, tensors, {})
    for step in (20, 30, 40):
        save_checkpoint(tmp_path, step, tensors, {})
        prune_checkpoints(tmp_path, step, keep_last=2)
    steps = sorted(int(p.name[5:]) for p in (tmp_path / "checkpoints").iterdir())
    assert steps == [30, 40, 500, 600]
