"""What the commands give when all is well."""

from __future__ import annotations

import csv
import io
import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from command_line import SMALL, Outcome

from grokscope.experiments import Finding, get_experiment

Command = Callable[..., Outcome]

READING_COMMANDS = [
    ["--help"],
    ["--version"],
    ["run", "--help"],
    ["list", "experiments"],
    ["list", "measures"],
    ["list", "runs", "--in", "RUNS"],
    ["report", "RUN"],
    ["report", "RUN", "--json"],
    ["export", "RUN", "--format", "jsonl"],
    ["plot", "RUN", "--out", "FIGURE"],
]


@pytest.mark.parametrize("arguments", READING_COMMANDS, ids=" ".join)
def test_reading_never_imports_torch(arguments: list[str], small_run: Path, tmp_path: Path) -> None:
    places = {"RUN": small_run, "RUNS": small_run.parent, "FIGURE": tmp_path / "figure.svg"}
    filled = [str(places.get(argument, argument)) for argument in arguments]
    script = (
        "import sys, atexit\n"
        "from grokscope.cli import main\n"
        "atexit.register(lambda: print('torch' in sys.modules, file=sys.stderr))\n"
        f"main({filled!r})\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=False
    )
    assert done.returncode == 0, done.stderr
    assert done.stderr.strip().splitlines()[-1] == "False"


def test_importing_grokscope_is_lazy() -> None:
    script = "import sys, grokscope; print('torch' in sys.modules); print(grokscope.Watch)"
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=60, check=True
    )
    first, second = done.stdout.splitlines()
    assert first == "False"
    assert "grokscope.watch.watch.Watch" in second


def test_json_document_is_all_there_is_on_stdout(grokscope: Command, tmp_path: Path) -> None:
    outcome = grokscope("run", "anti-grokking", *SMALL, "--out", tmp_path / "run", "--json")
    assert outcome.code == 0, outcome.err
    document: dict[str, Any] = json.loads(outcome.out)
    assert document["run"] == str(tmp_path / "run")
    assert document["status"] == "finished"
    assert document["reached_step"] == 1500
    assert document["verdict"] == document["verdicts"]["observed"]
    assert {"phase", "since", "evidence"} <= set(document["verdict"])
    assert {claim["id"] for claim in document["claims"]} >= {"late-collapse", "htsr-alarms"}
    for claim in document["claims"]:
        assert claim["outcome"] in {"holds", "fails", "inconclusive"}
        assert claim["published"]
        assert claim["measured"]
    page = Path(document["report"]).read_text(encoding="utf-8")
    assert document["verdict"]["phase"] in page


def test_run_on_the_same_folder_says_it_is_done(grokscope: Command, finished_run: Path) -> None:
    outcome = grokscope("run", "anti-grokking", *SMALL, "--out", finished_run)
    assert outcome.code == 0
    assert "is finished already" in outcome.err


@pytest.mark.parametrize(("outcome", "code"), [("fails", 1), ("inconclusive", 0), ("holds", 0)])
def test_check_exits_with_1_when_a_claim_fails(
    grokscope: Command, finished_run: Path, monkeypatch: pytest.MonkeyPatch, outcome: str, code: int
) -> None:
    found = [
        (claim, Finding(outcome, "as told", {}))  # type: ignore[arg-type]
        for claim in get_experiment("anti-grokking").claims[:2]
    ]
    monkeypatch.setattr("grokscope.cli.outcome.evaluate_run", lambda *_: found)
    assert grokscope("report", finished_run, "--check").code == code
    assert grokscope("report", finished_run).code == 0


def test_export_to_a_place_that_is_not_there(grokscope: Command, finished_run: Path) -> None:
    outcome = grokscope(
        "export", finished_run, "--format", "csv", "--out", finished_run / "no" / "x.csv"
    )
    assert outcome.code == 5
    assert "Traceback" not in outcome.err


def test_export_is_one_line_per_reading(grokscope: Command, finished_run: Path) -> None:
    lines = grokscope("export", finished_run, "--format", "jsonl").out.splitlines()
    rows = [json.loads(line) for line in lines]
    assert all(list(row) == ["step", "measure", "subject", "value", "note"] for row in rows)
    assert [row["step"] for row in rows] == sorted(row["step"] for row in rows)
    measures = {row["measure"] for row in rows}
    assert measures >= {
        "loss", "accuracy", "weights.l2_norm", "update.l2_norm", "logits.scale",
        "logits.softmax_collapse_rate", "htsr.alpha", "htsr.ks_distance", "htsr.tail_size",
        "spectrum.stable_rank", "spectrum.spectral_norm", "traps.count",
        "marchenko_pastur.ks_distance", "marchenko_pastur.ks_p_value",
        "golechha.activation_sparsity", "golechha.absolute_weight_entropy",
        "golechha.local_circuit_complexity", "neighbourhood.mixture", "neighbourhood.noise_0.1",
        "neighbourhood.shift",
    }  # fmt: skip
    missing = [row for row in rows if row["value"] is None]
    assert missing
    assert all(row["note"] for row in missing)
    table = list(
        csv.DictReader(io.StringIO(grokscope("export", finished_run, "--format", "csv").out))
    )
    assert len(table) == len(rows)


def test_a_reader_that_goes_away_is_no_error(finished_run: Path) -> None:
    writer = subprocess.Popen(
        [sys.executable, "-m", "grokscope", "export", str(finished_run), "--format", "jsonl"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE,
    )  # fmt: skip
    assert writer.stdout is not None
    assert writer.stderr is not None
    writer.stdout.readline()
    writer.stdout.close()
    assert writer.stderr.read() == b""
    writer.stderr.close()
    assert writer.wait(timeout=30) in (0, -signal.SIGPIPE)


def test_export_to_a_file(grokscope: Command, finished_run: Path, tmp_path: Path) -> None:
    import pyarrow.parquet

    file = tmp_path / "readings.parquet"
    assert grokscope("export", finished_run, "--format", "parquet", "--out", file).code == 0
    count = len(grokscope("export", finished_run, "--format", "jsonl").out.splitlines())
    assert pyarrow.parquet.read_table(file).num_rows == count


@pytest.mark.parametrize(
    ("ending", "magic"), [("png", b"\x89PNG"), ("svg", b"<svg"), ("pdf", b"%PDF")]
)
def test_plot(
    grokscope: Command, finished_run: Path, tmp_path: Path, ending: str, magic: bytes
) -> None:
    file = tmp_path / f"figure.{ending}"
    outcome = grokscope("plot", finished_run, "--out", file)
    assert outcome.code == 0, outcome.err
    assert file.read_bytes().startswith(magic)


def test_a_narrow_terminal_breaks_no_words(
    grokscope: Command, finished_run: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = [
        (claim, Finding("holds", "as told", {}))
        for claim in get_experiment("anti-grokking").claims[:3]
    ]
    monkeypatch.setattr("grokscope.cli.outcome.evaluate_run", lambda *_: found)
    monkeypatch.setenv("COLUMNS", "40")
    lines = grokscope("report", finished_run).out.splitlines()
    assert "delayed-generalisation: holds" in lines
    assert "  here: as told" in lines


def test_list(grokscope: Command, finished_run: Path) -> None:
    presets = json.loads(grokscope("list", "experiments", "--json").out)
    assert {row["preset"] for row in presets} == {
        "digits", "digits-decay", "digits-permuted", "mnist-quick", "mnist-quick-decay", "mnist",
        "mnist-decay", "omnigrok", "golechha", "golechha-growing-norm",
    }  # fmt: skip
    measures = json.loads(grokscope("list", "measures", "--json").out)
    assert {"fit_power_law", "mixture_consistency"} <= {row["measure"] for row in measures}
    assert all(row["what"] for row in measures)
    runs = json.loads(grokscope("list", "runs", "--in", finished_run.parent, "--json").out)
    assert [(row["status"], row["step"]) for row in runs] == [("finished", 1500)]


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_a_signal_saves_and_resume_finishes(
    grokscope: Command, tmp_path: Path, number: int, code: int
) -> None:
    folder = tmp_path / "run"
    arguments = [*SMALL, "--steps", "60000", "--out", str(folder)]
    process = subprocess.Popen(
        [sys.executable, "-m", "grokscope", "run", "anti-grokking", *arguments],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
    )  # fmt: skip
    while process.poll() is None and not list(folder.glob("checkpoints/step-*")):
        time.sleep(0.01)
    os.kill(process.pid, number)
    _, err = process.communicate(timeout=60)
    assert process.returncode == code, err
    assert f"Go on with: grokscope resume {folder}" in err
    assert (folder / "report.html").exists()
    outcome = grokscope("resume", folder, "--json")
    assert outcome.code == 0, outcome.err
    assert "Resuming" in outcome.err
    assert json.loads(outcome.out)["reached_step"] == 60_000
