"""CIFAR-10 and CIFAR-100, from the archives that their author publishes, in the official order.

A. Krizhevsky, "Learning Multiple Layers of Features from Tiny Images", 2009,
https://www.cs.toronto.edu/~kriz/cifar.html. The "python" and the "binary" version are read, unpacked
(``cifar-10-batches-py/``, ``cifar-10-batches-bin/``, ``cifar-100-python/``, ``cifar-100-binary/``) or as the
``.tar.gz``; both hold the same images in the same order. Labels of CIFAR-100 are the 100 fine ones.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import lru_cache
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from smoothcert.datasets.arrays import ArrayDataset
from smoothcert.datasets.download import CIFAR, fetch
from smoothcert.datasets.packed import Place
from smoothcert.datasets.pickles import read_pickle
from smoothcert.datasets.places import damaged, missing, root_folder
from smoothcert.errors import UnknownName

SPLITS = ("test", "train")
SOURCE = (
    "A. Krizhevsky, Learning Multiple Layers of Features from Tiny Images, 2009, "
    "https://www.cs.toronto.edu/~kriz/cifar.html; no formal licence, research use with citation"
)
_PIXELS = 3 * 32 * 32
_Part = tuple[npt.NDArray[np.uint8], npt.NDArray[Any]]


@dataclass(frozen=True)
class _Version:
    """One published packing of a data set."""

    folder: str
    archive: str
    splits: Mapping[str, tuple[str, ...]]
    names: str
    binary: bool

    def files(self, split: str) -> tuple[str, ...]:
        return (*self.splits[split], self.names)


@dataclass(frozen=True)
class _Kind:
    """A data set: how many classes, where its labels stand, images of a split, and its packings."""

    classes: int
    labels: str
    label_names: str
    label_bytes: int
    counts: Mapping[str, int]
    versions: tuple[_Version, ...]


_COUNTS = {"test": 10_000, "train": 50_000}
_TEN = tuple(f"data_batch_{k}" for k in range(1, 6))
_TEN_BINARY = tuple(f"{name}.bin" for name in _TEN)
_KINDS: Mapping[str, _Kind] = {
    "cifar10": _Kind(
        classes=10,
        labels="labels",
        label_names="label_names",
        label_bytes=1,
        counts=_COUNTS,
        versions=(
            _Version(
                "cifar-10-batches-py",
                "cifar-10-python.tar.gz",
                {"test": ("test_batch",), "train": _TEN},
                "batches.meta",
                binary=False,
            ),
            _Version(
                "cifar-10-batches-bin",
                "cifar-10-binary.tar.gz",
                {"test": ("test_batch.bin",), "train": _TEN_BINARY},
                "batches.meta.txt",
                binary=True,
            ),
        ),
    ),
    "cifar100": _Kind(
        classes=100,
        labels="fine_labels",
        label_names="fine_label_names",
        label_bytes=2,
        counts=_COUNTS,
        versions=(
            _Version(
                "cifar-100-python",
                "cifar-100-python.tar.gz",
                {"test": ("test",), "train": ("train",)},
                "meta",
                binary=False,
            ),
            _Version(
                "cifar-100-binary",
                "cifar-100-binary.tar.gz",
                {"test": ("test.bin",), "train": ("train.bin",)},
                "fine_label_names.txt",
                binary=True,
            ),
        ),
    ),
}


def cifar10(split: str = "test", *, root: str | Path | None = None, download: bool = False) -> ArrayDataset:
    """The 10,000 test or 50,000 training images of CIFAR-10, ``(3, 32, 32)`` uint8 RGB, in official order.

    Read once a process; ``Example.index`` is the position in the split.

    Args:
        split: ``"test"`` or ``"train"``.
        root, download: where the files are, and whether to fetch them if not; see ``datasets.load``.

    Raises:
        UnknownName: another split. DataError: files that are missing or damaged.
    """
    return _cifar("cifar10", split, root, download)


def cifar100(split: str = "test", *, root: str | Path | None = None, download: bool = False) -> ArrayDataset:
    """The 10,000 test or 50,000 training images of CIFAR-100, with its 100 fine labels; see ``cifar10``."""
    return _cifar("cifar100", split, root, download)


def _cifar(kind: str, split: str, directory: str | Path | None, download: bool) -> ArrayDataset:
    if split not in SPLITS:
        raise UnknownName.among(f"split of {kind}", split, SPLITS)
    root = root_folder(directory)
    found, looked = _find(kind, split, root.path)
    if found is None and download:
        fetch([CIFAR[kind]], root.path)
        found, looked = _find(kind, split, root.path)
    if found is None:
        raise missing(f"{kind}:{split}", looked, downloadable=True)
    version, place = found
    return _read(kind, split, version.folder, place, place.stamp(version.files(split)), root.given)


def _find(kind: str, split: str, root: Path) -> tuple[tuple[_Version, Place] | None, list[str]]:
    """The first place that has every file of the split; else what was looked for, and what was incomplete."""
    incomplete = []
    for version, place in _places(kind, root):
        lacking = place.lacks(version.files(split))
        if not lacking:
            return (version, place), []
        if place.path.is_dir() and place.path != root:
            incomplete.append(f"{place.path} lacks {', '.join(lacking)}")
    names = [name for v in _KINDS[kind].versions for name in (v.folder, v.archive)]
    return None, [f"{', '.join(names)} in {root} and {root / kind}", *incomplete]


def _places(kind: str, root: Path) -> list[tuple[_Version, Place]]:
    """Folders first, as they are read faster than archives."""
    versions = _KINDS[kind].versions
    folders = [(v, Place(base / v.folder)) for base in (root, root / kind) for v in versions]
    packed = [(v, Place(base / v.archive, v.folder)) for base in (root, root / kind) for v in versions]
    return [*folders, *((v, Place(root)) for v in versions), *packed]


@lru_cache(maxsize=4)
def _read(
    kind: str, split: str, folder: str, place: Place, stamp: object, given: Path | None
) -> ArrayDataset:
    """The split from its files; ``stamp`` changes with them."""
    about = _KINDS[kind]
    version = next(v for v in about.versions if v.folder == folder)
    content = place.read(version.files(split))
    names = _class_names(content.pop(version.names), about, version, place)
    part = _binary if version.binary else _pickled
    parts = [part(data, about, place.named(name)) for name, data in content.items()]
    images = np.concatenate([pixels for pixels, _ in parts]).reshape(-1, 3, 32, 32)
    if len(images) != about.counts[split]:
        why = f"it holds {len(images)} images of the {about.counts[split]} of {kind}:{split}"
        raise damaged(place.path, why)
    labels = np.concatenate([labels for _, labels in parts])
    return ArrayDataset(
        images, labels, levels=255, name=f"{kind}:{split}", classes=names, source=SOURCE, data_dir=given
    )


def _binary(content: bytes, about: _Kind, file: str) -> _Part:
    """Records of label bytes (the last one counts) and 3,072 bytes of pixels: red, green, blue planes."""
    record = about.label_bytes + _PIXELS
    if not content or len(content) % record:
        raise damaged(file, f"its {len(content)} bytes are not records of {record}")
    rows = np.frombuffer(content, dtype=np.uint8).reshape(-1, record)
    return rows[:, about.label_bytes :], _checked(rows[:, about.label_bytes - 1], about, file)


def _pickled(content: bytes, about: _Kind, file: str) -> _Part:
    """The same rows of 3,072 pixels, and a list of labels."""
    found = read_pickle(content, file)
    pixels, labels = found.get("data"), found.get(about.labels)
    if not isinstance(pixels, np.ndarray) or pixels.ndim != 2 or pixels.shape[1] != _PIXELS:
        raise damaged(file, f"it has no array 'data' with rows of {_PIXELS} pixels")
    if not isinstance(labels, list) or len(labels) != len(pixels):
        raise damaged(file, f"it has no list {about.labels!r} with a label for each of {len(pixels)} images")
    if not all(type(label) is int for label in labels):
        raise damaged(file, "a label in it is not a whole number")
    return pixels, _checked(np.array(labels), about, file)


def _checked(labels: npt.NDArray[Any], about: _Kind, file: str) -> npt.NDArray[Any]:
    wrong = labels[(labels < 0) | (labels >= about.classes)]
    if len(wrong):
        raise damaged(file, f"label {wrong[0]} is none of the {about.classes} classes")
    return labels


def _class_names(content: bytes, about: _Kind, version: _Version, place: Place) -> tuple[str, ...]:
    file = place.named(version.names)
    if version.binary:
        names = content.decode("latin1").split()
    else:
        listed = read_pickle(content, file).get(about.label_names)
        names = [str(name) for name in listed] if isinstance(listed, list) else []
    if len(names) != about.classes:
        raise damaged(file, f"it names {len(names)} classes, not {about.classes}")
    return tuple(names)
