"""Files that are opened once, and read by position so that processes can share them."""

from __future__ import annotations

import errno
import json
import os
import stat
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from grokscope.errors import InputError
from grokscope.scan.limits import Limits

_CHUNK = 1 << 20
_SHOWN = 80  # characters of a hostile name in a message
_LISTED = 5  # names in one message


@dataclass(frozen=True, slots=True)
class OpenFile:
    """A regular file, open for reading.

    The descriptor keeps its number in child processes that inherit it. Its position is shared
    among them, so nothing here uses it.

    Attributes:
        name: Its path, for messages and for nothing else.
        descriptor: What the system calls it.
        size: Bytes, when it was opened.
    """

    name: str
    descriptor: int
    size: int

    def read(self, offset: int, count: int) -> bytes:
        """Read exactly ``count`` bytes from ``offset``.

        Raises:
            InputError: They are not there, or the disk fails.
        """
        data = bytearray(count)
        self.read_into(offset, memoryview(data))
        return bytes(data)

    def read_into(self, offset: int, buffer: memoryview) -> None:
        """Fill a buffer of bytes from ``offset``.

        Raises:
            InputError: The file ends before, or the disk fails.
        """
        while buffer:
            try:
                count = os.preadv(self.descriptor, [buffer[: 64 * _CHUNK]], offset)
            except OSError as error:
                raise refused(self.name, f"reading it failed ({error.strerror})") from None
            if not count:
                raise refused(self.name, "it has become shorter while it was read")
            buffer, offset = buffer[count:], offset + count

    def chunks(self, begin: int, end: int) -> Iterator[memoryview]:
        """Yield the bytes from ``begin`` to ``end`` in pieces, valid until the next is asked for.

        Raises:
            InputError: They are not there, or the disk fails.
        """
        buffer = memoryview(bytearray(min(_CHUNK, end - begin)))
        for offset in range(begin, end, _CHUNK):
            part = buffer[: min(_CHUNK, end - offset)]
            self.read_into(offset, part)
            yield part


class Fault(ValueError):
    """What is wrong with a file whose name is not at hand; `refused` makes an error of it."""

    def __init__(self, what: str, then: str = "") -> None:
        """Keep the arguments of `refused`."""
        super().__init__(what)
        self.then = then


def above(what: str, limits: Limits, cap: str, needed: int = 0) -> Fault:
    """Build the fault of a file that passes a cap.

    Args:
        what: A clause that says so.
        limits: With the cap.
        cap: Its name in `Limits`.
        needed: What the file needs at least, where that is known.
    """
    value = max(needed, 2 * getattr(limits, cap))
    return Fault(what, f"Raise it with --limit {cap}={value}.")


def stamp(descriptor: int) -> tuple[int, int]:
    """Return size and time of the last change of an open file."""
    status = os.fstat(descriptor)
    return status.st_size, status.st_mtime_ns


def refused(name: str, what: str | ValueError, then: str = "") -> InputError:
    """Build the error for a file that is not read any further.

    Args:
        name: Its path.
        what: What is wrong with it, a clause; a `Fault` says what to do as well.
        then: What to do, a sentence; by default, to get it anew.
    """
    if isinstance(what, Fault):
        then = what.then
    then = then or "Fetch or save it again; safetensors is the safest form."
    return InputError(f"{name} is refused: {what}. {then}")


def shown(name: object) -> str:
    """Quote a name out of a hostile file for a message: no control characters, not too long."""
    text = str(name)
    return repr(text if len(text) <= _SHOWN else f"{text[: _SHOWN - 3]}...")


def listed(names: Sequence[str]) -> str:
    """Quote the first of several names out of a hostile file."""
    more = f" and {len(names) - _LISTED} more" if len(names) > _LISTED else ""
    return ", ".join(map(shown, names[:_LISTED])) + more


def open_path(
    path: str | Path, *, follow_symlinks: bool = False, folder: int | None = None
) -> tuple[int, os.stat_result]:
    """Open a file or a folder for reading, without waiting and without being led elsewhere.

    Args:
        path: What to open.
        follow_symlinks: Whether its last part may be a symbolic link.
        folder: Descriptor of the folder that a relative ``path`` starts from.

    Returns:
        The descriptor, and what it refers to.

    Raises:
        InputError: It is not there, may not be read, or is a link that may not be followed.
    """
    # A FIFO without a writer would hold up the opening for ever.
    flags = os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC
    try:
        descriptor = os.open(
            path, flags if follow_symlinks else flags | os.O_NOFOLLOW, dir_fd=folder
        )
    except ValueError:
        raise refused(shown(path), "no file can have that name", "Check the name.") from None
    except OSError as error:
        if error.errno == errno.ELOOP and not follow_symlinks:
            raise refused(
                str(path),
                "it is a symbolic link",
                "Name what it points to, or follow links with --follow-symlinks.",
            ) from None
        if error.errno in (errno.ENOENT, errno.ENOTDIR):
            raise InputError(f"There is no {path}. Check the name.") from None
        raise InputError(
            f"{path} cannot be opened ({error.strerror}). Check the name and its permissions."
        ) from None
    return descriptor, os.fstat(descriptor)


def regular_file(name: str, descriptor: int, status: os.stat_result) -> OpenFile:
    """Accept a regular file; close anything else.

    Raises:
        InputError: A folder, device, FIFO or socket, or an empty file.
    """
    what = ""
    if not stat.S_ISREG(status.st_mode):
        kinds = {stat.S_IFDIR: "a folder", stat.S_IFIFO: "a FIFO", stat.S_IFSOCK: "a socket"}
        what = f"it is {kinds.get(stat.S_IFMT(status.st_mode), 'a device')}, not a regular file"
    elif not status.st_size:
        what = "it is empty"
    if what:
        os.close(descriptor)
        raise refused(name, what)
    return OpenFile(name, descriptor, status.st_size)


def parse_json(data: bytes) -> Any:
    """Parse JSON as the strictest reader would, so that no two readers see different things.

    Args:
        data: UTF-8.

    Returns:
        Plain JSON values.

    Raises:
        ValueError: Not UTF-8, not JSON, an object with two equal keys, a key that is not valid
            Unicode, NaN or infinity, an integer of more than 20 digits, or deep nesting.
    """
    try:
        return json.loads(
            data.decode(),
            object_pairs_hook=_object,
            parse_constant=_constant,
            parse_int=_integer,
        )
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def _object(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    result = dict(pairs)
    if len(result) != len(pairs):
        raise ValueError("an object has the same key twice")
    for key in result:
        key.encode()
    return result


def _constant(text: str) -> None:
    raise ValueError(f"{text} is not JSON")


def _integer(text: str) -> int | float:
    if len(text) > 20:
        raise ValueError("an integer has more than 20 digits")
    return -0.0 if text == "-0" else int(text)
