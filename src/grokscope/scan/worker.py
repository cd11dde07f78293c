"""What a child process does: it alone reads tensors.

One line of JSON comes in, one goes out. The first line sets up; each that follows asks for

* ``inventory``: the tensors of a checkpoint by name, after every check of its structure;
* ``digest``: the SHA-256 of one tensor;
* ``measure``: the records of some matrices, all of one shape.

Torch is imported when the first number is needed: a safetensors file is checked without it.
"""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import resource
import signal
import sys
import traceback
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from grokscope.errors import GrokscopeError
from grokscope.scan.entry import TensorEntry
from grokscope.scan.files import checkpoint_from_json
from grokscope.scan.inventory import Inventory, digest, load_tensor, read_inventory, release
from grokscope.scan.limits import Limits

if TYPE_CHECKING:
    from torch import Tensor

# Address space of the interpreter and of the libraries that it has yet to map.
_LIBRARIES = 8 * 2**30


class Worker:
    """The checkpoints of one scan, as a child process has them."""

    def __init__(self, setup: dict[str, Any]) -> None:
        """Take over descriptors and limits; nothing is read yet.

        Args:
            setup: The first line.
        """
        self._limits = Limits(**setup["limits"])
        self._key = setup["key"] or ""
        self._allow_globals = tuple(setup["allow_globals"])
        self._device = setup["device"]
        self._checkpoints = [checkpoint_from_json(each) for each in setup["checkpoints"]]
        # Enough to load tensors by; whoever was asked for the inventory has checked the files.
        self._sources = [
            Inventory(
                path=each.path,
                kind=each.kind,
                files=each.files,
                entries=(),
                limits=self._limits,
                key=self._key,
                allow_globals=self._allow_globals,
            )
            for each in self._checkpoints
        ]
        # Torch maps its files whole; others are read piece by piece.
        torch_files = [each.files for each in self._checkpoints if each.kind == "torch"]
        mapped = sum(file.size for files in torch_files for file in files)
        if self._device == "cpu":  # the driver of a GPU maps more than any limit that would matter
            _limit_address_space(_LIBRARIES + mapped + setup["memory"])

    def answer(self, question: dict[str, Any]) -> dict[str, Any]:
        """Answer one question."""
        try:
            match question["ask"]:
                case "inventory":
                    checkpoint = self._checkpoints[question["checkpoint"]]
                    found = read_inventory(
                        checkpoint, self._limits, key=self._key, allow_globals=self._allow_globals
                    )
                    return {"inventory": dataclasses.asdict(found)}
                case "digest":
                    entry = _entry(question["tensor"])
                    return {"digest": digest(self._sources[question["checkpoint"]], entry)}
                case _:
                    return {"measured": self._measure(question)}
        except GrokscopeError as error:
            return {"refused": str(error), "kind": type(error).__name__}
        except MemoryError:
            return {"lost": "it takes more memory than --memory allows"}
        except Exception:
            # Torch has no error of its own for a lack of memory on the CPU.
            trace = traceback.format_exc()
            if "not enough memory" in trace or "CUDA out of memory" in trace:
                return {"lost": "it takes more memory than --memory allows"}
            return {"defect": trace}

    def _measure(self, question: dict[str, Any]) -> list[dict[str, Any]]:
        import torch

        from grokscope.probes.matrices import matrix_from_json
        from grokscope.scan.layer import measure
        from grokscope.scan.settings import Settings

        torch.set_num_threads(question["threads"])
        settings = Settings(**question["settings"])
        asked = question["matrices"]
        matrices = [matrix_from_json(each["matrix"]) for each in asked]
        weights = []
        for matrix, each in zip(matrices, asked, strict=True):
            weight = self._matrix(matrix, each["tensors"])
            if each["subtracted"]:
                # In float64, in which differences of all shorter dtypes are exact enough to rank.
                weight = weight.to(torch.float64) - self._matrix(matrix, each["subtracted"])
            weights.append(weight.to(self._device))
        found = measure(weights, matrices, settings, [each["step"] for each in asked])
        del weight, weights
        for each in asked:
            for i, fields in each["tensors"] + each["subtracted"]:
                release(self._sources[i], _entry(fields))
        return [{"record": record, "spectrum": spectrum} for record, spectrum in found]

    def _matrix(self, matrix: Any, tensors: Sequence[tuple[int, dict[str, Any]]]) -> Tensor:
        from grokscope.probes.matrices import take_matrix

        loaded = [load_tensor(self._sources[i], _entry(each)) for i, each in tensors]
        return take_matrix(matrix, loaded)


def _entry(fields: dict[str, Any]) -> TensorEntry:
    return TensorEntry(**{**fields, "shape": tuple(fields["shape"])})


def _limit_address_space(size: int) -> None:
    """Refuse this process more than ``size`` bytes, where the system can."""
    with contextlib.suppress(ValueError, OSError):
        _, hard = resource.getrlimit(resource.RLIMIT_AS)
        limit = size if hard == resource.RLIM_INFINITY else min(size, hard)
        resource.setrlimit(resource.RLIMIT_AS, (limit, hard))


def main() -> None:
    """Answer questions until there are no more."""
    # A Ctrl-C reaches the whole group; whoever asked decides what becomes of us.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    # Nothing that a library prints may be taken for an answer.
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    worker = Worker(json.loads(sys.stdin.readline()))
    for line in sys.stdin:
        print(json.dumps(worker.answer(json.loads(line))), file=answers, flush=True)


if __name__ == "__main__":
    main()
