"""Where the real data and weights for tests are, the skip that says so where they are absent, and the real
data in the layouts in which they are published.

``python -m tests.realdata DIRECTORY`` writes ``DIRECTORY/cifar-10-batches-py``, ``DIRECTORY/MNIST/raw`` and
``DIRECTORY/imagenet/val/<wnid>/``; then ``smoothcert certify --data-dir DIRECTORY --data 'cifar10:test[::20]'``
finds the real images where it would find downloaded ones.
"""

from __future__ import annotations

import functools
import os
import struct
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

DATA = Path(os.environ.get("SMOOTHCERT_TEST_DATA", Path(__file__).parents[2] / "shared" / "data"))
Pixels = npt.NDArray[np.uint8]


def needs(*parts: str) -> pytest.MarkDecorator:
    """Skip where these files are not below ``DATA``."""
    absent = [part for part in parts if not (DATA / part).exists()]
    return pytest.mark.skipif(
        bool(absent), reason=f"{', '.join(absent)} not in {DATA} (SMOOTHCERT_TEST_DATA)"
    )


def python2_pickle(value: Any) -> bytes:
    """A pickle byte for byte as Python 2 writes it (protocol 2, 8-bit strings), arrays as numpy 1 does.

    Python 3 cannot write those opcodes, and the published archives of CIFAR consist of them.
    """
    return b"\x80\x02" + b"".join(_opcodes(value)) + b"."


def _opcodes(value: Any) -> Iterator[bytes]:
    if isinstance(value, dict):
        yield b"}("
        for key, inner in value.items():
            yield from _opcodes(key)
            yield from _opcodes(inner)
        yield b"u"
    elif isinstance(value, (list, tuple)):
        yield b"](" if isinstance(value, list) else b"("
        for inner in value:
            yield from _opcodes(inner)
        yield b"e" if isinstance(value, list) else b"t"
    elif isinstance(value, np.ndarray):
        yield b"cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85U\x01b\x87R("
        yield from _opcodes(1)
        yield from _opcodes(value.shape)
        yield b"cnumpy\ndtype\nU\x02u1K\x00K\x01\x87R(K\x03U\x01|NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tb"
        yield b"\x88" if not value.flags.c_contiguous else b"\x89"
        yield from _opcodes(value.tobytes("A"))
        yield b"tb"
    elif isinstance(value, int):
        yield b"J" + struct.pack("<i", value)
    else:
        raw = value if isinstance(value, bytes) else str(value).encode("latin1")
        yield (b"U" + bytes([len(raw)]) if len(raw) < 256 else b"T" + struct.pack("<i", len(raw))) + raw


def sheet(name: str) -> Pixels:
    """10,000 images ``(10000, 3, 32, 32)`` from one sheet of 100 by 100 tiles."""
    tiles = np.asarray(Image.open(DATA / "cifar10" / name).convert("RGB"))
    return tiles.reshape(100, 32, 100, 32, 3).transpose(0, 2, 4, 1, 3).reshape(-1, 3, 32, 32)


@functools.cache
def cifar10_labels() -> dict[str, Any]:
    """Labels of both splits and the class names."""
    with np.load(DATA / "cifar10/cifar10_labels.npz", allow_pickle=False) as stored:
        return {name: stored[name] for name in stored.files}


def _cifar10_parts() -> dict[str, tuple[str, npt.NDArray[np.uint8]]]:
    """Sheet and labels of every batch, by its published name."""
    stored = cifar10_labels()
    parts = {
        f"data_batch_{k + 1}": (
            f"cifar10_train_{k}.webp",
            stored["train_labels"][k * 10_000 : (k + 1) * 10_000],
        )
        for k in range(5)
    }
    return parts | {"test_batch": ("cifar10_test.webp", stored["test_labels"])}


def write_cifar10_python(directory: Path, *, train: bool = True) -> Path:
    """``cifar-10-batches-py`` as published, from the real images."""
    folder = directory / "cifar-10-batches-py"
    folder.mkdir(parents=True, exist_ok=True)
    for name, (sheet_name, labels) in _cifar10_parts().items():
        if train or name == "test_batch":
            rows = sheet(sheet_name).reshape(-1, 3072)
            content = {"batch_label": name, "labels": labels.tolist(), "data": rows, "filenames": []}
            (folder / name).write_bytes(python2_pickle(content))
    names = [str(name) for name in cifar10_labels()["class_names"]]
    meta = {"num_cases_per_batch": 10_000, "label_names": names, "num_vis": 3072}
    (folder / "batches.meta").write_bytes(python2_pickle(meta))
    return folder


def write_cifar10_binary(directory: Path, *, train: bool = True) -> Path:
    """``cifar-10-batches-bin`` as published, from the real images."""
    folder = directory / "cifar-10-batches-bin"
    folder.mkdir(parents=True, exist_ok=True)
    for name, (sheet_name, labels) in _cifar10_parts().items():
        if train or name == "test_batch":
            rows = np.hstack([labels[:, None], sheet(sheet_name).reshape(-1, 3072)])
            (folder / f"{name}.bin").write_bytes(rows.astype(np.uint8).tobytes())
    names = [str(name) for name in cifar10_labels()["class_names"]]
    (folder / "batches.meta.txt").write_text("\n".join(names) + "\n\n")
    return folder


def write_mnist(directory: Path) -> Path:
    """``MNIST/raw`` with the four idx files, from the real images."""
    folder = directory / "MNIST" / "raw"
    folder.mkdir(parents=True, exist_ok=True)
    for stored_as, name in (("train", "train"), ("test", "t10k")):
        with np.load(DATA / f"mnist/mnist_{stored_as}.npz", allow_pickle=False) as stored:
            images, labels = stored["images"], stored["labels"].astype(np.uint8)
        header = struct.pack(">IIII", 2051, *images.shape)
        (folder / f"{name}-images-idx3-ubyte").write_bytes(header + images.tobytes())
        (folder / f"{name}-labels-idx1-ubyte").write_bytes(
            struct.pack(">II", 2049, len(labels)) + labels.tobytes()
        )
    return folder


def write_imagenet(directory: Path) -> Path:
    """``imagenet/val/<wnid>/*.JPEG``: one photograph of each of the 1,000 classes, 256x256."""
    folder = directory / "imagenet" / "val"
    with tarfile.open(DATA / "imagenet_sample/imagenet_sample_256.tar") as packed:
        for member in packed:
            stream = packed.extractfile(member)
            if stream is not None:
                number, _, wnid = Path(member.name).stem.partition("_")
                (folder / wnid).mkdir(parents=True, exist_ok=True)
                (folder / wnid / f"sample_{number}.JPEG").write_bytes(stream.read())
    return folder


if __name__ == "__main__":
    if len(sys.argv) != 2:
        sys.exit("usage: python -m tests.realdata DIRECTORY")
    for write in (write_cifar10_python, write_mnist, write_imagenet):
        print(write(Path(sys.argv[1])))
