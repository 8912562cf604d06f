"""Training images as tensors, and the light geometric changes that make more of few of them."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

from smoothcert.errors import InvalidInput
from smoothcert.protocols import Dataset

_SHIFT, _TURN, _STRETCH = 0.5, 10.0, 0.1
"""Strength 1: shifts up to half a pixel, rotations up to 10 degrees, scale and shear up to 10 %."""


@dataclass(frozen=True)
class LabelledImages:
    """A whole data set in memory.

    Attributes:
        images: ``(N, C, H, W)`` float32 in [0, 1].
        labels: ``(N,)`` int64.
    """

    images: Tensor
    labels: Tensor


def gather(dataset: Dataset, most: int | None = None) -> LabelledImages:
    """All images and labels of a data set, integer levels brought to [0, 1]; or ``most`` of them.

    Which ones depends on nothing but their number: files are often sorted by class.

    Raises:
        InvalidInput: the data set is empty.
    """
    if len(dataset) == 0:
        raise InvalidInput(f"data set {dataset.name}", "it has no images to train on", "Choose another")
    chosen = list(range(len(dataset)))
    if most is not None and most < len(dataset):
        chosen = positions(0, len(dataset), most, seed=0).tolist()
    examples = [dataset[position] for position in chosen]
    images = torch.stack([torch.from_numpy(example.image.copy()) for example in examples]).float()
    labels = torch.tensor([example.label for example in examples])
    return LabelledImages(images / (dataset.levels or 1), labels)


def shuffled_batches(count: int, size: int, generator: torch.Generator) -> Iterator[Tensor]:
    """Batches of positions without end, every image once a round; a round's incomplete rest is dropped."""
    size = min(size, count)
    while True:
        order = torch.randperm(count, generator=generator)
        yield from order[: count - count % size].view(-1, size)


def named_generator(seed: int, purpose: str, number: int) -> torch.Generator:
    """A generator that is a pure function of its name, so that step 1,000 needs no steps before it."""
    digest = hashlib.sha256(f"{seed} {purpose} {number}".encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:4], "big"))


def positions(step: int, count: int, size: int, seed: int) -> Tensor:
    """Which of ``count`` images a step sees, ``(size,)``: each once a round but for its incomplete rest.

    A pure function of its arguments, unlike ``shuffled_batches``.
    """
    a_round = count // size
    order = torch.randperm(count, generator=named_generator(seed, "order", step // a_round))
    return order[step % a_round * size :][:size]


def mirrored(images: Tensor, generator: torch.Generator) -> Tensor:
    """``(B, C, H, W)``, each image turned left to right with probability one half."""
    turned = torch.rand(len(images), generator=generator)[:, None, None, None] < 0.5
    return torch.where(turned, images.flip(3), images)


def shifted(images: Tensor, reach: int, generator: torch.Generator) -> Tensor:
    """``(B, C, H, W)``, each image moved by whole pixels, at most ``reach`` each way; black moves in."""
    moves = torch.randint(-reach, reach + 1, (len(images), 2), generator=generator)
    padded = functional.pad(images, (reach,) * 4)
    height, width = images.shape[2:]
    corners = (moves + reach).tolist()
    return torch.stack(
        [image[:, y : y + height, x : x + width] for image, (y, x) in zip(padded, corners, strict=True)]
    )


def jitter(images: Tensor, strength: float, generator: torch.Generator) -> Tensor:
    """Each image shifted by parts of a pixel, turned, stretched and sheared a little (bicubic).

    Args:
        images: ``(B, C, H, W)`` in [0, 1].
        strength: 1 for the ranges above, 0 for the images as they are.
        generator: on the CPU.

    Returns:
        ``(B, C, H, W)`` in [0, 1]; outside the image is black.
    """
    if strength == 0:
        return images
    maps = _affine_maps(images, strength, generator)
    grid = functional.affine_grid(maps, list(images.shape), align_corners=False)
    moved = functional.grid_sample(images, grid, mode="bicubic", padding_mode="zeros", align_corners=False)
    return moved.clamp(0, 1)


def _affine_maps(images: Tensor, strength: float, generator: torch.Generator) -> Tensor:
    """``(B, 2, 3)`` maps from output to input places, both on [-1, 1]."""
    height, width = images.shape[2:]
    draws = (2 * torch.rand(6, len(images), generator=generator) - 1) * strength
    turn = draws[0] * math.radians(_TURN)
    wide, high, shear = 1 + draws[1] * _STRETCH, 1 + draws[2] * _STRETCH, draws[3] * _STRETCH
    across = torch.stack([turn.cos() * wide, shear - turn.sin() * high, draws[4] * _SHIFT * 2 / width], 1)
    down = torch.stack([turn.sin() * wide, turn.cos() * high, draws[5] * _SHIFT * 2 / height], 1)
    return torch.stack([across, down], 1)
