"""Where the files of a data set lie: one root folder, and what to say when they are not there.

The root is what the caller names, else the environment variable ``SMOOTHCERT_DATA``, else
``$XDG_CACHE_HOME/smoothcert/data`` (``~/.cache/smoothcert/data``). Only that one folder is searched, so that
nobody certifies another copy than the one meant; downloads go there too.
"""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from smoothcert.errors import DataError

ROOT = "SMOOTHCERT_DATA"


@dataclass(frozen=True)
class Root:
    """The folder that is searched.

    Attributes:
        path: the folder, absolute.
        given: the same where the caller named it, else ``None``: whoever repeats a run must name it again.
    """

    path: Path
    given: Path | None


def root_folder(directory: str | Path | None) -> Root:
    """The folder to search: the caller's, else the environment's, else the cache."""
    if directory is not None:
        given = Path(directory).expanduser().absolute()
        return Root(given, given)
    named = os.environ.get(ROOT)
    return Root(Path(named).expanduser().absolute() if named else _cache(), None)


def missing(data: str, looked: Iterable[str], *, downloadable: bool) -> DataError:
    """The one error for data that are not there: where they were looked for, and the ways out."""
    why = "its files were not found; looked for " + "; ".join(looked)
    name_it = f"Name the folder that holds them: --data-dir DIR, root=DIR or {ROOT}=DIR"
    fetch_it = "; or fetch them: --download or download=True" if downloadable else ""
    return DataError(f"data set {data!r}", why, name_it + fetch_it)


def damaged(file: str | Path, why: str) -> DataError:
    """The error for a file that is there and cannot be what it should be."""
    return DataError(f"file {str(file)!r}", why, "Restore it from a copy, or fetch it again")


def _cache() -> Path:
    home = os.environ.get("XDG_CACHE_HOME")
    return (Path(home) if home else Path.home() / ".cache") / "smoothcert" / "data"
