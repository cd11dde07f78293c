"""What a child process does: it alone reads tensors.

One line of JSON comes in, one goes out. The first line sets up; each that follows asks for

* ``inventory``: the tensors of a checkpoint by name, after every check of its structure;
* ``digest``: the SHA-256 of one tensor;
* ``null``: the exponents of noise of one shape;
* ``measure``: the records of some matrices, all of one shape.

Torch is imported when the first number is needed: a safetensors file is checked without it.
"""

from __future__ import annotations

import contextlib
import ctypes
import dataclasses
import json
import os
import resource
import signal
import sys
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from grokscope.errors import GrokscopeError
from grokscope.scan.entry import TensorEntry
from grokscope.scan.files import checkpoint_from_json
from grokscope.scan.inventory import Inventory, digest, load_tensor, read_inventory, release
from grokscope.scan.limits import Limits

if TYPE_CHECKING:
    from torch import Tensor

    from grokscope.probes.matrices import Cut, Matrix

_FOR_PARSING = 2**30  # bytes beyond what interpreter and libraries take
_PR_SET_PDEATHSIG = 1


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
        self._mapped = sum(file.size for files in torch_files for file in files)
        self._memory = setup["memory"]

    def answer(self, question: dict[str, Any]) -> dict[str, Any]:
        """Answer one question."""
        try:
            match question["ask"]:
                case "inventory":
                    if self._mapped:
                        import torch  # noqa: F401  # before the limit, as libraries are no threat
                    _limit_address_space(_FOR_PARSING + self._mapped)
                    checkpoint = self._checkpoints[question["checkpoint"]]
                    found = read_inventory(
                        checkpoint, self._limits, key=self._key, allow_globals=self._allow_globals
                    )
                    return {"inventory": dataclasses.asdict(found)}
                case "digest":
                    entry = _entry(question["tensor"])
                    return {"digest": digest(self._sources[question["checkpoint"]], entry)}
                case "null":
                    return {"null": self._null(tuple(question["shape"]), question["draws"])}
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

    def _null(self, shape: tuple[int, int], draws: int) -> dict[str, Any]:
        import torch

        from grokscope.measures.alpha_null import alpha_null

        torch.set_num_threads(1)
        return dataclasses.asdict(alpha_null(shape, draws=draws))

    def _measure(self, question: dict[str, Any]) -> list[dict[str, Any]]:
        import torch

        from grokscope.measures.alpha_null import AlphaNull
        from grokscope.probes.matrices import matrix_from_json
        from grokscope.scan.layer import measure
        from grokscope.scan.settings import Settings

        torch.set_num_threads(question["threads"])
        # The driver of a GPU maps more than any limit that would matter.
        if self._device == "cpu":
            _limit_address_space(_FOR_PARSING + self._mapped + self._memory)
        else:
            _limit_address_space(None)
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
        null = None if question["null"] is None else AlphaNull(**question["null"])
        steps = [each["step"] for each in asked]
        found = measure(weights, matrices, settings, steps, null, locate=question["locate"])
        del weight, weights
        for each in asked:
            for i, fields in each["tensors"] + each["subtracted"]:
                release(self._sources[i], _entry(fields))
        return [{"record": record, "spectrum": spectrum} for record, spectrum in found]

    def _matrix(self, matrix: Matrix, tensors: Sequence[tuple[int, dict[str, Any]]]) -> Tensor:
        from grokscope.probes.matrices import take_matrix

        if len(tensors) == 1 and matrix.cut:
            ((i, fields),) = tensors
            source, entry = self._sources[i], _entry(fields)
            part = _part(entry, matrix.cut[0])
            if source.kind != "torch" and part is not None:
                # Of a stack of experts, only the one that is asked for is read.
                rest = dataclasses.replace(matrix, cut=matrix.cut[1:])
                loaded = load_tensor(source, part)
                return take_matrix(rest, [loaded[0] if matrix.cut[0].how == "index" else loaded])
        loaded_all = [load_tensor(self._sources[i], _entry(each)) for i, each in tensors]
        return take_matrix(matrix, loaded_all)


def _part(entry: TensorEntry, cut: Cut) -> TensorEntry | None:
    """Return the entry of some rows of a tensor, which lie together; None for any other cut."""
    if cut.how not in ("index", "rows"):
        return None
    start, stop = cut.start, cut.start + 1 if cut.how == "index" else cut.stop
    size = (entry.end - entry.begin) // entry.shape[0]
    return dataclasses.replace(
        entry,
        shape=(stop - start, *entry.shape[1:]),
        begin=entry.begin + start * size,
        end=entry.begin + stop * size,
    )


def _entry(fields: dict[str, Any]) -> TensorEntry:
    return TensorEntry(**{**fields, "shape": tuple(fields["shape"])})


def _end_with_parent() -> None:
    """Have the system end this process when the one that asks is gone, where it can (Linux)."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL))


def _limit_address_space(more: int | None) -> None:
    """Allow this process so many bytes beyond what it has; None for any. Linux only."""
    with contextlib.suppress(ValueError, OSError):
        _, hard = resource.getrlimit(resource.RLIMIT_AS)
        pages = int(Path("/proc/self/statm").read_text().split()[0])
        limit = hard if more is None else pages * resource.getpagesize() + more
        resource.setrlimit(resource.RLIMIT_AS, (limit, hard))


def main() -> None:
    """Answer questions until there are no more."""
    # A Ctrl-C reaches the whole group; whoever asked decides what becomes of us.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    _end_with_parent()
    # Nothing that a library prints may be taken for an answer.
    answers = os.fdopen(os.dup(1), "w", encoding="utf-8")
    os.dup2(2, 1)
    worker = Worker(json.loads(sys.stdin.readline()))
    for line in sys.stdin:
        print(json.dumps(worker.answer(json.loads(line))), file=answers, flush=True)


if __name__ == "__main__":
    main()
