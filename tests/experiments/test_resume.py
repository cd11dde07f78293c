"""A run that is killed at random moments ends exactly as one that is left alone."""

from __future__ import annotations

import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

from grokscope.store.checkpoints import latest_checkpoint
from grokscope.store.run_directory import RunDirectory
from grokscope.store.trace import Trace

# A short run that saves often: many checkpoints to be caught in the middle of.
SCRIPT = """
import sys
from pathlib import Path
from grokscope.experiments import get_experiment
from grokscope.experiments.run import run_experiment
from grokscope.experiments.settings import resolve
from grokscope.store.run_directory import RunDirectory

experiment = get_experiment("anti-grokking")
config = resolve(
    experiment.presets["digits-decay"].config,
    ["n_train=60", "hidden=24,20", "batch_size=30", "observations=60"],
    steps=12_000,
)
run = RunDirectory.open_or_create(
    Path(sys.argv[1]),
    experiment=experiment.id,
    preset="digits-decay",
    config=config.model_dump(mode="json"),
)
result = run_experiment(experiment, run, config, checkpoint_seconds=0.05)
print(result.status)
"""


def launch(folder: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, "-c", SCRIPT, str(folder)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )


def load(folder: Path) -> Trace:
    with RunDirectory.open(folder).trace(readonly=True) as database:
        return database.load()


def test_kill_and_resume_equals_an_undisturbed_run(tmp_path: Path) -> None:
    quiet, killed = tmp_path / "quiet", tmp_path / "killed"
    process = launch(quiet)
    output, _ = process.communicate(timeout=120)
    assert output.strip().endswith("finished"), output

    chance = random.Random(5)
    kills = 0
    while True:
        process = launch(killed)
        # Wait until it has begun to train, then a random while: importing torch takes longest.
        folder = killed / "checkpoints"
        before = set(os.listdir(folder)) if folder.exists() else set()
        while process.poll() is None and kills < 4:
            now = set(os.listdir(folder)) if folder.exists() else set()
            if now - before:
                time.sleep(chance.uniform(0.0, 0.4))
                break
            time.sleep(0.002)
        if kills < 4 and process.poll() is None:
            process.send_signal(signal.SIGKILL)
            kills += 1
        output, _ = process.communicate(timeout=120)
        assert process.returncode in (0, -signal.SIGKILL), output
        if process.returncode == 0:
            assert output.strip().endswith("finished"), output
            break
    assert kills >= 2

    expected, found = load(quiet), load(killed)
    assert any(event.kind == "resumed" for event in found.events)
    assert found.keys() == expected.keys()
    for measure, subject in expected.keys():  # noqa: SIM118
        a, b = expected.series(measure, subject), found.series(measure, subject)
        assert np.array_equal(a.steps, b.steps), (measure, subject)
        assert np.array_equal(a.values, b.values, equal_nan=True), (measure, subject)
        assert a.notes == b.notes
    assert found.verdicts == expected.verdicts
    for step in expected.array_steps("spectrum.eigenvalues", "fc1"):
        left = expected.array("spectrum.shuffled_eigenvalues", "fc1", step)
        right = found.array("spectrum.shuffled_eigenvalues", "fc1", step)
        assert left is not None
        assert right is not None
        assert np.array_equal(left, right)

    last_quiet, _ = latest_checkpoint(quiet)
    last_killed, _ = latest_checkpoint(killed)
    assert last_quiet is not None
    assert last_killed is not None
    assert last_quiet.step == last_killed.step == 12_000
    assert set(last_quiet.tensors) == set(last_killed.tensors)
    for name, tensor in last_quiet.tensors.items():
        assert np.array_equal(tensor, last_killed.tensors[name]), name
