"""Images to certify and to train on: named data sets, slices of them, and arrays in memory.

Numpy and Pillow only, no torch. An example keeps its position in the full split whatever the slice, because
that index names its noise streams and its line in the field's logs.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from smoothcert.checkpoints import from_import
from smoothcert.datasets.arrays import ArrayDataset, Subset
from smoothcert.datasets.cifar import cifar10, cifar100
from smoothcert.datasets.digits import digits
from smoothcert.datasets.folder import folder
from smoothcert.datasets.huggingface import huggingface
from smoothcert.datasets.imagenet import SPLITS as VALIDATION
from smoothcert.datasets.imagenet import imagenet
from smoothcert.datasets.mnist import mnist
from smoothcert.datasets.naming import Name, parsed, parsed_slice
from smoothcert.datasets.pictures import Treatment
from smoothcert.errors import InvalidInput, UnknownName
from smoothcert.protocols import Dataset

__all__ = [
    "ArrayDataset",
    "Subset",
    "checked",
    "cifar10",
    "cifar100",
    "digits",
    "folder",
    "huggingface",
    "imagenet",
    "load",
    "mnist",
]


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
    "imagenet": _Published(imagenet, VALIDATION),
}
_FORMS = ("folder:PATH", "hf:ORG/NAME", "python:MODULE:NAME")


def load(name: str, *, root: str | Path | None = None, download: bool = False) -> Dataset:
    """Find a data set by name: ``"cifar10"`` (first split), ``"cifar10:train"``, ``"cifar10:test[::20]"``.

    Published data sets are ``digits`` (embedded), ``cifar10``, ``cifar100``, ``mnist`` and ``imagenet``.
    ``"folder:PATH"`` is a folder of pictures with one folder a class, ``"hf:ORG/NAME:test"`` a Hugging Face
    data set or a folder saved by that library; both take ``?resize=256&crop=224&mode=rgb``, and pictures are
    decoded only when asked for.

    ``"python:module:attribute"`` imports a data set of your own, or a function that makes one. Call it by
    that name too (``ArrayDataset(..., name="python:module:attribute")``), then a run can be repeated from its
    ``run.toml``.

    The part in brackets is a Python slice, so ``[:100]`` is the first hundred images and ``[::5]`` every
    fifth; the examples keep their index in the split.

    Args:
        name: the data set, its split, and a slice of it.
        root: the folder its files lie in; by default ``SMOOTHCERT_DATA`` of the environment, else
            ``~/.cache/smoothcert/data``. A relative PATH is below it, and by default the current directory.
        download: fetch the official archive into the root where the files are missing (CIFAR and MNIST).

    Raises:
        UnknownName: no such data set or split.
        InvalidInput: a name or slice that cannot be read, or selects nothing.
        DataError: its files are missing or damaged.
    """
    if name.startswith("python:"):
        return _imported(name)
    parts = parsed(name)
    dataset = _found(parts, root, download)
    return dataset if parts.slice is None else _sliced(dataset, parts.slice)


def _imported(name: str) -> Dataset:
    """``python:module:attribute``: a data set object, or a function that makes one."""
    found = from_import(name.removeprefix("python:"))
    made = found() if callable(found) else found
    if not isinstance(made, Dataset):
        why = "it has no name, levels, shape, classes and length"
        raise InvalidInput(f"data set {name!r}", why, "Make it a smoothcert.datasets.ArrayDataset")
    return made


def _found(name: Name, root: str | Path | None, download: bool) -> Dataset:
    """The whole data set of a name."""
    if name.kind == "folder":
        return folder(name.place, treatment=Treatment.of(name.options), root=root, name=name.text)
    if name.kind == "hf":
        return huggingface(name.place, name.split, options=name.options, root=root, name=name.text)
    return _published(name, root, download)


def _published(name: Name, root: str | Path | None, download: bool) -> Dataset:
    if name.place not in _PUBLISHED:
        raise UnknownName.among("data set", name.place, (*_PUBLISHED, *_FORMS))
    published = _PUBLISHED[name.place]
    if name.split is not None and name.split not in published.splits:
        raise UnknownName.among(f"split of {name.place}", name.split, published.splits)
    return published.read(name.split or published.splits[0], root=root, download=download)


def _sliced(dataset: Dataset, text: str) -> Subset:
    positions = tuple(range(len(dataset))[parsed_slice(text)])
    if not positions:
        why = f"it selects none of the {len(dataset)} images"
        raise InvalidInput(f"slice [{text}]", why, "Choose a range inside the data set")
    return Subset(dataset, positions, f"{dataset.name}[{text.replace(' ', '')}]")


def checked(data: Dataset) -> Dataset:
    """A data set of the caller's own, if it has all that ``protocols.Dataset`` asks for.

    Raises:
        InvalidInput: an attribute that is missing, or classes that are no names.
    """
    wanted = ("name", "levels", "shape", "classes", "__len__", "__getitem__")
    missing = [name for name in wanted if not hasattr(data, name)]
    if missing:
        raise InvalidInput(
            f"a data set without {', '.join(missing)}",
            "a run needs them: see protocols.Dataset",
            "Wrap arrays in datasets.ArrayDataset, or name a data set",
        )
    if isinstance(data.classes, str) or not isinstance(data.classes, Sequence):
        raise InvalidInput(
            f"data.classes = {data.classes!r}",
            "it must list the names of the classes",
            "Write ('cat', 'dog')",
        )
    return data
