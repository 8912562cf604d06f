"""The files of a published archive, in a folder or still packed: read in memory, extracted nowhere."""

from __future__ import annotations

import gzip
import tarfile
import zlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from smoothcert.datasets.places import damaged

_LARGEST = 1 << 28  # 256 MiB; the largest file of any archive here is 155 MB


@dataclass(frozen=True)
class Place:
    """Files in a folder, or in a ``.tar.gz`` below a folder of its own.

    Attributes:
        path: the folder or the archive.
        prefix: the folder inside the archive; empty for a folder.
    """

    path: Path
    prefix: str = ""

    def lacks(self, names: Sequence[str]) -> list[str]:
        """Which files are not there; an archive is taken at its word until it is read."""
        if self.prefix:
            return [] if self.path.is_file() else list(names)
        return [name for name in names if not (self.path / name).is_file()]

    def read(self, names: Sequence[str]) -> dict[str, bytes]:
        """The content of each file, by name.

        Raises:
            DataError: a file that is missing, not a plain file, too large, or a damaged archive.
        """
        return self._read_archive(names) if self.prefix else {name: self._read(name) for name in names}

    def named(self, name: str) -> str:
        """How errors name a file."""
        return str(self.path / name) if not self.prefix else f"{self.path}:{self.prefix}/{name}"

    def stamp(self, names: Sequence[str]) -> tuple[tuple[int, int], ...]:
        """Time and size of every file: a changed file is read again."""
        paths = [self.path] if self.prefix else [self.path / name for name in names]
        return tuple((stat.st_mtime_ns, stat.st_size) for stat in (path.stat() for path in paths))

    def _read(self, name: str) -> bytes:
        try:
            with open(self.path / name, "rb") as file:
                content = file.read(_LARGEST + 1)
        except OSError as error:
            raise damaged(self.named(name), f"it cannot be read ({error})") from error
        if len(content) > _LARGEST:
            raise damaged(self.named(name), "it is far larger than any file of that name")
        return content

    def _read_archive(self, names: Sequence[str]) -> dict[str, bytes]:
        """One pass through the archive, as packed files cannot be skipped to."""
        wanted = {f"{self.prefix}/{name}": name for name in names}
        found: dict[str, bytes] = {}
        try:
            with gzip.open(self.path) as stream:
                with tarfile.open(fileobj=stream, mode="r|") as archive:
                    for member in archive:
                        name = wanted.get(member.name.removeprefix("./"))
                        if name is not None:
                            found[name] = self._member(archive, member, name)
                while stream.read(1 << 20):
                    """To the very end, where gzip keeps its checksum."""
        except (OSError, EOFError, tarfile.TarError, zlib.error, gzip.BadGzipFile) as error:
            raise damaged(self.path, f"the archive cannot be read ({error})") from error
        absent = [name for name in names if name not in found]
        if absent:
            raise damaged(self.path, f"the archive does not hold {', '.join(absent)}")
        return found

    def _member(self, archive: tarfile.TarFile, member: tarfile.TarInfo, name: str) -> bytes:
        if not member.isfile() or member.size > _LARGEST:
            raise damaged(self.named(name), "it is no plain file, or far larger than any file of that name")
        stream = archive.extractfile(member)
        content = stream.read() if stream else b""
        if len(content) != member.size:
            raise damaged(self.named(name), f"{len(content)} of its {member.size} bytes are there")
        return content
