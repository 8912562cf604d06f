"""CIFAR files written by hand: the layouts of https://www.cs.toronto.edu/~kriz/cifar.html, with any content."""

from __future__ import annotations

import tarfile
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
from tests.realdata import python2_pickle

TEN = [f"class-{k}" for k in range(10)]
HUNDRED = [f"fine_{k}" for k in range(100)]
COARSE = [f"coarse_{k}" for k in range(20)]
ARCHIVES = {
    "cifar-10-batches-py": "cifar-10-python.tar.gz",
    "cifar-10-batches-bin": "cifar-10-binary.tar.gz",
    "cifar-100-python": "cifar-100-python.tar.gz",
    "cifar-100-binary": "cifar-100-binary.tar.gz",
}


class Batch(NamedTuple):
    """Rows of 3,072 pixels, and labels for 10 and for 100 classes."""

    rows: npt.NDArray[np.uint8]
    ten: npt.NDArray[np.int64]
    hundred: npt.NDArray[np.int64]


def python_batch(batch: Batch, **changes: Any) -> bytes:
    """``test_batch`` of CIFAR-10, with some entries changed."""
    content = {"batch_label": "testing batch 1 of 1", "labels": batch.ten.tolist(), "data": batch.rows}
    return python2_pickle(content | {"filenames": ["a.png"] * len(batch.rows)} | changes)


def binary_batch(batch: Batch) -> bytes:
    """``test_batch.bin`` of CIFAR-10: a label, then red, green and blue planes."""
    return np.hstack([batch.ten[:, None], batch.rows]).astype(np.uint8).tobytes()


def write_cifar(root: Path, batch: Batch) -> None:
    """The test splits of both data sets, below ``root/NAME/LAYOUT``."""
    coarse = batch.hundred // 5
    hundred = {
        "filenames": [],
        "fine_labels": batch.hundred.tolist(),
        "coarse_labels": coarse.tolist(),
        "data": batch.rows,
    }
    pairs = np.hstack([coarse[:, None], batch.hundred[:, None], batch.rows]).astype(np.uint8)
    written: dict[str, dict[str, bytes]] = {
        "cifar-10-batches-py": {
            "test_batch": python_batch(batch),
            "batches.meta": python2_pickle({"label_names": TEN, "num_vis": 3072}),
        },
        "cifar-10-batches-bin": {
            "test_batch.bin": binary_batch(batch),
            "batches.meta.txt": ("\n".join(TEN) + "\n\n").encode(),
        },
        "cifar-100-python": {
            "test": python2_pickle(hundred),
            "meta": python2_pickle({"fine_label_names": HUNDRED, "coarse_label_names": COARSE}),
        },
        "cifar-100-binary": {
            "test.bin": pairs.tobytes(),
            "fine_label_names.txt": ("\n".join(HUNDRED) + "\n").encode(),
            "coarse_label_names.txt": ("\n".join(COARSE) + "\n").encode(),
        },
    }
    for folder, files in written.items():
        unpacked = root / folder / folder
        unpacked.mkdir(parents=True)
        for name, content in files.items():
            (unpacked / name).write_bytes(content)


def pack_cifar(root: Path) -> None:
    """Each layout below ``root/LAYOUT-packed``, as its published archive."""
    for folder, archive_name in ARCHIVES.items():
        packed = root / f"{folder}-packed"
        packed.mkdir()
        with tarfile.open(packed / archive_name, "w:gz", compresslevel=1) as archive:
            archive.add(root / folder / folder, arcname=folder)
