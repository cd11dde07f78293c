"""Hostile and damaged checkpoints: one generator for each malformation.

``python attacks/generate.py DIR`` writes them all below ``DIR``, each into a folder of its own.
None is dangerous to have; some run code when an unsafe reader *loads* them (they make a folder
``executed`` beside themselves, which proves it).
"""

from __future__ import annotations

import sys
from pathlib import Path

import folder_attacks  # noqa: F401  (importing registers)
import form_attacks  # noqa: F401
import safetensors_attacks  # noqa: F401
import torch_attacks  # noqa: F401
import zip_attacks  # noqa: F401
from registry import ATTACKS


def main(target: Path) -> None:
    """Write all attacks below ``target``, and print what each is."""
    for attack in ATTACKS.values():
        folder = target / attack.name
        folder.mkdir(parents=True)
        path = attack.write(folder)
        print(f"{path}\t{attack.outcome}: {attack.word}\t{attack.what}")


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: python attacks/generate.py DIR")
    main(Path(sys.argv[1]))
