"""Images to certify and to train on: named data sets, slices of them, and arrays in memory.

Numpy only, no torch. An example keeps its position in the full split whatever the slice, because that index
names its noise streams and its line in the field's logs.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping

from smoothcert.checkpoints import from_import
from smoothcert.datasets.arrays import ArrayDataset, Subset
from smoothcert.datasets.digits import SPLITS, digits
from smoothcert.errors import InvalidInput, UnknownName
from smoothcert.protocols import Dataset

__all__ = ["ArrayDataset", "Subset", "digits", "load"]

_LOADERS: Mapping[str, tuple[Callable[[str], Dataset], tuple[str, ...]]] = {"digits": (digits, SPLITS)}
_NAME = re.compile(r"(?P<data>[^:\[\]]+)(:(?P<split>[^:\[\]]+))?(\[(?P<slice>[^\[\]]*)\])?")
_INTEGER = re.compile(r"\s*[+-]?[0-9]{1,18}\s*")


def load(name: str) -> Dataset:
    """Find a data set by name: ``"digits"`` (its first split), ``"digits:train"``, ``"digits:test[::5]"``.

    ``"python:module:attribute"`` imports a data set of your own, or a function that makes one. Call it by
    that name too (``ArrayDataset(..., name="python:module:attribute")``), then a run can be repeated from its
    ``run.toml``.

    The part in brackets is a Python slice, so ``[:100]`` is the first hundred images and ``[::5]`` every
    fifth; the examples keep their index in the split.

    Raises:
        UnknownName: no such data set or split.
        InvalidInput: a slice that cannot be read, or selects nothing.
    """
    if name.startswith("python:"):
        return _imported(name)
    parts = _NAME.fullmatch(name.strip())
    if parts is None:
        why = "a data set is written name, name:split or name:split[start:stop:step]"
        raise InvalidInput(f"data set {name!r}", why, 'Write for instance "digits:test[::5]"')
    dataset = _split(parts["data"], parts["split"])
    return dataset if parts["slice"] is None else _sliced(dataset, parts["slice"])


def _imported(name: str) -> Dataset:
    """``python:module:attribute``: a data set object, or a function that makes one."""
    found = from_import(name.removeprefix("python:"))
    made = found() if callable(found) else found
    if not isinstance(made, Dataset):
        why = "it has no name, levels, shape, classes and length"
        raise InvalidInput(f"data set {name!r}", why, "Make it a smoothcert.datasets.ArrayDataset")
    return made


def _split(data: str, split: str | None) -> Dataset:
    if data not in _LOADERS:
        raise UnknownName.among("data set", data, _LOADERS)
    loader, splits = _LOADERS[data]
    if split is not None and split not in splits:
        raise UnknownName.among(f"split of {data}", split, splits)
    return loader(split or splits[0])


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
