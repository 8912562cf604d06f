"""What a booster is trained on: images, each under noise of several levels; a pure function of the step."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from smoothcert.errors import InvalidInput, ModelOutputError
from smoothcert.protocols import Dataset
from smoothcert.smoothing.network import channels_last, modules_of
from smoothcert.training.images import gather, named_generator, positions

LEVELS = 4
"""Noise levels a step. Every image of a batch is seen under each, so its clean feature is computed once."""


@dataclass(frozen=True)
class Batch:
    """A step's images ``(B, C, H, W)`` in [0, 1] and, lazily, (sigma, noisy images) for each level."""

    clean: Tensor
    noisy: Callable[[], Iterator[tuple[float, Tensor]]]


class Batches:
    """Draws batches; the noise levels of a step are stratified over ln sigma.

    Args:
        dataset: the images; labels are not used.
        size: images a step.
        sigmas: smallest and largest noise, standard deviations on [0, 1] pixels.
        seed: of order, levels and noise; ``purpose`` separates the stages of a training.
    """

    def __init__(
        self, dataset: Dataset, size: int, sigmas: tuple[float, float], seed: int, purpose: str
    ) -> None:
        self._images = gather(dataset).images
        self._size, self._sigmas = min(size, len(self._images)), sigmas
        self._seed, self._purpose = seed, purpose

    def at(self, step: int, device: torch.device) -> Batch:
        """The batch of a step; a pure function of (seed, purpose, step)."""
        chosen = positions(step, len(self._images), self._size, self._seed)
        clean = self._images[chosen]
        draw = named_generator(self._seed, self._purpose, step)
        low, high = self._sigmas
        shares = (torch.arange(LEVELS) + torch.rand(LEVELS, generator=draw)) / LEVELS

        def noisy() -> Iterator[tuple[float, Tensor]]:
            for share in shares.tolist():
                sigma = min(high, max(low, math.exp((1 - share) * math.log(low) + share * math.log(high))))
                yield sigma, (clean + sigma * torch.randn(clean.shape, generator=draw)).to(device)

        return Batch(clean.to(device), noisy)


class Frozen:
    """A denoiser, or none, and an encoder as they are: in evaluation mode, without gradients of their own."""

    def __init__(self, encoder: Any, denoiser: Any | None) -> None:
        self.encoder, self.denoiser = encoder, denoiser
        for module in (*modules_of(encoder), *modules_of(denoiser)):
            channels_last(module.eval()).requires_grad_(False)

    def to(self, device: torch.device | str) -> None:
        """Move both, where they are somewhere else."""
        for module in (*modules_of(self.encoder), *modules_of(self.denoiser)):
            first = next(module.parameters(), None)
            if first is not None and first.device != torch.device(device):
                module.to(device)

    def encoded(self, images: Tensor) -> Tensor:
        """f(x): features of images as they are, float32, gradients where the images carry some.

        Raises:
            ModelOutputError: an encoder that returns no features.
        """
        found = self.encoder(images)
        if not isinstance(found, Tensor) or not found.is_floating_point() or found.ndim not in (2, 3):
            what = f"shape {tuple(found.shape)}" if isinstance(found, Tensor) else type(found).__name__
            why = "features are a floating-point tensor (B, k), or (B, T, d) for tokens"
            raise ModelOutputError(f"an encoder that returned {what}", why, "Return the pooled features")
        return found.float()

    @torch.no_grad()
    def clean(self, images: Tensor) -> Tensor:
        """f(x), detached."""
        return self.encoded(images)

    @torch.no_grad()
    def seen(self, noisy: Tensor, sigma: float) -> Tensor:
        """f(P(x + noise)), detached: what the mapper is given."""
        return self.encoded(noisy if self.denoiser is None else self.denoiser(noisy, sigma).float())


def spread_of(frozen: Frozen, images: Tensor, size: int = 64) -> tuple[Tensor, Tensor]:
    """Mean and standard deviation of clean features in each dimension, ``(d,)`` each.

    A dimension that hardly varies gets a hundredth of the typical spread.

    Raises:
        InvalidInput: features that are not finite, or that are the same for all images.
    """
    features = torch.cat([frozen.clean(part) for part in torch.split(images, size)]).flatten(0, -2)
    spread, mean = torch.std_mean(features.double(), dim=0, correction=0)
    typical = float(spread.square().mean().sqrt())
    if not math.isfinite(typical) or typical == 0:
        found = f"features with a spread of {typical} over {len(images)} images"
        raise InvalidInput(
            found, "there is nothing in them to keep", "Choose another encoder or other images"
        )
    return mean.float(), spread.clamp_min(0.01 * typical).float()
