"""The official archives, fetched on request: into the root folder, whole and unaltered or not at all.

Their SHA-256 hashes are those under which they have been distributed for years, so a mirror needs no trust:
the environment variable ``SMOOTHCERT_MIRROR`` names another base address that serves the same file names.
"""

from __future__ import annotations

import hashlib
import http.client
import os
import tempfile
import urllib.error
import urllib.request
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from smoothcert.errors import DataError, InvalidInput

MIRROR = "SMOOTHCERT_MIRROR"
_SECONDS = 60  # without a byte


@dataclass(frozen=True)
class Remote:
    """A published file.

    Attributes:
        base: the address it is below.
        name: the name of the file, there and here.
        sha256: its hash.
    """

    base: str
    name: str
    sha256: str

    def address(self) -> str:
        """Where it is fetched from: the mirror where one is named, else the publisher."""
        base = os.environ.get(MIRROR) or self.base
        if not base.startswith(("https://", "http://")):
            raise InvalidInput(f"{MIRROR}={base!r}", "files are fetched by http", "Write https://HOST/FOLDER")
        return f"{base.rstrip('/')}/{self.name}"


_TORONTO = "https://www.cs.toronto.edu/~kriz"
_MNIST = "https://ossci-datasets.s3.amazonaws.com/mnist"  # lecun.com no longer serves them; PyTorch's copy
CIFAR = {
    "cifar10": Remote(
        _TORONTO,
        "cifar-10-python.tar.gz",
        "6d958be074577803d12ecdefd02955f39262c83c16fe9348329d7fe0b5c001ce",
    ),
    "cifar100": Remote(
        _TORONTO,
        "cifar-100-python.tar.gz",
        "85cd44d02ba6437773c5bbd22e183051d648de2e7d6b014e1ef29b855ba677a7",
    ),
}
MNIST = (
    Remote(
        _MNIST,
        "train-images-idx3-ubyte.gz",
        "440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609",
    ),
    Remote(
        _MNIST,
        "train-labels-idx1-ubyte.gz",
        "3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c",
    ),
    Remote(
        _MNIST,
        "t10k-images-idx3-ubyte.gz",
        "8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6",
    ),
    Remote(
        _MNIST,
        "t10k-labels-idx1-ubyte.gz",
        "f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6",
    ),
)


def fetch(files: Iterable[Remote], folder: Path) -> None:
    """Each file is in the folder with its published hash; nothing of another content is left there.

    Raises:
        DataError: not to be fetched, cut off, or of another hash. OSError: the folder cannot be written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for remote in files:
        if not (folder / remote.name).is_file():
            _fetch(remote, folder)


def _fetch(remote: Remote, folder: Path) -> None:
    """Write beside the target, check, then rename: the name never stands for half a file."""
    handle, unfinished = tempfile.mkstemp(prefix=f".{remote.name}.", dir=folder)
    try:
        with os.fdopen(handle, "wb") as file:
            found = _received(remote, file)
        if found != remote.sha256:
            why = f"its SHA-256 is {found}, that of the published file {remote.sha256}; it was removed"
            raise _failed(remote, why)
        os.chmod(unfinished, 0o644)
        os.replace(unfinished, folder / remote.name)
    finally:
        Path(unfinished).unlink(missing_ok=True)


def _received(remote: Remote, file: BinaryIO) -> str:
    """SHA-256 of what came, written as it comes."""
    digest, size = hashlib.sha256(), 0
    try:
        with urllib.request.urlopen(remote.address(), timeout=_SECONDS) as answer:  # noqa: S310 - http(s) only
            promised = answer.headers.get("Content-Length")
            while block := answer.read(1 << 20):
                digest.update(block)
                size += file.write(block)
    except (urllib.error.URLError, http.client.HTTPException, OSError, ValueError) as error:
        raise _failed(remote, f"it cannot be fetched ({error})") from error
    if promised is not None and str(size) != promised:
        raise _failed(remote, f"the connection was cut after {size} of {promised} bytes")
    return digest.hexdigest()


def _failed(remote: Remote, why: str) -> DataError:
    instead = f"Try again, name a mirror with {MIRROR}, or get it elsewhere and name its folder (--data-dir)"
    return DataError(f"download of {remote.address()}", why, instead)
