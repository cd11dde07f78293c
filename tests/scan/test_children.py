"""Child processes: what becomes of one that dies, hangs, or asks for too much."""

from __future__ import annotations

import dataclasses
import json
import os
import re
import signal
import struct
import threading
from pathlib import Path
from typing import Any

import pytest
import safetensors.torch
import torch

from grokscope.scan import Limits, Settings, scan
from grokscope.scan.children import Children, Task
from grokscope.scan.files import OpenCheckpoint, open_checkpoint
from grokscope.scan.safetensors_file import read_header

ROOM = 2**40


def setup(checkpoint: OpenCheckpoint, memory: int = 2**28) -> dict[str, Any]:
    return {
        "checkpoints": [dataclasses.asdict(checkpoint)],
        "limits": dataclasses.asdict(Limits()),
        "key": None,
        "allow_globals": [],
        "device": "cpu",
        "memory": memory,
    }


@pytest.fixture
def model(tmp_path: Path) -> Path:
    path = tmp_path / "model.safetensors"
    safetensors.torch.save_file({"fc.weight": torch.rand(20, 20)}, path)
    return path


INVENTORY = {"ask": "inventory", "checkpoint": 0}


def test_answers_come_for_every_task_with_few_children(model: Path) -> None:
    with open_checkpoint(model) as opened:
        with Children(opened.descriptors, setup(opened), count=2) as children:
            found = dict(children.run([Task(INVENTORY)] * 7, ROOM))
            again = dict(children.run([Task(INVENTORY)], ROOM))
            processes = [child.process for child in children._children]
        assert sorted(found) == list(range(7))
        assert all(answer == again[0] for answer in found.values())
        assert len(processes) == 2
        assert all(process.poll() is not None for process in processes)


def test_tasks_that_do_not_fit_together_run_one_after_the_other(model: Path) -> None:
    with (
        open_checkpoint(model) as opened,
        Children(opened.descriptors, setup(opened), count=2) as children,
    ):
        found = dict(children.run([Task(INVENTORY, memory=10)] * 3, memory=15))
        assert len(found) == 3
        assert len(children._children) == 1


def test_a_child_that_is_killed_is_replaced_and_said(model: Path) -> None:
    with (
        open_checkpoint(model) as opened,
        Children(opened.descriptors, setup(opened), count=1) as children,
    ):
        answers = children.run([Task(INVENTORY)] * 3, ROOM)
        assert "inventory" in next(answers)[1]
        children._children[0].process.kill()
        children._children[0].process.wait()
        first = children._children[0].process.pid
        # It died idle, and owed no answer.
        assert "inventory" in next(answers)[1]
        second = children._children[0].process.pid
        assert second != first
        assert "inventory" in next(answers)[1]


def test_a_child_that_is_killed_at_work_is_said(model: Path) -> None:
    with (
        open_checkpoint(model) as opened,
        Children(opened.descriptors, setup(opened), count=1) as children,
    ):
        assert "inventory" in dict(children.run([Task(INVENTORY)], ROOM))[0]
        os.kill(children._children[0].process.pid, signal.SIGSTOP)
        pid = children._children[0].process.pid
        threading.Timer(0.5, os.kill, (pid, signal.SIGKILL)).start()
        answers = dict(children.run([Task(INVENTORY)] * 2, ROOM))
        assert "signal 9" in answers[0]["lost"]
        assert "inventory" in answers[1]


def test_an_answer_that_takes_too_long_is_given_up(model: Path) -> None:
    with (
        open_checkpoint(model) as opened,
        Children(opened.descriptors, setup(opened), count=1) as children,
    ):
        slow, quick = Task(INVENTORY, seconds=0.0), Task(INVENTORY)
        found = dict(children.run([slow, quick], ROOM))
        assert found[0] == {"lost": "it took more than 0 s"}
        assert "inventory" in found[1]


def test_a_tensor_larger_than_the_limit_ends_in_a_sentence(tmp_path: Path) -> None:
    # A file with a hole: 64 GiB to its reader, nothing on the disk.
    rows, columns = 2**20, 2**14
    size = 4 * rows * columns
    header = {"w": {"dtype": "F32", "shape": [rows, columns], "data_offsets": [0, size]}}
    text = json.dumps(header).encode()
    path = tmp_path / "hole.safetensors"
    with open(path, "wb") as file:
        file.write(struct.pack("<Q", len(text)) + text)
        file.truncate(8 + len(text) + size)
    with open_checkpoint(path) as opened:
        (entry,) = read_header(opened.files[0], Limits())
        matrix = {"name": "w", "kind": "linear", "shape": entry.shape, "sources": ["w"], "cut": []}
        question = {
            "ask": "measure",
            "settings": dataclasses.asdict(Settings(shuffles=0, null_draws=0)),
            "threads": 1,
            "matrices": [
                {
                    "matrix": {**matrix, "count": 1, "note": ""},
                    "step": None,
                    "tensors": [[0, dataclasses.asdict(entry)]],
                    "subtracted": [],
                }
            ],
        }
        with Children(opened.descriptors, setup(opened), count=1) as children:
            found = dict(children.run([Task(question), Task(INVENTORY)], ROOM))
    assert "memory" in (found[0].get("lost") or found[0]["refused"])
    assert "inventory" in found[1]


class Bytes:
    """Unpickled, it is a block of memory that a few bytes ask for."""

    def __reduce__(self) -> tuple[type, tuple[int]]:
        return bytearray, (3 * 2**30,)


def test_a_pickle_that_asks_for_memory_does_not_get_it(tmp_path: Path) -> None:
    path = tmp_path / "model.pt"
    torch.save({"fc.weight": torch.rand(20, 20), "block": Bytes()}, path)
    with (
        open_checkpoint(path) as opened,
        Children(opened.descriptors, setup(opened), count=1) as children,
    ):
        answer = dict(children.run([Task(INVENTORY)], ROOM))[0]
        peaks = [
            int(re.search(r"VmHWM:\s+(\d+)", status)[1])  # type: ignore[index]
            for child in children._children
            for status in [Path(f"/proc/{child.process.pid}/status").read_text()]
        ]
    assert "Memory" in answer["refused"]
    assert all(peak < 2 * 2**20 for peak in peaks)


def test_the_folder_that_the_user_stands_in_is_not_imported_from(
    model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    trap = tmp_path / "download"
    trap.mkdir()
    for name in ("json", "torch", "grokscope", "safetensors"):
        (trap / f"{name}.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\n")
    monkeypatch.chdir(trap)
    found = scan(model, settings=Settings(shuffles=1, null_draws=2), workers=1)
    assert found.document["layers"][0]["status"] == "ok"
    assert not (tmp_path / "ran").exists()
