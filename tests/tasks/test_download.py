"""Fetched data: whole and checked, or one sentence; what was cut off goes on."""

from __future__ import annotations

import hashlib
import subprocess
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread

import pytest

from cellwise.tasks.data.download import fetch, fetch_wheel
from cellwise.tasks.errors import DataError

CONTENT = bytes(range(256)) * 400
SHA256 = hashlib.sha256(CONTENT).hexdigest()


class Server(ThreadingHTTPServer):
    """Serves CONTENT. sends: how many bytes of an answer arrive before the connection ends."""

    sends = len(CONTENT)
    knows_parts = True
    asked: list[str | None]

    def url(self, name: str = "data.bin") -> str:
        return f"http://127.0.0.1:{self.server_port}/{name}"


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        wanted = self.headers["Range"]
        self.server.asked.append(wanted)
        start = int(wanted[len("bytes=") : -1]) if wanted and self.server.knows_parts else 0
        if self.path != "/data.bin" or start >= len(CONTENT):
            self.send_error(404 if start < len(CONTENT) else 416)
            return
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(len(CONTENT) - start))
        self.end_headers()
        self.wfile.write(CONTENT[start:][: self.server.sends])

    def log_message(self, *_: object) -> None:
        """Nothing on stderr."""


@pytest.fixture
def server() -> Iterator[Server]:
    made = Server(("127.0.0.1", 0), Handler)
    made.asked = []
    thread = Thread(target=made.serve_forever, args=(0.01,))
    thread.start()
    yield made
    made.shutdown()
    thread.join()
    made.server_close()


def test_a_file_is_fetched_once(server: Server, tmp_path: Path) -> None:
    path = tmp_path / "made" / "data.bin"
    for _ in range(2):
        assert fetch(server.url(), path, SHA256).read_bytes() == CONTENT
    assert server.asked == [None]
    assert [each.name for each in path.parent.iterdir()] == ["data.bin"]


def test_what_was_cut_off_goes_on_where_it_stopped(server: Server, tmp_path: Path) -> None:
    path = tmp_path / "data.bin"
    server.sends = 30_000
    with pytest.raises(DataError, match=r"ended after 30,000 of 102,400 bytes\); run this again to go on"):
        fetch(server.url(), path, SHA256)
    assert not path.exists()
    server.sends = len(CONTENT)
    assert fetch(server.url(), path, SHA256).read_bytes() == CONTENT
    assert server.asked == [None, "bytes=30000-"]


def test_a_server_that_knows_no_parts_sends_it_whole(server: Server, tmp_path: Path) -> None:
    (tmp_path / "data.bin.part").write_bytes(CONTENT[:5000])
    server.knows_parts = False
    assert fetch(server.url(), tmp_path / "data.bin", SHA256).read_bytes() == CONTENT


def test_a_part_that_is_the_whole_is_taken(server: Server, tmp_path: Path) -> None:
    (tmp_path / "data.bin.part").write_bytes(CONTENT)
    assert fetch(server.url(), tmp_path / "data.bin", SHA256).read_bytes() == CONTENT
    assert server.asked == [f"bytes={len(CONTENT)}-"]


def test_another_file_is_refused_and_does_not_stay_in_the_way(server: Server, tmp_path: Path) -> None:
    path = tmp_path / "data.bin"
    (tmp_path / "data.bin.part").write_bytes(b"of an older version")
    with pytest.raises(DataError, match="as it was published"):
        fetch(server.url(), path, SHA256)
    assert list(tmp_path.iterdir()) == []
    assert fetch(server.url(), path, SHA256) == path
    path.write_bytes(b"changed since")
    with pytest.raises(DataError, match="delete it and run this again"):
        fetch(server.url(), path, SHA256)


def test_what_is_not_there_is_a_sentence(server: Server, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"none could not be fetched \(HTTP Error 404: Not Found\)"):
        fetch(server.url("none"), tmp_path / "none", SHA256)
    url = server.url()
    server.shutdown()
    server.server_close()
    with pytest.raises(DataError, match="refused"):
        fetch(url, tmp_path / "data.bin", SHA256)


@pytest.mark.parametrize("content", [CONTENT, b"another release"])
def test_a_wheel_that_pip_brings_is_checked_before_it_is_kept(
    content: bytes, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[str] = []

    def pip(command: list[str], **_: object) -> subprocess.CompletedProcess[str]:
        asked.append(command[-1])
        (Path(command[command.index("--dest") + 1]) / "some-1.0.whl").write_bytes(content)
        return subprocess.CompletedProcess(command, 0, "", "")

    monkeypatch.setattr(subprocess, "run", pip)
    path = tmp_path / "cache" / "some-1.0.whl"
    if content == CONTENT:
        for _ in range(2):
            assert fetch_wheel("some==1.0", path, SHA256).read_bytes() == CONTENT
        assert asked == ["some==1.0"]
    else:
        with pytest.raises(DataError, match=r"is not some==1\.0 as it was published"):
            fetch_wheel("some==1.0", path, SHA256)
        assert list(path.parent.iterdir()) == []
