"""The inside of ``trace.sqlite``: its schema, how it is recognised, and rows as records."""

from __future__ import annotations

import json
import math
import sqlite3
import zlib
from pathlib import Path

import numpy as np

from grokscope.errors import InputError
from grokscope.store._sqlite import connect_reader, damaged, sqlite_reading
from grokscope.store.atomic import reading
from grokscope.store.records import ArrayReading, Cost, Event, Reading, Verdict
from grokscope.store.trace import Trace

SCHEMA_VERSION = 1
APPLICATION_ID = 0x67726B73  # "grks": how a trace is told from other programs' databases

# ``value`` has no type on purpose: a REAL column would turn -0.0 into 0.0. SQLite knows no NaN, so
# NULL stands for it. Keys begin with the step, so that an observation is appended at the end of its
# table instead of touching a page per series. SQLite has no checksums of its own, hence ``crc32``.
SCHEMA = f"""
PRAGMA journal_mode = MEMORY;
BEGIN;
PRAGMA application_id = {APPLICATION_ID};
PRAGMA user_version = {SCHEMA_VERSION};
CREATE TABLE series (
    id INTEGER PRIMARY KEY, measure TEXT NOT NULL, subject TEXT NOT NULL, UNIQUE (measure, subject)
);
CREATE TABLE reading (
    step INTEGER NOT NULL, series INTEGER NOT NULL, value, note TEXT NOT NULL,
    PRIMARY KEY (step, series)
) WITHOUT ROWID;
CREATE TABLE array (
    step INTEGER NOT NULL, series INTEGER NOT NULL, shape TEXT NOT NULL, data BLOB NOT NULL,
    crc32 INTEGER NOT NULL, PRIMARY KEY (step, series)
);
CREATE TABLE verdict (
    step INTEGER NOT NULL, rule TEXT NOT NULL, phase TEXT NOT NULL, since INTEGER NOT NULL,
    evidence TEXT NOT NULL
);
CREATE TABLE event (step INTEGER NOT NULL, kind TEXT NOT NULL, message TEXT NOT NULL);
CREATE TABLE cost (step INTEGER NOT NULL, part TEXT NOT NULL, seconds REAL NOT NULL);
COMMIT;
"""


def verify(path: Path) -> None:
    """Raise unless ``path`` is an undamaged trace of this schema; writes nothing anywhere."""
    with reading(path):
        if not path.is_file():
            raise InputError(f"There is no trace at {path}. Is {path.parent} the folder of a run?")
    with sqlite_reading(path), connect_reader(path) as connection:
        application = connection.execute("PRAGMA application_id").fetchone()[0]
        version = connection.execute("PRAGMA user_version").fetchone()[0]
        if application != APPLICATION_ID:
            raise InputError(
                f"{path} is not a trace of grokscope: it is empty or another program's database. "
                "Nothing was changed; move it away, or choose another --out."
            )
        if version != SCHEMA_VERSION:
            remedy = (
                "Install a newer grokscope: pip install -U grokscope"
                if version > SCHEMA_VERSION
                else "Use the version of grokscope that run.json names"
            )
            raise InputError(
                f"{path} has schema version {version}, this grokscope reads {SCHEMA_VERSION}. "
                f"{remedy}."
            )
        verdict = connection.execute("PRAGMA quick_check(1)").fetchone()[0]
    if verdict != "ok":
        raise damaged(path, verdict.splitlines()[-1])


def pack_array(array: ArrayReading) -> tuple[str, bytes, int]:
    """Return the columns ``shape, data, crc32`` of one array."""
    values = np.asarray(array.values)
    if values.dtype != np.float64:
        raise ValueError(
            f"{array.measure} of {array.subject}: expected a float64 array, got {values.dtype}."
        )
    data = values.astype("<f8").tobytes()
    return json.dumps(values.shape), data, zlib.crc32(data)


def _unpack(shape: str, data: bytes, checksum: int) -> np.ndarray:
    if zlib.crc32(data) != checksum:
        raise ValueError("an array does not match its checksum")
    return np.frombuffer(data, "<f8").reshape(json.loads(shape)).astype(np.float64)


def load_trace(path: Path, connection: sqlite3.Connection) -> Trace:
    """Read every table through ``connection``, as of one moment."""
    query = connection.execute
    trace = Trace()
    query("BEGIN")
    try:
        series = query("SELECT id, measure, subject FROM series")
        names = {key: (measure, subject) for key, measure, subject in series}
        trace.add(
            readings=(
                Reading(step, *names[key], math.nan if value is None else float(value), note)
                for step, key, value, note in query(
                    "SELECT step, series, value, note FROM reading ORDER BY step, series"
                )
            ),
            verdicts=(Verdict(*row) for row in query("SELECT * FROM verdict ORDER BY rowid")),
            events=(Event(*row) for row in query("SELECT * FROM event ORDER BY rowid")),
            costs=(Cost(*row) for row in query("SELECT * FROM cost ORDER BY rowid")),
        )
        trace.add(
            ArrayReading(step, *names[key], _unpack(*packed))
            for step, key, *packed in query(
                "SELECT step, series, shape, data, crc32 FROM array ORDER BY step, series"
            )
        )
    except (KeyError, TypeError, ValueError) as error:
        raise damaged(path, error) from error
    finally:
        if connection.in_transaction:
            query("ROLLBACK")
    return trace
