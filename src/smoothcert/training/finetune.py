"""An existing classifier trained further on what it will see: denoised images, or noisy ones.

With a denoiser this is the "+finetune" of Carlini et al. 2023 (section 5.1): the denoiser stays as it is and
the classifier learns its output. Without one it is training on Gaussian noise (Cohen et al. 2019), here from
the weights at hand instead of fresh ones.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from smoothcert.classifiers import convnet, plain
from smoothcert.errors import InvalidInput
from smoothcert.protocols import Dataset, Denoiser
from smoothcert.smoothing.network import channels_last, modules_of
from smoothcert.training.cards import check_place, write_card
from smoothcert.training.figures import accuracy
from smoothcert.training.images import gather, mirrored, named_generator, positions, shifted
from smoothcert.training.loop import Progress, Trained, at_least, fit, positive, repeatable
from smoothcert.training.savepoint import SAVEPOINT, Savepoint


def finetune(
    classifier: Any,
    dataset: Dataset,
    out: str | Path,
    *,
    sigma: float,
    denoiser: Denoiser | None = None,
    epochs: float = 2.0,
    batch_size: int = 128,
    learning_rate: float = 1e-3,
    flip: bool = True,
    shift: int = 4,
    precision: str = "no",
    seed: int = 0,
    held_out: Dataset | None = None,
    device: str = "auto",
    threads: int | None = None,
    command: str = "",
    progress: Progress | None = None,
) -> Trained:
    """Train a classifier on noisy, then denoised images, and save it with its card.

    Every image gets fresh noise every time it is seen. An interrupted training continues from ``training.pt``
    in ``out``.

    Args:
        classifier: a ``ConvNet``, or a named architecture such as ``resnet20:PATH``; it is trained in place.
        dataset: images and labels to learn.
        out: the directory to write; ``classifiers.load(out)`` reads it.
        sigma: standard deviation of the noise on [0, 1] pixels.
        denoiser: a deterministic one, not trained here; without it the classifier learns noisy images.
        epochs: rounds over the data set, also parts of one.
        batch_size: images a step.
        learning_rate: the highest on the way.
        flip: mirror half of the images; off for data such as digits.
        shift: largest random shift in pixels.
        precision: ``bf16`` for mixed precision, ``no`` for float32.
        seed: of order, mirroring, shifts and noise.
        held_out: images to measure the accuracy on (one draw each), for the card.
        device: ``auto`` or ``cpu``.
        threads: of the CPU; ``None`` leaves the number as it is.
        command: the command line that asks for this, for the card.
        progress: told about every step.

    Raises:
        InvalidInput: another classifier, a stochastic denoiser, settings that cannot train.
        MissingExtra: accelerate is not installed.
        CheckpointError: ``out`` holds the state of a training with other settings.

    Source: Carlini et al. 2023, section 5.1; Cohen et al. 2019, section 3.3.
    """
    settings = {
        "sigma": sigma, "denoiser": str(getattr(denoiser, "source", "none")), "epochs": epochs,
        "batch_size": batch_size, "learning_rate": learning_rate, "flip": flip, "shift": shift,
        "precision": precision, "seed": seed, "from": str(getattr(classifier, "source", "")),
    }  # fmt: skip
    _check(classifier, denoiser, sigma, epochs, batch_size, shift)
    check_place(out, "classifier", dataset, settings)
    batches = _Batches(dataset, denoiser, settings)
    steps = max(1, round(epochs * len(dataset) / batch_size))
    savepoint = Savepoint(Path(out) / SAVEPOINT, settings | {"data": dataset.name})
    _settle(denoiser)
    with repeatable(seed, threads):
        outcome = fit(
            channels_last(classifier).requires_grad_(True), batches.loss, steps=steps,
            learning_rate=learning_rate, weight_decay=0.01, average=0.0, device=device,
            precision=precision, savepoint=savepoint, progress=progress,
        )  # fmt: skip
    _save(classifier.requires_grad_(False), out)
    figures = {}
    if held_out is not None:
        figures = {"accuracy": accuracy(classifier, held_out, sigma=sigma, denoiser=denoiser, draws=1)}
    write_card(out, "classifier", dataset, settings, outcome, figures, command)
    savepoint.remove()
    return Trained(Path(out), outcome.steps, outcome.seconds, outcome.loss, figures)


class _Batches:
    """What the classifier sees and should say, as a pure function of (seed, step)."""

    def __init__(self, dataset: Dataset, denoiser: Denoiser | None, settings: Mapping[str, Any]) -> None:
        self._data, self._denoiser, self._settings = gather(dataset), denoiser, settings
        self._size = min(int(settings["batch_size"]), len(dataset))

    def loss(self, model: nn.Module, device: torch.device, step: int) -> Tensor:
        """Cross-entropy against the labels."""
        seed, sigma = int(self._settings["seed"]), float(self._settings["sigma"])
        chosen = positions(step, len(self._data.images), self._size, seed)
        draw = named_generator(seed, "noise", step)
        images = self._data.images[chosen]
        images = mirrored(images, draw) if self._settings["flip"] else images
        images = shifted(images, int(self._settings["shift"]), draw)
        noisy = images + sigma * torch.randn(images.shape, generator=draw)
        torch.manual_seed(draw.initial_seed())  # for dropout; `repeatable` puts the global state back
        scores = model(self._seen(noisy.to(device), sigma))
        return functional.cross_entropy(scores.float(), self._data.labels[chosen].to(device))

    @torch.no_grad()
    def _seen(self, noisy: Tensor, sigma: float) -> Tensor:
        return noisy if self._denoiser is None else self._denoiser(noisy, sigma).float()


def _settle(denoiser: Any) -> None:
    """Put the denoiser's networks into evaluation mode, in the layout that is fastest."""
    for network in modules_of(denoiser):
        channels_last(network.eval())


def _save(classifier: Any, out: str | Path) -> None:
    (convnet.save if isinstance(classifier, convnet.ConvNet) else plain.save)(classifier, out)


def _check(classifier: Any, denoiser: Any, sigma: float, epochs: float, batch_size: int, shift: int) -> None:
    if getattr(classifier, "kind", None) not in plain.ARCHITECTURES and not isinstance(
        classifier, convnet.ConvNet
    ):
        found = f"a classifier of type {type(classifier).__name__}"
        why = "only networks that can be saved again afterwards are trained here"
        raise InvalidInput(
            found, why, f"Give one of {', '.join(plain.ARCHITECTURES)}, or a trained directory"
        )
    if getattr(denoiser, "stochastic", False):
        why = "training draws its own noise, and this denoiser wants named draws"
        raise InvalidInput("a stochastic denoiser", why, "Use its one-shot sampler")
    positive({"sigma": sigma}, zero=True)
    positive({"epochs": epochs})
    at_least(1, {"batch_size": batch_size})
    at_least(0, {"shift": shift})
