"""A few labelled images of each class, chosen from a named stream, and their features."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from smoothcert.encoders.callable import checked
from smoothcert.errors import InvalidInput
from smoothcert.protocols import Dataset

Pictures = npt.NDArray[np.float32]


@dataclass(frozen=True)
class Chosen:
    """Images ``(N, C, H, W)`` in [0, 1] by class, and plain facts that name the choice."""

    images: Mapping[str, Pictures]
    facts: Mapping[str, Any]


def choose(data: Dataset | Mapping[str, npt.NDArray[Any]], shots: int | None, seed: int) -> Chosen:
    """``shots`` images of each class, without repetition; all where ``shots`` is ``None``.

    Raises:
        InvalidInput: fewer than two classes, a class with too few images, or images of another kind.
    """
    if shots is not None and (isinstance(shots, bool) or shots < 1):
        raise InvalidInput(f"shots={shots}", "a prototype needs an example", "Write shots=1 or more")
    if isinstance(data, Mapping):
        counts = {str(name): len(np.asarray(images)) for name, images in data.items()}
        places = {name: _picked(name, np.arange(count), shots, seed) for name, count in counts.items()}
        images = {str(name): _pixels(np.asarray(own), 255)[places[str(name)]] for name, own in data.items()}
        return Chosen(images, {"shots": shots, "seed": seed, "images": sum(map(len, images.values()))})
    if not isinstance(data, Dataset):
        found = f"examples of type {type(data).__name__}"
        raise InvalidInput(
            found, "they have no labels", "Give a data set, or images (N, C, H, W) by class name"
        )
    places = _of_dataset(data, shots, seed)
    images = {name: _loaded(data, positions) for name, positions in places.items()}
    facts = {"data": data.name, "shots": shots, "seed": seed, "images": sum(map(len, images.values()))}
    return Chosen(images, facts)


def features(encoder: Callable[[Tensor], Any], images: Pictures, batch: int) -> Tensor:
    """``(N, k)`` features of images ``(N, C, H, W)``, tokens in one row, without gradients.

    Raises:
        ModelOutputError: answers that are no features, or of changing length.
    """
    name, shape = str(getattr(encoder, "source", "given")), None
    parts = []
    with torch.inference_mode():
        for first in range(0, len(images), batch):
            part = torch.from_numpy(images[first : first + batch]).to(_device(encoder))
            found = checked(encoder(part), len(part), name, shape)
            shape = tuple(found.shape[1:])
            parts.append(found.detach().cpu().flatten(1))
    return torch.cat(parts)


def _device(encoder: Any) -> torch.device:
    """Where a module's weights are; the CPU for anything else."""
    weights = encoder.parameters() if isinstance(encoder, torch.nn.Module) else iter(())
    weight = next(weights, None)
    return torch.device("cpu") if weight is None else weight.device


def _of_dataset(data: Dataset, shots: int | None, seed: int) -> dict[str, npt.NDArray[np.int64]]:
    labels = _labels(data)
    return {
        name: _picked(name, np.flatnonzero(labels == label), shots, seed)
        for label, name in enumerate(data.classes)
    }


def _labels(data: Any) -> npt.NDArray[np.int64]:
    """The label of every example; pictures in files are not opened for it."""
    if getattr(data, "labels", None) is not None:
        return np.asarray(data.labels, dtype=np.int64)
    if hasattr(data, "dataset") and hasattr(data, "positions"):  # a slice
        return _labels(data.dataset)[list(data.positions)]
    return np.array([data[position].label for position in range(len(data))], dtype=np.int64)


def _picked(name: str, places: npt.NDArray[np.int64], shots: int | None, seed: int) -> npt.NDArray[np.int64]:
    """Positions in ascending order; a class's choice depends on its own images and name only."""
    wanted = len(places) if shots is None else shots
    if len(places) < max(wanted, 1):
        found = f"class {name!r} with {len(places)} image{'s' * (len(places) != 1)}"
        why = f"its prototype needs {max(wanted, 1)}"
        raise InvalidInput(found, why, "Add images of it, ask for fewer shots, or leave the class out")
    key = [seed % 2**64, int.from_bytes(hashlib.sha256(name.encode()).digest()[:8], "big")]
    stream = np.random.Generator(np.random.Philox(key=np.array(key, dtype=np.uint64)))
    return np.sort(stream.permutation(places)[:wanted])


def _loaded(data: Dataset, positions: npt.NDArray[np.int64]) -> Pictures:
    found = [data[int(position)].image for position in positions]
    return np.concatenate([_pixels(image[None], data.levels) for image in found])


def _pixels(images: npt.NDArray[Any], levels: int | None) -> Pictures:
    """Images ``(N, C, H, W)`` on [0, 1]."""
    if images.ndim != 4 or not images.size:
        found = f"images of shape {images.shape}"
        raise InvalidInput(found, "they must be (N, C, H, W), at least one", "Reshape them")
    if np.issubdtype(images.dtype, np.integer):
        images = images.astype(np.float32) / np.float32(levels or 255)
    images = images.astype(np.float32, copy=False)
    if not np.isfinite(images).all() or images.min() < 0 or images.max() > 1:
        found = f"images from {images.min():g} to {images.max():g}"
        raise InvalidInput(
            found, "they must lie in [0, 1]", "Divide 8-bit images by 255, or give them as uint8"
        )
    return images
