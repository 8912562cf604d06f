"""A booster: what makes a frozen encoder steadier under noise, a purifier before it and a mapper behind it.

F(x) = E M(f(P(x + noise)), sigma). First the purifier P, any denoiser, taken as it is or trained further;
then, behind it, the mapper M. The encoder f is not changed.

Source: arXiv 2601.16200, its "purifier and smoothness mapper"; losses in ``booster_losses``.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from smoothcert.backends.identity import source_of, weights_of
from smoothcert.encoders import mapper as mappers
from smoothcert.errors import InvalidInput
from smoothcert.protocols import Dataset, Denoiser, Encoder
from smoothcert.training import booster_losses as losses
from smoothcert.training.booster_batches import LEVELS, Batches, Frozen, spread_of
from smoothcert.training.booster_figures import booster_figures
from smoothcert.training.cards import check_place, write_card
from smoothcert.training.images import gather
from smoothcert.training.loop import Progress, Trained, at_least, fit, positive, repeatable
from smoothcert.training.purifier import PURIFIER, tune_purifier
from smoothcert.training.savepoint import SAVEPOINT, Savepoint

_MEASURED = 2048  # images that the mean and spread of clean features are taken from
_HEADS = 4  # of attention over tokens
_SAME = ("steps", "purifier_steps", "batch_size", "rounds", "learning_rate", "purifier_learning_rate")
_FLAGS = {name: "--" + name.replace("_", "-") for name in (*_SAME, "width", "blocks")}
_FLAGS |= {"a": "--weight-rb", "b": "--weight-mse", "c": "--weight-stats", "d": "--weight-id"}
_Features = tuple[Tensor, list[tuple[float, Tensor]]]


def train_booster(
    encoder: Encoder,
    dataset: Dataset,
    out: str | Path,
    *,
    sigmas: tuple[float, float] = (0.12, 0.5),
    denoiser: Denoiser | None = None,
    train_purifier: bool = False,
    steps: int = 2_000,
    purifier_steps: int = 1_000,
    batch_size: int = 16,
    rounds: int = 1,
    learning_rate: float = 2e-4,
    purifier_learning_rate: float = 2e-4,
    a: float = 1.0,
    b: float = 1.0,
    c: float = 0.1,
    d: float = 0.1,
    width: int = 128,
    blocks: int = 2,
    precision: str = "no",
    seed: int = 0,
    held_out: Dataset | None = None,
    device: str = "auto",
    threads: int | None = None,
    command: str = "",
    progress: Progress | None = None,
) -> Trained:
    """Train a mapper behind a frozen encoder, after a purifier where asked, and save it with its card.

    ``encoders.mapper.load(out)`` reads the mapper; a purifier trained here is the directory ``purifier`` in
    ``out`` and is read by ``denoisers.load``. An interrupted training continues from where it was, to the
    bit: a step's images and noise are a pure function of (seed, step).

    Args:
        encoder: images in [0, 1] -> features ``(B, k)`` or ``(B, T, d)``; it is not changed.
        dataset: the images; labels, where there are any, only serve the figures.
        out: the directory to write.
        sigmas: smallest and largest noise, standard deviations on [0, 1] pixels. The mapper is told the noise
            level and refuses one outside.
        denoiser: a deterministic one, in front of the encoder, here and in every run with the mapper.
        train_purifier: train a copy of the denoiser further first, with l_diff + a l_rb + b l_mse.
        steps: optimizer steps of the mapper. purifier_steps: of the purifier.
        batch_size: images a step, each under 4 levels of noise.
        rounds: how often the mapper sees the same features; a later round costs no denoiser and no encoder,
            but memory for the features of ``steps / rounds`` batches. 1 for fresh noise at every step.
        learning_rate: the highest on the way, for the mapper. purifier_learning_rate: for the purifier.
        a, b: weights of l_rb and l_mse beside l_diff, for the purifier.
        c, d: weights of l_stats and l_id beside l_rb, for the mapper.
        width, blocks: size of the mapper.
        precision: ``bf16`` for mixed precision, ``no`` for float32.
        seed: of weights, order, levels and noise.
        held_out: images to measure on for the card: m, the Gaussian robustness score and the certified
            cosine with nothing, purifier, mapper and both.
        device: ``auto`` or ``cpu``.
        threads: of the CPU; ``None`` leaves the number as it is.
        command: the command line that asks for this, for the card.
        progress: told about every step, of each stage anew.

    Raises:
        InvalidInput: settings that cannot train, a stochastic denoiser, or a purifier that cannot be trained.
        ModelOutputError: an encoder that returns no features.
        MissingExtra: accelerate is not installed.
        CheckpointError: ``out`` holds the state of a training with other settings.
    """
    common = {
        "sigmas": list(sigmas), "batch_size": batch_size, "precision": precision, "seed": seed,
        "encoder": source_of(encoder), "encoder_sha256": weights_of(encoder) or "",
        "denoiser": source_of(denoiser) if denoiser else "none",
        "denoiser_sha256": (weights_of(denoiser) or "") if denoiser else "",
    }  # fmt: skip
    settings = {
        **common, "steps": steps, "rounds": rounds, "learning_rate": learning_rate, "c": c, "d": d,
        "width": width, "blocks": blocks,
    }  # fmt: skip
    _check(denoiser, train_purifier, sigmas)
    counts = {
        "steps": steps, "purifier_steps": purifier_steps, "rounds": rounds, "width": width, "blocks": blocks,
    }  # fmt: skip
    rates = {"learning_rate": learning_rate, "purifier_learning_rate": purifier_learning_rate}
    _check_numbers(batch_size, counts, rates, {"a": a, "b": b, "c": c, "d": d})
    if train_purifier:
        mine = {**common, "steps": purifier_steps, "learning_rate": purifier_learning_rate, "a": a, "b": b}
        settings["purifier"] = f"{PURIFIER}, trained here"
        settings |= {f"purifier_{name}": mine[name] for name in ("steps", "learning_rate", "a", "b")}
    check_place(out, "booster", dataset, settings)
    if train_purifier:
        denoiser = tune_purifier(
            denoiser, encoder, dataset, Path(out) / PURIFIER, mine, device, threads, command, progress
        )
    frozen = Frozen(encoder, denoiser)
    drawn = Batches(dataset, batch_size, sigmas, seed, "mapper")
    batches = _MapperLoss(frozen, drawn, c, d, steps, rounds)
    savepoint = Savepoint(Path(out) / SAVEPOINT, settings | {"data": dataset.name})
    with repeatable(seed, threads):
        model = _fresh(frozen, gather(dataset, _MEASURED).images, settings)
        outcome = fit(
            model, batches.loss, steps=steps, learning_rate=learning_rate, weight_decay=0.01, average=0.995,
            device=device, precision=precision, savepoint=savepoint, progress=progress,
        )  # fmt: skip
        frozen.to("cpu")
        figures: Mapping[str, Any] = {}
        if held_out is not None:
            figures = booster_figures(frozen, model, held_out, dataset, sigmas)
    mappers.save(model, out)
    write_card(out, "booster", dataset, settings, outcome, figures, command)
    savepoint.remove()
    return Trained(Path(out), outcome.steps, outcome.seconds, outcome.loss, figures)


class _MapperLoss:
    """l_rb + c l_stats + d l_id of a mapper, for the batch of a step; each batch comes ``rounds`` times."""

    def __init__(self, frozen: Frozen, batches: Batches, c: float, d: float, steps: int, rounds: int) -> None:
        self._frozen, self._batches, self._c, self._d = frozen, batches, c, d
        self._steps, self._fresh = steps, -(-steps // rounds)
        self._kept: dict[int, _Features] = {}

    def loss(self, model: nn.Module, device: torch.device, step: int) -> Tensor:
        """The mean over the noise levels of a step; no noise of level 0 is drawn for l_id."""
        assert isinstance(model, mappers.Mapper)
        clean, levels = self._features(step, device)
        zero = model.residual(clean, torch.zeros(len(clean), device=device)).float()
        total = self._d * losses.identity(zero, clean)
        for sigma, seen in levels:
            mapped = model(seen, sigma).float()
            here = losses.robustness(mapped, clean)
            here = here + self._c * losses.statistics(mapped, clean, model.scale)
            total = total + here / LEVELS
        return total

    def _features(self, step: int, device: torch.device) -> _Features:
        """Features of clean images, and of noisy ones with their sigma: what is not trained."""
        number = step % self._fresh
        found = self._kept.get(number)
        if found is None:
            self._frozen.to(device)
            batch = self._batches.at(number, device)
            clean = self._frozen.clean(batch.clean)
            found = clean, [(sigma, self._frozen.seen(noisy, sigma)) for sigma, noisy in batch.noisy()]
            if step + self._fresh < self._steps:
                self._kept[number] = found
        return found


def _fresh(frozen: Frozen, images: Tensor, settings: Mapping[str, Any]) -> mappers.Mapper:
    """A mapper of the right shape that changes nothing yet, for features of such a spread."""
    centre, scale = spread_of(frozen, images)
    low, high = settings["sigmas"]
    model = mappers.Mapper(
        mappers.MapperConfig(
            dimension=len(centre),
            sigmas=(low, high),
            width=settings["width"],
            blocks=settings["blocks"],
            heads=_HEADS if frozen.clean(images[:2]).ndim == 3 else 0,
            encoder=settings["encoder"],
            denoiser=settings.get("purifier", settings["denoiser"]),
        )
    )
    model.centre.copy_(centre)
    model.scale.copy_(scale)
    return model


def _check(
    denoiser: Any,
    train_purifier: bool,
    sigmas: tuple[float, float],
) -> None:
    if len(sigmas) != 2 or not 0 < sigmas[0] <= sigmas[1] < math.inf:
        why = "a booster is trained for a range of noise, smallest first, both positive"
        raise InvalidInput(f"sigmas={sigmas}", why, "Write for instance sigmas=(0.12, 0.5)")
    if getattr(denoiser, "stochastic", False):
        why = "training draws its own noise, and this denoiser wants named draws"
        raise InvalidInput("a stochastic denoiser", why, "Use its one-shot sampler")
    if train_purifier and denoiser is None:
        why = "the purifier is a denoiser that is trained further"
        raise InvalidInput("train_purifier without a denoiser", why, "Pass the denoiser to start from")


def _check_numbers(
    batch_size: int, counts: dict[str, int], rates: dict[str, float], weights: dict[str, float]
) -> None:
    why = "statistics over a batch need two images or more"
    at_least(2, {"batch_size": batch_size}, why=why, flags=_FLAGS)
    at_least(1, counts, flags=_FLAGS)
    positive(rates, flags=_FLAGS)
    positive(weights, zero=True, flags=_FLAGS)
