"""Fetching from a server on this machine that does everything a bad server does; unpacking what nobody should."""

import hashlib
import io
import os
import socket
import stat
import tarfile
import threading
import time
import zipfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from leyden import download as download_module
from leyden.download import Download, NoSourceError, fetch, unpack, unpack_debian_package
from leyden.errors import DataError

CONTENT = bytes(range(256)) * 2000
NAME = "data.bin"


class Server(ThreadingHTTPServer):
    """Serves CONTENT at /good (with ranges), /no_ranges, /slow; what is wrong otherwise is in the path's name."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.requests: list[tuple[str, str | None]] = []

    def url(self, path: str) -> str:
        return f"http://127.0.0.1:{self.server_port}/{path}"


class Handler(BaseHTTPRequestHandler):
    server: Server

    def do_GET(self) -> None:
        path, asked = self.path.strip("/"), self.headers.get("Range")
        self.server.requests.append((path, asked))
        if path == "missing":
            self.send_error(404)
            return
        if path == "moved":
            self.send_response(302)
            self.send_header("Location", "/good")
            self.end_headers()
            return
        if path == "slow":
            time.sleep(0.2)
        start = int(asked.removeprefix("bytes=").removesuffix("-")) if asked and path != "no_ranges" else 0
        if start >= len(CONTENT):
            self.send_error(416)
            return
        body = (b"x" * len(CONTENT) if path == "wrong" else CONTENT)[start:]
        self.send_response(206 if start else 200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body[: len(body) // 2] if path == "cut_off" else body)

    def log_message(self, format: str, *args: object) -> None:
        pass


@pytest.fixture
def server() -> Iterator[Server]:
    with Server() as running:
        threading.Thread(target=running.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True).start()
        yield running
        running.shutdown()


def offered(*urls: str, size: int | None = len(CONTENT)) -> Download:
    return Download(NAME, urls, f"sha256:{hashlib.sha256(CONTENT).hexdigest()}", size)


def names(folder: Path) -> set[str]:
    return {path.name for path in folder.iterdir()}


@pytest.mark.parametrize("algorithm", ["md5", "sha1", "sha256"])
def test_good_file_is_fetched_once(server: Server, tmp_path: Path, algorithm: str) -> None:
    wanted = Download(NAME, (server.url("good"),), f"{algorithm}:{hashlib.new(algorithm, CONTENT).hexdigest()}")
    folder = tmp_path / "new" / "folder"
    assert fetch(wanted, folder) == folder / NAME
    assert fetch(wanted, folder).read_bytes() == CONTENT
    assert len(server.requests) == 1
    assert names(folder) == {NAME}


def test_the_first_source_that_works_is_used(server: Server, tmp_path: Path) -> None:
    urls = [server.url(path) for path in ("missing", "wrong", "moved", "good")]
    assert fetch(offered(*urls), tmp_path).read_bytes() == CONTENT
    assert [path for path, _ in server.requests] == ["missing", "wrong", "moved", "good"]  # good: moved leads there
    assert names(tmp_path) == {NAME}


def test_when_nothing_works_every_source_is_named_and_nothing_is_left(server: Server, tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        closed_url = f"http://127.0.0.1:{closed.getsockname()[1]}/x"
    start = time.monotonic()
    with pytest.raises(NoSourceError) as caught:
        fetch(offered(server.url("missing"), server.url("wrong"), closed_url), tmp_path)
    assert time.monotonic() - start < 5
    message = str(caught.value)
    assert f"{server.url('missing')}: HTTP 404" in message
    assert f"{server.url('wrong')}: wrong sha256 " in message
    assert hashlib.sha256(CONTENT).hexdigest() in message
    assert f"{closed_url}: cannot be reached" in message
    assert str(tmp_path / NAME) in message
    assert names(tmp_path) == set()


def test_wrong_size_is_refused(server: Server, tmp_path: Path) -> None:
    with pytest.raises(NoSourceError, match=f"{len(CONTENT)} bytes, expected 7"):
        fetch(offered(server.url("good"), size=7), tmp_path)
    assert names(tmp_path) == set()


def test_server_that_does_not_answer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(download_module, "READ_SECONDS", 0.1)
    with socket.create_server(("127.0.0.1", 0)) as silent, pytest.raises(NoSourceError, match="no answer in time"):
        fetch(offered(f"http://127.0.0.1:{silent.getsockname()[1]}/x"), tmp_path)
    assert names(tmp_path) == set()


def test_broken_transfer_is_resumed_by_the_next_start(server: Server, tmp_path: Path) -> None:
    with pytest.raises(NoSourceError, match="broke off") as caught:
        fetch(offered(server.url("cut_off")), tmp_path)
    assert names(tmp_path) == {f"{NAME}.part"}  # never under the real name
    kept = (tmp_path / f"{NAME}.part").stat().st_size
    assert 0 < kept <= len(CONTENT) // 2
    assert f"{kept} bytes are kept" in str(caught.value)
    assert fetch(offered(server.url("good")), tmp_path).read_bytes() == CONTENT
    assert server.requests[-1] == ("good", f"bytes={kept}-")
    assert names(tmp_path) == {NAME}


def test_broken_transfer_is_resumed_by_the_next_source(server: Server, tmp_path: Path) -> None:
    assert fetch(offered(server.url("cut_off"), server.url("good")), tmp_path).read_bytes() == CONTENT
    (first, first_range), (second, second_range) = server.requests
    assert (first, second, first_range) == ("cut_off", "good", None)
    assert second_range is not None


@pytest.mark.parametrize("path", ["good", "no_ranges", "moved"])
@pytest.mark.parametrize("part", [CONTENT[:1000], b"another file", CONTENT, CONTENT + b"more"])
def test_any_old_part_ends_in_the_right_file(server: Server, tmp_path: Path, part: bytes, path: str) -> None:
    (tmp_path / f"{NAME}.part").write_bytes(part)
    assert fetch(offered(server.url(path)), tmp_path).read_bytes() == CONTENT
    assert names(tmp_path) == {NAME}


def test_server_without_ranges_sends_the_file_once(server: Server, tmp_path: Path) -> None:
    (tmp_path / f"{NAME}.part").write_bytes(CONTENT[:1000])
    assert fetch(offered(server.url("no_ranges")), tmp_path).read_bytes() == CONTENT
    assert server.requests == [("no_ranges", "bytes=1000-")]


def test_damaged_file_is_replaced(server: Server, tmp_path: Path) -> None:
    (tmp_path / NAME).write_bytes(b"damaged")
    assert fetch(offered(server.url("good")), tmp_path).read_bytes() == CONTENT


def test_damaged_file_is_never_used(server: Server, tmp_path: Path) -> None:
    (tmp_path / NAME).write_bytes(b"damaged")
    with pytest.raises(NoSourceError) as caught:
        fetch(offered(server.url("missing")), tmp_path)
    assert f"{tmp_path / NAME}: 7 bytes, expected {len(CONTENT)}" in str(caught.value)


def test_several_at_once_fetch_once(server: Server, tmp_path: Path) -> None:
    with ThreadPoolExecutor(4) as pool:
        paths = list(pool.map(lambda _: fetch(offered(server.url("slow")), tmp_path), range(4)))
    assert {path.read_bytes() for path in paths} == {CONTENT}
    assert len(server.requests) == 1
    assert names(tmp_path) == {NAME}


def test_folder_that_cannot_be_made(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(NoSourceError, match="cannot be written to"):
        fetch(offered("http://127.0.0.1:9/x"), tmp_path / "file" / "folder")


def test_no_address_at_all(tmp_path: Path) -> None:
    with pytest.raises(NoSourceError, match="no address"):
        fetch(offered(), tmp_path)


MEMBERS = {"set/a.txt": b"a" * 5000, "set/deep/b.txt": b"b", "note.txt": b"n"}


def pack(path: Path, members: dict[str, bytes]) -> Path:
    if path.suffix == ".zip":
        with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as packed:
            for name, content in members.items():
                packed.writestr(name, content)
        return path
    with tarfile.open(path, "w:gz") as tar:
        for name, content in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return path


def contents(folder: Path) -> dict[str, bytes]:
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


@pytest.mark.parametrize("archive", ["x.zip", "x.tar.gz"])
def test_unpack(tmp_path: Path, archive: str) -> None:
    folder = tmp_path / "out"
    unpack(pack(tmp_path / archive, MEMBERS), folder)
    assert contents(folder) == MEMBERS
    assert names(folder) == {"set", "note.txt"}


def test_unpack_beside_what_is_there(tmp_path: Path) -> None:
    folder = tmp_path / "out"
    unpack(pack(tmp_path / "1.zip", {"set/2007/a": b"a", "set/b": b"old"}), folder)
    unpack(pack(tmp_path / "2.zip", {"set/2012/a": b"c", "set/b": b"new"}), folder)
    assert contents(folder) == {"set/2007/a": b"a", "set/2012/a": b"c", "set/b": b"new"}


@pytest.mark.parametrize("archive", ["x.zip", "x.tar.gz"])
@pytest.mark.parametrize("evil", ["../evil", "set/../../evil"])
def test_no_path_leaves_the_folder(tmp_path: Path, archive: str, evil: str) -> None:
    folder = tmp_path / "a" / "out"
    packed = pack(tmp_path / archive, {"fine": b"", evil: b"evil"})
    with pytest.raises(DataError, match=archive):
        unpack(packed, folder)
    assert names(folder) == set()
    assert not list(tmp_path.rglob("evil"))


def test_absolute_path_in_a_zip_is_refused(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="outside"):
        unpack(pack(tmp_path / "x.zip", {f"{tmp_path}/evil": b"evil"}), tmp_path / "out")
    assert not list(tmp_path.rglob("evil"))


def test_absolute_path_in_a_tar_is_read_as_one_below_the_folder(tmp_path: Path) -> None:
    unpack(pack(tmp_path / "x.tar.gz", {f"{tmp_path}/evil": b"evil"}), tmp_path / "out")
    assert [path.is_relative_to(tmp_path / "out") for path in tmp_path.rglob("evil")] == [True]


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE])
@pytest.mark.parametrize("link", ["/etc/passwd", "../../outside"])
def test_no_link_leaves_the_folder(tmp_path: Path, kind: bytes, link: str) -> None:
    path = tmp_path / "x.tar"
    with tarfile.open(path, "w") as tar:
        member = tarfile.TarInfo("link")
        member.type, member.linkname = kind, link
        tar.addfile(member)
    with pytest.raises(DataError, match="link"):
        unpack(path, tmp_path / "out")
    assert names(tmp_path / "out") == set()


def test_link_in_a_zip_becomes_a_plain_file(tmp_path: Path) -> None:
    member = zipfile.ZipInfo("link")
    member.external_attr = (stat.S_IFLNK | 0o777) << 16
    with zipfile.ZipFile(tmp_path / "x.zip", "w") as packed:
        packed.writestr(member, "/etc/passwd")
    unpack(tmp_path / "x.zip", tmp_path / "out")
    assert not (tmp_path / "out" / "link").is_symlink()


@pytest.mark.parametrize("archive", ["x.zip", "x.tar.gz"])
@pytest.mark.parametrize("damage", ["cut off", "a byte", "no archive"])
def test_damaged_archive_leaves_nothing(tmp_path: Path, archive: str, damage: str) -> None:
    path = pack(tmp_path / archive, {**MEMBERS, "big": os.urandom(5000)})
    content = bytearray(path.read_bytes())
    if damage == "a byte":
        content[len(content) // 2] ^= 0xFF
    path.write_bytes({"cut off": content[:-1000], "a byte": content, "no archive": b"<html>"}[damage])
    with pytest.raises(DataError, match="cannot be unpacked"):
        unpack(path, tmp_path / "out")
    assert names(tmp_path / "out") == set()


def script(folder: Path, name: str, text: str) -> None:
    folder.mkdir(exist_ok=True)
    (folder / name).write_text(f"#!/bin/sh\n{text}\n")
    (folder / name).chmod(0o755)


def test_debian_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script(tmp_path / "bin", "apt-get", 'for word; do :; done; echo packed > "$word"_1_all.deb')
    script(tmp_path / "bin", "dpkg-deb", 'cp "$2" "$3"/unpacked')
    monkeypatch.setenv("PATH", f"{tmp_path / 'bin'}:{os.environ['PATH']}")
    (tmp_path / "out").mkdir()
    unpack_debian_package("some-data", tmp_path / "out")
    assert contents(tmp_path / "out") == {"unpacked": b"packed\n"}


def test_debian_package_failures(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    script(tmp_path / "bin", "apt-get", "echo 'E: Unable to locate package' >&2; echo 'W: bye' >&2; exit 100")
    script(tmp_path / "bin", "dpkg-deb", "")
    monkeypatch.setenv("PATH", str(tmp_path / "bin"), prepend=":")
    with pytest.raises(DataError, match=r"^E: Unable to locate package$"):
        unpack_debian_package("some-data", tmp_path)
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(DataError, match="not installed here"):
        unpack_debian_package("some-data", tmp_path)
