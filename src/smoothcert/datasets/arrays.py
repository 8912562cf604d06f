"""Data sets held in memory: any pair of arrays, checked once, and ordered subsets of any data set."""

from __future__ import annotations

import operator
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from smoothcert.errors import InvalidInput
from smoothcert.protocols import Dataset, Example


class ArrayDataset:
    """Images and labels in memory as a data set, refused at once where they could not be certified.

    Args:
        images: ``(N, C, H, W)``; integers in ``0..levels``, or floats in [0, 1] with ``levels=None``.
        labels: ``(N,)`` integers, each a position in ``classes``.
        levels: L when the pixel k stands for k / L, at most 255; ``None`` for float images.
        name: how logs and examples name this data set.
        classes: the class names; by default "0", "1", ... up to the largest label.
        source: where the images come from and under which licence, for the cards of models trained on them.
        data_dir: the folder that must be named to find them again (``datasets.load(..., root=data_dir)``).

    Raises:
        InvalidInput: wrong shape, type or range, a NaN, or labels that do not fit the images or classes.
    """

    def __init__(
        self,
        images: npt.NDArray[Any],
        labels: npt.NDArray[Any] | Sequence[int],
        *,
        levels: int | None = None,
        name: str = "arrays",
        classes: Sequence[str] | None = None,
        source: str = "",
        data_dir: Path | None = None,
    ) -> None:
        self._images = _checked_images(np.asarray(images), levels)
        self._labels = _checked_labels(np.asarray(labels), len(self._images))
        self._classes = _checked_classes(self._labels, classes)
        self._levels, self._name, self._source, self._data_dir = levels, name, source, data_dir

    @property
    def name(self) -> str:
        """The name given at construction."""
        return self._name

    @property
    def levels(self) -> int | None:
        """L for integer images, ``None`` for float images."""
        return self._levels

    @property
    def shape(self) -> tuple[int, int, int]:
        """``(C, H, W)`` of every image."""
        channels, height, width = self._images.shape[1:]
        return channels, height, width

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names, in the order of the labels."""
        return self._classes

    @property
    def source(self) -> str:
        """Origin and licence of the images; empty where unknown."""
        return self._source

    @property
    def data_dir(self) -> Path | None:
        """The folder that must be named to find the images again; ``None`` where their name is enough."""
        return self._data_dir

    def __len__(self) -> int:
        return len(self._images)

    def __getitem__(self, position: int) -> Example:
        index = position_in(position, len(self))
        label = int(self._labels[index])
        return Example(index=index, image=self._images[index], label=label, name=f"{self._name}-{index}")


@dataclass(frozen=True)
class Subset:
    """Some examples of a data set, in the order given; each keeps its index (and so its noise) and name.

    Attributes:
        dataset: the full data set.
        positions: which of its examples, each at most once.
        name: how logs name the subset.
    """

    dataset: Dataset
    positions: tuple[int, ...]
    name: str

    def __post_init__(self) -> None:
        within = all(0 <= position < len(self.dataset) for position in self.positions)
        if not self.positions or not within or len(set(self.positions)) != len(self.positions):
            why = f"positions must be distinct, at least one, and in 0..{len(self.dataset) - 1}"
            raise InvalidInput(f"{self.name} with {len(self.positions)} positions", why, "Choose others")

    @property
    def levels(self) -> int | None:
        """L of the full data set."""
        return self.dataset.levels

    @property
    def shape(self) -> tuple[int, int, int]:
        """``(C, H, W)`` of the full data set."""
        return self.dataset.shape

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names of the full data set, present here or not."""
        return self.dataset.classes

    @property
    def source(self) -> str:
        """Origin and licence of the full data set; empty where unknown."""
        return str(getattr(self.dataset, "source", ""))

    @property
    def data_dir(self) -> Path | None:
        """The folder that must be named to find the full data set again, if any."""
        found: Path | None = getattr(self.dataset, "data_dir", None)
        return found

    def __len__(self) -> int:
        return len(self.positions)

    def __getitem__(self, position: int) -> Example:
        return self.dataset[self.positions[position_in(position, len(self))]]


def position_in(position: int, length: int) -> int:
    """The position as a plain integer counted from the start; IndexError past the end, as for a list."""
    index = operator.index(position)
    if not -length <= index < length:
        raise IndexError(f"position {index} in a data set of {length} examples")
    return index % length


def _checked_images(images: npt.NDArray[Any], levels: int | None) -> npt.NDArray[Any]:
    """A private, read-only copy as uint8 or float32, once shape, type and range are known to be right."""
    if images.ndim != 4 or 0 in images.shape:
        raise InvalidInput(f"images of shape {images.shape}", "four axes are needed", "Give (N, C, H, W)")
    checked = _float_images(images) if levels is None else _level_images(images, levels)
    checked.setflags(write=False)
    return checked


def _float_images(images: npt.NDArray[Any]) -> npt.NDArray[np.float32]:
    if not np.issubdtype(images.dtype, np.floating):
        why = "without levels the scale of integers is unknown"
        raise InvalidInput(f"images of type {images.dtype}", why, "Say levels=255 for 8-bit images")
    if not np.all((images >= 0) & (images <= 1)):  # false for NaN as well
        why = "sigma and radius are in units of [0, 1] pixels"
        raise InvalidInput("float images outside [0, 1] or not a number", why, "Rescale the images to [0, 1]")
    return images.astype(np.float32, order="C")


def _level_images(images: npt.NDArray[Any], levels: int) -> npt.NDArray[np.uint8]:
    if not 1 <= levels <= 255:
        raise InvalidInput(f"levels={levels}", "levels are kept in 8 bits", "Choose levels in 1..255")
    if not np.issubdtype(images.dtype, np.integer):
        why = f"levels={levels} promises integers"
        raise InvalidInput(f"images of type {images.dtype}", why, "Give integers, or levels=None for floats")
    if images.min() < 0 or images.max() > levels:
        found = f"pixels from {images.min()} to {images.max()}"
        raise InvalidInput(found, f"they must lie in 0..{levels}", "Correct levels or the images")
    return images.astype(np.uint8, order="C")


def _checked_labels(labels: npt.NDArray[Any], count: int) -> npt.NDArray[np.int64]:
    if labels.shape != (count,):
        found = f"labels of shape {labels.shape} for {count} images"
        raise InvalidInput(found, "every image needs one label", f"Give an array of shape ({count},)")
    if not np.issubdtype(labels.dtype, np.integer) or labels.min() < 0:
        found = f"labels of type {labels.dtype}"
        raise InvalidInput(found, "a label is a class position, 0 or more", "Give non-negative integers")
    return labels.astype(np.int64)


def _checked_classes(labels: npt.NDArray[np.int64], classes: Sequence[str] | None) -> tuple[str, ...]:
    highest = int(labels.max())
    if classes is None:
        return tuple(str(label) for label in range(highest + 1))
    if highest >= len(classes):
        found = f"label {highest} with {len(classes)} classes"
        raise InvalidInput(found, "every label must name a class", "Give all class names, or none")
    return tuple(classes)
