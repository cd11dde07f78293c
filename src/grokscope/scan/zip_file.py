"""Zip archives of which every reader sees the same: stored members, end to end, checked.

Readers of zip files disagree on duplicates, on what stands before or behind an archive and on
which of two headers counts; each disagreement has been used to show a scanner one file and the
loader another. So an archive is accepted only where there is nothing to disagree about.
"""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from grokscope.errors import InputError
from grokscope.scan.limits import Limits
from grokscope.scan.open_file import Fault, OpenFile, above, refused, shown

_END = struct.Struct("<4s4H2LH")
_END64 = struct.Struct("<4sQ2H2L4Q")
_LOCATOR64 = struct.Struct("<4sLQL")
_CENTRAL = struct.Struct("<4s6H3L5H2L")
_LOCAL = struct.Struct("<4s5H3L2H")

_VERSION = 45  # of the format, in which archives and members of more than 4 GB came
_FULL = 0xFFFFFFFF  # "see the 64-bit field"
_DEFERRED = 1 << 3  # CRC and sizes follow the data
_UTF8 = 1 << 11
_DESCRIPTORS = (12, 16, 20, 24)  # bytes of that, with or without signature and 64-bit sizes
_DIRECTORY_ENTRY = 1024  # bytes of one; names are far shorter


@dataclass(frozen=True, slots=True)
class Member:
    """One member of an archive.

    Attributes:
        name: As both of its headers have it.
        begin: First byte of its data in the file.
        size: Bytes of its data.
        crc: CRC-32 that they must have.
    """

    name: str
    begin: int
    size: int
    crc: int


def read_members(file: OpenFile, limits: Limits) -> list[Member]:
    """Check the structure of an archive and list its members, in order of their data.

    Source: PKWARE's APPNOTE.TXT, sections 4.3 to 4.5.

    Args:
        file: Its bytes.
        limits: Cap on the number of members.

    Raises:
        InputError: Compressed or encrypted members, equal names, names that lead elsewhere, headers
            that disagree, or bytes that belong to no member.
    """
    try:
        return _tiled(file, *_directory(file, limits))
    except (ValueError, struct.error) as error:
        raise _unsound(file, error) from None


def names_in_directory(file: OpenFile, limits: Limits) -> Iterator[str]:
    """Yield what the directory of an archive calls its members, however unsound the rest is.

    Arguments and errors as `read_members`, but for those of members.
    """
    try:
        directory, count, _ = _directory(file, limits)
    except (ValueError, struct.error) as error:
        raise _unsound(file, error) from None
    offset = 0
    for _ in range(count):
        if offset + _CENTRAL.size > len(directory):
            return
        lengths = _CENTRAL.unpack_from(directory, offset)[10:13]
        offset += _CENTRAL.size
        yield directory[offset : offset + lengths[0]].decode(errors="replace")
        offset += sum(lengths)


def _unsound(file: OpenFile, error: ValueError | struct.error) -> InputError:
    if isinstance(error, Fault):
        return refused(file.name, error)
    # A struct that does not fit is an archive that is cut short.
    what = error if isinstance(error, ValueError) else "it is cut short"
    return refused(file.name, f"its zip structure is not sound: {what}")


def verify(file: OpenFile, members: list[Member]) -> None:
    """Read all members and compare their CRC-32.

    Raises:
        InputError: One is damaged.
    """
    for member in members:
        crc = 0
        for chunk in file.chunks(member.begin, member.begin + member.size):
            crc = zlib.crc32(chunk, crc)
        if crc != member.crc:
            raise refused(file.name, f"its member {shown(member.name)} is damaged (CRC-32)")


def _directory(file: OpenFile, limits: Limits) -> tuple[bytes, int, int]:
    """Return the central directory, the number of its entries, and where it begins."""
    end = file.size - _END.size
    magic, disk, first_disk, here, count, length, begin, comment = _END.unpack(_read(file, end))
    if magic != b"PK\5\6" or comment:
        raise ValueError("it does not end with the end of its directory; it may be cut short")
    locator = end - _LOCATOR64.size
    if locator >= 0 and file.read(locator, 4) == b"PK\6\7":
        _, disk64, end, disks = _LOCATOR64.unpack(file.read(locator, _LOCATOR64.size))
        magic, rest, _, _, *numbers = _END64.unpack(_read(file, end, _END64.size))
        if magic != b"PK\6\6" or rest != _END64.size - 12 or end + _END64.size != locator:
            raise ValueError("its 64-bit end of directory is malformed")
        fits = [
            narrow in (wide, full)
            for narrow, wide, full in zip(
                (disk, first_disk, here, count, length, begin),
                numbers,
                (0xFFFF, 0xFFFF, 0xFFFF, 0xFFFF, _FULL, _FULL),
                strict=True,
            )
        ]
        if disk64 or disks != 1 or not all(fits):
            raise ValueError("its two ends of directory disagree")
        disk, first_disk, here, count, length, begin = numbers
    if disk or first_disk or here != count:
        raise ValueError("it is part of an archive of several files")
    if count > limits.members:
        what = f"it has {count} members, above the limit of {limits.members}"
        raise above(what, limits, "members", count)
    if begin + length != end:
        raise ValueError("there are bytes before it or after its directory")
    if length > count * _DIRECTORY_ENTRY:
        raise ValueError("its directory is longer than its members need")
    return file.read(begin, length), count, begin


def _tiled(file: OpenFile, directory: bytes, count: int, end: int) -> list[Member]:
    """Check that members lie end to end from the first byte to the directory at ``end``."""
    headers: list[tuple[int, int, Member]] = []
    names: set[str] = set()
    offset = 0
    for _ in range(count):
        fields = _CENTRAL.unpack_from(directory, offset)
        name_length, extra_length, comment_length = fields[10:13]
        offset += _CENTRAL.size
        name = directory[offset : offset + name_length]
        extra = directory[offset + name_length : offset + name_length + extra_length]
        offset += name_length + extra_length + comment_length
        begin, header, member = _member(file, fields, name, extra)
        # Torch compares names without regard to case.
        if member.name.lower() in names:
            raise ValueError(f"there are two members {shown(member.name)}")
        names.add(member.name.lower())
        headers.append((begin, header, member))
    if offset != len(directory):
        raise ValueError("its directory holds more than its members")
    headers.sort(key=lambda each: each[0])
    position = 0
    deferred = False
    for begin, flags, member in headers:
        gap = begin - position
        if gap and not (deferred and gap in _DESCRIPTORS):
            raise ValueError(f"member {shown(member.name)} does not begin where the last one ends")
        position = member.begin + member.size
        deferred = bool(flags & _DEFERRED)
    gap = end - position
    if gap and not (deferred and gap in _DESCRIPTORS):
        raise ValueError("its directory does not begin where the last member ends")
    return [member for _, _, member in headers]


def _member(
    file: OpenFile, fields: tuple[Any, ...], raw_name: bytes, extra: bytes
) -> tuple[int, int, Member]:
    """Check one entry of the directory against its local header.

    Returns:
        Where the local header begins, its flags, and the member.
    """
    magic, _, version, flags, method, _, _, crc, packed, size, *_, disk, _, _, begin = fields
    if magic != b"PK\1\2":
        raise ValueError("its directory is malformed")
    name = _name(raw_name, flags)
    if flags & ~(_DEFERRED | _UTF8):
        raise ValueError(f"member {shown(name)} is encrypted or has flags that are not known")
    if version > _VERSION:
        raise ValueError(f"member {shown(name)} needs a newer reader")
    if method:
        raise ValueError(f"member {shown(name)} is compressed, which torch.save never does")
    size, packed, begin = _wide(extra, size, packed, begin)
    if packed != size or disk:
        raise ValueError(f"member {shown(name)} has two sizes")
    local = _LOCAL.unpack(_read(file, begin, _LOCAL.size))
    magic, _, local_flags, local_method, _, _, local_crc, local_packed, local_size, *lengths = local
    start = begin + _LOCAL.size + sum(lengths)
    if start + size > file.size:
        raise ValueError(f"member {shown(name)} reaches beyond the end")
    after = file.read(begin + _LOCAL.size, sum(lengths))
    sizes = _wide(after[lengths[0] :], local_size, local_packed)
    agree = (
        magic == b"PK\3\4"
        and (local_flags, local_method) == (flags, method)
        and after[: lengths[0]] == raw_name
        and (local_crc == crc or (flags & _DEFERRED and not local_crc))
        and all(each == size or (flags & _DEFERRED and not each) for each in sizes)
    )
    if not agree:
        raise ValueError(f"the two headers of member {shown(name)} disagree")
    return begin, flags, Member(name, start, size, crc)


def _name(raw: bytes, flags: int) -> str:
    try:
        name = raw.decode("utf-8" if flags & _UTF8 else "ascii")
    except UnicodeDecodeError:
        raise ValueError(f"the name of member {shown(raw)} is not text") from None
    parts = name.split("/")
    if not set(parts).isdisjoint({"", ".", ".."}) or "\\" in name or "\0" in name:
        raise ValueError(f"the name of member {shown(name)} leads out of the archive")
    return name


def _wide(extra: bytes, *narrow: int) -> list[int]:
    """Replace sizes and offset that are marked as full by their 64-bit values."""
    fields: dict[int, bytes] = {}
    while extra:
        key, length = struct.unpack_from("<2H", extra)
        if key in fields or len(extra) < 4 + length:
            raise ValueError("an extra field is malformed")
        fields[key], extra = extra[4 : 4 + length], extra[4 + length :]
    wanted = [n for n in narrow if n == _FULL]
    values = struct.unpack(f"<{len(wanted)}Q", fields.get(1, b"")) if wanted else ()
    rest = iter(values)
    return [next(rest) if n == _FULL else n for n in narrow]


def _read(file: OpenFile, offset: int, count: int = _END.size) -> bytes:
    if not 0 <= offset <= file.size - count:
        raise ValueError("it is cut short")
    return file.read(offset, count)
