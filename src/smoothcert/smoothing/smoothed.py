"""What every smoothed model has: noise, a network checked to be a function of one draw, named images."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any, Generic, TypeVar

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from smoothcert.errors import InvalidInput
from smoothcert.smoothing.checks import check_network
from smoothcert.smoothing.network import Network, default_batch, pad
from smoothcert.smoothing.noise import NamedDraws, Noise, Prepared, make_noise
from smoothcert.smoothing.streams import Segment, check_seed, is_whole

Image = Tensor | npt.NDArray[Any]
Base = TypeVar("Base", bound=Network)


class Smoothed(Generic[Base]):
    """Noise in front of a network, and what is checked before its answers count.

    Args:
        network: the base function.
        noise: ``"grid"`` or ``"float"``. levels: L for integer images with levels 0..L; 255 if not said.

    Raises:
        InvalidInput: sigma not positive and finite, an unknown noise.
    """

    def __init__(self, network: Base, *, noise: str, levels: int | None) -> None:
        self.levels = levels
        self.noise: Noise = make_noise(noise, network.sigma, 255 if levels is None else levels)
        self.sigma = float(network.sigma)
        self.network = network
        self._checked: set[tuple[Any, ...]] = set()

    @property
    def denoiser(self) -> Any | None:
        """The denoiser as given."""
        return self.network.denoiser

    def noise_for(self, levels: int | None) -> Noise:
        """This model's noise on data with these grey levels (``None`` for float images)."""
        if levels is not None and self.levels is not None and levels != self.levels:
            raise InvalidInput(
                f"levels={self.levels} on data with levels 0..{levels}",
                "noise on the wrong grid would certify another model",
                "Leave levels= out when a data set declares them",
            )
        return make_noise(self.noise.kind, self.sigma, levels if levels is not None else self.levels)

    def _prepared(
        self, image: Image, example: int | Sequence[int] | None, seed: int, batch: int | None
    ) -> list[tuple[int, Prepared]]:
        """Images with their stream names, prepared for the noise; the model is checked on them once."""
        check_seed(seed)
        whole_number("batch", batch, such_as=64)
        array = pixels(image, self.levels)
        several = array if array.ndim == 4 else array[None]
        prepared = [self.noise.prepare(one) for one in several]
        names = _names(_name_of(prepared) if example is None else example, len(several))
        self.check(prepared, seed=seed, batch=batch)
        return list(zip(names, prepared, strict=True))

    def check(
        self,
        prepared: Sequence[Prepared],
        *,
        seed: int,
        batch: int | None = None,
        noise: Noise | None = None,
        workers: int = 1,
        afresh: bool = False,
    ) -> None:
        """Put the model into evaluation mode and refuse one that is not a function of one draw.

        That costs five network calls, so it is done once for each shape and batch size, or ``afresh``.
        """
        self.network.settle()
        size = batch or default_batch(prepared[0].shape, self.network.device)
        key = (prepared[0].shape, size, workers)
        if afresh or key not in self._checked:
            some = prepared[:size]
            check_network(self.network, noise or self.noise, some, seed=seed, batch=size, workers=workers)
            self._checked.add(key)

    def batch_of(
        self, parts: Sequence[tuple[Prepared, Segment]], *, seed: int, batch: int, noise: Noise
    ) -> tuple[npt.NDArray[np.float32], NamedDraws | None]:
        """The named draws as one batch of the fixed shape, and the noise for the inside of the network."""
        noisy = pad([noise.noisy(image, seed, segment) for image, segment in parts], batch)
        segments = [segment for _, segment in parts]
        draws = NamedDraws(seed, segments, noisy.shape[1:], batch) if self.network.stochastic else None
        return noisy, draws


def _name_of(images: Sequence[Prepared]) -> int:
    """A stream name made from the pixels: equal images share it, others do not."""
    digest = hashlib.sha256(str(images[0].shape).encode())
    for image in images:
        digest.update(np.ascontiguousarray(image).tobytes())
    return int.from_bytes(digest.digest()[:7], "big")


def pixels(image: Any, levels: int | None) -> npt.NDArray[Any]:
    """One image or several as an array; ``levels`` is L where somebody said it.

    Raises:
        InvalidInput: no tensor or array of numbers, another number of axes, or a scale nobody can tell.
    """
    if not isinstance(image, Tensor | np.ndarray):
        raise InvalidInput(
            f"an image of type {type(image).__name__}",
            "images are tensors or arrays (C, H, W)",
            "Of a Pillow image pass np.asarray(image).transpose(2, 0, 1)",
        )
    if isinstance(image, Tensor):
        image = (image.float() if image.dtype == torch.bfloat16 else image).detach().cpu().numpy()
    array: npt.NDArray[Any] = image
    if array.ndim not in (3, 4) or 0 in array.shape:
        raise InvalidInput(
            f"an image of shape {array.shape}", "images are (C, H, W) or (B, C, H, W)", "Reshape it"
        )
    if array.dtype.kind not in "buif":
        raise InvalidInput(
            f"an image of {array.dtype}", "pixels are numbers", "Pass uint8 levels, or floats in [0, 1]"
        )
    if levels is None and np.issubdtype(array.dtype, np.integer) and array.max() == 1:
        raise InvalidInput(
            "an integer image whose brightest pixel is 1",
            "it may be black and white (levels 0 and 1) or an almost black 8-bit image",
            "Say which: levels=1 or levels=255",
        )
    return array


def _names(example: Any, count: int) -> list[int]:
    """The stream names of ``count`` images: consecutive from one number, or as listed."""
    single = is_whole(example)
    try:
        names = range(int(example), int(example) + count) if single else list(example)
    except TypeError:
        names = [example]
    numbers = all(is_whole(name) and 0 <= name < 2**64 for name in names)
    if not numbers or len(names) != count or len(set(names)) != count:
        raise InvalidInput(
            f"{count} image{'s' * (count > 1)} with the example names {list(names)[:5]}",
            "each image needs a noise stream of its own, named by a whole number from 0 to 2^64 - 1",
            "Pass one distinct example= number an image",
        )
    return [int(name) for name in names]


def whole_number(
    name: str, value: int | None, *, what: str = "a number of draws", such_as: int = 1_000
) -> int | None:
    """A number of draws as a plain integer, ``None`` for the usual one."""
    return None if value is None else count_of(name, value, what=what, such_as=such_as)


def count_of(name: str, value: Any, *, what: str = "a number of draws", such_as: int = 1_000) -> int:
    """A number of draws as a plain integer, where there is no usual one."""
    if not is_whole(value) or not 1 <= value <= 10**9:
        raise InvalidInput(
            f"{name} = {value!r}", f"{what} is a whole number from 1 to 10^9", f"Write {name}={such_as}"
        )
    return int(value)
