"""Every malformation is refused or reported as it should be, and nothing it carries is run."""

import os
import pickle
import subprocess
import sys
from pathlib import Path

import pytest
from form_attacks import raw_pickle
from generate import ATTACKS
from registry import MARKER

from grokscope.errors import InputError
from grokscope.scan.files import open_checkpoint
from grokscope.scan.inventory import digest, load_tensor, read_inventory, release
from grokscope.scan.limits import Limits


def descriptors():
    return len(os.listdir("/proc/self/fd"))


def scan(path):
    """Do all that a scan does with a file; return entries by name."""
    with open_checkpoint(path) as checkpoint:
        inventory = read_inventory(checkpoint, Limits())
        for entry in inventory.entries:
            if not entry.unavailable:
                assert load_tensor(inventory, entry).shape == entry.shape
                digest(inventory, entry)
                release(inventory, entry)
        return {entry.name: entry for entry in inventory.entries}


@pytest.mark.parametrize("name", ATTACKS)
def test_attack(name, tmp_path):
    attack = ATTACKS[name]
    path = attack.write(tmp_path)
    before = descriptors()
    if attack.outcome == "refused":
        with pytest.raises(InputError) as caught:
            scan(path)
        message = str(caught.value)
        assert attack.word in message
        assert len(message) < 2000
        assert message.isprintable()
        assert "weights_only" not in message
    else:
        entries = scan(path)
        assert attack.word in entries["bad"].unavailable
        assert not entries["good"].unavailable
    assert not (tmp_path / MARKER).exists()
    assert descriptors() == before


def test_payloads_would_run(tmp_path):
    """The control: the marker proves something."""
    pickle.loads(raw_pickle(tmp_path))
    assert (tmp_path / MARKER).is_dir()


def test_all_can_be_written(tmp_path):
    script = Path(__file__).parents[2] / "attacks" / "generate.py"
    out = subprocess.run(
        [sys.executable, script, tmp_path / "all"], check=True, capture_output=True, text=True
    )
    assert len(out.stdout.splitlines()) == len(ATTACKS) == len(list((tmp_path / "all").iterdir()))
    assert not list(tmp_path.rglob(MARKER))
