"""A run's folder: what it says of itself, who may work on it, and what is refused."""

import contextlib
import errno
import json
import os
import platform
import re
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from grokscope.errors import InputError, MissingResource
from grokscope.store import run_directory
from grokscope.store.config import config_hash
from grokscope.store.records import Reading
from grokscope.store.run_directory import RunDirectory, UnreadableRun, find_runs

CONFIG = {"seed": 0, "model": {"widths": (64, 100, 10), "scale": 8.0}}
UTC = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d\+00:00"


def create(path, **changes):
    settings = {"experiment": "anti-grokking", "preset": "digits", "config": CONFIG} | changes
    return RunDirectory.create(path, **settings)


def test_a_new_run_describes_itself(tmp_path):
    run = create(tmp_path / "deep" / "run")
    manifest = json.loads((run.path / "run.json").read_bytes())
    assert manifest == run.manifest
    assert manifest["schema"] == 1
    assert (manifest["experiment"], manifest["preset"]) == ("anti-grokking", "digits")
    assert manifest["config"] == {"seed": 0, "model": {"widths": [64, 100, 10], "scale": 8.0}}
    assert manifest["config_hash"] == config_hash(CONFIG)
    assert (manifest["status"], manifest["reached_step"], manifest["ended"]) == ("running", 0, None)
    assert re.fullmatch(UTC, manifest["started"])
    assert sorted(os.listdir(run.path)) == ["run.json", "run.lock"]
    assert run.report_path == run.path / "report.html"


def test_the_environment_is_described_without_secrets(tmp_path, monkeypatch):
    monkeypatch.setenv("API_TOKEN", "hunter2-token")
    monkeypatch.setattr(sys, "argv", ["grokscope", "run", "anti-grokking"])
    environment = create(tmp_path / "run").manifest["environment"]
    assert environment["python"] == platform.python_version()
    assert environment["packages"]["numpy"] == np.__version__
    assert set(environment["packages"]) == {"torch", "numpy", "safetensors"}
    assert environment["cpu_count"] == os.cpu_count()
    assert environment["machine"] == platform.machine()
    assert environment["argv"] == ["grokscope", "run", "anti-grokking"]
    text = (tmp_path / "run" / "run.json").read_text()
    assert "hunter2" not in text
    assert f'"{platform.node()}"' not in text


def test_a_package_that_is_not_installed_is_none(monkeypatch, tmp_path):
    monkeypatch.setattr("grokscope.store.environment._PACKAGES", ("no-such-package",))
    assert create(tmp_path / "r").manifest["environment"]["packages"] == {"no-such-package": None}


def test_an_opened_run_equals_the_created_one(tmp_path):
    run = create(tmp_path / "run")
    assert RunDirectory.open(run.path).manifest == run.manifest


def test_updates_are_written_and_times_kept(tmp_path):
    run = create(tmp_path / "run")
    run.update(reached_step=500, data={"digest": "d"})
    assert RunDirectory.open(run.path).manifest["reached_step"] == 500
    assert run.manifest["ended"] is None
    run.update(status="interrupted", reached_step=700)
    assert re.fullmatch(UTC, run.manifest["ended"])
    run.update(status="running")
    assert run.manifest["ended"] is None
    run.update(status="finished")
    manifest = RunDirectory.open(run.path).manifest
    assert manifest == run.manifest
    assert (manifest["status"], manifest["reached_step"]) == ("finished", 700)
    assert manifest["data"] == {"digest": "d"}


def test_wrong_updates_change_nothing(tmp_path):
    run = create(tmp_path / "run")
    before = (run.path / "run.json").read_bytes()
    with pytest.raises(ValueError, match=r"fields that may change, got config, started"):
        run.update(started="yesterday", config={})
    with pytest.raises(ValueError, match=r"a status of running, .*failed, got 'done'"):
        run.update(status="done")
    with pytest.raises(ValueError, match=r"expected plain JSON values, got"):
        run.update(loss=float("nan"))
    assert (run.path / "run.json").read_bytes() == before
    assert RunDirectory.open(run.path).manifest == run.manifest


def test_a_full_disk_keeps_the_old_manifest(tmp_path, monkeypatch):
    run = create(tmp_path / "run")

    def refuse(*_):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))

    monkeypatch.setattr(os, "fsync", refuse)
    with pytest.raises(MissingResource, match=r"No room to write .*run\.json"):
        run.update(reached_step=5)
    assert run.manifest["reached_step"] == 0
    assert RunDirectory.open(run.path).manifest == run.manifest


# --- folders that are taken ---------------------------------------------------------------------


def test_an_empty_folder_and_an_interrupted_creation_are_taken_over(tmp_path):
    (tmp_path / "empty").mkdir()
    create(tmp_path / "empty")
    (tmp_path / "begun").mkdir()
    (tmp_path / "begun" / "run.lock").touch()
    (tmp_path / "begun" / "run.lock.json").write_text("{}")
    (tmp_path / "begun" / ".run.json.abcd1234.partial").write_text("{")
    assert create(tmp_path / "begun").manifest["status"] == "running"


def test_another_run_is_refused_with_the_fields_that_differ(tmp_path):
    path = create(tmp_path / "run").path
    before = (path / "run.json").read_bytes()
    with pytest.raises(
        InputError,
        match=r"run holds a different run \(preset: \"digits\" -> \"mnist\"; "
        r"config\.seed: 0 -> 1; config\.model\.scale: 8\.0 -> 1\.0\)\. Choose another --out",
    ):
        create(
            path,
            preset="mnist",
            config={"seed": 1, "model": {"widths": [64, 100, 10], "scale": 1.0}},
        )
    assert (path / "run.json").read_bytes() == before


def test_the_same_run_is_to_be_resumed(tmp_path):
    run = create(tmp_path / "run")
    run.update(status="interrupted", reached_step=900)
    with pytest.raises(
        InputError,
        match=r"holds this run already \(interrupted, step 900\).*grokscope resume .*run",
    ):
        create(run.path)


def test_of_two_that_create_at_once_one_wins(tmp_path, monkeypatch):
    real = RunDirectory.lock

    @contextlib.contextmanager
    def late(run):
        monkeypatch.undo()
        create(run.path, preset="quicker")
        with real(run):
            yield

    monkeypatch.setattr(RunDirectory, "lock", late)
    with pytest.raises(InputError, match=r'different run \(preset: "quicker" -> "digits"\)'):
        create(tmp_path / "run")
    assert RunDirectory.open(tmp_path / "run").manifest["preset"] == "quicker"


def test_a_folder_of_something_else_is_refused_and_untouched(tmp_path):
    for name in "abcde":
        (tmp_path / name).touch()
    with pytest.raises(
        InputError, match=r"is not empty and holds no run \(a, b, c, \.\.\.\).*--out"
    ):
        create(tmp_path)
    assert sorted(os.listdir(tmp_path)) == list("abcde")
    with pytest.raises(InputError, match=r"a cannot be read \(Not a directory\)"):
        create(tmp_path / "a")
    with pytest.raises(InputError, match=r"cannot be written \(Not a directory\).*--out"):
        create(tmp_path / "a" / "run")


def test_a_folder_that_cannot_be_made_is_told(tmp_path, monkeypatch):
    def refuse(*_, **__):
        raise OSError(errno.EROFS, os.strerror(errno.EROFS))

    monkeypatch.setattr(os, "mkdir", refuse)
    with pytest.raises(MissingResource, match=r"run cannot be written \(Read-only file system\)"):
        create(tmp_path / "run")


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", r"run\.json is damaged \(.*Restore it from a copy, or choose another --out"),
        (b"{", r"run\.json is damaged"),
        (b"\xff\xfe\x00", r"run\.json is damaged"),
        (b"[" * 100_000, r"run\.json is damaged"),
        (b"[]", r"run\.json is damaged \(not a run's\)"),
        (b'{"name": "another program\'s"}', r"run\.json is damaged \(not a run's\)"),
        (b'{"schema": 1}', r"run\.json is damaged \(without experiment, preset"),
        (b'{"schema": 2}', r"schema version 2, this grokscope reads 1\. Install"),
    ],
)
def test_a_damaged_manifest_is_told_and_kept(tmp_path, content, message):
    run = create(tmp_path / "run")
    (run.path / "run.json").write_bytes(content)
    for attempt in (lambda: RunDirectory.open(run.path), lambda: create(run.path)):
        with pytest.raises(InputError, match=message):
            attempt()
    assert (run.path / "run.json").read_bytes() == content


@pytest.mark.parametrize("config", [CONFIG | {"seed": 1}, [1], None, {"seed": float("nan")}])
def test_an_edited_configuration_is_found(tmp_path, config):
    run = create(tmp_path / "run")
    (run.path / "run.json").write_text(json.dumps(run.manifest | {"config": config}))
    with pytest.raises(InputError, match=r"damaged \(its config does not match its config_hash\)"):
        RunDirectory.open(tmp_path / "run")


def test_no_run(tmp_path):
    for path in (tmp_path, tmp_path / "gone"):
        with pytest.raises(InputError, match=r"There is no run at .*list runs"):
            RunDirectory.open(path)


def test_a_path_that_cannot_be_is_told(tmp_path):
    path = tmp_path / ("x" * 300)
    for attempt in (RunDirectory.open, create, find_runs):
        with pytest.raises(InputError, match=r"cannot be read \(File name too long\)"):
            attempt(path)


def test_a_manifest_that_cannot_be_read_is_told(tmp_path, monkeypatch):
    run = create(tmp_path / "run")

    def refuse(*_):
        raise OSError(errno.EIO, os.strerror(errno.EIO))

    monkeypatch.setattr(Path, "read_bytes", refuse)
    with pytest.raises(InputError, match=r"run\.json cannot be read \(Input/output error\)"):
        RunDirectory.open(run.path)


# --- the trace ----------------------------------------------------------------------------------


def test_the_trace_is_made_by_its_first_writer(tmp_path):
    run = create(tmp_path / "run")
    with pytest.raises(InputError, match=r"There is no trace at .*trace\.sqlite"):
        run.trace(readonly=True)
    for step in (0, 1):
        with run.trace() as database:
            database.record([Reading(step, "loss", "train", 0.5)])
    with run.trace(readonly=True) as database:
        assert database.load().steps().tolist() == [0, 1]


# --- the lock -----------------------------------------------------------------------------------

HOLDER = """
import sys, time
from pathlib import Path
from grokscope.store.run_directory import RunDirectory
with RunDirectory.open(Path(sys.argv[1])).lock():
    print("held", flush=True)
    time.sleep(60)
"""


@contextlib.contextmanager
def held_elsewhere(run):
    with subprocess.Popen(
        [sys.executable, "-c", HOLDER, str(run.path)], stdout=subprocess.PIPE, text=True
    ) as child:
        try:
            assert child.stdout.readline() == "held\n"
            yield child
        finally:
            child.kill()


def test_a_second_process_is_refused_and_told_who_holds_the_run(tmp_path):
    run = create(tmp_path / "run")
    assert not run.is_live()
    with held_elsewhere(run) as child:
        message = (
            rf"run is in use by process {child.pid} on {re.escape(platform.node())} "
            rf"\(since {UTC}\)\. Wait"
        )
        begun = time.monotonic()
        with pytest.raises(MissingResource, match=message), run.lock():
            pass
        assert time.monotonic() - begun < 5
        assert run.is_live()
        (run.path / "run.json").rename(tmp_path / "aside")  # as if it had only begun
        with pytest.raises(MissingResource, match=message):
            create(run.path)
        (tmp_path / "aside").rename(run.path / "run.json")
        child.kill()
        child.wait()
    assert not run.is_live()
    with run.lock():  # dropped by the system, whatever the files say
        assert run.is_live()
    assert sorted(os.listdir(run.path)) == ["run.json", "run.lock"]


def test_the_lock_holds_within_one_process_too(tmp_path):
    run = create(tmp_path / "run")
    with (
        run.lock(),
        pytest.raises(MissingResource, match=rf"in use by process {os.getpid()} on"),
        RunDirectory.open(run.path).lock(),
    ):
        pass
    with run.lock():
        pass


def test_a_holder_that_cannot_be_named_is_another_process(tmp_path):
    run = create(tmp_path / "run")
    for content in (b"", b"[]", b'{"pid": 1}'):
        with run.lock():
            (run.path / "run.lock.json").write_bytes(content)
            with (
                pytest.raises(MissingResource, match=r"in use by another process\. Wait"),
                run.lock(),
            ):
                pass


def test_the_lock_is_released_when_the_work_fails(tmp_path):
    run = create(tmp_path / "run")
    with pytest.raises(KeyError, match="broken"), run.lock():
        raise KeyError("broken")
    assert not run.is_live()
    assert sorted(os.listdir(run.path)) == ["run.json", "run.lock"]


def test_a_disk_that_refuses_the_lock_is_told(tmp_path, monkeypatch):
    run = create(tmp_path / "run")
    real = os.open

    def refuse(path, flags, *rest, **names):
        if str(path).endswith("run.lock"):
            raise OSError(errno.EROFS, os.strerror(errno.EROFS))
        return real(path, flags, *rest, **names)

    monkeypatch.setattr(os, "open", refuse)
    with pytest.raises(MissingResource, match=r"run\.lock cannot be written"), run.lock():
        pass
    assert not run.is_live()


# --- finding runs -------------------------------------------------------------------------------


def test_runs_are_found_and_a_bad_one_does_not_hide_the_others(tmp_path):
    for name in ("b", "a", "sweep/seed0", "1/2/3", "1/2/3x/4", ".hidden/run"):
        create(tmp_path / name)
    create(tmp_path / "bad")
    (tmp_path / "bad" / "run.json").write_bytes(b"{")
    (tmp_path / "bad" / "sub").mkdir()
    (tmp_path / "not-a-run").mkdir()
    found = find_runs(tmp_path)
    names = ["1/2/3", "a", "b", "bad", "sweep/seed0"]
    assert [str(run.path.relative_to(tmp_path)) for run in found] == names
    for run in found:
        if run.path.name == "bad":
            assert isinstance(run, UnreadableRun)
            assert "run.json is damaged" in run.problem
        else:
            assert run.manifest["preset"] == "digits"


def test_a_run_is_found_in_itself(tmp_path):
    run = create(tmp_path / "run")
    (run.path / "nested").mkdir()
    assert [found.path for found in find_runs(run.path)] == [run.path]


def test_looking_nowhere_is_told(tmp_path):
    assert find_runs(tmp_path) == []
    with pytest.raises(InputError, match=r"There is no folder .*gone to look for runs in"):
        find_runs(tmp_path / "gone")


def test_nothing_here_imports_torch():
    program = (
        "import sys, pkgutil, importlib, grokscope.store as store\n"
        "for module in pkgutil.iter_modules(store.__path__):\n"
        "    importlib.import_module('grokscope.store.' + module.name)\n"
        "assert 'grokscope.store.run_directory' in sys.modules\n"
        "assert not {'torch', 'pyarrow', 'pandas', 'filelock'} & sys.modules.keys()\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True)


def test_the_statuses_are_those_documented():
    assert run_directory.STATUSES == ("running", "finished", "interrupted", "failed")
