"""Converted parts: what stands in for a classifier or a denoiser whose network another library runs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from smoothcert.backends.graph import with_witness
from smoothcert.errors import InvalidInput
from smoothcert.protocols import Draws

Run = Callable[[npt.NDArray[np.float32]], tuple[npt.NDArray[np.float32], npt.NDArray[np.float32]]]
"""Images to answer and witness, from any thread."""


class Answering:
    """A graph with what stands around it: resizing before, the witness after. Callable from any thread."""

    def __init__(self, run: Run, resize: Callable[[Tensor], Tensor] | None) -> None:
        self._run, self._resize = run, resize

    def __call__(self, images: Tensor) -> Tensor:
        """The answer for a batch, NaN in rows where a network was not finite."""
        shown = (self._resize(images) if self._resize else images).detach().numpy()
        answer, witness = self._run(np.ascontiguousarray(shown, dtype=np.float32))
        return with_witness(torch.from_numpy(answer), torch.from_numpy(witness))


class GraphPart:
    """What converted classifiers and denoisers share: one shape, one batch size, a CPU, a witness.

    Attributes:
        weights_sha256: of the converted model, which is what runs.
    """

    def __init__(
        self, part: Any, answering: Answering, size: tuple[int, ...], told: dict[str, Any], sha256: str
    ) -> None:
        self.source = str(getattr(part, "source", None) or type(part).__qualname__)
        self._answering, self._size, self._told = answering, size, told
        self.weights_sha256: str | None = sha256

    @property
    def backend(self) -> str:
        """Its name in ``backends.NAMES``."""
        return str(self._told["backend"])

    def describe(self) -> dict[str, Any]:
        """Plain data for a run's specification: the original's own, and how it was converted."""
        return dict(self._told)

    def _answer(self, images: Tensor) -> Tensor:
        if tuple(images.shape) != self._size:
            raise InvalidInput(
                f"a batch of images {tuple(images.shape)}",
                f"this model was converted to {self.backend} for batches {self._size}",
                "Convert it again for these, or write the batch size it was converted for",
            )
        if images.device.type != "cpu":
            raise InvalidInput(
                f"images on {images.device}",
                f"{self.backend} runs on a CPU",
                "Write --device cpu, or a torch backend",
            )
        return self._answering(images)


class GraphClassifier(GraphPart):
    """Images ``(batch, C, H, W)`` -> scores ``(batch, classes)``, NaN where the network was not finite."""

    def __init__(
        self, part: Any, answering: Answering, size: tuple[int, ...], told: dict[str, Any], sha256: str
    ) -> None:
        super().__init__(part, answering, size, told, sha256)
        self.classes = getattr(part, "classes", None)
        self.class_count = getattr(part, "class_count", None) or (len(self.classes) if self.classes else None)

    def __call__(self, images: Tensor, /) -> Tensor:
        """Scores of a batch.

        Raises:
            InvalidInput: images of another shape, batch size or device.
        """
        return self._answer(images)


class GraphDenoiser(GraphPart):
    """Noisy images ``(batch, C, H, W)`` -> images in [0, 1], for one sigma."""

    stochastic = False

    def __init__(
        self,
        part: Any,
        answering: Answering,
        size: tuple[int, ...],
        told: dict[str, Any],
        sha256: str,
        *,
        sigma: float,
    ) -> None:
        super().__init__(part, answering, size, told, sha256)
        self.sigma = sigma

    def __call__(self, noisy: Tensor, sigma: float, /, *, draws: Draws | None = None) -> Tensor:
        """Estimates of the clean images, NaN where the network was not finite.

        Raises:
            InvalidInput: images of another shape, batch size or device, or another sigma.
        """
        if sigma != self.sigma:
            raise InvalidInput(
                f"sigma={sigma:g}",
                f"this denoiser was converted to {self.backend} for sigma={self.sigma:g}",
                "Convert one for each sigma",
            )
        return self._answer(noisy)
