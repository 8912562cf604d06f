"""What a freshly trained network can do on held-out images: plain accuracies, not certificates."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch

from smoothcert import denoisers
from smoothcert.protocols import Classifier, Dataset, Denoiser
from smoothcert.training.images import gather

SIGMAS = (0.25, 0.5, 1.0)
"""The noise levels of the field's tables, on [0, 1] pixels."""

_BATCH = 512


def accuracy(
    classifier: Classifier,
    dataset: Dataset,
    *,
    sigma: float = 0.0,
    denoiser: Denoiser | None = None,
    draws: int = 10,
    seed: int = 0,
) -> float:
    """Share of images named rightly under Gaussian noise, in percent, averaged over draws.

    Args:
        classifier: what is measured.
        dataset: images with labels.
        sigma: standard deviation of the noise on [0, 1] pixels; 0 measures clean images once.
        denoiser: applied to the noisy images, where given.
        draws: independent draws of noise an image.
        seed: of the noise.
    """
    data = gather(dataset)
    generator = torch.Generator().manual_seed(seed)
    right = 0
    draws = draws if sigma > 0 else 1
    with torch.inference_mode():
        for _ in range(draws):
            noisy = data.images + sigma * torch.randn(data.images.shape, generator=generator)
            for images, labels in zip(
                torch.split(noisy, _BATCH), torch.split(data.labels, _BATCH), strict=True
            ):
                seen = images if denoiser is None or sigma == 0 else denoiser(images, sigma)
                right += int((_labels(classifier(seen)) == labels).sum())
    return round(100 * right / draws / len(dataset), 2)


def psnr(denoiser: Denoiser, dataset: Dataset, *, sigma: float, seed: int = 0) -> float:
    """Mean over images of the peak signal-to-noise ratio after denoising one draw, in decibels."""
    clean = gather(dataset).images
    noisy = clean + sigma * torch.randn(clean.shape, generator=torch.Generator().manual_seed(seed))
    with torch.inference_mode():
        parts = [denoiser(images, sigma) for images in torch.split(noisy, _BATCH)]
    errors = (torch.cat(parts).clamp(0, 1) - clean).square().mean((1, 2, 3))
    return round(float(-10 * errors.log10().mean()), 2)


def denoised_accuracies(directory: str | Path, classifier: Classifier, dataset: Dataset) -> dict[str, Any]:
    """One-shot accuracies of a saved denoiser and a classifier, with and without it, at the usual sigmas."""
    denoiser = denoisers.load(str(directory))
    return {
        "sigma": list(SIGMAS),
        "accuracy_denoised": [accuracy(classifier, dataset, sigma=s, denoiser=denoiser) for s in SIGMAS],
        "accuracy_noisy": [accuracy(classifier, dataset, sigma=s) for s in SIGMAS],
    }


def _labels(output: torch.Tensor) -> torch.Tensor:
    return output if output.ndim == 1 else output.argmax(1)
