"""The first stage of a booster: a denoiser trained further, so that the encoder sees what it saw in clean
images."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from smoothcert import denoisers
from smoothcert.checkpoints import CARD, read_card
from smoothcert.denoisers import diffusers, residual_unet
from smoothcert.denoisers.diffusion import DiffusionDenoiser
from smoothcert.diffusion.closed_form import EdmSchedule
from smoothcert.diffusion.preconditioning import EdmPreconditioning
from smoothcert.errors import CheckpointError, InvalidInput
from smoothcert.protocols import Dataset
from smoothcert.training import booster_losses as losses
from smoothcert.training.booster_batches import LEVELS, Batches, Frozen
from smoothcert.training.cards import write_card
from smoothcert.training.loop import Progress, fit, repeatable
from smoothcert.training.savepoint import SAVEPOINT, Savepoint

PURIFIER = "purifier"
"""The directory of the trained purifier, inside that of its booster."""


def tune_purifier(
    denoiser: Any,
    encoder: Any,
    dataset: Dataset,
    out: Path,
    settings: Mapping[str, Any],
    device: str = "auto",
    threads: int | None = None,
    command: str = "",
    progress: Progress | None = None,
) -> denoisers.DescribedDenoiser:
    """Train a copy of a denoiser with l_diff + a l_rb + b l_mse, save it, and give what was saved.

    A purifier that is in ``out`` already, made with the same settings, is taken as it is.

    Args:
        denoiser: a one-shot ``DiffusionDenoiser`` whose network is a ``ResidualUNet`` or of diffusers.
        encoder: f, not changed.
        dataset: the images.
        out: the directory to write; ``denoisers.load`` reads it.
        settings: ``sigmas``, ``batch_size``, ``learning_rate``, ``precision``, ``seed``, ``steps``, ``a``,
            ``b``, and what else names the training.
        device, threads, command, progress: as for ``train_booster``.

    Raises:
        InvalidInput: a denoiser that cannot be trained or saved, or an encoder without gradients.
        CheckpointError: ``out`` holds a purifier trained with other settings.
    """
    _check(denoiser)
    settings = {**settings, "data": dataset.name}
    if (out / CARD).exists():
        _same(out, settings)
        return denoisers.load(str(out))
    sigmas = (float(settings["sigmas"][0]), float(settings["sigmas"][1]))
    batches = Batches(dataset, int(settings["batch_size"]), sigmas, int(settings["seed"]), PURIFIER)
    mine = copy.deepcopy(denoiser)
    loss = _PurifierLoss(mine, Frozen(encoder, None), batches, float(settings["a"]), float(settings["b"]))
    savepoint = Savepoint(out / SAVEPOINT, settings)
    with repeatable(int(settings["seed"]), threads):
        outcome = fit(
            mine.network.requires_grad_(True), loss.loss, steps=int(settings["steps"]),
            learning_rate=float(settings["learning_rate"]), weight_decay=0.0, average=0.995, device=device,
            precision=str(settings["precision"]), savepoint=savepoint, progress=progress,
        )  # fmt: skip
    loss.frozen.to("cpu")
    save_purifier(mine, out)
    write_card(out, "denoiser", dataset, settings, outcome, {}, command)
    savepoint.remove()
    return denoisers.load(str(out))


def save_purifier(denoiser: DiffusionDenoiser, directory: str | Path) -> None:
    """Write a denoiser so that ``denoisers.load`` reads it: our residual U-Net, or diffusers' layout."""
    network = denoiser.network
    if not isinstance(network, residual_unet.ResidualUNet):
        diffusers.save(denoiser, directory)
        return
    scaling, schedule = denoiser.preconditioning, denoiser.schedule
    assert isinstance(scaling, EdmPreconditioning)
    assert isinstance(schedule, EdmSchedule)
    residual_unet.save(
        network,
        directory,
        preconditioning="edm",
        sigma_data=scaling.sigma_data,
        trained_sigma=(schedule.least / 2, schedule.most / 2),
    )


class _PurifierLoss:
    """l_diff + a l_rb + b l_mse of a denoiser, for the batch of a step; one pass gives all three."""

    def __init__(
        self, denoiser: DiffusionDenoiser, frozen: Frozen, batches: Batches, a: float, b: float
    ) -> None:
        self.frozen, self._batches, self._a, self._b = frozen, batches, a, b
        self._open = DiffusionDenoiser(
            denoiser.network, denoiser.schedule, prediction=denoiser.preconditioning, clamp=False
        )

    def loss(self, network: nn.Module, device: torch.device, step: int) -> Tensor:
        """The mean over the noise levels of a step."""
        assert network is self._open.network
        self.frozen.to(device)
        batch = self._batches.at(step, device)
        clean = self.frozen.clean(batch.clean)
        total = torch.zeros((), device=device)
        for sigma, noisy in batch.noisy():
            estimate = self._open(noisy, sigma).float()
            image = estimate.clamp(0, 1)
            features = self.frozen.encoded(image)
            if not features.requires_grad:
                why = "l_rb needs the gradient of its features by its images"
                raise InvalidInput("an encoder without gradients", why, "Train only the mapper behind it")
            here = losses.diffusion(estimate, batch.clean, sigma)
            here = here + self._a * losses.robustness(features, clean)
            total = total + (here + self._b * losses.pixels(image, batch.clean)) / LEVELS
        return total


def _check(denoiser: Any) -> None:
    from diffusers import UNet2DModel

    network = getattr(denoiser, "network", None)
    known = isinstance(denoiser, DiffusionDenoiser) and isinstance(
        network, residual_unet.ResidualUNet | UNet2DModel
    )
    if not known or denoiser.stochastic or denoiser.sampler.name != "one-shot":
        what = f"a network of type {type(network).__name__}" if network else type(denoiser).__name__
        found = f"a purifier to train from {what}, {getattr(denoiser, 'source', 'unnamed')}"
        why = "only one-shot diffusion denoisers that can be saved again are trained further"
        instead = "Give a directory of smoothcert train or of diffusers, or train the mapper alone"
        raise InvalidInput(found, why, instead)


def _same(directory: Path, settings: Mapping[str, Any]) -> None:
    made = dict(read_card(directory).content.get("training", {}))
    if any(made.get(name) != value for name, value in settings.items()):
        why = f"it was made with settings {made}, not {dict(settings)}"
        raise CheckpointError(f"purifier {str(directory)!r}", why, "Delete it, or train elsewhere")
