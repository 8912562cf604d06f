"""A small diffusion model from scratch, in the directory layout of diffusers' own pipelines.

x_t = sqrt(abar) x + sqrt(1 - abar) eps with x in [-1, 1], at real-valued times t, as denoising asks for the
time whose noise is exactly sigma; the network predicts v = sqrt(abar) eps - sqrt(1 - abar) x (Salimans & Ho
2022).
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from smoothcert.diffusion.schedule import Schedule, beta_schedule
from smoothcert.errors import InvalidInput
from smoothcert.protocols import Classifier, Dataset
from smoothcert.training.cards import check_place, write_card
from smoothcert.training.figures import denoised_accuracies
from smoothcert.training.images import gather, jitter, shuffled_batches
from smoothcert.training.loop import Progress, Trained, at_least, fit, positive, repeatable


def train_denoiser(
    dataset: Dataset,
    out: str | Path,
    *,
    steps: int = 6000,
    batch_size: int = 128,
    learning_rate: float = 2e-3,
    channels: Sequence[int] = (16, 32),
    layers: int = 1,
    schedule: str = "squaredcos_cap_v2",
    timesteps: int = 1000,
    sigmas: tuple[float, float] | None = None,
    augment: float = 0.6,
    seed: int = 0,
    held_out: Dataset | None = None,
    classifier: Classifier | None = None,
    device: str = "auto",
    threads: int | None = None,
    command: str = "",
    progress: Progress | None = None,
) -> Trained:
    """Train a diffusion model on the images of a data set and save it as a diffusers pipeline with its card.

    Args:
        dataset: the images; labels are not used.
        out: the directory to write; ``DDPMPipeline.from_pretrained`` reads it too.
        steps: optimizer steps.
        batch_size: images a step.
        learning_rate: the highest on the way.
        channels: of the U-Net at each scale; multiples of 8. Every scale after the first halves the image.
        layers: residual blocks a scale.
        schedule: diffusers' name of a table of betas.
        timesteps: entries of that table.
        sigmas: smallest and largest noise to train on, standard deviations on [0, 1] pixels; ``None`` for the
            whole schedule, which multi-step sampling needs.
        augment: strength of random shifts, rotations and scalings; 0 for none.
        seed: of weights, order, augmentation, times and noise.
        held_out: images to measure on for the card, together with ``classifier``.
        classifier: whose accuracy on denoised held-out images is measured.
        device: ``auto`` or ``cpu``.
        threads: of the CPU; ``None`` leaves the number as it is.
        command: the command line that asks for this, for the card.
        progress: told about every step.

    Raises:
        InvalidInput: settings that cannot train, or sigmas that the schedule does not have.
        MissingExtra: accelerate is not installed.
    """
    settings = {
        "steps": steps, "batch_size": batch_size, "learning_rate": learning_rate, "channels": list(channels),
        "layers": layers, "schedule": schedule, "timesteps": timesteps, "augment": augment, "seed": seed,
        "sigmas": list(sigmas or ()),
    }  # fmt: skip
    _check(batch_size, augment)
    check_place(out, "denoiser", dataset, settings)
    noise = beta_schedule(schedule, timesteps)
    times = _time_range(noise, sigmas)
    images = gather(dataset).images
    with repeatable(seed, threads) as generator:
        network = _unet(dataset.shape, channels, layers)
        batches = _Batches(images, noise, times, batch_size, augment, generator)
        outcome = fit(
            network, batches.loss, steps=steps, learning_rate=learning_rate, weight_decay=0.01, average=0.999,
            device=device, progress=progress,
        )  # fmt: skip
    _save(network, noise, out)
    figures = denoised_accuracies(out, classifier, held_out) if classifier and held_out else {}
    write_card(out, "denoiser", dataset, settings, outcome, figures, command)
    return Trained(Path(out), outcome.steps, outcome.seconds, outcome.loss, figures)


class _Batches:
    """Draws noisy images at random times; all its randomness comes from one generator."""

    def __init__(
        self,
        images: Tensor,
        schedule: Schedule,
        times: tuple[float, float],
        size: int,
        augment: float,
        generator: torch.Generator,
    ) -> None:
        self._images, self._schedule, self._times = images, schedule, times
        self._augment, self._generator = augment, generator
        self._order = shuffled_batches(len(images), size, generator)

    def loss(self, network: nn.Module, device: torch.device, _step: int) -> Tensor:
        """Mean squared error of the predicted v."""
        clean = 2 * jitter(self._images[next(self._order)], self._augment, self._generator) - 1
        noise = torch.randn(clean.shape, generator=self._generator)
        times, signal, spread = self._draw_times(len(clean))
        noisy, target = signal * clean + spread * noise, signal * noise - spread * clean
        predicted = network(noisy.to(device), times.to(device)).sample
        return functional.mse_loss(predicted, target.to(device))

    def _draw_times(self, count: int) -> tuple[Tensor, Tensor, Tensor]:
        """Times ``(count,)``, then sqrt(abar) and sqrt(1 - abar), each ``(count, 1, 1, 1)``.

        Times are logit-normal (Esser et al. 2024): most in the middle, where smoothing noise lies.
        """
        first, last = self._times
        share = torch.randn(count, generator=self._generator, dtype=torch.float64).sigmoid()
        times = first + (last - first) * share
        remaining = np.asarray(self._schedule.alpha_bar(times.numpy().clip(first, last)))
        alpha_bar = torch.from_numpy(remaining).view(-1, 1, 1, 1)
        return times.float(), alpha_bar.sqrt().float(), (1 - alpha_bar).sqrt().float()


def _check(batch_size: int, augment: float) -> None:
    at_least(1, {"batch_size": batch_size})
    positive({"augment": augment}, zero=True)


def _time_range(schedule: Schedule, sigmas: tuple[float, float] | None) -> tuple[float, float]:
    if sigmas is None:
        return schedule.time_range
    low, high = sigmas
    if not low <= high:
        raise InvalidInput(f"sigmas={sigmas}", "the smallest comes first", "Give (smallest, largest)")
    # On the model's own scale, [-1, 1], noise is twice as large.
    return schedule.time_of(2 * low), schedule.time_of(2 * high)


def _unet(shape: tuple[int, int, int], channels: Sequence[int], layers: int) -> Any:
    """Convolutions only: at this size attention costs more time than it gains accuracy."""
    from diffusers import UNet2DModel

    _check_unet(shape, channels, layers)
    scales, (depth, height, width) = len(channels), shape
    return UNet2DModel(  # type: ignore[no-untyped-call]
        sample_size=height if height == width else (height, width),
        in_channels=depth,
        out_channels=depth,
        block_out_channels=tuple(channels),
        layers_per_block=layers,
        down_block_types=("DownBlock2D",) * scales,
        up_block_types=("UpBlock2D",) * scales,
        add_attention=False,
        norm_num_groups=8,
    )


def _check_unet(shape: tuple[int, int, int], channels: Sequence[int], layers: int) -> None:
    fits = all(side % 2 ** max(0, len(channels) - 1) == 0 for side in shape[1:])
    if not (channels and fits and layers >= 1 and all(c >= 8 and c % 8 == 0 for c in channels)):
        found = f"channels={tuple(channels)}, layers={layers} for images {shape}"
        why = "channels must be multiples of 8, and every scale after the first halves the image"
        raise InvalidInput(found, why, "Write for instance channels=(16, 32)")


def _save(network: Any, schedule: Schedule, out: str | Path) -> None:
    from diffusers import DDPMPipeline, DDPMScheduler

    scheduler = DDPMScheduler(  # type: ignore[no-untyped-call]
        **schedule.to_diffusers(), prediction_type="v_prediction"
    )
    pipeline: Any = DDPMPipeline(network, scheduler)  # type: ignore[no-untyped-call]
    pipeline.save_pretrained(out)
