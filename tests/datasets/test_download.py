"""Downloads from a server on this machine: the published bytes arrive under their name, or nothing does."""

from __future__ import annotations

import dataclasses
import hashlib
import http.server
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from smoothcert.datasets import download, load
from smoothcert.datasets.download import Remote, fetch
from smoothcert.errors import DataError, InvalidInput

CONTENT = bytes(range(256)) * 5000


class Mirror(http.server.ThreadingHTTPServer):
    """Serves files by name; ``cut`` ends every answer early, ``asked`` remembers the paths."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.files: dict[str, bytes] = {}
        self.asked: list[str] = []
        self.cut = 0

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_address[1]}/data"


class Handler(http.server.BaseHTTPRequestHandler):
    server: Mirror

    def do_GET(self) -> None:
        self.server.asked.append(self.path)
        content = self.server.files.get(self.path.removeprefix("/data/"))
        if content is None:
            self.send_error(404)
            return
        self.send_response(200)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content[: len(content) - self.server.cut])

    def log_message(self, *_: object) -> None:
        """Quiet."""


@pytest.fixture
def mirror() -> Iterator[Mirror]:
    server = Mirror()
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    yield server
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def remote(mirror: Mirror) -> Remote:
    mirror.files["some.tar.gz"] = CONTENT
    return Remote(mirror.address, "some.tar.gz", hashlib.sha256(CONTENT).hexdigest())


def test_the_published_bytes_arrive_under_their_name(mirror: Mirror, remote: Remote, tmp_path: Path) -> None:
    folder = tmp_path / "new" / "folder"
    fetch([remote], folder)
    assert [path.name for path in folder.iterdir()] == ["some.tar.gz"]
    assert (folder / "some.tar.gz").read_bytes() == CONTENT
    fetch([remote], folder)
    assert mirror.asked == ["/data/some.tar.gz"]


def test_another_hash_is_refused_and_removed(mirror: Mirror, remote: Remote, tmp_path: Path) -> None:
    mirror.files["some.tar.gz"] = CONTENT[:-1] + b"!"
    with pytest.raises(DataError, match=r"SHA-256.*it was removed"):
        fetch([remote], tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_cut_connection_leaves_nothing(mirror: Mirror, remote: Remote, tmp_path: Path) -> None:
    mirror.cut = 1000
    with pytest.raises(DataError, match=r"cut after 1279000 of 1280000 bytes|IncompleteRead"):
        fetch([remote], tmp_path)
    assert list(tmp_path.iterdir()) == []


def test_a_missing_file_and_a_silent_server_are_told(mirror: Mirror, tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"cannot be fetched \(HTTP Error 404.*SMOOTHCERT_MIRROR"):
        fetch([Remote(mirror.address, "other.gz", "0" * 64)], tmp_path)
    with pytest.raises(DataError, match="cannot be fetched"):
        fetch([Remote("http://127.0.0.1:1", "other.gz", "0" * 64)], tmp_path)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("base", ["file:///etc", "ftp://host", "/etc", "https:/x"])
def test_a_mirror_is_an_http_address(
    base: str, remote: Remote, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SMOOTHCERT_MIRROR", base)
    with pytest.raises(InvalidInput, match="SMOOTHCERT_MIRROR"):
        fetch([remote], tmp_path)


def test_load_fetches_what_is_missing_and_reads_it(
    mirror: Mirror, tmp_path: Path, packed: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SMOOTHCERT_MIRROR", mirror.address)
    archive = (packed / "cifar-10-batches-py-packed" / "cifar-10-python.tar.gz").read_bytes()
    mirror.files["cifar-10-python.tar.gz"] = archive
    with pytest.raises(DataError, match="SHA-256"):  # it is not the published one
        load("cifar10", download=True)
    cache = tmp_path / "cache/smoothcert/data"
    assert list(cache.iterdir()) == []
    expected = dataclasses.replace(download.CIFAR["cifar10"], sha256=hashlib.sha256(archive).hexdigest())
    monkeypatch.setitem(download.CIFAR, "cifar10", expected)
    assert len(load("cifar10:test[::20]", download=True)) == 500
    assert [path.name for path in cache.iterdir()] == ["cifar-10-python.tar.gz"]
    asked = list(mirror.asked)
    assert len(load("cifar10")) == 10_000
    assert mirror.asked == asked


def test_nothing_is_fetched_unless_asked(
    mirror: Mirror, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SMOOTHCERT_MIRROR", mirror.address)
    for name in ("cifar10", "cifar100", "mnist"):
        with pytest.raises(DataError, match="--download"):
            load(name, root=tmp_path)
    with pytest.raises(DataError, match="404"):
        load("mnist", root=tmp_path, download=True)
    assert mirror.asked == ["/data/train-images-idx3-ubyte.gz"]


def test_the_archives_are_those_of_their_publishers() -> None:
    assert download.CIFAR["cifar10"].address() == "https://www.cs.toronto.edu/~kriz/cifar-10-python.tar.gz"
    assert download.CIFAR["cifar100"].address() == "https://www.cs.toronto.edu/~kriz/cifar-100-python.tar.gz"
    assert [remote.name.split("-")[0] for remote in download.MNIST] == ["train", "train", "t10k", "t10k"]
    assert all(len(remote.sha256) == 64 for remote in (*download.CIFAR.values(), *download.MNIST))
