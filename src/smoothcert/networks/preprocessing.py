"""What stands between images in [0, 1] and a network: resize, crop, channel order, normalisation.

All of it happens after the noise and after the denoiser, inside the model, on float tensors: nothing is
rounded to 8 bits and nothing is clipped, so on clean 8-bit images it agrees with a model's own processor
(Pillow) up to Pillow's rounding, and on noisy ones it is the same function continued.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, fields
from functools import lru_cache
from typing import Any

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

from smoothcert.errors import CheckpointError, InvalidInput

INTERPOLATIONS = ("nearest", "bilinear", "bicubic", "lanczos")
TOLERANCE = 1.5 / 255  # Pillow rounds to 8 bits after each of its two passes
_FLAT_TOLERANCE = 1e-3  # of one colour, nothing is rounded


@dataclass(frozen=True)
class Preprocessing:
    """Images ``(B, C, H, W)`` in [0, 1] -> the network's own input.

    Attributes:
        mean, std: of each channel, in units of [0, 1] whatever the model's own scale; ``()`` for none.
        size: ``(H, W)`` to resize to, or the length of the shorter side; ``None`` leaves the size.
        interpolation: one of ``INTERPOLATIONS``.
        antialias: smooth before shrinking, as Pillow does (and cubic filters with a = -0.5).
        crop: ``(H, W)`` cut from the centre after resizing; missing pixels are black.
        centre: how half a pixel is decided, ``floor`` or ``round`` (to even).
        channels: that the network takes.
        order: ``rgb`` or ``bgr``.
        grey: ``repeat`` to give a grey image to a network of colours; ``None`` refuses it.
        expects: ``(H, W)`` that images must have where nothing is resized; ``None`` for any.
    """

    mean: tuple[float, ...] = ()
    std: tuple[float, ...] = ()
    size: int | tuple[int, int] | None = None
    interpolation: str = "bilinear"
    antialias: bool = True
    crop: tuple[int, int] | None = None
    centre: str = "floor"
    channels: int = 3
    order: str = "rgb"
    grey: str | None = None
    expects: tuple[int, int] | None = None

    def __post_init__(self) -> None:
        numbers = np.asarray([*self.mean, *self.std, *_sides(self.size), *_sides(self.crop)], dtype=float)
        one_each = len(self.mean) == len(self.std) and len(self.mean) in (0, 1, self.channels)
        if not one_each or not np.isfinite(numbers).all() or any(value <= 0 for value in self.std):
            found = f"mean={list(self.mean)}, std={list(self.std)} for {self.channels} channels"
            why = "there must be one finite mean and one positive std for each channel, or for all"
            raise InvalidInput(found, why, "Write for instance mean=0.5,0.5,0.5 and std=0.5,0.5,0.5")
        if any(side < 1 for side in (*_sides(self.size), *_sides(self.crop))):
            found = f"size={self.size}, crop={self.crop}"
            raise InvalidInput(found, "no such images", "Write for instance size=224")
        _one_of("interpolation", self.interpolation, INTERPOLATIONS)
        _one_of("order", self.order, ("rgb", "bgr"))
        _one_of("centre", self.centre, ("floor", "round"))
        _one_of("grey", self.grey, (None, "repeat"))

    @classmethod
    def from_plain(cls, stored: Mapping[str, Any]) -> Preprocessing:
        """What ``describe`` wrote, read again."""
        known = {field.name for field in fields(cls)}
        if not stored.keys() <= known:
            found = f"preprocessing {sorted(stored.keys() - known)}"
            raise InvalidInput(found, f"it has only {', '.join(sorted(known))}", "Correct these entries")
        values: dict[str, Any] = {k: tuple(v) if isinstance(v, list) else v for k, v in stored.items()}
        return cls(**values)

    def describe(self) -> dict[str, Any]:
        """Plain data for a run's specification."""
        return {name: list(v) if isinstance(v, tuple) else v for name, v in asdict(self).items()}

    def __call__(self, images: Tensor) -> Tensor:
        """Float images ``(B, C, H, W)`` -> the network's input, float32 (float64 stays).

        Raises:
            InvalidInput: images of another number of channels, or of a size that the network does not take.
        """
        self.check(tuple(images.shape[1:]))
        images = images if images.dtype == torch.float64 else images.float()
        images = self._resized(images)
        images = self._cropped(images)
        if self.grey and images.shape[1] == 1:
            images = images.expand(-1, self.channels, -1, -1)
        if self.order == "bgr":
            images = images.flip(1)
        return self._normalised(images)

    def check(self, shape: tuple[int, ...]) -> None:
        """Refuse images ``(C, H, W)`` that the network was not made for.

        Raises:
            InvalidInput: another number of channels or another size.
        """
        given = f"images of {'x'.join(map(str, shape))}"
        if len(shape) != 3:
            raise InvalidInput(given, "images are (C, H, W), in batches", "Reshape them")
        repeats = shape[0] == 1 and self.grey == "repeat"
        if shape[0] != self.channels and not repeats:
            why = f"this network takes images ({self.channels}, H, W): {self.channels} channels first"
            instead = "Choose a model for such images"
            if shape[2] == self.channels:
                instead = "Put the channels first: image.transpose(2, 0, 1) of an array (H, W, C)"
            if shape[0] == 1:
                instead = "Add ?grey=repeat to its name (&grey=repeat) to show it three equal channels"
            raise InvalidInput(given, why, instead)
        if self.size is None and self.expects is not None and shape[1:] != self.expects:
            wanted = "x".join(map(str, self.expects))
            why = f"this network was made for {wanted} pixels and resizes nothing by itself"
            raise InvalidInput(given, why, f"Add ?size={wanted} (&size={wanted}) to its name to resize them")

    def result(self, shape: tuple[int, int, int]) -> tuple[int, int, int]:
        """The shape that an image ``(C, H, W)`` gets."""
        self.check(shape)
        return (self.channels, *(self.crop or self._target(shape[1], shape[2])))

    def _target(self, height: int, width: int) -> tuple[int, int]:
        if self.size is None:
            return height, width
        if isinstance(self.size, tuple):
            return self.size
        if height <= width:
            return self.size, int(self.size * width / height)
        return int(self.size * height / width), self.size

    def _resized(self, images: Tensor) -> Tensor:
        height, width = images.shape[2:]
        target = self._target(height, width)
        if target == (height, width):
            return images
        if self.interpolation == "nearest":
            return functional.interpolate(images, size=target, mode="nearest-exact")
        return functional.interpolate(
            images, size=target, mode=self.interpolation, align_corners=False, antialias=self.antialias
        )

    def _cropped(self, images: Tensor) -> Tensor:
        if self.crop is None:
            return images
        extra = [have - want for have, want in zip(images.shape[2:], self.crop, strict=True)]
        start = [spare // 2 if self.centre == "floor" else round(spare / 2) for spare in extra]
        top, left = start
        return functional.pad(images, (-left, left - extra[1], -top, top - extra[0]))

    def _normalised(self, images: Tensor) -> Tensor:
        if not self.mean:
            return images
        mean, std = (_channels(values, images.dtype, images.device) for values in (self.mean, self.std))
        return (images - mean) / std


@lru_cache(maxsize=64)
def _channels(values: tuple[float, ...], dtype: torch.dtype, device: torch.device) -> Tensor:
    """``(1, C, 1, 1)`` on the device, made once: copying numbers to an accelerator waits for all it does."""
    with torch.inference_mode(False):  # attacks and training use them too
        return torch.tensor(values, dtype=dtype, device=device).view(1, -1, 1, 1)


def confirm(ours: Preprocessing, theirs: Callable[[Any], Tensor], name: str) -> None:
    """Refuse to go on where ours and a model's own processor differ on clean 8-bit images.

    Small and large images of little contrast, which Pillow does not clip, agree to ``TOLERANCE``; flat
    colours, black and white among them, to a thousandth.

    Args:
        ours: read from the model's configuration.
        theirs: the model's own processor, a Pillow image to ``(C, H, W)``.
        name: of the model, for the message.

    Raises:
        CheckpointError: they differ in size or by more than that.
    """
    for image, tolerance in _probes():
        expected = theirs(image).float()
        pixels = torch.from_numpy(np.array(image)).permute(2, 0, 1).float()[None] / 255
        found = ours(pixels)[0]
        same_shape = found.shape == expected.shape
        scale = torch.tensor(ours.std or (1.0,)).view(-1, 1, 1)
        worst = float(((found - expected) * scale).abs().max()) if same_shape else np.inf
        if not worst <= tolerance:
            height, width = image.size[1], image.size[0]
            gap = f"by up to {255 * worst:.3g} grey levels" if same_shape else "in size"
            why = f"its own processor differs {gap} from {ours.describe()} on a {height}x{width} image"
            instead = "Wrap the model in a function with its preprocessing and load python:module:function"
            raise CheckpointError(f"preprocessing of model {name!r}", why, instead)


def _probes() -> list[tuple[Any, float]]:
    from PIL import Image

    generator = np.random.Generator(np.random.Philox(key=0))
    noise = [generator.integers(96, 160, (*size, 3), dtype=np.uint8) for size in ((40, 56), (401, 313))]
    flat = [np.full((32, 32, 3), colour, np.uint8) for colour in (0, 255, (255, 0, 128))]
    return [
        *((Image.fromarray(array), TOLERANCE) for array in noise),
        *((Image.fromarray(array), _FLAT_TOLERANCE) for array in flat),
    ]


def _sides(size: int | tuple[int, int] | None) -> tuple[int, ...]:
    return () if size is None else size if isinstance(size, tuple) else (size,)


def _one_of(name: str, value: Any, known: tuple[Any, ...]) -> None:
    if value not in known:
        words = ", ".join(str(word) for word in known if word is not None)
        raise InvalidInput(f"{name}={value}", "there is no such choice", f"Write one of: {words}")
