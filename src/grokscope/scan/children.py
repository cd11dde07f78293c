"""Child processes that read and measure, so that a file that breaks its reader breaks no more.

Each child gets open descriptors, a limit on its address space and, for every answer, a limit on
time. It answers in plain JSON, one line each; what it says is data, never code. It is no sandbox:
a child may do what its user may. That no file makes it do so is what the readers are for.
"""

from __future__ import annotations

import contextlib
import json
import os
import selectors
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Self

_LINE = 64 * 2**20  # longest answer that is accepted
_CHUNK = 2**20
_LONGEST_WAIT = 3600.0  # seconds; the system's own limit is not much higher

# The libraries of linear algebra size their pools when they are loaded.
_ONE_THREAD = {"OMP_NUM_THREADS": "1", "MKL_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}


@dataclass(frozen=True, slots=True)
class Task:
    """One question to a child.

    Attributes:
        body: What is asked, plain JSON.
        memory: Bytes that answering takes at most; tasks run side by side only where all fit.
        seconds: How long the answer may take.
    """

    body: Mapping[str, Any]
    memory: int = 0
    seconds: float = 3600.0


@dataclass(eq=False)
class _Child:
    process: subprocess.Popen[bytes]
    task: int | None = None
    deadline: float = 0.0
    answer: bytearray = field(default_factory=bytearray)


class Children:
    """A pool of child processes; a context manager that leaves none behind."""

    def __init__(self, descriptors: Sequence[int], setup: Mapping[str, Any], *, count: int) -> None:
        """Note how children are made; the first starts with the first task.

        Args:
            descriptors: Open files that children inherit under the same numbers.
            setup: The first line that each child reads.
            count: Most children at once.
        """
        self._descriptors = tuple(descriptors)
        self._setup = json.dumps(setup).encode() + b"\n"
        self._count = count
        self._children: list[_Child] = []

    def __enter__(self) -> Self:
        """Return the pool."""
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """End every child."""
        for child in list(self._children):
            self._end(child)

    def run(self, tasks: Sequence[Task], memory: int) -> Iterator[tuple[int, dict[str, Any]]]:
        """Answer tasks side by side, and yield (index, answer) as they come.

        A child that dies or takes too long is replaced; its answer is ``{"lost": reason}``.

        Args:
            tasks: Begun in this order, but for those that must wait for memory.
            memory: Bytes that all running tasks may take together; a task that needs more than all
                of it runs alone, up to the limit that the child sets itself.
        """
        waiting = list(range(len(tasks)))
        while waiting or any(child.task is not None for child in self._children):
            self._begin(tasks, waiting, memory)
            running = [child for child in self._children if child.task is not None]
            ready = _ready(running)
            for child in running:
                task = child.task
                assert task is not None
                answer = self._hear(child) if child in ready else None
                if answer is None and time.monotonic() >= child.deadline:
                    answer = {"lost": f"it took more than {tasks[task].seconds:g} s"}
                if answer is None:
                    continue
                child.task = None
                if "lost" in answer:
                    self._end(child)
                yield task, answer

    def _begin(self, tasks: Sequence[Task], waiting: list[int], memory: int) -> None:
        """Give every idle child the first waiting task that fits beside those that run."""
        for child in [c for c in self._children if c.task is None and c.process.poll() is not None]:
            self._end(child)  # it died idle, and owes no answer
        while waiting:
            running = [tasks[c.task].memory for c in self._children if c.task is not None]
            room = memory - sum(running)
            chosen = next((i for i in waiting if tasks[i].memory <= room or not running), None)
            idle = next((c for c in self._children if c.task is None), None)
            if chosen is None or (idle is None and len(self._children) >= self._count):
                return
            if idle is None:
                idle = self._start()
            waiting.remove(chosen)
            idle.task = chosen
            idle.deadline = time.monotonic() + tasks[chosen].seconds
            stdin = idle.process.stdin
            assert stdin is not None
            # A child that is gone is noticed when its answer is read.
            with contextlib.suppress(BrokenPipeError):
                stdin.write(json.dumps(tasks[chosen].body).encode() + b"\n")
                stdin.flush()

    def _start(self) -> _Child:
        # -P: the folder that the user stands in may be the hostile one, and hold a torch.py.
        process = subprocess.Popen(
            [sys.executable, "-P", "-m", "grokscope.scan.worker"],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            pass_fds=self._descriptors,
            env={**os.environ, **_ONE_THREAD},
        )
        child = _Child(process)
        self._children.append(child)
        assert process.stdin is not None
        with contextlib.suppress(BrokenPipeError):
            process.stdin.write(self._setup)
        return child

    def _hear(self, child: _Child) -> dict[str, Any] | None:
        """Take what a child has written; return its answer once that is whole."""
        part = os.read(_stdout(child), _CHUNK)
        if not part:
            return {"lost": f"the process that read it ended ({_ending(child.process)})"}
        child.answer += part
        if len(child.answer) > _LINE:
            return {"lost": "its answer is too long"}
        if not part.endswith(b"\n"):
            return None
        line, child.answer = bytes(child.answer), bytearray()
        try:
            answer = json.loads(line)
        except (ValueError, RecursionError):
            answer = None
        return answer if isinstance(answer, dict) else {"lost": "its answer cannot be read"}

    def _end(self, child: _Child) -> None:
        self._children.remove(child)
        child.process.kill()
        child.process.wait()
        for stream in (child.process.stdin, child.process.stdout):
            if stream is not None:
                with contextlib.suppress(BrokenPipeError):
                    stream.close()


def _ready(running: Sequence[_Child]) -> set[_Child]:
    """Wait until a child has something to say, or the time of one is up."""
    patience = min(child.deadline for child in running) - time.monotonic()
    with selectors.DefaultSelector() as answers:
        for child in running:
            answers.register(_stdout(child), selectors.EVENT_READ, child)
        found = answers.select(min(max(0.0, patience), _LONGEST_WAIT))
    return {key.data for key, _ in found}


def _stdout(child: _Child) -> int:
    assert child.process.stdout is not None
    return child.process.stdout.fileno()


def _ending(process: subprocess.Popen[bytes]) -> str:
    try:
        code = process.wait(timeout=5.0)
    except subprocess.TimeoutExpired:
        return "no reason given"
    return f"signal {-code}: out of memory?" if code < 0 else f"exit code {code}"
