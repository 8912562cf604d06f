"""MNIST from idx files: headers, sizes and labels checked, the real images bit for bit."""

from __future__ import annotations

import gzip
import hashlib
import struct
from pathlib import Path

import numpy as np
import pytest
from tests.realdata import DATA, needs, write_mnist

from smoothcert.datasets import load, mnist
from smoothcert.errors import DataError

PIXELS = np.random.default_rng(1).integers(0, 256, (10_000, 28, 28), dtype=np.uint8)
LABELS = np.random.default_rng(2).integers(0, 10, 10_000, dtype=np.uint8)
IMAGES_FILE = struct.pack(">IIII", 2051, 10_000, 28, 28) + PIXELS.tobytes()
LABELS_FILE = struct.pack(">II", 2049, 10_000) + LABELS.tobytes()


def written(folder: Path, images: bytes, labels: bytes, ending: str = "", mark: str = "-") -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    pack = gzip.compress if ending else bytes
    (folder / f"t10k-images{mark}idx3-ubyte{ending}").write_bytes(pack(images))
    (folder / f"t10k-labels{mark}idx1-ubyte{ending}").write_bytes(pack(labels))
    return folder


@pytest.mark.parametrize("ending", ["", ".gz"])
@pytest.mark.parametrize(("below", "mark"), [("", "-"), ("MNIST/raw", "-"), ("", "."), ("mnist", ".")])
def test_reads_every_spelling(below: str, mark: str, ending: str, tmp_path: Path) -> None:
    written(tmp_path / below, IMAGES_FILE, LABELS_FILE, ending, mark)
    found = load("mnist", root=tmp_path)
    assert (found.name, found.levels, found.shape, len(found)) == ("mnist:test", 255, (1, 28, 28), 10_000)
    assert found.classes == tuple("0123456789")
    assert found is mnist(root=tmp_path)
    for index in (0, 1, 777, 9_999):
        assert (found[index].index, found[index].label) == (index, LABELS[index])
        assert found[index].image[0, 2, 5] == PIXELS[index, 2, 5]
        assert found[index].image.tobytes() == PIXELS[index].tobytes()


@pytest.mark.parametrize(
    ("images", "labels", "message"),
    [
        (LABELS_FILE, LABELS_FILE, "starts with 00 00 08 01, not with 00 00 08 03"),
        (IMAGES_FILE, IMAGES_FILE, "starts with 00 00 08 03, not with 00 00 08 01"),
        (IMAGES_FILE[:2] + b"\x0d" + IMAGES_FILE[3:], LABELS_FILE, "starts with 00 00 0d 03"),
        (gzip.compress(IMAGES_FILE), LABELS_FILE, "starts with 1f 8b"),
        (b"", LABELS_FILE, "starts with"),
        (IMAGES_FILE[:10], LABELS_FILE, "shape"),
        (struct.pack(">IIII", 2051, 10_000, 28, 27) + PIXELS.tobytes(), LABELS_FILE, "shape"),
        (struct.pack(">IIII", 2051, 9_999, 28, 28) + PIXELS[1:].tobytes(), LABELS_FILE, "shape"),
        (IMAGES_FILE, struct.pack(">II", 2049, 9_999) + LABELS[1:].tobytes(), "shape"),
        (IMAGES_FILE[:-1], LABELS_FILE, "7840015 of its 7840016 bytes"),
        (IMAGES_FILE + b"x", LABELS_FILE, "more than its 7840016 bytes"),
        (IMAGES_FILE, LABELS_FILE[:-1] + b"\x0a", "label 10 is no digit"),
    ],
)
def test_damaged_files_are_refused(images: bytes, labels: bytes, message: str, tmp_path: Path) -> None:
    written(tmp_path, images, labels)
    with pytest.raises(DataError, match=message):
        load("mnist", root=tmp_path)


@pytest.mark.parametrize("content", [gzip.compress(IMAGES_FILE)[:-9], b"<html>", IMAGES_FILE])
def test_damaged_gzip_files_are_refused(content: bytes, tmp_path: Path) -> None:
    written(tmp_path, IMAGES_FILE, LABELS_FILE, ".gz")
    (tmp_path / "t10k-images-idx3-ubyte.gz").write_bytes(content)
    with pytest.raises(DataError, match=r"t10k-images-idx3-ubyte\.gz.*cannot be read"):
        load("mnist", root=tmp_path)


def test_missing_files_say_where_they_were_looked_for(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"train-images-idx3-ubyte.*MNIST/raw.*--data-dir DIR.*--download"):
        load("mnist:train", root=tmp_path)


@needs("mnist")
def test_the_real_files_are_the_published_ones_and_read_as_such(tmp_path: Path) -> None:
    folder = write_mnist(tmp_path)
    train = (folder / "train-images-idx3-ubyte").read_bytes()
    assert hashlib.md5(train).hexdigest() == "6bbc9ace898e44ae57da46a324031adb"
    for split, counts in [
        ("test", [980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009]),
        ("train", [5923, 6742, 5958, 6131, 5842, 5421, 5918, 6265, 5851, 5949]),
    ]:
        found = load(f"mnist:{split}", root=tmp_path)
        with np.load(DATA / f"mnist/mnist_{split}.npz", allow_pickle=False) as stored:
            assert [found[k].label for k in range(len(found))] == stored["labels"].tolist()
            assert b"".join(found[k].image.tobytes() for k in range(500)) == stored["images"][:500].tobytes()
        assert np.bincount([found[k].label for k in range(len(found))]).tolist() == counts
