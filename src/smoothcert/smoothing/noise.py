"""The noise of the certificate: the only place where an image meets it, before any model code.

``GridNoise`` is exact on integer images and the default. ``FloatNoise`` reproduces what published code
does; through float addition the result can leak the image (THEORY 4), so it is an option that is recorded.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

import numpy as np
import numpy.typing as npt

from smoothcert.bounds.discretisation import REACH, grid_error, half_width
from smoothcert.errors import InvalidInput
from smoothcert.smoothing import grid
from smoothcert.smoothing.streams import Segment, normals, words

if TYPE_CHECKING:
    from torch import Tensor

Pixels = npt.NDArray[np.uint8] | npt.NDArray[np.float32]
Prepared = npt.NDArray[np.int32] | npt.NDArray[np.float32]
_MOST_THRESHOLDS = 100_000  # on each side; computing them takes seconds
_OFF_GRID = 1e-3  # in grey levels: float32 pixels k / 255 are within 1e-5 of their level


class Noise(Protocol):
    """What a smoothed classifier needs from its noise."""

    @property
    def kind(self) -> str: ...

    def error(self, pixels: int) -> float:
        """Total variation distance between the noise drawn and exact Gaussian noise, at most."""
        ...

    def prepare(self, image: Pixels) -> Prepared:
        """Check one image ``(C, H, W)`` and bring it to the form that noise is added to."""
        ...

    def clean(self, prepared: Prepared) -> npt.NDArray[np.float32]:
        """The image without noise, float32 in [0, 1]."""
        ...

    def noisy(self, prepared: Prepared, seed: int, segment: Segment) -> npt.NDArray[np.float32]:
        """The draws of a segment, float32 ``(count, C, H, W)`` in units of pixels in [0, 1]."""
        ...


@dataclass(frozen=True)
class GridNoise:
    """Exact Gaussian smoothing of integer images with levels 0..``levels``; the model sees v / levels."""

    sigma: float
    levels: int
    kind: str = "grid"

    def error(self, pixels: int) -> float:
        return grid_error(self.sigma, self.levels, pixels)

    def prepare(self, image: Pixels) -> npt.NDArray[np.int32]:
        """Integer levels; floats in [0, 1] are accepted where they lie on the grid, refused elsewhere."""
        if np.issubdtype(image.dtype, np.integer):
            return _in_levels(image, self.levels).astype(np.int32)
        scaled = _unit_interval(image) * np.float64(self.levels)
        rounded = np.rint(scaled)
        if np.abs(scaled - rounded).max() > _OFF_GRID:
            raise InvalidInput(
                "a float image with pixels between grey levels",
                f"exact noise lives on the grid of {self.levels + 1} levels, and an image off it (resized in "
                "float, say) is outside what the certificate can claim",
                "Re-quantise it to uint8 first, or choose noise='float' and accept the risk it records",
            )
        return rounded.astype(np.int32)

    def clean(self, prepared: Prepared) -> npt.NDArray[np.float32]:
        scaled: npt.NDArray[np.float32] = prepared.astype(np.float32) / np.float32(self.levels)
        return scaled

    def noisy(self, prepared: Prepared, seed: int, segment: Segment) -> npt.NDArray[np.float32]:
        drawn = words(seed, segment, prepared.size)
        levels = grid.rounded_gaussian(drawn, self.sigma, self.levels)
        levels += prepared.reshape(-1).astype(np.int32)
        scaled: npt.NDArray[np.float32] = levels.astype(np.float32) / np.float32(self.levels)
        return scaled.reshape(segment.draws, *prepared.shape)


@dataclass(frozen=True)
class FloatNoise:
    """Float32 addition as published code does it: parity with the literature, not protected from leaks."""

    sigma: float
    levels: int | None = None
    kind: str = "float"

    def error(self, pixels: int) -> float:
        return 0.0

    def prepare(self, image: Pixels) -> npt.NDArray[np.float32]:
        if np.issubdtype(image.dtype, np.integer):
            if self.levels is None:
                raise InvalidInput(
                    "an integer image", "its scale is not known", "Pass levels=255 for 8-bit images"
                )
            return (_in_levels(image, self.levels) / np.float32(self.levels)).astype(np.float32)
        return _unit_interval(image)

    def clean(self, prepared: Prepared) -> npt.NDArray[np.float32]:
        return prepared.astype(np.float32)

    def noisy(self, prepared: Prepared, seed: int, segment: Segment) -> npt.NDArray[np.float32]:
        drawn = normals(seed, segment, prepared.shape, purpose="smoothing")
        added: npt.NDArray[np.float32] = prepared.astype(np.float32) + (self.sigma * drawn).astype(np.float32)
        return added


def make_noise(kind: str, sigma: float, levels: int | None) -> Noise:
    """The noise of a specification: ``"grid"`` (needs integer levels) or ``"float"``.

    Raises:
        InvalidInput: sigma not positive and finite, an unknown kind, or grid noise without levels.
    """
    if not (isinstance(sigma, int | float) and 0.0 < sigma < math.inf):
        raise InvalidInput(
            f"sigma = {sigma!r}",
            "the noise of a smoothed classifier has a positive finite standard deviation",
            "Write for example sigma=0.25, in units of pixels in [0, 1]",
        )
    if kind == "float":
        return FloatNoise(float(sigma), levels)
    if kind != "grid":
        raise InvalidInput(f"noise = {kind!r}", "no such noise", "Write 'grid' (exact, default) or 'float'")
    if not isinstance(levels, int | np.integer) or isinstance(levels, bool) or levels < 1:
        raise InvalidInput(
            f"grid noise with levels = {levels!r}",
            "exact noise needs images whose pixels are whole grey levels",
            "Declare levels (255 for 8-bit images), or choose noise='float'",
        )
    if half_width(float(sigma), int(levels)) > _MOST_THRESHOLDS:
        raise InvalidInput(
            f"sigma = {sigma:g} on {levels} grey levels",
            "exact noise stops at a standard deviation of "
            f"{_MOST_THRESHOLDS / (REACH * levels):.3g}, far beyond the range of any pixel",
            "Write for example sigma=0.25, in units of pixels in [0, 1]",
        )
    return GridNoise(float(sigma), int(levels))


class NamedDraws:
    """Noise for the inside of a stochastic denoiser (``protocols.Draws``): one row a draw, by its name."""

    def __init__(self, seed: int, segments: Sequence[Segment], shape: tuple[int, ...], rows: int) -> None:
        self._seed, self._segments, self._shape, self._rows = seed, tuple(segments), shape, rows

    def normal(self, step: int) -> Tensor:
        """``(rows, *shape)`` float32; rows beyond the named draws (padding) are zero."""
        import torch

        noise = np.zeros((self._rows, *self._shape), dtype=np.float32)
        start = 0
        for segment in self._segments:
            drawn = normals(self._seed, segment, self._shape, purpose="sampler", step=step)
            noise[start : start + segment.draws] = drawn
            start += segment.draws
        return torch.from_numpy(noise)


def _in_levels(image: Pixels, levels: int) -> Pixels:
    """The image, checked to have no other levels than 0..``levels``."""
    if image.min() < 0 or image.max() > levels:
        raise InvalidInput(
            f"integer pixels from {image.min()} to {image.max()}",
            f"this data has the levels 0..{levels}",
            "Pass the levels the data set declares, or another levels= value",
        )
    return image


def _unit_interval(image: Pixels) -> npt.NDArray[np.float32]:
    """The image as float32, checked to be finite and in [0, 1]."""
    finite = np.isfinite(image)
    if not finite.all() or image.min() < 0.0 or image.max() > 1.0:
        values = image[finite]
        seen = f"values from {values.min():g} to {values.max():g}" if values.size else "no finite value"
        raise InvalidInput(
            f"a float image with {seen}" + ("" if finite.all() else " and NaN or infinity"),
            "float images must be finite and in [0, 1]; sigma and radius are in those units",
            "Rescale it to [0, 1], or pass uint8 levels",
        )
    return image.astype(np.float32)
