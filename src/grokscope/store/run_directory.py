"""The folder of one run: what it is (``run.json``), who works on it, and where its parts lie."""

from __future__ import annotations

import contextlib
import datetime
import json
import os
import platform
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from grokscope.errors import GrokscopeError, InputError, MissingResource
from grokscope.store.atomic import reading, write_atomically, writing
from grokscope.store.config import config_differences, config_hash, plain_json
from grokscope.store.environment import capture_environment
from grokscope.store.trace_database import TraceDatabase

SCHEMA_VERSION = 1
STATUSES = ("running", "finished", "interrupted", "failed")

_MANIFEST = "run.json"
_LOCK = "run.lock"
_HOLDER = "run.lock.json"
_IDENTITY = ("experiment", "preset", "config")
_FIXED = ("schema", *_IDENTITY, "config_hash", "environment", "started", "ended")
_REQUIRED = (*_FIXED, "status", "reached_step")
_LOCK_PATIENCE = 0.2  # seconds: outlasts another process's glance by `is_live`, no more
_SEARCH_DEPTH = 3


class RunDirectory:
    """One run on disk.

    Attributes:
        path: The folder.
        manifest: The content of ``run.json``: ``schema``, ``experiment``, ``preset``, ``config``,
            ``config_hash``, ``environment``, ``status`` (one of `STATUSES`), ``reached_step``,
            ``started`` and ``ended`` (UTC, ISO 8601; None while it runs), and what `update`
            added, such as ``data`` (digests). Changed by `update` only.
    """

    def __init__(self, path: Path, manifest: dict[str, Any]) -> None:
        self.path = path
        self.manifest = manifest

    @classmethod
    def create(
        cls,
        path: Path,
        *,
        experiment: str,
        preset: str,
        config: Mapping[str, Any],
    ) -> RunDirectory:
        """Make the folder of a new run, with status ``running`` at step 0.

        Args:
            path: Missing or empty; missing parents are made.
            experiment: Its id.
            preset: The preset that ``config`` began from.
            config: The resolved configuration, plain JSON values; the run's identity together with
                experiment and preset.

        Returns:
            The run; not locked.

        Raises:
            InputError: The folder holds a run (the fields that differ are listed), a damaged
                ``run.json``, or anything else.
            MissingResource: Another process works on it, or the disk refuses.
            ValueError: Not plain JSON.
        """
        identity = {"experiment": experiment, "preset": preset, "config": plain_json(config)}
        manifest = {
            "schema": SCHEMA_VERSION,
            **identity,
            "config_hash": config_hash(config),
            "status": "running",
            "reached_step": 0,
            "started": _now(),
            "ended": None,
            "environment": capture_environment(),
        }
        _refuse_occupied(path, identity)
        with writing(path):
            path.mkdir(parents=True, exist_ok=True)
        run = cls(path, manifest)
        with run.lock():
            _refuse_occupied(path, identity)  # another process may have been quicker
            run._write(manifest)
        return run

    @classmethod
    def open_or_create(
        cls, path: Path, *, experiment: str, preset: str, config: Mapping[str, Any]
    ) -> RunDirectory:
        """Open the folder if it holds this very run already, and `create` it otherwise.

        Raises:
            InputError: The folder holds a different run, or anything else.
            MissingResource: As for `create`.
        """
        identity = {"experiment": experiment, "preset": preset, "config": plain_json(config)}
        if (path / _MANIFEST).is_file():
            run = cls.open(path)
            if {key: run.manifest[key] for key in _IDENTITY} == identity:
                return run
        return cls.create(path, experiment=experiment, preset=preset, config=config)

    @classmethod
    def open(cls, path: Path) -> RunDirectory:
        """Open an existing run; reads ``run.json`` only.

        Args:
            path: Its folder.

        Returns:
            The run; not locked.

        Raises:
            InputError: No run there, or its ``run.json`` is damaged, edited or too new.
        """
        file = path / _MANIFEST
        with reading(file):
            content = file.read_bytes() if file.is_file() else None
        if content is None:
            raise InputError(
                f"There is no run at {path}: no {_MANIFEST} in it. `grokscope list runs` shows "
                "the runs that there are."
            )
        return cls(path, _checked(file, content))

    @property
    def report_path(self) -> Path:
        """Where the page of the run is written."""
        return self.path / "report.html"

    def trace(self, *, readonly: bool = False) -> TraceDatabase:
        """Open the run's trace; a writer makes it where it is missing.

        Args:
            readonly: For everything but the process that holds the lock.

        Returns:
            The open trace, to be closed.

        Raises:
            InputError: Missing, damaged or foreign.
            MissingResource: The disk refuses.
        """
        file = self.path / "trace.sqlite"
        if not readonly and not file.exists():
            return TraceDatabase.create(file)
        return TraceDatabase.open(file, readonly=readonly)

    def set_trace_aside(self) -> Path:
        """Rename the trace, so that a new one can begin without losing the old; none may be open.

        Returns:
            Where it lies now: ``trace-before-1.sqlite`` or the next free number.

        Raises:
            MissingResource: The disk refuses.
        """
        file = self.path / "trace.sqlite"
        number = 1
        while (aside := self.path / f"trace-before-{number}.sqlite").exists():
            number += 1
        with writing(aside):
            file.rename(aside)
        return aside

    def discard_if_unused(self) -> None:
        """Remove the folder if nothing was ever recorded or saved in it."""
        if {child.name for child in self.path.iterdir()} <= {_MANIFEST, _LOCK, _HOLDER}:
            shutil.rmtree(self.path, ignore_errors=True)

    def update(self, **fields: Any) -> None:
        """Rewrite ``run.json`` with new values, whole or not at all.

        Args:
            **fields: ``status``, ``reached_step``, or fields of the creator's own. A status sets
                ``ended``: to now, or to None for ``running``.

        Raises:
            ValueError: A field that is fixed, a status that is not one, or no plain JSON.
            MissingResource: The disk refuses; the old content is still there.
        """
        if fixed := sorted(set(_FIXED) & fields.keys()):
            raise ValueError(f"update: expected fields that may change, got {', '.join(fixed)}.")
        manifest = {**self.manifest, **plain_json(fields)}
        if manifest["status"] not in STATUSES:
            raise ValueError(
                f"update: expected a status of {', '.join(STATUSES)}, got {manifest['status']!r}."
            )
        if "status" in fields:
            manifest["ended"] = None if fields["status"] == "running" else _now()
        self._write(manifest)
        self.manifest = manifest

    @contextlib.contextmanager
    def lock(self) -> Iterator[None]:
        """Hold the run for this process; the system drops the lock when the process dies.

        Raises:
            MissingResource: Another process holds it (named by id and host), or the disk refuses.
        """
        import filelock  # slow to import, and only those who write need it

        lock, holder = filelock.FileLock(self.path / _LOCK), self.path / _HOLDER
        with writing(self.path / _LOCK):
            try:
                lock.acquire(timeout=_LOCK_PATIENCE)
            except filelock.Timeout:
                raise MissingResource(
                    f"{self.path} is in use by {_describe(holder)}. Wait until that has ended, or "
                    "choose another --out."
                ) from None
        try:
            who = {"pid": os.getpid(), "host": platform.node(), "since": _now()}
            write_atomically(holder, _to_json(who))
            yield
        finally:
            with contextlib.suppress(OSError):
                holder.unlink(missing_ok=True)
            lock.release()

    def is_live(self) -> bool:
        """Tell whether a process holds the run, as far as this user may see.

        A run whose status is ``running`` but which is not live was killed.
        """
        import filelock

        if not (self.path / _LOCK).exists():
            return False
        lock = filelock.FileLock(self.path / _LOCK)
        try:
            lock.acquire(timeout=0)
        except filelock.Timeout:
            return True
        except OSError:  # on a read-only disk nobody can be writing
            return False
        lock.release()
        return False

    def _write(self, manifest: dict[str, Any]) -> None:
        write_atomically(self.path / _MANIFEST, _to_json(manifest))


@dataclass(frozen=True)
class UnreadableRun:
    """A folder that should hold a run, and why it cannot be read.

    Attributes:
        path: The folder.
        problem: A sentence for people.
    """

    path: Path
    problem: str


def find_runs(root: Path) -> list[RunDirectory | UnreadableRun]:
    """Find the runs in ``root`` and the folders below it, three levels deep.

    Args:
        root: A run, or a folder of runs; hidden folders are passed over.

    Returns:
        The runs in the order of their paths; one that cannot be read does not hide the others.

    Raises:
        InputError: ``root`` is not a folder.
    """
    with reading(root):
        if not root.is_dir():
            raise InputError(f"There is no folder {root} to look for runs in.")
    runs: list[RunDirectory | UnreadableRun] = []
    for name, subfolders, files in os.walk(root):
        folder = Path(name)
        if _MANIFEST in files:
            try:
                runs.append(RunDirectory.open(folder))
            except GrokscopeError as error:
                runs.append(UnreadableRun(folder, str(error)))
        deep = len(folder.relative_to(root).parts) >= _SEARCH_DEPTH
        inside = [] if _MANIFEST in files or deep else subfolders
        subfolders[:] = sorted(child for child in inside if not child.startswith("."))
    return runs


def _refuse_occupied(path: Path, identity: Mapping[str, Any]) -> None:
    with reading(path):
        if not path.exists():
            return
        names = sorted(
            child.name
            for child in path.iterdir()
            if child.name not in (_LOCK, _HOLDER) and not _is_leftover(child.name)
        )
    if _MANIFEST in names:
        there = RunDirectory.open(path).manifest
        differences = config_differences({key: there[key] for key in _IDENTITY}, identity)
        if differences:
            raise InputError(
                f"{path} holds a different run ({'; '.join(differences)}). Choose another --out."
            )
        raise InputError(
            f"{path} holds this run already ({there['status']}, step {there['reached_step']}). "
            f"Continue it with `grokscope resume {path}`, or choose another --out."
        )
    if names:
        raise InputError(
            f"{path} is not empty and holds no run ({_some(names)}). Choose another "
            "--out, or empty it."
        )


def _some(names: list[str]) -> str:
    return ", ".join(names[:3]) + (", ..." if len(names) > 3 else "")


def _is_leftover(name: str) -> bool:
    return name.startswith(".run.") and name.endswith(".partial")


def _checked(file: Path, content: bytes) -> dict[str, Any]:
    def damaged(reason: str) -> InputError:
        return InputError(
            f"{file} is damaged ({reason}). Restore it from a copy, or choose another --out."
        )

    try:
        manifest = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise damaged(str(error)) from error
    if not isinstance(manifest, dict) or not isinstance(manifest.get("schema"), int):
        raise damaged("not a run's")
    if manifest["schema"] != SCHEMA_VERSION:
        raise InputError(
            f"{file} has schema version {manifest['schema']}, this grokscope reads "
            f"{SCHEMA_VERSION}. Install the version of grokscope that it names, or a newer one."
        )
    if missing := [name for name in _REQUIRED if name not in manifest]:
        raise damaged(f"without {', '.join(missing)}")
    try:
        intact = config_hash(manifest["config"]) == manifest["config_hash"]
    except ValueError:
        intact = False
    if not intact:
        raise damaged("its config does not match its config_hash")
    return manifest


def _describe(holder: Path) -> str:
    try:
        who = json.loads(holder.read_bytes())
        return f"process {who['pid']} on {who['host']} (since {who['since']})"
    except (OSError, ValueError, KeyError, TypeError):  # it is being written, or was removed
        return "another process"


def _to_json(fields: Mapping[str, Any]) -> bytes:
    return json.dumps(fields, indent=2, ensure_ascii=False).encode() + b"\n"


def _now() -> str:
    return datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
