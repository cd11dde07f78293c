"""What an attack is, and the list of all of them."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

Outcome = Literal["refused", "reported"]

MARKER = "executed"
"""Folder that every payload tries to make beside its file."""

ATTACKS: dict[str, Attack] = {}


@dataclass(frozen=True)
class Attack:
    """One malformation.

    Attributes:
        name: Its name.
        what: What is wrong with the file.
        outcome: ``refused``: the whole checkpoint. ``reported``: the tensor ``bad``, while ``good``
            is read.
        word: Stands in the message of the refusal, or in the reason of the report.
        make: Returns the bytes of a file, or writes into a folder and returns what to scan.
    """

    name: str
    what: str
    outcome: Outcome
    word: str
    make: Callable[[Path], bytes | Path]

    def write(self, folder: Path) -> Path:
        """Write the attack into an empty folder; return what a user would scan."""
        made = self.make(folder)
        if isinstance(made, Path):
            return made
        path = folder / "checkpoint"
        path.write_bytes(made)
        return path


Maker = Callable[[Path], bytes | Path]


def refused(word: str) -> Callable[[Maker], Maker]:
    """Register a generator of checkpoints that must be refused with ``word`` in the message."""
    return _register("refused", word)


def reported(word: str) -> Callable[[Maker], Maker]:
    """Register a generator of checkpoints whose tensor ``bad`` must be reported."""
    return _register("reported", word)


def _register(outcome: Outcome, word: str) -> Callable[[Maker], Maker]:
    def register(make: Maker) -> Maker:
        name = make.__name__
        if name in ATTACKS:
            raise ValueError(f"two attacks are named {name}")
        what = inspect.getdoc(make) or ""
        ATTACKS[name] = Attack(name, what, outcome, word, make)
        return make

    return register
