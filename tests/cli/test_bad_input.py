"""Each way to be wrong: one clear message, the documented exit code, nothing lost."""

from __future__ import annotations

import errno
import json
import os
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from command_line import SMALL, Outcome

from grokscope.store.trace import Trace
from grokscope.store.trace_database import TraceDatabase

Command = Callable[..., Outcome]


def contents(folder: Path) -> dict[str, bytes]:
    return {
        str(file.relative_to(folder)): file.read_bytes()
        for file in sorted(folder.rglob("*"))
        if file.is_file() and not file.name.startswith("run.lock")
    }


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["run", "anti-groking"], "experiment 'anti-groking'. Did you mean 'anti-grokking'?"),
        (["run", "anti-grokking", "--preset", "digit"], "Did you mean 'digits'?"),
        (["run", "anti-grokking", "--set", "weight_dcay=1"], "Did you mean 'weight_decay'?"),
        (["run", "anti-grokking", "--set", "loss=msee"], "'msee'. Did you mean 'mse'?"),
        (["run", "anti-grokking", "--set", "optimizer=adma"], "Did you mean 'adam'?"),
        (["run", "anti-grokking", "--set", "lr=fast"], "lr: Input should be a valid number"),
        (["run", "anti-grokking", "--set", "lr=-1"], "lr: Input should be greater than 0, got -1."),
        (["run", "anti-grokking", "--set", "lr"], "--set lr: expected key=value"),
        (["run", "anti-grokking", "--set", "lr=nan"], "lr: Input should be"),
        (["run", "anti-grokking", "--seed", "-1"], "seed: Input should be greater than or equal"),
        (["run", "anti-grokking", "--steps", "0"], "steps: Input should be greater than 0"),
        (
            ["run", "anti-grokking", "--set", "replacement=false", "--set", "batch_size=300"],
            "batch_size 300 exceeds n_train 200",
        ),
        (["run", "anti-grokking", "--set", "warmup=9", "--steps", "5"], "warmup 9 exceeds steps 5"),
        (["run", "anti-grokking", "--seed", "1", "--set", "seed=2"], "contradict each other"),
        (["run", "anti-grokking", "--set", "momentum=0.9"], "momentum is an option of sgd"),
    ],
)  # fmt: skip
def test_names_and_values_that_cannot_be_meant(
    grokscope: Command, tmp_path: Path, arguments: list[str], message: str
) -> None:
    outcome = grokscope(*arguments, "--out", tmp_path / "run")
    assert outcome.code == 2
    assert message in outcome.err
    assert "Traceback" not in outcome.err
    assert not (tmp_path / "run").exists()


def test_unknown_command_and_option_exit_with_2(grokscope: Command) -> None:
    assert grokscope("rnu").code == 2
    assert grokscope("run", "anti-grokking", "--nonsense").code == 2


def test_a_folder_with_a_different_run_is_refused(grokscope: Command, small_run: Path) -> None:
    before = contents(small_run)
    outcome = grokscope("run", "anti-grokking", *SMALL, "--seed", "7", "--out", small_run)
    assert outcome.code == 3
    assert "holds a different run" in outcome.err
    assert "seed: 0 -> 7" in outcome.err
    assert "lr" not in outcome.err.split("run", 1)[1]
    assert contents(small_run) == before


def test_a_folder_with_something_else_is_refused(grokscope: Command, tmp_path: Path) -> None:
    (tmp_path / "thesis.tex").write_text("years of work")
    outcome = grokscope("run", "anti-grokking", *SMALL, "--out", tmp_path)
    assert outcome.code == 3
    assert "thesis.tex" in outcome.err
    assert (tmp_path / "thesis.tex").read_text() == "years of work"


@pytest.mark.parametrize("command", ["resume", "report", "export", "plot"])
def test_no_run_there(grokscope: Command, tmp_path: Path, command: str) -> None:
    more = {"export": ["--format", "csv"], "plot": ["--out", "x.png"]}.get(command, [])
    outcome = grokscope(command, tmp_path / "nowhere", *more)
    assert outcome.code == 3
    assert "There is no run at" in outcome.err


def load(trace: Path) -> Trace:
    with TraceDatabase.open(trace, readonly=True) as database:
        return database.load()


def assert_same_readings(grokscope: Command, run: Path, undisturbed: Path) -> None:
    found = grokscope("export", run, "--format", "jsonl").out
    assert found == grokscope("export", undisturbed, "--format", "jsonl").out


def interrupted(run: Path) -> None:
    """Turn a finished run back into one that was stopped."""
    manifest = json.loads((run / "run.json").read_text())
    manifest["status"] = "interrupted"
    (run / "run.json").write_text(json.dumps(manifest))


def test_a_damaged_checkpoint_is_passed_over_and_said(
    grokscope: Command, small_run: Path, finished_run: Path
) -> None:
    interrupted(small_run)
    newest, previous = sorted(small_run.glob("checkpoints/step-*"), reverse=True)[:2]
    tensors = newest / "tensors.safetensors"
    data = bytearray(tensors.read_bytes())
    data[-5] ^= 1
    tensors.write_bytes(bytes(data))
    outcome = grokscope("resume", small_run)
    assert outcome.code == 0, outcome.err
    assert "damaged checkpoint" in outcome.err
    assert newest.name in outcome.err
    assert f"at step {int(previous.name.removeprefix('step-')):,}" in outcome.err
    assert_same_readings(grokscope, small_run, finished_run)


def test_without_any_good_checkpoint_it_starts_over(
    grokscope: Command, small_run: Path, finished_run: Path
) -> None:
    interrupted(small_run)
    for state in small_run.glob("checkpoints/step-*/state.json"):
        state.write_text("{")
    before = load(small_run / "trace.sqlite")
    outcome = grokscope("resume", small_run)
    assert outcome.code == 0, outcome.err
    assert "starting over" in outcome.err
    kept = load(small_run / "trace-before-1.sqlite")  # nothing lost
    assert kept.keys() == before.keys()
    assert np.array_equal(kept.steps(), before.steps())
    assert_same_readings(grokscope, small_run, finished_run)


def test_a_missing_trace_starts_over_and_says_so(
    grokscope: Command, small_run: Path, finished_run: Path
) -> None:
    interrupted(small_run)
    (small_run / "trace.sqlite").unlink()
    outcome = grokscope("resume", small_run)
    assert outcome.code == 0, outcome.err
    assert "lacks observations" in outcome.err
    assert_same_readings(grokscope, small_run, finished_run)


@pytest.mark.parametrize("command", ["resume", "report", "export"])
@pytest.mark.parametrize("damage", ["garbage", "truncated", "foreign"])
def test_a_damaged_or_foreign_trace(
    grokscope: Command, small_run: Path, command: str, damage: str
) -> None:
    interrupted(small_run)
    trace = small_run / "trace.sqlite"
    if damage == "garbage":
        trace.write_bytes(b"not a database at all" * 300)
    elif damage == "truncated":
        trace.write_bytes(trace.read_bytes()[: trace.stat().st_size // 2])
    else:
        trace.unlink()
        with sqlite3.connect(trace) as other:
            other.execute("CREATE TABLE songs (title TEXT)")
        other.close()
    before = contents(small_run)
    more = ["--format", "csv"] if command == "export" else []
    outcome = grokscope(command, small_run, *more)
    assert outcome.code == 3
    assert "trace.sqlite" in outcome.err
    assert "Traceback" not in outcome.err
    assert contents(small_run) == before


def test_a_damaged_manifest(grokscope: Command, small_run: Path) -> None:
    (small_run / "run.json").write_text('{"schema": 1, "exper')
    assert grokscope("resume", small_run).code == 3
    listed = json.loads(grokscope("list", "runs", "--in", small_run.parent, "--json").out)
    assert "damaged" in listed[0]["status"]


@pytest.mark.parametrize("number", [errno.EROFS, errno.EACCES, errno.ENOSPC])
def test_a_disk_that_refuses_the_folder(
    grokscope: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(Path, "mkdir", refuse)
    outcome = grokscope("run", "anti-grokking", *SMALL, "--out", tmp_path / "run")
    assert outcome.code == 5
    assert str(tmp_path / "run") in outcome.err
    assert "Traceback" not in outcome.err


def test_a_disk_that_fills_up_stops_the_run_and_loses_nothing(
    grokscope: Command, tmp_path: Path, finished_run: Path
) -> None:
    # The system's own limit on the size of a file, met in the middle of the run.
    folder = tmp_path / "run"
    script = (
        "import resource, signal, sys\n"
        "signal.signal(signal.SIGXFSZ, signal.SIG_IGN)\n"
        "resource.setrlimit(resource.RLIMIT_FSIZE, (120_000, 120_000))\n"
        "from grokscope.cli import main\n"
        "main(sys.argv[1:])\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script, "run", "anti-grokking", *SMALL, "--out", str(folder)],
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert done.returncode == 5, done.stderr
    assert "Traceback" not in done.stderr
    assert str(folder) in done.stderr
    outcome = grokscope("resume", folder)
    assert outcome.code == 0, outcome.err
    assert_same_readings(grokscope, folder, finished_run)


def test_a_second_process_on_one_run_is_refused(grokscope: Command, tmp_path: Path) -> None:
    folder = tmp_path / "run"
    arguments = [*SMALL, "--steps", "10000000", "--out", str(folder)]
    first = subprocess.Popen(
        [sys.executable, "-m", "grokscope", "run", "anti-grokking", *arguments],
        stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        while first.poll() is None and not list(folder.glob("checkpoints/step-*")):
            time.sleep(0.01)
        outcome = grokscope("resume", folder)
        assert outcome.code == 5
        assert f"in use by process {first.pid}" in outcome.err
        assert first.poll() is None
    finally:
        first.kill()
        first.wait(timeout=30)


def test_missing_data_says_what_to_put_where(grokscope: Command, tmp_path: Path) -> None:
    outcome = grokscope(
        "run", "anti-grokking", "--preset", "mnist-quick", "--data-dir", tmp_path,
        "--out", tmp_path / "run",
    )  # fmt: skip
    assert outcome.code == 5
    assert "t10k-images-idx3-ubyte" in outcome.err
    assert str(tmp_path) in outcome.err


def test_too_few_points(grokscope: Command, tmp_path: Path) -> None:
    outcome = grokscope("run", "anti-grokking", "--set", "n_train=5000", "--out", tmp_path / "run")
    assert outcome.code == 3
    assert "5000" in outcome.err
    # The folder does not stand in the way of the corrected command.
    assert grokscope("run", "anti-grokking", *SMALL, "--out", tmp_path / "run").code == 0


def test_divergence_fails_the_run_and_keeps_what_was_reached(
    grokscope: Command, tmp_path: Path
) -> None:
    folder = tmp_path / "run"
    outcome = grokscope(
        "run", "anti-grokking", *SMALL, "--set", "optimizer=sgd", "--set", "lr=1e6",
        "--out", folder,
    )  # fmt: skip
    assert outcome.code == 4
    assert "no longer finite" in outcome.err
    assert json.loads((folder / "run.json").read_text())["status"] == "failed"
    assert (folder / "report.html").exists()
    assert grokscope("export", folder, "--format", "csv").code == 0


def test_no_cuda(grokscope: Command, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    outcome = grokscope(
        "run", "anti-grokking", *SMALL, "--device", "cuda", "--out", tmp_path / "run"
    )
    assert outcome.code == 5
    assert "--device cpu" in outcome.err


def test_a_figure_of_unknown_kind(grokscope: Command, finished_run: Path) -> None:
    outcome = grokscope("plot", finished_run, "--out", "figure.bmp")
    assert outcome.code == 2
    assert all(ending in outcome.err for ending in ("png", "svg", "pdf"))
