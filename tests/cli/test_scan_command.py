"""`grokscope scan` as a user types it."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pyarrow.parquet
import pytest
import safetensors.torch
import torch
from command_line import Outcome

from grokscope.scan import Scan
from grokscope.store.run_directory import RunDirectory

Command = Callable[..., Outcome]
QUICK = ("--shuffles", "2", "--workers", "1", "--no-cache")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A sound layer and one with a planted entry, under a name that is an attack."""
    generator = torch.Generator().manual_seed(0)
    planted = torch.randn(60, 80, generator=generator)
    planted[7, 3] = 60.0
    tensors = {
        "../<script>alert(1)</script>\x1b[31m.weight": planted,
        "sound.weight": torch.rand(60, 80, generator=generator) - 0.5,
        "sound.bias": torch.zeros(60),
    }
    path = tmp_path_factory.mktemp("model") / "model.safetensors"
    safetensors.torch.save_file(tensors, path)
    return path


def test_findings_come_first_and_names_are_inert(grokscope: Command, model: Path) -> None:
    outcome = grokscope("scan", model, *QUICK)
    assert outcome.code == 0
    assert outcome.err == ""
    assert "\x1b" not in outcome.out
    lines = outcome.out.splitlines()
    assert lines.index("traps") < next(i for i, each in enumerate(lines) if each[:5] == "layer")
    assert "row 7, column 3" in " ".join(outcome.out.split())
    assert "biases" in outcome.out


def test_json_is_one_document_and_nothing_else(grokscope: Command, model: Path) -> None:
    outcome = grokscope("scan", model, *QUICK, "--json")
    document = json.loads(outcome.out)
    assert document["schema"] == 1
    assert {each["name"] for each in document["layers"]} >= {"sound", "sound.bias"}
    assert [each["finding"] for each in document["findings"]].count("traps") == 1


def test_fail_on_sets_the_exit_code(grokscope: Command, model: Path) -> None:
    assert grokscope("scan", model, *QUICK, "--fail-on", "traps").code == 1
    assert grokscope("scan", model, *QUICK, "--fail-on", "any").code == 1
    assert grokscope("scan", model, *QUICK, "--fail-on", "failed-fit").code == 0
    sound = grokscope("scan", model, *QUICK, "--layers", "^sound", "--fail-on", "traps")
    assert sound.code == 0


def test_files_are_written_beside_what_is_printed(
    grokscope: Command, model: Path, tmp_path: Path
) -> None:
    files = [tmp_path / name for name in ("scan.html", "scan.json", "scan.parquet")]
    outcome = grokscope("scan", model, *QUICK, *(x for file in files for x in ("--out", file)))
    assert outcome.code == 0, outcome.err
    page = files[0].read_text()
    assert "<script>alert(1)" not in page
    document = json.loads(files[1].read_text())
    table = pyarrow.parquet.read_table(files[2])
    assert table.column("alpha").to_pylist() == [each["alpha"] for each in document["layers"]]
    about = json.loads(table.schema.metadata[b"grokscope"])
    assert about["shuffles"] == 2


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["nowhere.safetensors"], 3, "There is no nowhere.safetensors"),
        ([".", "--layers", "*"], 2, "no regular expression"),
        ([".", "--fail-on", "trap"], 2, "Did you mean 'traps'?"),
        ([".", "--heads", "0"], 2, "--heads '0'"),
        ([".", "--heads", "8/"], 2, "--heads '8/'"),
        ([".", "--out", "scan.pdf"], 2, "kind of file '.pdf'"),
        ([".", "--out", "away/scan.html"], 5, "its folder is not there"),
        ([".", "--limit", "tensor=5"], 2, "Did you mean 'tensors'?"),
        ([".", "--limit", "tensors=many"], 2, "--limit tensors=many"),
        ([".", "--allow-global", "os.system"], 2, "os.system"),
        (["empty"], 3, "holds no checkpoint"),
    ],
)
def test_each_way_to_be_wrong(
    grokscope: Command,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    arguments: list[str],
    code: int,
    message: str,
) -> None:
    (tmp_path / "empty").mkdir()
    monkeypatch.chdir(tmp_path)
    outcome = grokscope("scan", *arguments, *QUICK)
    assert outcome.code == code
    assert message in outcome.err
    assert "Traceback" not in outcome.err
    assert outcome.out == ""


def test_a_pickle_is_refused_and_does_not_run(grokscope: Command, tmp_path: Path) -> None:
    marker = tmp_path / "ran"
    (tmp_path / "model.pt").write_bytes(b"cos\nsystem\n(S'touch " + bytes(marker) + b"'\ntR.")
    outcome = grokscope("scan", tmp_path / "model.pt", *QUICK)
    assert outcome.code == 3
    assert "refused" in outcome.err
    assert not marker.exists()


def test_ctrl_c_keeps_what_was_measured(tmp_path: Path) -> None:
    generator = torch.Generator().manual_seed(0)
    tensors = {f"{i}.weight": torch.randn(400, 800, generator=generator) for i in range(40)}
    safetensors.torch.save_file(tensors, tmp_path / "model.safetensors")
    process = subprocess.Popen(
        [sys.executable, "-m", "grokscope", "scan", str(tmp_path / "model.safetensors"), "--json"],
        env={**os.environ, "XDG_CACHE_HOME": str(tmp_path / "cache")},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        start_new_session=True,
        text=True,
    )
    deadline = time.monotonic() + 60
    while not list((tmp_path / "cache").rglob("*.json")) and time.monotonic() < deadline:
        time.sleep(0.05)
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does, to the children as well
    out, err = process.communicate(timeout=30)
    assert process.returncode == 130
    assert out == ""
    assert "the same command goes on from there" in err
    assert "Traceback" not in err
    assert 0 < len(list((tmp_path / "cache").rglob("*.json"))) < 40


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGKILL])
def test_no_child_outlives_its_scan(tmp_path: Path, number: signal.Signals) -> None:
    generator = torch.Generator().manual_seed(0)
    tensors = {"big.weight": torch.randn(1500, 1500, generator=generator)}
    safetensors.torch.save_file(tensors, tmp_path / "model.safetensors")
    process = subprocess.Popen(
        [sys.executable, "-m", "grokscope", "scan", tmp_path / "model.safetensors", *QUICK],
        stderr=subprocess.PIPE,
        text=True,
    )

    def children() -> list[int]:
        found = Path(f"/proc/{process.pid}/task/{process.pid}/children").read_text()
        return [int(each) for each in found.split()]

    deadline = time.monotonic() + 60
    while not children() and time.monotonic() < deadline:
        time.sleep(0.02)
    time.sleep(1.5)
    (child,) = children()
    process.send_signal(number)
    _, err = process.communicate(timeout=30)
    if number == signal.SIGTERM:
        assert process.returncode == 143
        assert err == "Interrupted.\n"
    while Path(f"/proc/{child}").exists() and time.monotonic() < deadline:
        time.sleep(0.02)
    assert not Path(f"/proc/{child}").exists()


def test_only_the_newest_checkpoint_of_a_run_is_judged(
    grokscope: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    layer = {"name": "fc", "step": 9, "shape": [9, 9], "status": "ok"}
    findings = [{"finding": "traps", "step": 3}, {"finding": "under-trained", "step": 9}]
    document = {"layers": [{**layer, "step": 3}, layer], "findings": findings}
    monkeypatch.setattr("grokscope.cli.scanning.scan", lambda *_, **__: Scan(document, []))
    assert grokscope("scan", "run", "--json", "--fail-on", "traps").code == 0
    assert grokscope("scan", "run", "--json", "--fail-on", "under-trained").code == 1


def test_checking_a_file_needs_no_torch() -> None:
    code = (
        "import sys, grokscope.scan.document, grokscope.scan.worker, grokscope.cli.scanning;"
        "sys.exit('torch' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0


def test_the_checkpoints_of_a_run_read_as_its_trace_does(
    grokscope: Command, finished_run: Path
) -> None:
    document = json.loads(grokscope("scan", finished_run, "--no-cache", "--json").out)
    with RunDirectory.open(finished_run).trace(readonly=True) as database:
        trace = database.load()
    compared = 0
    for layer in document["layers"]:
        if layer["step"] not in trace.steps() or layer["status"] != "ok":
            continue
        for ours, theirs in (
            ("alpha", "htsr.alpha"),
            ("D", "htsr.ks_distance"),
            ("traps", "traps.count"),
            ("trap_ratio", "traps.ratio"),
        ):
            expected = trace.series(theirs, layer["name"]).at(layer["step"])
            assert layer[ours] == pytest.approx(expected, rel=1e-6)
            compared += 1
    assert compared >= 8
