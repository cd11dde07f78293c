"""Torch files whose archive is not sound; readers of zip files disagree about most of these."""

from __future__ import annotations

import io
import zipfile
import zlib
from pathlib import Path

import torch
from form_attacks import Payload
from registry import refused
from torch_attacks import saved
from zip_building import Part, archive, members_of


def good() -> bytes:
    """Return a sound torch file."""
    return saved({"a": torch.arange(100.0)})


def parts() -> list[Part]:
    """Return its members."""
    return [Part(name.encode(), data) for name, data in members_of(good()).items()]


def changed(index: int, **lies: object) -> bytes:
    """Return a torch file of which one member lies."""
    result = parts()
    for name, value in lies.items():
        setattr(result[index], name, value)
    return archive(result)


def storage() -> int:
    """Return which of the members is the storage."""
    return next(i for i, part in enumerate(parts()) if part.name.endswith(b"data/0"))


@refused("cut short")
def truncated_zip(_: Path) -> bytes:
    """A download that broke off."""
    return good()[:-100]


@refused("cut short")
def first_bytes_of_zip(_: Path) -> bytes:
    """Less than the end of a directory."""
    return good()[:10]


@refused("cut short")
def junk_behind(_: Path) -> bytes:
    """Bytes behind the archive."""
    return good() + bytes(100)


@refused("zip structure")
def comment(_: Path) -> bytes:
    """A comment behind the archive, in which another can hide."""
    return archive(parts(), comment=b"hello")


@refused("no known form")
def junk_before(_: Path) -> bytes:
    """Bytes before the archive, as in a program that unpacks itself."""
    return b"#!/bin/sh\nexit\n" + good()


@refused("bytes before it")
def zip_before(_: Path) -> bytes:
    """An empty local header before the archive."""
    return b"PK\3\4" + bytes(26) + archive(parts())


@refused("bytes before it")
def two_archives(_: Path) -> bytes:
    """Two archives end to end: readers see the first or the last."""
    return good() + archive(parts())


@refused("does not begin where")
def bytes_between_members(_: Path) -> bytes:
    """Bytes that belong to no member."""
    return changed(2, before=b"hidden")


@refused("does not begin where")
def bytes_before_directory(_: Path) -> bytes:
    """Bytes between the last member and the directory."""
    return archive(parts(), directory_gap=b"hidden")


@refused("two members")
def equal_members(_: Path) -> bytes:
    """Two storages of one name: torch reads the first, Python the last."""
    result = parts()
    result.append(Part(result[storage()].name, torch.ones(100).numpy().tobytes()))
    return archive(result)


@refused("two members")
def members_equal_but_for_case(_: Path) -> bytes:
    """Torch does not tell them apart."""
    return archive([*parts(), Part(b"ARCHIVE/DATA.PKL", b"\x80\x02N.")])


@refused("more than one folder")
def two_pickles(folder: Path) -> bytes:
    """A second data.pkl, which scanners overlook."""
    return archive([*parts(), Part(b"archive/x/data.pkl", saved(Payload(folder)))])


@refused("more than one folder")
def two_folders(_: Path) -> bytes:
    """Members in two folders; torch goes by the first."""
    return archive([Part(b"other/version", b"3"), *parts()])


@refused("without data.pkl")
def no_pickle(_: Path) -> bytes:
    """An archive of something else."""
    return archive([part for part in parts() if not part.name.endswith(b"data.pkl")])


@refused("without data.pkl")
def empty_zip(_: Path) -> bytes:
    """An archive without members."""
    return archive({})


@refused("TorchScript")
def torchscript(folder: Path) -> bytes:
    """An archive with code, which is compressed as `torch.jit.save` does it."""
    code = zlib.compress(b"import os")[2:-4]
    result = [*parts(), Part(b"archive/code/__torch__.py", code, method=8)]
    return archive([*result, Part(b"archive/constants.pkl", b"\x80\x02).")])


@refused("compressed")
def deflated(_: Path) -> bytes:
    """200 kB that unpack to 200 MB."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as file:
        for part in parts():
            file.writestr(part.name.decode(), part.data)
        file.writestr("archive/data/1", bytes(200_000_000))
    return buffer.getvalue()


@refused("disagree")
def compressed_in_one_header(_: Path) -> bytes:
    """Stored by the directory, compressed by the local header."""
    return changed(storage(), local_method=8)


@refused("newer reader")
def version_of_tomorrow(_: Path) -> bytes:
    """A version of the format that torch ignores and Python refuses."""
    return changed(0, version=64)


@refused("encrypted")
def encrypted_flag(_: Path) -> bytes:
    """A flag at which scanners give up (CVE-2025-1945)."""
    return changed(0, flags=1)


@refused("disagree")
def encrypted_in_one_header(_: Path) -> bytes:
    """The same in the local header alone."""
    return changed(0, local_flags=1)


@refused("disagree")
def two_names(_: Path) -> bytes:
    """A name in the directory, another in the local header (CVE-2025-1944)."""
    return changed(0, local_name=b"archive/data.txt")


@refused("disagree")
def two_lengths(_: Path) -> bytes:
    """A size in the directory, another in the local header."""
    return changed(storage(), local_size=8)


@refused("two sizes")
def packed_and_unpacked(_: Path) -> bytes:
    """A stored member that has two sizes."""
    return changed(storage(), packed=8)


@refused("does not begin where")
def sizes_beyond_next_member(_: Path) -> bytes:
    """Members that overlap: a small file that unpacks to a large one."""
    return changed(storage(), size=500, crc=0)


@refused("beyond the end")
def size_beyond_file(_: Path) -> bytes:
    """A size of 4 GB in a small file."""
    return changed(storage(), size=0xFFFFFFFE)


@refused("cut short")
def size_in_missing_field(_: Path) -> bytes:
    """A size that stands in a field that is not there."""
    return changed(storage(), size=0xFFFFFFFF)


@refused("leads out")
def member_above_folder(_: Path) -> bytes:
    """A name that leads out of the folder."""
    return archive([*parts(), Part(b"archive/../../x", b"")])


@refused("leads out")
def absolute_member(_: Path) -> bytes:
    """An absolute name."""
    return archive([*parts(), Part(b"/etc/passwd", b"")])


@refused("leads out")
def windows_member(_: Path) -> bytes:
    """A name that leads out on another system."""
    return archive([*parts(), Part(b"archive\\..\\x", b"")])


@refused("not text")
def member_not_text(_: Path) -> bytes:
    """A name in no encoding."""
    return archive([*parts(), Part(b"archive/\xff", b"")])


@refused("damaged")
def flipped_bit_in_storage(_: Path) -> bytes:
    """Damage that torch does not notice."""
    data = bytearray(good())
    data[data.index(torch.arange(100.0).numpy().tobytes()) + 10] ^= 1
    return bytes(data)


@refused("damaged")
def flipped_bit_in_pickle(_: Path) -> bytes:
    """A tensor that changes its name, unnoticed by torch."""
    data = bytearray(good())
    data[data.index(b"X\1\0\0\0a") + 5] ^= 2
    return bytes(data)


@refused("damaged")
def wrong_crc(_: Path) -> bytes:
    """A wrong checksum, at which scanners give up (CVE-2025-10156)."""
    return changed(0, crc=zlib.crc32(b"else"))


@refused("cut short")
def too_many_members(_: Path) -> bytes:
    """A number of members that the directory does not have."""
    return archive(parts(), count=65_535)


@refused("cut short")
def one_member_too_many(_: Path) -> bytes:
    """A directory that ends early."""
    return archive(parts(), count=len(parts()) + 1)


@refused("more than its members")
def one_member_too_few(_: Path) -> bytes:
    """A member that the number of members hides."""
    return archive(parts(), count=len(parts()) - 1)


@refused("several files")
def second_disk(_: Path) -> bytes:
    """Part of an archive of several files."""
    return archive(parts(), disk=1)


def altered_end(old: bytes, new: bytes) -> bytes:
    """Return a torch file whose 64-bit end of directory, as torch writes it, is changed."""
    head, magic, tail = good().rpartition(b"PK\6\6")
    assert old in tail
    return head + magic + tail.replace(old, new, 1)


@refused("malformed")
def end_of_other_length(_: Path) -> bytes:
    """A 64-bit end of directory with room for more."""
    return altered_end((44).to_bytes(8, "little"), (45).to_bytes(8, "little"))


@refused("disagree")
def two_counts(_: Path) -> bytes:
    """Two ends of directory with different counts: readers go by the one or the other."""
    count = len(parts())
    return altered_end(count.to_bytes(8, "little"), (count - 1).to_bytes(8, "little"))


@refused("malformed")
def end_elsewhere(_: Path) -> bytes:
    """A locator that points into the data, where another directory could be."""
    data = good()
    at = data.rindex(b"PK\6\7") + 8
    return data[:at] + (0).to_bytes(8, "little") + data[at + 8 :]
