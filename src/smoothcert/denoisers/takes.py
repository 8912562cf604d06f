"""Which images a network takes: told before the first draw, in words, not from inside a convolution."""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor

from smoothcert.errors import InvalidInput

_COLOURS = {1: "greyscale", 3: "RGB"}


@dataclass(frozen=True)
class Takes:
    """The images a network was built for.

    Attributes:
        channels: how many, exactly.
        multiple: height and width must be multiples of it: every scale of a U-Net halves them.
    """

    channels: int
    multiple: int = 1

    def check(self, images: Tensor) -> None:
        """Refuse ``(B, C, H, W)`` images that the network cannot take.

        Raises:
            InvalidInput: another number of channels, or sides that do not divide.
        """
        _, channels, height, width = images.shape
        if channels != self.channels:
            raise InvalidInput(
                f"{_kind(channels)} images for a denoiser of {_kind(self.channels)} images",
                f"its first layer has {self.channels} input channel{'s' * (self.channels > 1)}",
                "Convert the data set, or choose a denoiser for such images",
            )
        if height % self.multiple or width % self.multiple:
            raise InvalidInput(
                f"images of {height}x{width} pixels",
                f"the network halves them down to 1/{self.multiple}, and takes multiples of {self.multiple}",
                "Resize or pad the data set, or choose another denoiser",
            )


def _kind(channels: int) -> str:
    return f"{_COLOURS[channels]} ({channels}-channel)" if channels in _COLOURS else f"{channels}-channel"
