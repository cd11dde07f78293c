from __future__ import annotations

import hashlib
import os
import socket
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from grokscope.data.download import RemoteFile, fetch, report_to_stderr
from grokscope.errors import InputError, MissingResource

CONTENT = bytes(range(256)) * 800  # more than three blocks
FILE = RemoteFile("file.gz", len(CONTENT), hashlib.sha256(CONTENT).hexdigest())


class Mirror(BaseHTTPRequestHandler):
    """Serves the content true or broken, as the first part of the path says."""

    def do_GET(self) -> None:
        kind = self.path.split("/")[1]
        body = {
            "good": CONTENT,
            "corrupt": CONTENT[:-1] + b"\0",
            "long": CONTENT + b"\0",
            "short": CONTENT[:100_000],
            "cut": CONTENT[:100_000],
        }.get(kind)
        if body is None:
            self.send_error(404)
            return
        self.send_response(200)
        self.send_header("Content-Length", str(len(CONTENT) if kind == "cut" else len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args: object) -> None:
        pass


@pytest.fixture(scope="module")
def server() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Mirror) as running:
        thread = threading.Thread(target=running.serve_forever, args=(0.01,))
        thread.start()
        yield f"http://127.0.0.1:{running.server_port}"
        running.shutdown()
        thread.join()


@pytest.fixture
def closed_port() -> str:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{probe.getsockname()[1]}/"


def get(folder: Path, *mirrors: str) -> Path:
    return fetch(FILE, mirrors, folder, lambda name, done, total: None)


def test_a_good_mirror(server: str, tmp_path: Path) -> None:
    seen: list[tuple[str, int, int]] = []
    folder = tmp_path / "new" / "cache"
    path = fetch(FILE, [f"{server}/good/"], folder, lambda *state: seen.append(state))
    assert path == folder / "file.gz"
    assert path.read_bytes() == CONTENT
    assert os.listdir(folder) == ["file.gz"]
    done = [state[1] for state in seen]
    assert done == sorted(set(done))
    assert len(done) > 2
    assert seen[-1] == ("file.gz", len(CONTENT), len(CONTENT))
    assert {(state[0], state[2]) for state in seen} == {("file.gz", len(CONTENT))}


@pytest.mark.parametrize("bad", ["corrupt", "long", "short", "cut", "gone"])
def test_the_next_mirror_is_tried(server: str, tmp_path: Path, bad: str) -> None:
    path = get(tmp_path, f"{server}/{bad}/", f"{server}/good/")
    assert path.read_bytes() == CONTENT
    assert os.listdir(tmp_path) == ["file.gz"]


def test_a_mirror_that_does_not_answer(server: str, closed_port: str, tmp_path: Path) -> None:
    assert get(tmp_path, closed_port, f"{server}/good/").read_bytes() == CONTENT


@pytest.mark.parametrize(
    ("bad", "message"),
    [
        ("corrupt", rf"/corrupt/file.gz: expected SHA-256 {FILE.sha256}, got [0-9a-f]{{64}}"),
        ("long", r"/long/file.gz: expected 204,800 bytes, got more"),
    ],
)
def test_wrong_content_is_bad_input(server: str, tmp_path: Path, bad: str, message: str) -> None:
    with pytest.raises(InputError, match=message) as caught:
        get(tmp_path, f"{server}/gone/", f"{server}/{bad}/")
    assert "/gone/file.gz: HTTP 404 Not Found" in str(caught.value)
    assert os.listdir(tmp_path) == []


def test_no_content_is_a_missing_resource(server: str, closed_port: str, tmp_path: Path) -> None:
    with pytest.raises(MissingResource, match=r"No mirror gave file.gz") as caught:
        get(tmp_path, f"{server}/gone/", closed_port, f"{server}/short/", f"{server}/cut/")
    message = str(caught.value)
    assert "/gone/file.gz: HTTP 404 Not Found" in message
    assert f"{closed_port}file.gz: [Errno" in message
    assert "/short/file.gz: ended after 100,000 of 204,800 bytes" in message
    assert "/cut/file.gz: ended after 100,000 of 204,800 bytes" in message
    assert caught.value.exit_code == 5
    assert os.listdir(tmp_path) == []


def test_a_good_file_is_not_harmed_by_a_failed_download(server: str, tmp_path: Path) -> None:
    (tmp_path / "file.gz").write_bytes(b"old")
    with pytest.raises(InputError, match="SHA-256"):
        get(tmp_path, f"{server}/corrupt/")
    assert (tmp_path / "file.gz").read_bytes() == b"old"


def test_a_folder_that_cannot_be_written(server: str, tmp_path: Path) -> None:
    (tmp_path / "occupied").write_text("a file")
    with pytest.raises(MissingResource, match=r"Cannot write file.gz to .*occupied: File exists"):
        get(tmp_path / "occupied", f"{server}/good/")


def test_a_full_disk_is_no_fault_of_the_mirror(
    server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(descriptor: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("grokscope.data.download.os.fsync", full)
    with pytest.raises(MissingResource, match=r"Cannot write file.gz .*: No space left on device"):
        get(tmp_path, f"{server}/good/", f"{server}/good/")
    assert os.listdir(tmp_path) == []


def test_an_interrupt_leaves_nothing_behind(server: str, tmp_path: Path) -> None:
    def interrupt(name: str, done: int, total: int) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt, match=r"^$"):
        fetch(FILE, [f"{server}/good/"], tmp_path, interrupt)
    assert os.listdir(tmp_path) == []


def test_progress_off_a_terminal_is_one_line_on_stderr(capsys: pytest.CaptureFixture[str]) -> None:
    report_to_stderr("file.gz", 10, 2000)
    report_to_stderr("file.gz", 2000, 2000)
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err == "Downloaded file.gz, 2,000 bytes.\n"


def test_progress_on_a_terminal_stays_on_one_line(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("sys.stderr.isatty", lambda: True)
    report_to_stderr("file.gz", 1000, 2000)
    report_to_stderr("file.gz", 2000, 2000)
    captured = capsys.readouterr()
    assert captured.out == ""
    assert captured.err == "\rDownloading file.gz:  50%\rDownloading file.gz: 100%\n"
