"""Inputs on which a quantised network fixes its scales. They are made elsewhere: no noise is drawn here."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator, Mapping
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from smoothcert.errors import InvalidInput

Images = npt.NDArray[np.float32]


class Calibration:
    """What a network typically sees: noisy images for a denoiser, denoised ones for a classifier.

    Args:
        images: ``(N, C, H, W)`` float32, or a function that makes them when they are needed.
        facts: plain data that names these images and no others; part of a run's specification. Left out, it
            is their number and hash.
    """

    def __init__(self, images: Images | Callable[[], Images], facts: Mapping[str, Any] | None = None) -> None:
        if callable(images) and facts is None:
            raise InvalidInput("calibration images to be made later", "nothing names them", "Pass facts=")
        self._given, self._facts = images, facts

    @cached_property
    def images(self) -> Images:
        """``(N, C, H, W)``, checked to be finite."""
        given = self._given() if callable(self._given) else self._given
        images = np.ascontiguousarray(given, dtype=np.float32)
        if images.ndim != 4 or 0 in images.shape or not np.isfinite(images).all():
            raise InvalidInput(
                f"calibration images of shape {images.shape}",
                "they are one finite float array (N, C, H, W)",
                "Give what the network will see, a batch or more",
            )
        return images

    def batches(self, batch: int) -> Iterator[Images]:
        """Batches of one size; the last is filled up from the start."""
        count = -(-len(self.images) // batch) * batch
        for first in range(0, count, batch):
            yield self.images[np.arange(first, first + batch) % len(self.images)]

    def describe(self) -> dict[str, Any]:
        """Plain data for a run's specification."""
        if self._facts is not None:
            return dict(self._facts)
        digest = hashlib.sha256(f"{self.images.shape}\n".encode() + self.images.tobytes()).hexdigest()
        return {"images": len(self.images), "sha256": digest}
