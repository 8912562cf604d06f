"""Images to certify and to train on: named data sets, slices of them, and arrays in memory.

Numpy and Pillow only, no torch. An example keeps its position in the full split whatever the slice, because
that index names its noise streams and its line in the field's logs.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

from smoothcert.checkpoints import from_import
from smoothcert.datasets.arrays import ArrayDataset, Subset
from smoothcert.datasets.cifar import cifar10, cifar100
from smoothcert.datasets.digits import digits
from smoothcert.datasets.mnist import mnist
from smoothcert.errors import InvalidInput, UnknownName
from smoothcert.protocols import Dataset

__all__ = ["ArrayDataset", "Subset", "cifar10", "cifar100", "digits", "load", "mnist"]


TEST_AND_TRAIN = ("test", "train")


class _Published(NamedTuple):
    """A data set with a name of its own: ``read(split, root=..., download=...)``, and its splits."""

    read: Callable[..., Dataset]
    splits: tuple[str, ...]


_PUBLISHED: Mapping[str, _Published] = {
    "digits": _Published(lambda split, **_: digits(split), TEST_AND_TRAIN),
    "cifar10": _Published(cifar10, TEST_AND_TRAIN),
    "cifar100": _Published(cifar100, TEST_AND_TRAIN),
    "mnist": _Published(mnist, TEST_AND_TRAIN),
}
_FORMS = ("python:MODULE:NAME",)
_SLICED = re.compile(r"(?P<data>.*?)(\[(?P<slice>[^\[\]]*)\])?", re.DOTALL)
_NAME = re.compile(r"(?P<data>[^:\[\]]+)(:(?P<split>[^:\[\]]+))?")
_INTEGER = re.compile(r"\s*[+-]?[0-9]{1,18}\s*")


def load(name: str, *, root: str | Path | None = None, download: bool = False) -> Dataset:
    """Find a data set by name: ``"cifar10"`` (first split), ``"cifar10:train"``, ``"cifar10:test[::20]"``.

    ``"python:module:attribute"`` imports a data set of your own, or a function that makes one. Call it by
    that name too (``ArrayDataset(..., name="python:module:attribute")``), then a run can be repeated from its
    ``run.toml``.

    The part in brackets is a Python slice, so ``[:100]`` is the first hundred images and ``[::5]`` every
    fifth; the examples keep their index in the split.

    Args:
        name: the data set, its split, and a slice of it.
        root: the folder its files lie in; by default ``SMOOTHCERT_DATA`` of the environment, else
            ``~/.cache/smoothcert/data``.
        download: fetch the official archive into the root where the files are missing (CIFAR and MNIST).

    Raises:
        UnknownName: no such data set or split.
        InvalidInput: a name or slice that cannot be read, or selects nothing.
        DataError: its files are missing or damaged.
    """
    if name.startswith("python:"):
        return _imported(name)
    parts = _SLICED.fullmatch(name.strip())
    assert parts is not None  # the pattern matches any text
    dataset = _split(parts["data"], root, download)
    return dataset if parts["slice"] is None else _sliced(dataset, parts["slice"])


def _imported(name: str) -> Dataset:
    """``python:module:attribute``: a data set object, or a function that makes one."""
    found = from_import(name.removeprefix("python:"))
    made = found() if callable(found) else found
    if not isinstance(made, Dataset):
        why = "it has no name, levels, shape, classes and length"
        raise InvalidInput(f"data set {name!r}", why, "Make it a smoothcert.datasets.ArrayDataset")
    return made


def _split(name: str, root: str | Path | None, download: bool) -> Dataset:
    parts = _NAME.fullmatch(name)
    if parts is None:
        why = "a data set is written name, name:split or name:split[start:stop:step]"
        raise InvalidInput(f"data set {name!r}", why, 'Write for instance "digits:test[::5]"')
    data, split = parts["data"], parts["split"]
    if data not in _PUBLISHED:
        raise UnknownName.among("data set", data, (*_PUBLISHED, *_FORMS))
    published = _PUBLISHED[data]
    if split is not None and split not in published.splits:
        raise UnknownName.among(f"split of {data}", split, published.splits)
    return published.read(split or published.splits[0], root=root, download=download)


def _sliced(dataset: Dataset, text: str) -> Subset:
    positions = tuple(range(len(dataset))[_parsed_slice(text)])
    if not positions:
        why = f"it selects none of the {len(dataset)} images"
        raise InvalidInput(f"slice [{text}]", why, "Choose a range inside the data set")
    return Subset(dataset, positions, f"{dataset.name}[{text.replace(' ', '')}]")


def _parsed_slice(text: str) -> slice:
    """Read ``start:stop:step`` with any part missing; nothing is evaluated."""
    parts = text.split(":")
    readable = all(not part.strip() or _INTEGER.fullmatch(part) for part in parts)
    if len(parts) not in (2, 3) or not readable:
        raise InvalidInput(f"slice [{text}]", "it is not start:stop:step", "Write [:100] or [::5]")
    numbers = [int(part) if part.strip() else None for part in parts]
    if len(numbers) == 3 and numbers[2] == 0:
        raise InvalidInput(f"slice [{text}]", "a step of 0 selects nothing", "Use a step of 1 or more")
    return slice(*numbers)
