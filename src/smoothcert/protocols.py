"""The extension points: what a model, a denoiser and a data set must look like. Any callable of the right
shape is a model; nothing needs to inherit from these.

One scale everywhere: images are float tensors in [0, 1] (noisy ones leave that range), sigma is in those
units. Adapters hide their own scalings.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol, TypeVar, runtime_checkable

import numpy as np
import numpy.typing as npt

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Example:
    """One image of a data set.

    Attributes:
        index: position in the full data set (the ``idx`` of the field's logs); it names the noise streams.
        image: ``(C, H, W)``; integer grey levels ``0..levels`` (uint8), or float32 in [0, 1].
        label: the true class.
        name: a human-readable name, such as ``digits-test-17``.
    """

    index: int
    image: npt.NDArray[np.uint8] | npt.NDArray[np.float32]
    label: int
    name: str


@runtime_checkable
class Dataset(Protocol):
    """A finite sequence of examples of one shape.

    ``levels`` is L when pixels are integers 0..L standing for {0, 1/L, ..., 1} (255 for 8-bit images), and
    ``None`` for float images, for which integer-grid noise does not apply.
    """

    @property
    def name(self) -> str: ...
    @property
    def levels(self) -> int | None: ...
    @property
    def shape(self) -> tuple[int, int, int]: ...
    @property
    def classes(self) -> tuple[str, ...]: ...
    def __len__(self) -> int: ...
    def __getitem__(self, position: int) -> Example: ...


Part = TypeVar("Part")


def named(part: Part, source: str) -> Part:
    """Remember on a loaded model by which name it was found: a run's specification quotes it."""
    object.__setattr__(part, "source", source)  # also on frozen dataclasses: a name is no setting
    return part


class Classifier(Protocol):
    """Images ``(B, C, H, W)`` in [0, 1] -> scores ``(B, classes)`` or integer labels ``(B,)``.

    It may also have, and a run then uses: ``classes``, the names of its answers in their order (or ``None``),
    and ``class_count``, their number, both compared with the data's; ``describe()``, its settings as plain
    data; ``source``, the name by which it was found; ``weights_sha256``, where its weights are in no torch
    module (``None`` where nobody can read them).
    """

    def __call__(self, images: Tensor, /) -> Tensor: ...


class Draws(Protocol):
    """Standard normal noise for the inside of a stochastic denoiser, from streams with names.

    Row b of ``normal(step)`` depends only on the name of draw b and on ``step``, never on the batch.
    """

    def normal(self, step: int) -> Tensor:
        """``(B, C, H, W)`` float32 standard normal noise, the same for every call with the same step."""
        ...


class Encoder(Protocol):
    """Images ``(B, C, H, W)`` in [0, 1] -> features ``(B, k)`` or token features ``(B, T, d)``, of any norm.

    It may have what a ``Classifier`` may have (``describe()``, ``source``, ``weights_sha256``).
    """

    def __call__(self, images: Tensor, /) -> Tensor: ...


class Mapper(Protocol):
    """Features and the sigma of their noise -> features of the same shape, steadier under that noise.

    ``sigmas`` is the range (lowest, highest) it was trained for; a run at another sigma is refused.
    """

    @property
    def sigmas(self) -> tuple[float, float]: ...
    def __call__(self, features: Tensor, sigma: float, /) -> Tensor: ...


class Denoiser(Protocol):
    """Noisy images ``(B, C, H, W)`` (clean in [0, 1] plus N(0, sigma^2)) -> estimates in [0, 1].

    A denoiser whose ``stochastic`` attribute is true is called with ``draws`` and takes all its randomness
    from there; the others are called with two arguments.
    """

    def __call__(self, noisy: Tensor, sigma: float, /) -> Tensor: ...
