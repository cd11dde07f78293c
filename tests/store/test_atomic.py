"""Files are replaced whole or not at all, and refusals of the system become mendable faults."""

import errno
import os
import resource
import subprocess
import sys
import time

import pytest

from grokscope.errors import InputError, MissingResource
from grokscope.store import atomic
from grokscope.store.atomic import reading, write_atomically, write_synced


def test_content_is_replaced_and_nothing_else_is_left(tmp_path):
    path = tmp_path / "run.json"
    write_atomically(path, b"old")
    write_atomically(path, b"new")
    assert path.read_bytes() == b"new"
    assert os.listdir(tmp_path) == ["run.json"]


def test_large_content_survives_short_writes(tmp_path, monkeypatch):
    class Trickle:
        def __init__(self, file):
            self.file = file

        def __enter__(self):
            return self

        def __exit__(self, *_):
            self.file.close()

        def fileno(self):
            return self.file.fileno()

        def write(self, data):
            return self.file.write(data[:7])

    real = open
    monkeypatch.setattr(atomic, "open", lambda *a, **k: Trickle(real(*a, **k)), raising=False)
    data = bytes(range(256)) * 3
    write_synced(tmp_path / "file", data)
    assert (tmp_path / "file").read_bytes() == data


def test_the_file_reaches_the_disk_before_its_name_and_the_name_before_the_return(
    tmp_path, monkeypatch
):
    calls = []
    for name in ("fsync", "replace"):
        real = getattr(os, name)

        def spy(*args, name=name, real=real):
            calls.append("folder" if name == "fsync" and is_folder(args[0]) else name)
            return real(*args)

        monkeypatch.setattr(os, name, spy)

    def is_folder(descriptor):
        return os.path.isdir(f"/proc/self/fd/{descriptor}")

    write_atomically(tmp_path / "run.json", b"{}")
    assert calls == ["fsync", "replace", "folder"]


@pytest.mark.parametrize("call", ["fsync", "replace"])
@pytest.mark.parametrize(
    ("code", "kind", "message"),
    [
        (errno.ENOSPC, MissingResource, r"No room to write .*run\.json .*free some space"),
        (errno.EDQUOT, MissingResource, r"No room to write .*run\.json"),
        (errno.EROFS, MissingResource, r"run\.json cannot be written \(Read-only.*--out"),
        (errno.EACCES, MissingResource, r"run\.json cannot be written \(Permission.*--out"),
        (errno.EIO, MissingResource, r"Writing .*run\.json failed .*check the disk"),
    ],
)
def test_a_refusal_keeps_the_old_content_and_cleans_up(
    tmp_path, monkeypatch, call, code, kind, message
):
    path = tmp_path / "run.json"
    write_atomically(path, b"old")

    def refuse(*_):
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, call, refuse)
    with pytest.raises(kind, match=message):
        write_atomically(path, b"new")
    assert path.read_bytes() == b"old"
    assert os.listdir(tmp_path) == ["run.json"]


def test_a_real_limit_of_the_system_is_no_room(tmp_path):
    path = tmp_path / "big"
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, hard))
    try:
        with pytest.raises(MissingResource, match=r"No room to write .*big \(File too large\)"):
            write_atomically(path, bytes(200_000))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert os.listdir(tmp_path) == []


def test_a_file_in_the_place_of_the_folder_is_bad_input(tmp_path):
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(InputError, match=r"cannot be written \(Not a directory\).*something else"):
        write_atomically(tmp_path / "file" / "run.json", b"{}")


def test_what_cannot_be_read_is_named(tmp_path):
    with pytest.raises(InputError, match=r"There is no .*gone"), reading(tmp_path / "gone"):
        (tmp_path / "gone").read_bytes()
    with pytest.raises(InputError, match=r"cannot be read \(Is a directory\)"), reading(tmp_path):
        tmp_path.read_bytes()


def test_a_writer_killed_at_any_moment_leaves_one_version_whole(tmp_path):
    path = tmp_path / "run.json"
    program = (
        "import sys, pathlib, itertools\n"
        "from grokscope.store.atomic import write_atomically\n"
        "for i in itertools.count():\n"
        "    write_atomically(pathlib.Path(sys.argv[1]), bytes([i % 256]) * 50_000)\n"
    )
    for round_ in range(4):
        child = subprocess.Popen([sys.executable, "-c", program, str(path)])
        deadline = time.monotonic() + 30
        before = path.stat().st_mtime_ns if path.exists() else 0
        while not path.exists() or path.stat().st_mtime_ns == before:
            assert time.monotonic() < deadline, "the child never wrote"
            time.sleep(0.001)
        time.sleep(0.003 * round_)
        child.kill()
        child.wait()
        data = path.read_bytes()
        assert len(data) == 50_000
        assert len(set(data)) == 1
