"""The trace of one run on disk: ``trace.sqlite``, committed as it comes, readable meanwhile.

While a run goes on the file is in WAL mode (readers and the writer do not wait for each other); a
writer that closes turns it back, so that a finished run is one file that can be read anywhere.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
import time
from collections.abc import Iterable, Iterator
from pathlib import Path
from types import TracebackType

from grokscope.errors import InputError, MissingResource
from grokscope.store._sqlite import (
    connect,
    connect_reader,
    primary_code,
    sqlite_reading,
    sqlite_writing,
)
from grokscope.store._trace_schema import SCHEMA, SCHEMA_VERSION, load_trace, pack_array, verify
from grokscope.store.atomic import sync_folder, writing
from grokscope.store.records import ArrayReading, Cost, Event, Reading, Verdict
from grokscope.store.trace import Trace


class TraceDatabase:
    """Readings, arrays, verdicts, events and costs of one run, in one SQLite file.

    Made by `create` or `open`; a context manager. One process writes (the run's lock sees to it),
    any number may read. A reader holds no connection between calls, so it never delays the writer
    and every `load` sees what has been committed by then.

    Attributes:
        path: The file.
    """

    def __init__(self, path: Path, connection: sqlite3.Connection | None) -> None:
        self.path = path
        self._connection = connection
        self._series: dict[tuple[str, str], int] = {}
        if connection is not None:
            rows = connection.execute("SELECT measure, subject, id FROM series ORDER BY id")
            self._series = {(measure, subject): key for measure, subject, key in rows}

    @classmethod
    def create(cls, path: Path) -> TraceDatabase:
        """Make an empty trace, whole or not at all, and open it for writing.

        Args:
            path: The new file; its folder must exist.

        Returns:
            The open trace.

        Raises:
            InputError: Something of that name exists.
            MissingResource: Full, read-only or unsuitable disk.
        """
        partial = path.with_name(f".{path.name}.partial")
        with writing(path), sqlite_writing(path):
            if path.exists():
                raise InputError(
                    f"{path} exists already. Choose another --out, or resume that run."
                )
            for stray in (partial, *map(path.with_name, (f"{path.name}-wal", f"{path.name}-shm"))):
                stray.unlink(missing_ok=True)  # SQLite would replay the log of a file that is gone
            with contextlib.closing(connect(partial, "mode=rwc")) as connection:
                connection.executescript(SCHEMA)
            os.replace(partial, path)
        return cls.open(path, readonly=False)

    @classmethod
    def open(cls, path: Path, *, readonly: bool) -> TraceDatabase:
        """Open an existing trace, after checking that it is one and undamaged.

        Args:
            path: The file.
            readonly: For a reader: needs no write permission and leaves no file behind.

        Returns:
            The open trace.

        Raises:
            InputError: Missing, damaged, another program's, or of another schema version; nothing
                has been written to it.
            MissingResource: It cannot be written, or another process is writing.
        """
        verify(path)
        if readonly:
            return cls(path, None)
        with writing(path), sqlite_writing(path), contextlib.ExitStack() as undo:
            connection = undo.enter_context(contextlib.closing(connect(path, "mode=rw")))
            if connection.execute("PRAGMA journal_mode = WAL").fetchone()[0] != "wal":
                raise MissingResource(
                    f"The file system of {path} cannot be shared between processes (is it a "
                    "network drive?). Choose a folder on a local disk with --out."
                )
            # What record() returned from survives a power cut, so no checkpoint outruns its trace.
            connection.execute("PRAGMA synchronous = FULL")
            # A write that is taken back, so that a refusal comes here and not in mid-run.
            connection.execute("BEGIN IMMEDIATE")
            connection.execute(f"PRAGMA user_version = {SCHEMA_VERSION}")
            connection.execute("ROLLBACK")
            sync_folder(path.parent)
            database = cls(path, connection)
            undo.pop_all()
        return database

    def __enter__(self) -> TraceDatabase:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.close()

    def close(self) -> None:
        """Close; a writer folds its log into the file, so that one file remains.

        Never fails: where that is prevented (a full disk, or a reader that stays for seconds), the
        log stays beside the file and is read from there.
        """
        connection, self._connection = self._connection, None
        if connection is None:
            return
        for _ in range(40):  # SQLite does not wait for readers here by itself
            try:
                connection.execute("PRAGMA journal_mode = DELETE")
            except sqlite3.Error as error:
                if primary_code(error) == sqlite3.SQLITE_BUSY:
                    time.sleep(0.05)
                    continue
            break
        with contextlib.suppress(sqlite3.Error):
            connection.close()

    def record(
        self,
        readings: Iterable[Reading | ArrayReading] = (),
        verdicts: Iterable[Verdict] = (),
        events: Iterable[Event] = (),
        costs: Iterable[Cost] = (),
    ) -> None:
        """Add one observation: all of it or, where an error is raised, nothing.

        Args:
            readings: Numbers and arrays. ``nan``, infinities and ``-0.0`` come back as they are.
            verdicts: One of each rule.
            events: What happened to the run.
            costs: Wall time spent.

        Raises:
            ValueError: Opened for reading, an array that is not float64, or a second reading of
                the same measure and subject at the same step.
            MissingResource: Full, read-only or failing disk; earlier observations are intact.
        """
        series = dict(self._series)
        numbers, arrays, new = [], [], []
        for reading in readings:
            name = (reading.measure, reading.subject)
            if name not in series:
                series[name] = len(series) + 1
                new.append((series[name], *name))
            key = (int(reading.step), series[name])
            if isinstance(reading, ArrayReading):
                arrays.append((*key, *pack_array(reading)))
            else:
                numbers.append((*key, float(reading.value), reading.note))
        with self._transaction() as connection:
            add = connection.executemany
            add("INSERT INTO series VALUES (?, ?, ?)", new)
            try:
                add("INSERT INTO reading VALUES (?, ?, ?, ?)", numbers)
                add("INSERT INTO array VALUES (?, ?, ?, ?, ?)", arrays)
            except sqlite3.IntegrityError as error:
                raise ValueError(
                    f"{self.path}: expected one reading of each measure and subject at a step, "
                    f"got a second one ({error}); a trace only grows."
                ) from error
            add(
                "INSERT INTO verdict VALUES (?, ?, ?, ?, ?)",
                [(int(v.step), v.rule, v.phase, int(v.since), v.evidence) for v in verdicts],
            )
            add(
                "INSERT INTO event VALUES (?, ?, ?)",
                [(int(event.step), event.kind, event.message) for event in events],
            )
            add(
                "INSERT INTO cost VALUES (?, ?, ?)",
                [(int(cost.step), cost.part, float(cost.seconds)) for cost in costs],
            )
        self._series = series

    def truncate_after(self, step: int) -> None:
        """Remove readings, arrays, verdicts and costs of all later steps, for a run that resumes.

        Events stay: they tell what happened to the run (that it was interrupted, and where), which
        going back does not undo.

        Args:
            step: The last step to keep, that of the checkpoint.

        Raises:
            ValueError: Opened for reading.
            MissingResource: As for `record`; then nothing is removed.
        """
        with self._transaction() as connection:
            for table in ("reading", "array", "verdict", "cost"):
                connection.execute(f"DELETE FROM {table} WHERE step > ?", (int(step),))

    def load(self) -> Trace:
        """Read everything that is committed, as one consistent moment.

        Returns:
            The trace, in the order of its steps.

        Raises:
            InputError: The file is damaged.
        """
        with sqlite_reading(self.path):
            if self._connection is not None:
                return load_trace(self.path, self._connection)
            with connect_reader(self.path) as connection:
                return load_trace(self.path, connection)

    @contextlib.contextmanager
    def _transaction(self) -> Iterator[sqlite3.Connection]:
        connection = self._connection
        if connection is None:
            raise ValueError(
                f"{self.path}: expected a trace open for writing, got a closed one or a reader."
            )
        with sqlite_writing(self.path):
            connection.execute("BEGIN IMMEDIATE")
            try:
                yield connection
                connection.execute("COMMIT")
            except BaseException:
                if connection.in_transaction:  # SQLite itself has gone back where the disk failed
                    connection.execute("ROLLBACK")
                raise
