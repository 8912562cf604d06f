"""Boosters: their losses, the order purifier then mapper, what stays as it was, and what they gain."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from smoothcert import denoisers, encoders
from smoothcert.backends.identity import weight_hash
from smoothcert.checkpoints import read_card
from smoothcert.datasets import ArrayDataset, load
from smoothcert.denoisers import edm, residual_unet
from smoothcert.encoders import mapper as mappers
from smoothcert.errors import CheckpointError, InvalidInput, ModelOutputError
from smoothcert.training import Trained, booster, booster_losses, purifier, savepoint, train_booster
from smoothcert.training.booster_batches import LEVELS, Batches, Frozen, spread_of
from smoothcert.training.booster_figures import booster_figures

DIGITS = load("digits:train[:256]")
HELD_OUT = load("digits:test[:100]")
CPU = torch.device("cpu")


def boost(out: Path, **options: Any) -> Trained:
    small = {"steps": 8, "purifier_steps": 5, "batch_size": 8, "width": 16, "blocks": 1, "device": "cpu"}
    encoder = options.pop("encoder", None) or encoders.load("digits")
    return train_booster(
        encoder, options.pop("data", DIGITS), out, **{**small, "sigmas": (0.25, 1.0), **options}
    )


def weights(directory: Path) -> dict[str, Tensor]:
    return load_file(directory / "model.safetensors")


# Losses


def test_losses_by_hand() -> None:
    noisy = torch.tensor([[3.0, 4.0], [0.0, 2.0]])
    clean = torch.tensor([[1.0, 0.0], [0.0, 1.0]])
    # cosines 3/5 and 1
    assert float(booster_losses.robustness(noisy, clean)) == pytest.approx((0.4 + 0.0) / 2)
    # means 1.5, 3 against .5, .5; deviations 1.5, 1 against .5, .5; in units of 1 and 2
    wanted = ((1.5 - 0.5) ** 2 + (1.5 - 0.5) ** 2 + ((3 - 0.5) / 2) ** 2 + ((1 - 0.5) / 2) ** 2) / 2
    assert float(booster_losses.statistics(noisy, clean, torch.tensor([1.0, 2.0]))) == pytest.approx(wanted)
    assert float(booster_losses.identity(noisy, 2 * clean)) == pytest.approx((9 + 16 + 4) / 8)
    assert float(booster_losses.diffusion(noisy, clean, 0.5)) == pytest.approx((4 + 16 + 0 + 1) / 4 / 0.25)
    assert float(booster_losses.pixels(noisy, clean)) == pytest.approx((4 + 16 + 0 + 1) / 4)


def test_losses_of_tokens_are_those_of_one_row_an_image() -> None:
    noisy, clean = torch.randn(3, 4, 5), torch.randn(3, 4, 5)
    rows = booster_losses.robustness(noisy.reshape(3, 20), clean.reshape(3, 20))
    torch.testing.assert_close(booster_losses.robustness(noisy, clean), rows)
    scale = torch.rand(5) + 0.5
    by_token = booster_losses.statistics(noisy.reshape(12, 5), clean.reshape(12, 5), scale)
    torch.testing.assert_close(booster_losses.statistics(noisy, clean, scale), by_token)


def test_the_diffusion_loss_is_the_error_of_the_predicted_noise() -> None:
    """For a model that predicts the noise itself, whatever it says."""
    images, noise, answer, sigma = (
        torch.rand(4, 1, 8, 8),
        torch.randn(4, 1, 8, 8),
        torch.randn(4, 1, 8, 8),
        0.4,
    )
    noisy = images + sigma * noise
    found = booster_losses.diffusion(noisy - sigma * answer, images, sigma)
    torch.testing.assert_close(found, (noise - answer).square().mean())


def test_statistics_hold_a_collapse_back() -> None:
    clean = torch.randn(64, 8)
    same = clean.mean(0).expand(64, 8)
    one = torch.ones(8)
    assert float(booster_losses.statistics(clean, clean, one)) == pytest.approx(0, abs=1e-6)
    assert float(booster_losses.statistics(same, clean, one)) > 0.7


# Batches


def test_a_batch_is_a_pure_function_of_seed_purpose_and_step() -> None:
    def read(seed: int, purpose: str, step: int) -> Tensor:
        batch = Batches(DIGITS, 8, (0.25, 1.0), seed, purpose).at(step, CPU)
        return torch.cat([batch.clean, *(noisy for _, noisy in batch.noisy())])

    assert torch.equal(read(0, "mapper", 5), read(0, "mapper", 5))
    others = [read(1, "mapper", 5), read(0, "purifier", 5), read(0, "mapper", 6)]
    assert not any(torch.equal(read(0, "mapper", 5), other) for other in others)


def test_noise_is_of_the_level_it_says_and_levels_cover_the_range() -> None:
    levels = []
    batches = Batches(DIGITS, 64, (0.1, 0.8), 0, "test")
    for step in range(50):
        batch = batches.at(step, CPU)
        for sigma, noisy in batch.noisy():
            levels.append(sigma)
            assert float((noisy - batch.clean).std()) == pytest.approx(sigma, rel=0.06)
    shares = np.sort(np.log(np.array(levels) / 0.1) / math.log(8))
    assert len(levels) == 50 * LEVELS
    assert abs(shares - (np.arange(200) + 0.5) / 200).max() < 0.06


def test_the_spread_is_that_of_each_dimension() -> None:
    frozen = Frozen(
        lambda x: torch.cat([x.flatten(1), 3 * x.flatten(1)[:, :1] - 1, 0 * x.flatten(1)[:, :1]], 1), None
    )
    images = torch.rand(400, 1, 2, 2)
    mean, spread = spread_of(frozen, images, size=32)
    torch.testing.assert_close(mean[:4], images.flatten(1).mean(0))
    torch.testing.assert_close(spread[:4], images.flatten(1).std(0, correction=0))
    torch.testing.assert_close(spread[4], 3 * spread[0])
    assert 0 < float(spread[5]) < 0.05


# Training


def test_the_purifier_comes_first_and_the_mapper_sees_what_it_leaves(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    order: list[str] = []
    real = booster.fit

    def listening(model: nn.Module, *given: Any, **options: Any) -> Any:
        order.append(type(model).__name__)
        return real(model, *given, **options)

    monkeypatch.setattr(booster, "fit", listening)
    monkeypatch.setattr(purifier, "fit", listening)
    seen: list[Tensor] = []
    encoder = encoders.load("digits")

    def watched(images: Tensor) -> Tensor:
        if order[-1:] == ["Mapper"]:
            seen.append(images.detach().clone())
        return encoder(images)

    boost(tmp_path, encoder=watched, denoiser=denoisers.load("digits"), train_purifier=True)
    assert order == ["UNet2DModel", "Mapper"]
    made = denoisers.load(str(tmp_path / "purifier"))
    batch = Batches(DIGITS, 8, (0.25, 1.0), 0, "mapper").at(0, CPU)
    assert torch.equal(seen[0], batch.clean)
    for image, (sigma, noisy) in zip(seen[1:], batch.noisy(), strict=False):
        torch.testing.assert_close(image, made(noisy, sigma), rtol=0, atol=1e-5)
        assert not torch.allclose(image, denoisers.load("digits")(noisy, sigma), rtol=0, atol=1e-4)


def test_encoder_and_denoiser_stay_as_they_are_to_the_bit(tmp_path: Path) -> None:
    encoder, denoiser = encoders.load("digits"), denoisers.load("digits")
    modules: list[Any] = [encoder, denoiser.network]  # type: ignore[attr-defined]
    images = torch.rand(4, 1, 8, 8)
    with torch.inference_mode():
        before = encoder(images)
    hashes = [weight_hash([module]) for module in modules]
    boost(
        tmp_path,
        encoder=encoder,
        denoiser=denoiser,
        train_purifier=True,
        learning_rate=0.1,
        purifier_learning_rate=0.1,
    )
    assert [weight_hash([module]) for module in modules] == hashes
    with torch.inference_mode():
        torch.testing.assert_close(encoder(images), before)  # the weights' layout in memory may differ
    assert all(part.grad is None for module in modules for part in module.parameters())


class Stopped(Exception):
    """The plug was pulled."""


def pull_the_plug(at: int) -> Callable[[int, int, float], None]:
    calls = []

    def progress(_step: int, _steps: int, _loss: float) -> None:
        calls.append(1)
        if len(calls) == at:
            raise Stopped

    return progress


@pytest.mark.parametrize("at", [3, 5, 6, 12])  # in the purifier, after its last step, in the mapper
@pytest.mark.parametrize("rounds", [1, 3])
def test_an_interrupted_training_ends_as_an_undisturbed_one(
    tmp_path: Path, at: int, rounds: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(savepoint, "SECONDS_BETWEEN", 0.0)
    options: dict[str, Any] = {"denoiser": denoisers.load("digits"), "train_purifier": True, "rounds": rounds}
    straight, steps = boost(tmp_path / "straight", **options), []
    with pytest.raises(Stopped):
        boost(tmp_path / "cut", **options, progress=pull_the_plug(at))
    resumed = boost(tmp_path / "cut", **options, progress=lambda *_: steps.append(1))
    assert len(steps) == 13 - at, "it began anew"
    assert resumed.loss == straight.loss
    first, second = weights(tmp_path / "straight"), weights(tmp_path / "cut")
    assert all(torch.equal(first[name], second[name]) for name in first)
    unet = Path("purifier/unet/diffusion_pytorch_model.safetensors")
    one, other = load_file(tmp_path / "straight" / unet), load_file(tmp_path / "cut" / unet)
    assert all(torch.equal(one[name], other[name]) for name in one)
    assert not list(tmp_path.rglob("training.pt"))


def test_a_later_round_asks_neither_encoder_nor_denoiser_and_sees_the_same_batches(tmp_path: Path) -> None:
    inner, asked = encoders.load("digits"), []

    def counting(images: Tensor) -> Tensor:
        asked.append(len(images))
        return inner(images)

    losses: dict[int, list[float]] = {}
    for rounds in (1, 4):
        asked.clear()
        seen: list[float] = losses.setdefault(rounds, [])
        told = {"progress": lambda _s, _n, loss, seen=seen: seen.append(loss)}
        boost(tmp_path / str(rounds), encoder=counting, rounds=rounds, learning_rate=1e-12, **told)
        assert asked.count(8) == (1 + LEVELS) * 8 // rounds
    assert losses[4] == pytest.approx(2 * losses[1][:2] + 2 * losses[1][:2], rel=1e-4)
    assert len(set(np.round(losses[1], 4))) == 8


def test_the_state_and_the_purifier_of_another_training_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(savepoint, "SECONDS_BETWEEN", 0.0)
    options: dict[str, Any] = {"denoiser": denoisers.load("digits"), "train_purifier": True}
    with pytest.raises(Stopped):
        boost(tmp_path, **options, progress=pull_the_plug(7))
    with pytest.raises(CheckpointError, match="with settings"):
        boost(tmp_path, **options, c=0.5)  # the mapper's state
    with pytest.raises(CheckpointError, match="made with settings"):
        boost(tmp_path, **options, a=0.5)  # the purifier that is there


def test_without_noise_a_trained_mapper_hardly_moves_features(tmp_path: Path) -> None:
    """Because of l_id: without it they move much farther."""
    frozen = Frozen(encoders.load("digits"), None)
    batch = Batches(HELD_OUT, 100, (1.0, 1.0), 0, "check").at(0, CPU)
    clean = frozen.clean(batch.clean)
    noisy = frozen.seen(next(batch.noisy())[1], 1.0)

    def moved(directory: str, d: float) -> tuple[float, float]:
        boost(tmp_path / directory, steps=120, learning_rate=2e-3, d=d)
        model = mappers.load(tmp_path / directory)
        still = model.residual(clean, torch.zeros(100)).square().sum() / clean.square().sum()
        at_work = model.residual(noisy, torch.ones(100)).square().sum() / noisy.square().sum()
        return float(still), float(at_work)

    still, at_work = moved("held", 1.0)
    free, _ = moved("free", 0.0)
    assert still < 0.02
    assert at_work > 5 * still, "it does nothing at all"
    assert free > 3 * still


def test_a_booster_makes_features_steadier_and_keeps_their_use(tmp_path: Path) -> None:
    done = boost(
        tmp_path, data=load("digits:train"), held_out=HELD_OUT, denoiser=denoisers.load("digits"),
        train_purifier=True, steps=200, purifier_steps=40, width=64, learning_rate=1e-3,
    )  # fmt: skip
    found = done.figures
    assert all(both > alone for both, alone in zip(found["m_both"], found["m_purifier"], strict=True))
    assert all(both > none + 0.05 for both, none in zip(found["m_both"], found["m_nothing"], strict=True))
    assert all(both > alone for both, alone in zip(found["score_both"], found["score_purifier"], strict=True))
    assert found["cosine_0.25_both"][1] > found["cosine_0.25_nothing"][1] + 0.05
    assert all(b > p - 3 for b, p in zip(found["prototypes_both"], found["prototypes_purifier"], strict=True))
    assert found["prototypes_both"][1] > found["prototypes_nothing"][1] + 5
    assert read_card(tmp_path).content["figures"]["m_both"] == found["m_both"]


def test_a_collapsed_mapper_is_found_out_by_the_figures() -> None:
    """It has m = 1 and certifies everything; it can tell nothing apart."""
    encoder = encoders.load("digits")
    dimension = encoder(torch.zeros(1, 1, 8, 8)).shape[1]

    class Collapsed(mappers.Mapper):
        def residual(self, features: Tensor, sigmas: Tensor) -> Tensor:
            return torch.ones_like(features) - features

    model = Collapsed(mappers.MapperConfig(dimension, (0.25, 1.0)))
    found = booster_figures(Frozen(encoder, None), model, HELD_OUT, load("digits:train"), (0.25, 1.0))
    assert found["m_mapper"] == [1.0, 1.0, 1.0]
    assert found["alike_mapper"] == [1.0, 1.0, 1.0]
    assert max(found["retrieval_mapper"]) <= 2
    assert max(found["prototypes_mapper"]) < 30
    assert found["prototypes_clean"] > 90
    assert found["retrieval_clean"] == 100.0


def test_figures_of_a_known_feature_map() -> None:
    """f = (first pixel, twice the square of the second one): noise turns its mean away from the clean feature.

    So m and 2 S - 1 differ; both are means over (1 + sigma g1, 2 (sigma g2)^2) as a direction.
    """
    image = np.zeros((1, 2, 2), np.float32)
    image[0, 0, 0] = 1.0
    data = ArrayDataset(np.stack([image] * 100), [0, 1] * 50, levels=None)

    def encoder(images: Tensor) -> Tensor:
        return torch.stack([images[:, 0, 0, 0], 2 * images[:, 0, 0, 1] ** 2], dim=1)

    model = mappers.Mapper(mappers.MapperConfig(2, (0.5, 0.5)))
    found = booster_figures(Frozen(encoder, None), model, data, data, (0.5, 0.5))
    draws = 0.5 * np.random.default_rng(0).normal(size=(1_000_000, 2))
    rows = np.stack([1 + draws[:, 0], 2 * draws[:, 1] ** 2], axis=1)
    mean = (rows / np.linalg.norm(rows, axis=1, keepdims=True)).mean(axis=0)
    m, score = float(np.linalg.norm(mean)), float(1 + mean[0]) / 2
    assert (1 + m) / 2 > score + 0.03
    assert found["m_nothing"] == found["m_mapper"] == [pytest.approx(m, abs=0.01)]
    assert found["score_nothing"] == [pytest.approx(score, abs=0.01)]
    assert found["sigma"] == [0.5]


def test_tokens_get_attention_and_come_back_as_tokens(tmp_path: Path) -> None:
    inner = encoders.load("digits")
    boost(tmp_path, encoder=lambda images: inner(images).unflatten(1, (-1, 8)), held_out=HELD_OUT)
    model = mappers.load(tmp_path)
    assert model.config.heads > 0
    assert model.config.dimension == 8
    assert model(torch.randn(2, 32, 8), 0.5).shape == (2, 32, 8)


def test_the_card_says_how_it_was_made(tmp_path: Path) -> None:
    encoder = encoders.load("digits")
    boost(tmp_path, encoder=encoder, command="smoothcert train booster --out there")
    content = read_card(tmp_path).content
    assert content["command"] == "smoothcert train booster --out there"
    assert content["training"]["encoder"] == mappers.load(tmp_path).config.encoder == "digits"
    assert content["training"]["encoder_sha256"]
    assert content["training"]["denoiser"] == "none"
    assert mappers.load(tmp_path).sigmas == (0.25, 1.0)


SETTINGS = {
    "sigmas": [0.25, 1.0],
    "batch_size": 16,
    "learning_rate": 5e-4,
    "precision": "no",
    "seed": 0,
    "b": 1.0,
}


def test_a_purifier_trained_for_the_encoder_serves_it_better_than_one_trained_for_pixels(
    tmp_path: Path,
) -> None:
    encoder, start = encoders.load("digits"), denoisers.load("digits")
    batch = Batches(HELD_OUT, 100, (0.25, 1.0), 7, "check").at(0, CPU)
    levels = list(batch.noisy())

    def loss(denoiser: Any) -> float:
        part = Frozen(encoder, denoiser)
        clean = part.clean(batch.clean)
        return sum(
            float(booster_losses.robustness(part.seen(noisy, sigma), clean)) for sigma, noisy in levels
        )

    def tuned(a: float) -> Any:
        settings = {**SETTINGS, "steps": 40, "a": a}
        return purifier.tune_purifier(start, encoder, load("digits:train"), tmp_path / str(a), settings)

    for_pixels, for_encoder = loss(tuned(0.0)), loss(tuned(3.0))
    assert for_encoder < 0.98 * loss(start)
    assert for_encoder < 0.99 * for_pixels


@pytest.mark.parametrize("make", ["diffusers", "residual"])
def test_a_trained_purifier_is_read_again_as_the_denoiser_it_was(tmp_path: Path, make: str) -> None:
    if make == "diffusers":
        start: Any = denoisers.load("digits")
    else:
        network = residual_unet.ResidualUNet(residual_unet.ResidualUNetConfig(1, (8, 16), 1))
        start = edm.preconditioned(network, sigma_data=0.4, sigma_range=(0.05, 2.0))
    settings = {**SETTINGS, "steps": 2, "a": 1.0}
    made = purifier.tune_purifier(start, encoders.load("digits"), DIGITS, tmp_path, settings)
    assert made.describe() == start.describe() == denoisers.load(str(tmp_path)).describe()
    assert weight_hash([made.network]) != weight_hash([start.network])  # type: ignore[attr-defined]


# Bad input


@pytest.mark.parametrize(
    ("changed", "error", "message"),
    [
        ({"sigmas": (0.5, 0.25)}, InvalidInput, "smallest first"),
        ({"sigmas": (0.0, 0.25)}, InvalidInput, "smallest first"),
        ({"sigmas": (0.1, math.inf)}, InvalidInput, "smallest first"),
        ({"train_purifier": True}, InvalidInput, "without a denoiser"),
        ({"denoiser": denoisers.load("digits", sampler="ancestral")}, InvalidInput, "named draws"),
        (
            {"denoiser": denoisers.load("digits", sampler="ddim:3"), "train_purifier": True},
            InvalidInput,
            "one-shot",
        ),
        ({"denoiser": denoisers.load("identity"), "train_purifier": True}, InvalidInput, "purifier"),
        ({"batch_size": 1}, InvalidInput, "two images"),
        ({"rounds": 0}, InvalidInput, "rounds=0"),
        ({"a": -1.0}, InvalidInput, r"^a=-1\.0 \(--weight-rb\): it is a finite number, 0 or more"),
        ({"c": -1.0}, InvalidInput, r"^c=-1\.0 \(--weight-stats\)"),
        ({"d": math.nan}, InvalidInput, r"^d=nan \(--weight-id\)"),
        ({"batch_size": 0}, InvalidInput, r"^batch_size=0 \(--batch-size\): statistics"),
        ({"steps": 0}, InvalidInput, r"^steps=0 \(--steps\): it is a whole number, 1 or more"),
        ({"purifier_steps": 0}, InvalidInput, r"^purifier_steps=0 \(--purifier-steps\)"),
        ({"learning_rate": 0.0}, InvalidInput, r"^learning_rate=0\.0 \(--learning-rate\)"),
        ({"threads": 0}, InvalidInput, "^threads=0: it"),
        ({"precision": "int4"}, InvalidInput, "^precision=int4: it"),
        ({"width": 0}, InvalidInput, r"^width=0 \(--width\)"),
        ({"encoder": lambda images: images}, ModelOutputError, "features"),
        ({"encoder": lambda images: images.argmax(3).flatten(1)}, ModelOutputError, "features"),
        ({"encoder": lambda images: torch.ones(len(images), 5)}, InvalidInput, "nothing in them"),
        ({"encoder": lambda images: images.flatten(1) / 0}, InvalidInput, "nothing in them"),
    ],
)
def test_what_cannot_be_boosted_is_refused_before_anything_is_written(
    tmp_path: Path, changed: dict[str, Any], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        boost(tmp_path / "out", **changed)
    assert not (tmp_path / "out").exists()


def test_a_purifier_needs_an_encoder_with_gradients(tmp_path: Path) -> None:
    inner = encoders.load("digits")

    @torch.no_grad()
    def closed(images: Tensor) -> Tensor:
        return inner(images)

    with pytest.raises(InvalidInput, match="without gradients"):
        boost(tmp_path, encoder=closed, denoiser=denoisers.load("digits"), train_purifier=True)
