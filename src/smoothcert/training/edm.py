"""A denoiser D(z; sigma) with the preconditioning of Karras et al. 2022, from scratch.

Images on [-1, 1], sigma on that scale: D(z; sigma) = c_skip z + c_out F(c_in z; ln(sigma)/4), trained so that
F has a target of unit variance at every noise level (their eq. 8).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

from smoothcert.denoisers import residual_unet
from smoothcert.protocols import Dataset
from smoothcert.smoothing.network import channels_last
from smoothcert.training.cards import check_place, write_card
from smoothcert.training.images import gather, mirrored, named_generator, positions
from smoothcert.training.loop import Progress, Trained, at_least, fit, positive, repeatable
from smoothcert.training.savepoint import SAVEPOINT, Savepoint

SIGMA_DATA = 0.5
_LARGEST_SPREAD = 3.0  # standard deviations of ln(sigma) that are trained on


def train_edm_denoiser(
    dataset: Dataset,
    out: str | Path,
    *,
    steps: int = 12_000,
    batch_size: int = 64,
    learning_rate: float = 1e-3,
    channels: Sequence[int] = (32, 64, 128, 256),
    blocks: int = 2,
    typical_sigma: float = 0.3,
    spread: float = 1.0,
    flip: bool = True,
    precision: str = "bf16",
    half: bool = False,
    seed: int = 0,
    device: str = "auto",
    threads: int | None = None,
    command: str = "",
    progress: Progress | None = None,
) -> Trained:
    """Train a residual U-Net to remove Gaussian noise and save it as an EDM denoiser with its card.

    An interrupted training continues from ``training.pt`` in ``out``, kept once a minute: a step's images and
    noise are a pure function of (seed, step).

    Args:
        dataset: the images; labels are not used.
        out: the directory to write.
        steps: optimizer steps.
        batch_size: images a step.
        learning_rate: the highest on the way.
        channels: of the network at each scale. Every scale after the first halves the image.
        blocks: residual blocks a scale.
        typical_sigma: median of the noise trained on, a standard deviation on [0, 1] pixels.
        spread: standard deviation of its natural logarithm.
        flip: mirror half of the images; off for data such as digits.
        precision: ``bf16`` for mixed precision, ``no`` for float32.
        half: save the weights in float16.
        seed: of weights, order, mirroring and noise.
        device: ``auto`` or ``cpu``.
        threads: of the CPU; ``None`` leaves the number as it is.
        command: the command line that asks for this, for the card.
        progress: told about every step.

    Raises:
        InvalidInput: settings that cannot train.
        MissingExtra: accelerate is not installed.
        CheckpointError: ``out`` holds the state of a training with other settings.
    """
    settings = {
        "steps": steps, "batch_size": batch_size, "learning_rate": learning_rate, "channels": list(channels),
        "blocks": blocks, "typical_sigma": typical_sigma, "spread": spread, "flip": flip,
        "precision": precision, "seed": seed,
    }  # fmt: skip
    check_place(out, "denoiser", dataset, settings)
    batches = _Batches(dataset, batch_size, typical_sigma, spread, flip, seed)
    savepoint = Savepoint(Path(out) / SAVEPOINT, settings | {"data": dataset.name})
    with repeatable(seed, threads):
        config = residual_unet.ResidualUNetConfig(dataset.shape[0], tuple(channels), blocks)
        network = channels_last(residual_unet.ResidualUNet(config))
        outcome = fit(
            network, batches.loss, steps=steps, learning_rate=learning_rate, weight_decay=0.01,
            average=0.9995, device=device, precision=precision, savepoint=savepoint, progress=progress,
        )  # fmt: skip
    described = {"preconditioning": "edm", "sigma_data": SIGMA_DATA, "trained_sigma": batches.range}
    residual_unet.save(network, out, half=half, **described)
    write_card(out, "denoiser", dataset, settings, outcome, {}, command)
    savepoint.remove()
    return Trained(Path(out), outcome.steps, outcome.seconds, outcome.loss, {})


class _Batches:
    """Noisy images and what the network should answer, as a pure function of (seed, step)."""

    def __init__(
        self, dataset: Dataset, size: int, typical_sigma: float, spread: float, flip: bool, seed: int
    ) -> None:
        at_least(1, {"batch_size": size})
        positive({"typical_sigma": typical_sigma})
        positive({"spread": spread}, zero=True)
        self._images = gather(dataset).images
        self._size, self._flip, self._seed = min(size, len(self._images)), flip, seed
        self._centre, self._spread = math.log(2 * typical_sigma), spread

    @property
    def range(self) -> tuple[float, float]:
        """Smallest and largest noise trained on, on [0, 1] pixels."""
        reach = _LARGEST_SPREAD * self._spread
        return math.exp(self._centre - reach) / 2, math.exp(self._centre + reach) / 2

    def loss(self, network: nn.Module, device: torch.device, step: int) -> Tensor:
        """Mean squared error of F, whose target has unit variance at every noise level."""
        draw = named_generator(self._seed, "noise", step)
        clean = 2 * self._pick(step, draw) - 1
        depth = torch.randn(len(clean), generator=draw).clamp(-_LARGEST_SPREAD, _LARGEST_SPREAD)
        level = self._centre + self._spread * depth
        sigma = level.exp()[:, None, None, None]
        noisy = clean + sigma * torch.randn(clean.shape, generator=draw)
        total = (sigma**2 + SIGMA_DATA**2).sqrt()
        target = (clean - noisy * (SIGMA_DATA / total) ** 2) * total / (sigma * SIGMA_DATA)
        seen = (noisy / total).contiguous(memory_format=torch.channels_last)
        answer = network(seen.to(device), (level / 4).to(device))
        return functional.mse_loss(answer.float(), target.to(device))

    def _pick(self, step: int, draw: torch.Generator) -> Tensor:
        images = self._images[positions(step, len(self._images), self._size, self._seed)]
        return mirrored(images, draw) if self._flip else images
