"""Writing files so that a crash leaves the old content or the new one, never a mixture.

Also the one place where the operating system's refusals become faults that a user can mend.
"""

from __future__ import annotations

import contextlib
import errno
import os
import secrets
from collections.abc import Iterator
from pathlib import Path

from grokscope.errors import GrokscopeError, InputError, MissingResource

_NO_ROOM = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG}
_NOT_ALLOWED = {errno.EROFS, errno.EACCES, errno.EPERM}
_NOT_A_FOLDER = {errno.ENOTDIR, errno.EEXIST, errno.EISDIR}


def write_refused(path: Path, error: OSError) -> GrokscopeError:
    """Build the error for a write that the operating system refused.

    Args:
        path: What was being written.
        error: The refusal.

    Returns:
        `MissingResource` (full, read-only or failing disk), or `InputError` where the path itself
        cannot be meant (a file stands where a folder is needed).
    """
    reason = error.strerror or str(error)
    if error.errno in _NO_ROOM:
        return MissingResource(
            f"No room to write {path} ({reason}). What was written before is intact: free some "
            "space, then resume or repeat."
        )
    if error.errno in _NOT_ALLOWED:
        return MissingResource(
            f"{path} cannot be written ({reason}). Make its folder writable, or choose another one "
            "with --out."
        )
    if error.errno in _NOT_A_FOLDER:
        return InputError(
            f"{path} cannot be written ({reason}): something else stands there. Choose another "
            "place with --out."
        )
    if error.errno == errno.ENOENT:
        return MissingResource(
            f"{path} cannot be written: its folder is not there. Make the folder, or choose "
            "another place."
        )
    return MissingResource(
        f"Writing {path} failed ({reason}). What was written before is intact: check the disk, "
        "then resume or repeat."
    )


@contextlib.contextmanager
def writing(path: Path) -> Iterator[None]:
    """Turn every OSError inside into the error of `write_refused`."""
    try:
        yield
    except OSError as error:
        raise write_refused(path, error) from error


@contextlib.contextmanager
def reading(path: Path) -> Iterator[None]:
    """Turn every OSError inside into an `InputError` that names ``path``."""
    try:
        yield
    except FileNotFoundError as error:
        raise InputError(f"There is no {path}. Check the path, and that it is a run's.") from error
    except OSError as error:
        reason = error.strerror or str(error)
        raise InputError(
            f"{path} cannot be read ({reason}). Check its permissions and the disk."
        ) from error


def sync_folder(folder: Path) -> None:
    """Return when the names in ``folder`` have reached the disk; may raise OSError."""
    if os.name != "posix":  # nowhere else can a folder be synced
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def write_synced(path: Path, data: bytes) -> None:
    """Create the file ``path``, and return when its bytes have reached the disk.

    Args:
        path: Must not exist.
        data: The content.

    Raises:
        OSError: As it comes; the caller knows what to clean up and wraps it with `writing`.
    """
    with open(path, "xb", buffering=0) as file:
        rest = memoryview(data)
        while rest:  # the system may take less than it was given
            rest = rest[file.write(rest) :]
        os.fsync(file.fileno())


def write_atomically(path: Path, data: bytes) -> None:
    """Replace ``path`` by a file with ``data``: whole, or not at all, also through a power cut.

    Args:
        path: May exist; its folder must.
        data: The new content.

    Raises:
        MissingResource: Full, read-only or failing disk; the old content is still there.
        InputError: The folder of ``path`` is not a folder, or ``path`` is one.
    """
    partial = path.with_name(f".{path.name}.{secrets.token_hex(4)}.partial")
    with writing(path):
        try:
            write_synced(partial, data)
            os.replace(partial, path)
        except BaseException:
            with contextlib.suppress(OSError):
                partial.unlink(missing_ok=True)
            raise
        sync_folder(path.parent)
