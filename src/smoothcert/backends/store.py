"""Converted models on disk, found again by what they were made of and trusted only by their hash."""

from __future__ import annotations

import hashlib
import json
import os
import tempfile
from collections.abc import Mapping
from pathlib import Path

_LIST = "sha256.json"


def read(folder: Path, key: str) -> dict[str, bytes] | None:
    """The files stored under a key; ``None`` where there are none, or where one is not what was stored."""
    try:
        listed = json.loads((folder / key / _LIST).read_text(encoding="utf-8"))
        files = {str(name): (folder / key / Path(str(name)).name).read_bytes() for name in listed}
        intact = all(hashlib.sha256(files[name]).hexdigest() == listed[name] for name in files)
    except (OSError, ValueError, TypeError):
        return None
    return files if intact and files else None


def write(folder: Path, key: str, files: Mapping[str, bytes]) -> None:
    """Store files under a key, whole or not at all; a damaged entry is replaced."""
    folder.mkdir(parents=True, exist_ok=True)
    place = folder / key
    with tempfile.TemporaryDirectory(dir=folder, prefix=".new-") as made:
        new = Path(made) / key
        new.mkdir()
        for name, content in files.items():
            (new / name).write_bytes(content)
        listed = {name: hashlib.sha256(content).hexdigest() for name, content in files.items()}
        (new / _LIST).write_text(json.dumps(listed, indent=2) + "\n", encoding="utf-8")
        if place.exists():
            os.replace(place, Path(made) / "old")
        try:
            os.replace(new, place)
        except OSError:
            if not place.exists():  # another process was faster, with the same content
                raise
