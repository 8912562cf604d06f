"""The base function of feature-space smoothing: denoise, encode, map, and take the direction.

f(x) = u / ||u|| with u = M(E(P(x)), sigma) as one row of k numbers: P the denoiser and M the mapper, both
optional, E the encoder. A row that is not finite or has no direction becomes 0, which lies in the unit ball,
so that every bound holds with it.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from smoothcert.errors import InvalidInput, ModelOutputError
from smoothcert.protocols import Draws
from smoothcert.smoothing.network import Network

Rows = npt.NDArray[np.float64]


class FeatureNetwork(Network):
    """Denoiser, encoder and mapper as one function from noisy images to unit features.

    Args:
        encoder: images ``(B, C, H, W)`` -> features ``(B, k)`` or ``(B, T, d)``.
        denoiser: ``D(noisy, sigma)``, or ``None``.
        mapper: ``M(features, sigma)``, or ``None``.
        sigma, device, precision: as for ``Network``.

    Raises:
        InvalidInput: a part that cannot be called, or a mapper trained for another noise.
    """

    def __init__(
        self,
        encoder: Any,
        denoiser: Any | None,
        mapper: Any | None,
        sigma: float,
        device: str = "cpu",
        precision: str = "float32",
    ) -> None:
        self._check_parts(encoder, mapper)
        _check_mapper(mapper, sigma)
        self.mapper = mapper
        super().__init__(encoder, denoiser, sigma, device, precision)

    @property
    def encoder(self) -> Any:
        """The encoder as given."""
        return self.classifier

    def parts(self) -> tuple[Any, ...]:
        return (self.classifier, self.denoiser, self.mapper)

    def features(self, noisy: npt.NDArray[np.float32], draws: Draws | None = None) -> Rows:
        """Unit features ``(B, k)`` of a batch of noisy images; a row without a direction is 0."""
        return unit_rows(self.outputs(noisy, draws).float().cpu().numpy())

    @torch.inference_mode()
    def reference(self, clean: npt.NDArray[np.float32]) -> Rows:
        """Unit features of clean images by the encoder alone: no denoiser, no mapper."""
        images = torch.from_numpy(clean).to(self.device)
        return unit_rows(_rows_of(self.encoder(images), len(clean)).float().cpu().numpy())

    def differentiable(self, images: Tensor, draws: Draws | None = None) -> Tensor:
        """The same features ``(B, k)`` with gradients, for attacks: of images that carry their noise already.

        In float32 whatever the precision of the run.
        """
        raw = self._answer(self.denoised(images, draws)).float()
        length = torch.linalg.vector_norm(raw, dim=1, keepdim=True)
        unit: Tensor = raw / length.clamp_min(torch.finfo(raw.dtype).tiny)
        return unit

    def _answer(self, clean: Tensor) -> Tensor:
        encoded = self.encoder(clean)
        if self.mapper is None:
            return _rows_of(encoded, len(clean))
        before = _rows_of(encoded, len(clean))
        after = _rows_of(self.mapper(encoded, self.sigma), len(clean))
        if after.shape != before.shape:
            raise ModelOutputError(
                f"a mapper that returned {after.shape[1]} numbers for {before.shape[1]}",
                "a mapped feature has the shape of the one it was made from",
                "Pass the mapper that was trained for this encoder",
            )
        return after


def unit_rows(raw: npt.NDArray[np.float32]) -> Rows:
    """Each row divided by its norm, in float64; 0 where the row is not finite or its norm is 0."""
    rows = raw.reshape(len(raw), -1).astype(np.float64)
    finite = np.isfinite(rows).all(axis=1)
    rows[~finite] = 0.0
    largest = np.abs(rows).max(axis=1, keepdims=True)
    rows /= np.where(largest > 0.0, largest, 1.0)  # first to about 1, so that no square over- or underflows
    length = np.sqrt((rows * rows).sum(axis=1, keepdims=True))
    rows /= np.where(length > 0.0, length, 1.0)
    return rows


def _rows_of(features: Any, batch: int) -> Tensor:
    """An encoder's answer as one row an image, if it is features for a batch."""
    usable = isinstance(features, Tensor) and features.is_floating_point() and features.ndim in (2, 3)
    if not usable or len(features) != batch or not features.numel():
        shape = (
            f"a {features.dtype} tensor of shape {tuple(features.shape)}"
            if isinstance(features, Tensor)
            else type(features).__name__
        )
        raise ModelOutputError(
            f"an encoder that returned {shape} for {batch} images",
            "features are a floating-point tensor (B, k), or (B, T, d) for tokens",
            "Return the pooled features, or wrap the model in a function that does",
        )
    found: Tensor = features.reshape(batch, -1)
    return found


def _check_mapper(mapper: Any | None, sigma: float) -> None:
    low, high = getattr(mapper, "sigmas", (0.0, float("inf")))
    if not low <= sigma <= high:
        raise InvalidInput(
            f"a mapper trained for sigma {low:g} to {high:g} in a run with sigma = {sigma:g}",
            "it moves features as noise of its own sigma asks for, and its gain elsewhere is unknown",
            "Pass the mapper trained for this sigma, or none: mapper=None (--mapper none)",
        )
