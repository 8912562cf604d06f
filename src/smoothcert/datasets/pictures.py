"""Picture files as images to certify: decoded when asked for, by Pillow, and refused where that would guess.

Resizing and cropping are those of torchvision on Pillow images, which the published ImageNet numbers use: the
short side to ``resize`` pixels (bilinear with antialiasing, the long side rounded down), then the central
``crop`` by ``crop`` pixels. An orientation that a camera noted beside the pixels is not applied, as there.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, Protocol

import numpy as np
import numpy.typing as npt
from PIL import Image, UnidentifiedImageError

from smoothcert.datasets.arrays import position_in
from smoothcert.datasets.places import damaged
from smoothcert.errors import DataError, InvalidInput
from smoothcert.protocols import Example

_FORMATS = ("PNG", "JPEG", "WEBP", "BMP", "TIFF")
ENDINGS = frozenset({".png", ".jpg", ".jpeg", ".webp", ".bmp", ".tif", ".tiff"})
_PLAIN = {"1": "L", "L": "L", "P": "RGB", "RGB": "RGB"}
_MODES = {"rgb": "RGB", "grey": "L"}
_LARGEST = 1 << 14


class Pictures(Protocol):
    """Where the encoded pictures are."""

    def __len__(self) -> int: ...
    def name(self, position: int) -> str:
        """How examples and errors name a picture."""
        ...

    def open(self, position: int) -> Path | BinaryIO:
        """The encoded picture."""
        ...


@dataclass(frozen=True)
class Treatment:
    """What is done with every picture.

    Attributes:
        resize: length of the short side, ``None`` for the size it has.
        crop: side of the central square that is kept, ``None`` for all.
        mode: ``"RGB"`` or ``"L"`` to convert to; ``None`` for colour or grey as they are.
    """

    resize: int | None = None
    crop: int | None = None
    mode: str | None = None

    @classmethod
    def of(cls, options: Mapping[str, str]) -> Treatment:
        """From the options of a name; ``InvalidInput`` for what is no size or mode."""
        mode = options.get("mode")
        if mode is not None and mode not in _MODES:
            raise InvalidInput(f"mode={mode}", "it is not known", "Write mode=rgb or mode=grey")
        sizes = {key: _size(key, options[key]) for key in ("resize", "crop") if key in options}
        return cls(sizes.get("resize"), sizes.get("crop"), _MODES[mode] if mode else None)

    def size(self, width: int, height: int) -> tuple[int, int]:
        """Width and height of a picture after it."""
        width, height = self._resized(width, height)
        if self.crop is None:
            return width, height
        if min(width, height) < self.crop:
            why = f"a picture of {width}x{height} pixels has no part of {self.crop}x{self.crop}"
            raise InvalidInput(f"crop={self.crop}", why, "Resize first: ?resize=256&crop=224")
        return self.crop, self.crop

    def apply(self, image: Image.Image) -> npt.NDArray[np.uint8]:
        """A decoded picture as ``(C, H, W)``."""
        wanted = self._resized(*image.size)
        if wanted != image.size:
            image = image.resize(wanted, Image.Resampling.BILINEAR)
        width, height = self.size(*image.size)
        left, top = round((image.width - width) / 2), round((image.height - height) / 2)
        array = np.asarray(image.crop((left, top, left + width, top + height)), dtype=np.uint8)
        return np.ascontiguousarray(np.atleast_3d(array).transpose(2, 0, 1))

    def _resized(self, width: int, height: int) -> tuple[int, int]:
        short, long = min(width, height), max(width, height)
        if self.resize is None or short == self.resize:
            return width, height
        length = int(self.resize * long / short)
        return (self.resize, length) if width <= height else (length, self.resize)


class PictureDataset:
    """Pictures with labels, decoded one at a time: memory does not grow with their number.

    Args:
        pictures: where the encoded pictures are.
        labels: the class of each, a position in ``classes``.
        name, classes, source, data_dir: as for ``ArrayDataset``.
        treatment: resizing, cropping, conversion.

    Raises:
        DataError: pictures of several shapes or colour modes, unless the treatment makes them one; for that
            the header of every picture is read, but no pixels.
    """

    levels = 255

    def __init__(
        self,
        pictures: Pictures,
        labels: Sequence[int],
        *,
        name: str,
        classes: Sequence[str],
        treatment: Treatment,
        source: str = "",
        data_dir: Path | None = None,
    ) -> None:
        self.name, self.classes, self.source, self.data_dir = name, tuple(classes), source, data_dir
        self._pictures, self._labels, self._treatment = pictures, list(labels), treatment
        self.shape = _shape(pictures, treatment)

    def __len__(self) -> int:
        return len(self._pictures)

    def __getitem__(self, position: int) -> Example:
        index = position_in(position, len(self))
        named = self._pictures.name(index)
        image = decoded(self._pictures.open(index), named, self._treatment)
        if image.shape != self.shape:
            why = f"it has shape {image.shape}, the data set {self.shape}"
            raise DataError(f"picture {named!r}", why, "Bring all to one size: ?resize=256&crop=224")
        image.setflags(write=False)
        return Example(index=index, image=image, label=self._labels[index], name=named)


def decoded(file: Path | BinaryIO, named: str, treatment: Treatment) -> npt.NDArray[np.uint8]:
    """The pixels of a picture, ``(C, H, W)`` uint8.

    Raises:
        DataError: not readable to the end, more than 8 bits a channel, transparency, several frames, or
            colours that are neither RGB nor grey.
    """
    try:
        with Image.open(file, formats=_FORMATS) as image:
            return treatment.apply(image.convert(_mode(image, named, treatment)))
    except (InvalidInput, DataError):
        raise
    except Exception as error:  # decoders raise almost anything
        raise damaged(named, f"it cannot be decoded ({type(error).__name__}: {error})") from error


def _shape(pictures: Pictures, treatment: Treatment) -> tuple[int, int, int]:
    """The one shape of all; headers are read only where the treatment does not settle it."""
    if treatment.resize and treatment.crop and treatment.mode:
        return _channels(treatment.mode), treatment.crop, treatment.crop
    found: dict[tuple[int, int, int], int] = {}
    count: Counter[tuple[int, int, int]] = Counter()
    for position in range(len(pictures)):
        shape = _header(pictures.open(position), pictures.name(position), treatment)
        found.setdefault(shape, position)
        count[shape] += 1
    if len(found) == 1:
        return next(iter(found))
    raise _several(count, {shape: pictures.name(first) for shape, first in found.items()})


def _several(count: Counter[tuple[int, int, int]], first: Mapping[tuple[int, int, int], str]) -> DataError:
    shown = [f"{times} of {_told(shape)} ({first[shape]})" for shape, times in count.most_common(4)]
    more = f" and {len(count) - 4} other sizes" if len(count) > 4 else ""
    colours = len({shape[0] for shape in count}) > 1
    sizes = len({shape[1:] for shape in count}) > 1
    options = "&".join((["resize=256&crop=224"] if sizes else []) + (["mode=rgb"] if colours else []))
    why = f"certified images share one shape; there are {', '.join(shown)}{more}"
    return DataError("pictures of several shapes", why, f"Write folder:PATH?{options} (or hf:NAME?{options})")


def _told(shape: tuple[int, int, int]) -> str:
    return f"{'RGB' if shape[0] == 3 else 'grey'} {shape[2]}x{shape[1]}"


def _header(file: Path | BinaryIO, named: str, treatment: Treatment) -> tuple[int, int, int]:
    try:
        with Image.open(file, formats=_FORMATS) as image:
            width, height = treatment.size(*image.size)
            return _channels(_mode(image, named, treatment)), height, width
    except (OSError, UnidentifiedImageError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        if isinstance(error, InvalidInput):
            raise
        raise damaged(named, f"it is no readable picture ({error})") from error


def _channels(mode: str) -> int:
    return 3 if mode == "RGB" else 1


def _mode(image: Image.Image, named: str, treatment: Treatment) -> str:
    """The mode to convert to without losing or inventing anything; a refusal where that cannot be."""
    deep = image.mode.startswith(("I", "F")) or any(";16" in code for code in _raw_modes(image))
    if deep:
        raise _refused(named, "it has more than 8 bits a channel", "Convert the pictures to 8 bits first")
    if image.mode in ("RGBA", "LA", "PA", "La", "RGBa") or "transparency" in image.info:
        raise _refused(named, "it is transparent in places", "Put it on a background first")
    if image.format != "MPO" and getattr(image, "n_frames", 1) > 1:
        raise _refused(named, f"it has {image.n_frames} frames", "Save the one that is meant")  # type: ignore[attr-defined]
    if treatment.mode is not None:
        return treatment.mode
    if image.mode not in _PLAIN:
        raise _refused(named, f"its colours are {image.mode}", "Convert it, or write ?mode=rgb")
    return _PLAIN[image.mode]


def _raw_modes(image: Image.Image) -> list[str]:
    """How the file stores its pixels: Pillow gives 16-bit colours as 8-bit ones without a word."""
    arguments = [tile[3] for tile in getattr(image, "tile", [])]
    return [
        code
        for given in arguments
        for code in (given if isinstance(given, tuple) else (given,))
        if isinstance(code, str)
    ]


def _refused(named: str, why: str, instead: str) -> DataError:
    return DataError(f"picture {named!r}", why, instead)


def _size(key: str, value: str) -> int:
    if not value.isascii() or not value.isdigit() or not 1 <= int(value[:9]) <= _LARGEST:
        why = f"it is a number of pixels in 1..{_LARGEST}"
        raise InvalidInput(f"{key}={value}", why, f"Write for instance {key}=224")
    return int(value)
