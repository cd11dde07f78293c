"""SQLite for one writer and many readers: connections, and errors that a user can mend."""

from __future__ import annotations

import contextlib
import errno
import shutil
import sqlite3
import tempfile
from collections.abc import Iterator
from pathlib import Path

from grokscope.errors import InputError, MissingResource
from grokscope.store.atomic import reading, write_refused

_SYSTEM_ERRORS = {
    sqlite3.SQLITE_FULL: errno.ENOSPC,
    sqlite3.SQLITE_READONLY: errno.EROFS,
    sqlite3.SQLITE_CANTOPEN: errno.EACCES,
    sqlite3.SQLITE_PERM: errno.EACCES,
    sqlite3.SQLITE_IOERR: errno.EIO,
}
_BUSY = (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED)
_DAMAGED = (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB)
_WAIT_SECONDS = 10.0


def primary_code(error: sqlite3.Error) -> int:
    """Return SQLite's result code without its extension; -1 for an error of Python's own."""
    code: int | None = getattr(error, "sqlite_errorcode", None)
    return -1 if code is None else code & 0xFF


def damaged(path: Path, reason: object) -> InputError:
    """Build the error for a trace whose content cannot be trusted."""
    return InputError(
        f"{path} is damaged ({reason}). Restore it from a copy, or start again in another folder "
        "with --out; the run's checkpoints are separate files and not affected."
    )


def _busy(path: Path) -> MissingResource:
    return MissingResource(
        f"{path} is being written by another process. Wait until it has ended, then repeat."
    )


@contextlib.contextmanager
def sqlite_writing(path: Path) -> Iterator[None]:
    """Turn what SQLite refuses to write into the same errors as `grokscope.store.atomic`."""
    try:
        yield
    except sqlite3.Error as error:
        code = primary_code(error)
        if code in _SYSTEM_ERRORS:
            raise write_refused(path, OSError(_SYSTEM_ERRORS[code], str(error))) from error
        if code in _BUSY:
            raise _busy(path) from error
        if code in _DAMAGED:
            raise damaged(path, error) from error
        raise


@contextlib.contextmanager
def sqlite_reading(path: Path) -> Iterator[None]:
    """Turn what SQLite cannot read into an `InputError` that names ``path``."""
    try:
        yield
    except sqlite3.Error as error:
        code = primary_code(error)
        if code in _BUSY:
            raise _busy(path) from error
        if code in _SYSTEM_ERRORS:
            raise InputError(
                f"{path} cannot be read ({error}). Check its permissions and the disk."
            ) from error
        raise damaged(path, error) from error


def connect(path: Path, options: str) -> sqlite3.Connection:
    """Open ``path`` without Python's implicit transactions; ``options`` as in an SQLite URI."""
    return sqlite3.connect(
        f"{path.absolute().as_uri()}?{options}",
        uri=True,
        isolation_level=None,
        timeout=_WAIT_SECONDS,
    )


@contextlib.contextmanager
def connect_reader(path: Path) -> Iterator[sqlite3.Connection]:
    """Open ``path`` for reading, in whatever state its writer is or was left.

    A database that is being written has its log and shared memory beside it, and a finished one
    needs neither: both open in place. Whatever would need recovery in a folder that may be
    read-only, or would leave files there, is read from a private copy.
    """
    with contextlib.ExitStack() as stack:
        connection = None
        if _beside(path, "-wal").exists() or not _is_marked_wal(path):
            try:
                connection = stack.enter_context(contextlib.closing(connect(path, "mode=ro")))
                connection.execute("SELECT count(*) FROM sqlite_schema")
            except sqlite3.OperationalError as error:
                if primary_code(error) not in (sqlite3.SQLITE_CANTOPEN, sqlite3.SQLITE_READONLY):
                    raise
                connection = None
        if connection is None:
            folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="grokscope-")))
            copy = folder / path.name
            with reading(path):
                for suffix in ("", "-wal", "-journal"):
                    if _beside(path, suffix).exists():
                        shutil.copyfile(_beside(path, suffix), _beside(copy, suffix))
            connection = stack.enter_context(contextlib.closing(connect(copy, "mode=rw")))
        yield connection


def _beside(path: Path, suffix: str) -> Path:
    return path.with_name(path.name + suffix)


def _is_marked_wal(path: Path) -> bool:
    # Read by hand only while no log exists: closing a file drops this process's locks on it, which
    # an open writer in this process would need.
    with reading(path), path.open("rb") as file:
        return file.read(19)[18:] == b"\x02"
