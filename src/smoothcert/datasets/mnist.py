"""MNIST: 28x28 handwritten digits, from the four idx files as they are published.

Y. LeCun, C. Cortes and C. J. C. Burges, "The MNIST database of handwritten digits", 1998. An idx file is two
zero bytes, the type of its entries (8: unsigned bytes), the number of axes, each axis as a big-endian 32-bit
integer, and the entries. Plain or gzipped, in the root, in ``MNIST/raw`` or in ``mnist``; both spellings of
the names in use (``train-images-idx3-ubyte``, ``train-images.idx3-ubyte``).
"""

from __future__ import annotations

import gzip
import math
import struct
import zlib
from functools import lru_cache
from pathlib import Path

import numpy as np
import numpy.typing as npt

from smoothcert.datasets.arrays import ArrayDataset
from smoothcert.datasets.download import MNIST, fetch
from smoothcert.datasets.places import damaged, missing, root_folder
from smoothcert.errors import UnknownName

SPLITS = ("test", "train")
SOURCE = (
    "Y. LeCun, C. Cortes and C. J. C. Burges, The MNIST database of handwritten digits, 1998; CC BY-SA 3.0"
)
_FOLDERS = ("", "MNIST/raw", "mnist", "mnist/raw")
_PREFIX = {"test": "t10k", "train": "train"}
_COUNTS = {"test": 10_000, "train": 60_000}


def mnist(split: str = "test", *, root: str | Path | None = None, download: bool = False) -> ArrayDataset:
    """The 10,000 test or 60,000 training images of MNIST, ``(1, 28, 28)`` uint8, in the official order.

    Read once a process; ``Example.index`` is the position in the split.

    Args:
        split: ``"test"`` or ``"train"``.
        root, download: where the files are, and whether to fetch them if not; see ``datasets.load``.

    Raises:
        UnknownName: another split. DataError: files that are missing or damaged.
    """
    if split not in SPLITS:
        raise UnknownName.among("split of mnist", split, SPLITS)
    place = root_folder(root)
    files = _find(place.path, split)
    if files is None and download:
        fetch(MNIST, place.path / "MNIST" / "raw")
        files = _find(place.path, split)
    if files is None:
        names = f"{_PREFIX[split]}-images-idx3-ubyte and {_PREFIX[split]}-labels-idx1-ubyte (or .gz)"
        folders = " and ".join(str(place.path / folder) for folder in _FOLDERS)
        raise missing(f"mnist:{split}", [f"{names} in {folders}"], downloadable=True)
    stamp = tuple((file.stat().st_mtime_ns, file.stat().st_size) for file in files)
    return _read(split, files, stamp, place.given)


def _find(root: Path, split: str) -> tuple[Path, Path] | None:
    """Images and labels of a split, from the first folder that has both."""
    for folder in _FOLDERS:
        images = _file(root / folder, f"{_PREFIX[split]}-images", "idx3-ubyte")
        labels = _file(root / folder, f"{_PREFIX[split]}-labels", "idx1-ubyte")
        if images and labels:
            return images, labels
    return None


def _file(folder: Path, name: str, kind: str) -> Path | None:
    spellings = [f"{name}{mark}{kind}{packing}" for packing in ("", ".gz") for mark in ("-", ".")]
    return next((folder / spelling for spelling in spellings if (folder / spelling).is_file()), None)


@lru_cache(maxsize=4)
def _read(split: str, files: tuple[Path, Path], stamp: object, given: Path | None) -> ArrayDataset:
    """The split from its files; ``stamp`` changes with them."""
    count = _COUNTS[split]
    images, labels = _idx(files[0], (count, 28, 28)), _idx(files[1], (count,))
    if labels.max() > 9:
        raise damaged(files[1], f"label {labels.max()} is no digit")
    return ArrayDataset(
        images[:, None],
        labels,
        levels=255,
        name=f"mnist:{split}",
        classes=tuple("0123456789"),
        source=SOURCE,
        data_dir=given,
    )


def _idx(path: Path, shape: tuple[int, ...]) -> npt.NDArray[np.uint8]:
    """The entries of an idx file that must have this shape."""
    magic = struct.pack(">HBB", 0, 8, len(shape))
    start = len(magic) + 4 * len(shape)
    size = start + math.prod(shape)
    content = _content(path, size + 1)
    if content[:4] != magic:
        why = f"it starts with {content[:4].hex(' ')}, not with {magic.hex(' ')} as idx files do"
        raise damaged(path, why)
    axes = struct.unpack_from(f">{len(shape)}I", content, 4) if len(content) >= start else ()
    if axes != shape:
        raise damaged(path, f"its shape is {axes}, that of the published file {shape}")
    if len(content) != size:
        have = f"{len(content)} of" if len(content) < size else "more than"
        raise damaged(path, f"it has {have} its {size} bytes")
    return np.frombuffer(content, dtype=np.uint8, offset=start).reshape(shape)


def _content(path: Path, most: int) -> bytes:
    """At most so many bytes, unpacked: a small file cannot fill the memory."""
    try:
        with gzip.open(path) if path.suffix == ".gz" else open(path, "rb") as file:
            return file.read(most)
    except (OSError, EOFError, zlib.error) as error:
        raise damaged(path, f"it cannot be read ({error})") from error
