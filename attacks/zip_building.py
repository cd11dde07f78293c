"""Zip archives, sound and not."""

from __future__ import annotations

import io
import struct
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass


def members_of(data: bytes) -> dict[str, bytes]:
    """Return the members of an archive by name."""
    with zipfile.ZipFile(io.BytesIO(data)) as file:
        return {name: file.read(name) for name in file.namelist()}


@dataclass
class Part:
    """A member of an archive, with the lies that its headers may tell."""

    name: bytes
    data: bytes
    method: int = 0
    flags: int = 0
    local_name: bytes | None = None
    local_method: int | None = None
    local_flags: int | None = None
    size: int | None = None
    local_size: int | None = None
    crc: int | None = None
    packed: int | None = None
    before: bytes = b""
    version: int = 20


def archive(
    members: Mapping[str, bytes] | list[Part],
    *,
    comment: bytes = b"",
    count: int | None = None,
    directory_gap: bytes = b"",
    disk: int = 0,
) -> bytes:
    """Put an archive together; without lies, one that every reader accepts."""
    parts = (
        members
        if isinstance(members, list)
        else [Part(name.encode(), data) for name, data in members.items()]
    )
    body, directory = b"", b""
    for part in parts:
        body += part.before
        size = len(part.data) if part.size is None else part.size
        local_size = size if part.local_size is None else part.local_size
        local_name = part.name if part.local_name is None else part.local_name
        method = part.method if part.local_method is None else part.local_method
        flags = part.flags if part.local_flags is None else part.local_flags
        packed = size if part.packed is None else part.packed
        local_packed = local_size if part.packed is None else part.packed
        crc = zlib.crc32(part.data) if part.crc is None else part.crc
        at = len(body)
        stated = (20, part.version, part.flags, part.method, 0, 0, crc, packed, size)
        body += struct.pack(
            "<4s5H3L2H", b"PK\3\4", 20, flags, method, 0, 0, crc, local_packed, local_size,
            len(local_name), 0,
        )  # fmt: skip
        body += local_name + part.data
        directory += struct.pack(
            "<4s6H3L5H2L", b"PK\1\2", *stated, len(part.name), 0, 0, 0, 0, 0, at
        )
        directory += part.name
    total = len(parts) if count is None else count
    end = struct.pack(
        "<4s4H2LH", b"PK\5\6", disk, disk, total, total, len(directory),
        len(body) + len(directory_gap), len(comment),
    )  # fmt: skip
    return body + directory_gap + directory + end + comment
