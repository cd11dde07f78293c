"""Fetching one published file from its mirrors: checked, and there whole or not at all."""

from __future__ import annotations

import hashlib
import os
import sys
import tempfile
from collections.abc import Callable, Generator, Sequence
from contextlib import closing
from dataclasses import dataclass
from http.client import HTTPException
from pathlib import Path
from typing import BinaryIO
from urllib.error import HTTPError
from urllib.request import urlopen

from grokscope.errors import InputError, MissingResource

_BLOCK = 2**16
_TIMEOUT = 30.0  # seconds without a byte

Progress = Callable[[str, int, int], None]
"""Called with a file's name, the bytes received so far, and the bytes expected."""


@dataclass(frozen=True, slots=True)
class RemoteFile:
    """A file whose content is published and known.

    Attributes:
        name: Its name, on the mirrors and here.
        size: In bytes.
        sha256: Of its content, in hexadecimal.
    """

    name: str
    size: int
    sha256: str


class _MirrorFailed(Exception):
    """One mirror did not give the file; says why."""


class _WrongContent(_MirrorFailed):
    """One mirror gave something else."""


def report_to_stderr(name: str, done: int, total: int) -> None:
    """Show the progress of a download: in place on a terminal, else only its end."""
    terminal = sys.stderr.isatty()
    if terminal:
        print(f"\rDownloading {name}: {done / total:4.0%}", end="", file=sys.stderr, flush=True)
    if done == total:
        print("" if terminal else f"Downloaded {name}, {total:,} bytes.", file=sys.stderr)


def fetch(
    remote: RemoteFile,
    mirrors: Sequence[str],
    folder: Path,
    progress: Progress = report_to_stderr,
) -> Path:
    """Download a file from the first mirror that gives its true content.

    It is written under another name, checked, brought to disk and renamed: at no moment is there a
    file of its name with other content.

    Args:
        remote: The file.
        mirrors: URLs of folders that hold it, with a slash at the end; tried in order.
        folder: Where to put it; created if missing.
        progress: Told how far each attempt has come.

    Returns:
        Path of the file.

    Raises:
        InputError: If no mirror gave the file and at least one gave other content instead.
        MissingResource: If no mirror gave it at all, or the folder cannot be written to.
    """
    failures: list[_MirrorFailed] = []
    try:
        folder.mkdir(parents=True, exist_ok=True)
        for mirror in mirrors:
            try:
                return _fetch(remote, mirror + remote.name, folder, progress)
            except _MirrorFailed as failure:
                failures.append(failure)
    except OSError as error:
        raise MissingResource(
            f"Cannot write {remote.name} to {folder}: {error.strerror or error}."
        ) from error
    reasons = "\n".join(f"  {failure}" for failure in failures)
    message = f"No mirror gave {remote.name}:\n{reasons}"
    if any(isinstance(failure, _WrongContent) for failure in failures):
        raise InputError(message)
    raise MissingResource(message)


def _fetch(remote: RemoteFile, url: str, folder: Path, progress: Progress) -> Path:
    descriptor, name = tempfile.mkstemp(prefix=f".{remote.name}.", dir=folder)
    part = Path(name)
    try:
        with os.fdopen(descriptor, "wb") as file:
            _receive(remote, url, file, progress)
            file.flush()
            os.fsync(file.fileno())
        target = folder / remote.name
        part.replace(target)
    finally:
        part.unlink(missing_ok=True)
    _sync_folder(folder)
    return target


def _receive(remote: RemoteFile, url: str, file: BinaryIO, progress: Progress) -> None:
    """Copy the content of ``url`` to ``file``; raise _MirrorFailed unless it is the right one."""
    digest, done = hashlib.sha256(), 0
    with closing(_blocks(url)) as blocks:
        for block in blocks:
            done += len(block)
            if done > remote.size:
                raise _WrongContent(f"{url}: expected {remote.size:,} bytes, got more")
            digest.update(block)
            file.write(block)
            if done < remote.size:
                progress(remote.name, done, remote.size)
    if done < remote.size:
        raise _MirrorFailed(f"{url}: ended after {done:,} of {remote.size:,} bytes")
    if digest.hexdigest() != remote.sha256:
        raise _WrongContent(f"{url}: expected SHA-256 {remote.sha256}, got {digest.hexdigest()}")
    progress(remote.name, done, remote.size)


def _blocks(url: str) -> Generator[bytes, None, None]:
    """Yield the content of ``url``; a fault of the network is a _MirrorFailed, of the disk not."""
    try:
        with urlopen(url, timeout=_TIMEOUT) as response:
            while block := response.read(_BLOCK):
                yield block
    except HTTPError as error:
        error.close()
        raise _MirrorFailed(f"{url}: HTTP {error.code} {error.reason}") from error
    except (OSError, HTTPException) as error:
        reason = getattr(error, "reason", None) or error
        raise _MirrorFailed(f"{url}: {reason}") from error


def _sync_folder(folder: Path) -> None:
    """Bring a rename in ``folder`` to disk, where the system can."""
    if os.name == "posix":
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
