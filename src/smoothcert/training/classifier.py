"""A small classifier from scratch: on clean images, or on noisy ones as Cohen et al. 2019 train theirs."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

from smoothcert.classifiers import convnet
from smoothcert.protocols import Dataset
from smoothcert.training.cards import check_place, write_card
from smoothcert.training.figures import accuracy
from smoothcert.training.images import LabelledImages, gather, jitter, shuffled_batches
from smoothcert.training.loop import Progress, Trained, at_least, fit, positive, repeatable

_MIX_OF_CLEAN = 4
_MIX_CONCENTRATION = 0.5


def train_classifier(
    dataset: Dataset,
    out: str | Path,
    *,
    noise_sigma: float = 0.0,
    epochs: int = 180,
    batch_size: int = 64,
    learning_rate: float = 2e-3,
    width: int = 32,
    mix: int | None = None,
    augment: float = 1.0,
    seed: int = 0,
    held_out: Dataset | None = None,
    device: str = "auto",
    threads: int | None = None,
    command: str = "",
    progress: Progress | None = None,
) -> Trained:
    """Train a ``ConvNet`` and save it with its card.

    Args:
        dataset: images and labels to learn.
        out: the directory to write.
        noise_sigma: standard deviation, on [0, 1] pixels, of Gaussian noise added to every training image;
            0 for a classifier of clean images. The noise is not clipped.
        epochs: rounds over the data set.
        batch_size: images a step.
        learning_rate: the highest on the way.
        width: channels of the first layers.
        mix: how many images are blended into one, labels alike (mixup; Zhang et al. 2018); 1 for none. A
            denoiser's answer under much noise is an average of plausible images, and a classifier that has
            seen blends names the largest part. By default 4 on clean images and 1 on noisy ones, which blends
            make worse.
        augment: strength of random shifts, rotations and scalings; 0 for none.
        seed: of weights, order, augmentation and noise.
        held_out: images to measure the accuracy on, at ``noise_sigma``, for the card.
        device: ``auto`` or ``cpu``.
        threads: of the CPU; ``None`` leaves the number as it is.
        command: the command line that asks for this, for the card.
        progress: told about every step.

    Raises:
        InvalidInput: settings that cannot train.
        MissingExtra: accelerate is not installed.
    """
    mix = mix if mix is not None else _MIX_OF_CLEAN if noise_sigma == 0 else 1
    settings = {
        "noise_sigma": noise_sigma, "epochs": epochs, "batch_size": batch_size,
        "learning_rate": learning_rate, "width": width, "mix": mix, "augment": augment, "seed": seed,
    }  # fmt: skip
    _check(noise_sigma, epochs, batch_size, mix, augment)
    check_place(out, "classifier", dataset, settings)
    data = gather(dataset)
    with repeatable(seed, threads) as generator:
        model = convnet.ConvNet(convnet.ConvNetConfig(dataset.shape, dataset.classes, width))
        batches = _Batches(data, len(dataset.classes), noise_sigma, batch_size, mix, augment, generator)
        steps = epochs * max(1, len(dataset) // batch_size)
        outcome = fit(
            model, batches.loss, steps=steps, learning_rate=learning_rate, weight_decay=0.05, average=0.99,
            device=device, progress=progress,
        )  # fmt: skip
    convnet.save(model, out)
    figures = {} if held_out is None else {"accuracy": accuracy(model, held_out, sigma=noise_sigma)}
    write_card(out, "classifier", dataset, settings, outcome, figures, command)
    return Trained(Path(out), outcome.steps, outcome.seconds, outcome.loss, figures)


class _Batches:
    """Draws training batches and their loss; all its randomness comes from one generator."""

    def __init__(
        self,
        data: LabelledImages,
        classes: int,
        noise_sigma: float,
        size: int,
        mix: int,
        augment: float,
        generator: torch.Generator,
    ) -> None:
        self._data, self._classes = data, classes
        self._noise_sigma, self._mix, self._augment = noise_sigma, mix, augment
        self._generator = generator
        self._order = shuffled_batches(len(data.images), size, generator)

    def loss(self, model: nn.Module, device: torch.device, _step: int) -> Tensor:
        """Cross-entropy against the blended labels."""
        images, targets = self._draw()
        return functional.cross_entropy(model(images.to(device)), targets.to(device))

    def _draw(self) -> tuple[Tensor, Tensor]:
        chosen = next(self._order)
        images = jitter(self._data.images[chosen], self._augment, self._generator)
        targets = functional.one_hot(self._data.labels[chosen], self._classes).float()
        images, targets = self._blend(images, targets)
        noise = torch.randn(images.shape, generator=self._generator)
        return images + self._noise_sigma * noise, targets

    def _blend(self, images: Tensor, targets: Tensor) -> tuple[Tensor, Tensor]:
        """Weighted means of images of the batch; each image has the largest weight in its own blend."""
        if self._mix == 1:
            return images, targets
        shares = self._shares(len(images))
        partners = [torch.randperm(len(images), generator=self._generator) for _ in range(self._mix - 1)]
        order = torch.stack([torch.arange(len(images)), *partners], 1)
        return torch.einsum("bk,bkchw->bchw", shares, images[order]), torch.einsum(
            "bk,bkc->bc", shares, targets[order]
        )

    def _shares(self, count: int) -> Tensor:
        """``(count, mix)`` Dirichlet weights, largest first: normalised Gamma variables."""
        concentration = torch.full((count, self._mix), _MIX_CONCENTRATION)
        gamma = torch._standard_gamma(concentration, generator=self._generator)
        return (gamma / gamma.sum(1, keepdim=True)).sort(1, descending=True).values


def _check(noise_sigma: float, epochs: int, batch_size: int, mix: int, augment: float) -> None:
    positive({"noise_sigma": noise_sigma, "augment": augment}, zero=True)
    at_least(1, {"epochs": epochs, "batch_size": batch_size, "mix": mix})
