"""Pictures in folders named for their class: ``PATH/CLASS/*.png``, the layout of torchvision's ImageFolder.

Classes are the folders' names, sorted; the examples are ordered by class and then by file name, as there, so
that the indices of published logs agree.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from smoothcert.datasets.pictures import ENDINGS, PictureDataset, Treatment
from smoothcert.datasets.places import root_folder
from smoothcert.errors import DataError


@dataclass(frozen=True)
class Files:
    """Picture files below a folder.

    Attributes:
        folder: the folder.
        paths: each file, relative to it.
        names: how examples are called; by default as their file.
    """

    folder: Path
    paths: tuple[str, ...]
    names: tuple[str, ...] | None = None

    def __len__(self) -> int:
        return len(self.paths)

    def name(self, position: int) -> str:
        """``CLASS/FILE``."""
        return (self.names or self.paths)[position]

    def open(self, position: int) -> Path:
        """The file itself."""
        return self.folder / self.paths[position]


def folder(
    path: str | Path,
    *,
    treatment: Treatment | None = None,
    root: str | Path | None = None,
    name: str | None = None,
) -> PictureDataset:
    """Pictures in class folders, each decoded when it is asked for.

    Args:
        path: the folder of class folders; a relative one is below ``root``, or the current directory.
        treatment: resizing, cropping and conversion; without it all pictures must have one shape.
        root: see ``path``.
        name: how logs name the data set.

    Raises:
        DataError: no such folder, no or empty class folders, pictures of several shapes.
    """
    given = root_folder(root).given
    place = (given or Path()) / Path(path).expanduser()
    classes = class_folders(place)
    found = [(label, file) for label, each in enumerate(classes) for file in pictures_in(place, each)]
    return PictureDataset(
        Files(place, tuple(file for _, file in found)),
        [label for label, _ in found],
        name=name or f"folder:{path}",
        classes=classes,
        treatment=treatment or Treatment(),
        data_dir=given,
    )


def class_folders(place: Path) -> list[str]:
    """Names of the folders in a folder, sorted, hidden ones left out.

    Raises:
        DataError: no readable folder, or none in it.
    """
    try:
        inside = [entry for entry in os.scandir(place) if not entry.name.startswith(".")]
    except OSError as error:
        raise _unusable(place, f"it cannot be read ({error.strerror})") from error
    names = sorted(entry.name for entry in inside if entry.is_dir())
    if not names:
        loose = any(Path(entry.name).suffix.lower() in ENDINGS for entry in inside)
        why = "its pictures lie in it directly, so nothing says their classes" if loose else "it is empty"
        raise _unusable(place, why if loose or not inside else "no folder is in it")
    return names


def pictures_in(place: Path, name: str) -> Sequence[str]:
    """Paths below ``place`` of the pictures of one class, in torchvision's order.

    Raises:
        DataError: none there, or a folder that cannot be read.
    """

    def unreadable(error: OSError) -> None:
        raise _unusable(Path(error.filename), f"it cannot be read ({error.strerror})") from error

    walked = sorted(os.walk(place / name, followlinks=True, onerror=unreadable))
    found = [
        Path(inside, file).relative_to(place).as_posix()
        for inside, _, files in walked
        for file in sorted(files)
        if Path(file).suffix.lower() in ENDINGS and not file.startswith(".")
    ]
    if not found:
        why = f"the class folder holds no picture ({', '.join(sorted(ENDINGS))})"
        raise DataError(f"folder {str(place / name)!r}", why, "Remove it, or put its pictures there")
    return found


def _unusable(place: Path, why: str) -> DataError:
    return DataError(f"folder {str(place)!r}", why, "Give a folder that holds one folder of pictures a class")
