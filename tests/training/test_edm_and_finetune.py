"""Trainings that may be interrupted: the EDM denoiser, and fine-tuning on denoised or noisy images."""

from __future__ import annotations

import math
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn

from smoothcert import classifiers, denoisers
from smoothcert.checkpoints import read_card
from smoothcert.datasets import ArrayDataset, load
from smoothcert.denoisers import residual_unet
from smoothcert.errors import CheckpointError, InvalidInput
from smoothcert.training import Trained, accuracy, finetune, psnr, savepoint, train_edm_denoiser
from smoothcert.training.edm import _Batches
from smoothcert.training.images import mirrored, named_generator, positions, shifted

DIGITS = load("digits:train[:256]")
HELD_OUT = load("digits:test[:100]")


def edm(out: Path, **options: Any) -> Trained:
    small = {"steps": 12, "batch_size": 32, "channels": (8, 16), "blocks": 1, "precision": "no"}
    return train_edm_denoiser(DIGITS, out, **{**small, "flip": False, "device": "cpu", **options})


def tune(out: Path, **options: Any) -> Trained:
    small = {"epochs": 1.5, "batch_size": 32, "sigma": 0.5, "flip": False, "shift": 1, "device": "cpu"}
    return finetune(classifiers.load("digits"), DIGITS, out, **{**small, **options})


BOTH = pytest.mark.parametrize("train", [edm, tune])
Train = Callable[..., Trained]


class Stopped(Exception):
    """The plug was pulled."""


def pull_the_plug(at: int) -> Callable[[int, int, float], None]:
    def progress(step: int, _steps: int, _loss: float) -> None:
        if step == at:
            raise Stopped

    return progress


def weights(directory: Path) -> dict[str, Tensor]:
    return load_file(directory / "model.safetensors")


@BOTH
@pytest.mark.parametrize("at", [1, 7, 11])
def test_an_interrupted_training_ends_as_an_undisturbed_one(
    tmp_path: Path, train: Train, at: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(savepoint, "SECONDS_BETWEEN", 0.0)
    straight, seen = train(tmp_path / "straight"), []
    with pytest.raises(Stopped):
        train(tmp_path / "cut", progress=pull_the_plug(at))
    assert (tmp_path / "cut" / "training.pt").exists()
    resumed = train(tmp_path / "cut", progress=lambda step, *_: seen.append(step))
    assert seen[0] == at + 1, "it began anew"
    assert resumed.loss == straight.loss
    first, second = weights(tmp_path / "straight"), weights(tmp_path / "cut")
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert not (tmp_path / "cut" / "training.pt").exists()


@BOTH
def test_the_state_of_another_training_is_refused(
    tmp_path: Path, train: Train, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(savepoint, "SECONDS_BETWEEN", 0.0)
    with pytest.raises(Stopped):
        train(tmp_path, progress=pull_the_plug(3))
    with pytest.raises(CheckpointError, match="with settings"):
        train(tmp_path, learning_rate=1e-4)


class _Bomb:
    def __init__(self, witness: Path) -> None:
        self.witness = witness

    def __reduce__(self) -> Any:
        return Path.touch, (self.witness,)


@pytest.mark.parametrize("content", [b"", b"nonsense", "bomb"])
def test_a_damaged_or_malicious_savepoint_is_refused(tmp_path: Path, content: Any) -> None:
    witness = tmp_path / "executed"
    written = pickle.dumps({"step": _Bomb(witness)}, protocol=2) if content == "bomb" else content
    (tmp_path / "training.pt").write_bytes(written)
    with pytest.raises(CheckpointError, match="savepoint"):
        edm(tmp_path)
    assert not witness.exists()


def test_the_networks_target_is_the_one_its_preconditioning_turns_into_the_clean_image() -> None:
    """All images alike: the right answer is known at every noise level, and its loss is zero."""
    image = np.random.default_rng(0).integers(0, 256, (1, 3, 8, 8))
    data = ArrayDataset(np.repeat(image, 16, 0), [0] * 16, levels=255)
    clean = 2 * torch.from_numpy(image / 255).float() - 1

    class Oracle(nn.Module):
        def forward(self, shown: Tensor, level: Tensor) -> Tensor:
            sigma = (4 * level).exp()[:, None, None, None]
            total = (sigma**2 + 0.25).sqrt()
            return (clean - 0.25 / total * shown) * total / (0.5 * sigma)

    batches = _Batches(data, 8, 0.3, 1.0, False, 0)
    loss = batches.loss(Oracle(), torch.device("cpu"), 5)
    assert float(loss) < 1e-7
    # With the preconditioning that will be used after training the same answer is the image itself.
    found = denoisers.edm.preconditioned(Oracle())(clean / 2 + 0.5 + 0.25 * torch.randn(1, 3, 8, 8), 0.25)
    torch.testing.assert_close(found, clean / 2 + 0.5, atol=1e-5, rtol=0)


def test_the_noise_trained_on_is_spread_around_the_typical_level() -> None:
    levels: list[Tensor] = []

    class Listener(nn.Module):
        def forward(self, shown: Tensor, level: Tensor) -> Tensor:
            levels.append(level)
            return shown

    batches = _Batches(DIGITS, 256, 0.3, 0.5, True, 0)
    for step in range(40):
        batches.loss(Listener(), torch.device("cpu"), step)
    logs = 4 * torch.cat(levels) - math.log(2 * 0.3)
    assert abs(float(logs.mean())) < 0.03
    assert abs(float(logs.std()) - 0.5) < 0.02
    low, high = batches.range
    assert float((4 * torch.cat(levels)).exp().min()) / 2 >= low * 0.999
    assert float((4 * torch.cat(levels)).exp().max()) / 2 <= high * 1.001


def test_a_round_shows_every_image_once_and_rounds_differ() -> None:
    first = torch.cat([positions(step, 100, 10, seed=3) for step in range(10)])
    second = torch.cat([positions(step, 100, 10, seed=3) for step in range(10, 20)])
    assert sorted(first.tolist()) == sorted(second.tolist()) == list(range(100))
    assert not torch.equal(first, second)
    assert not torch.equal(positions(0, 100, 10, seed=3), positions(0, 100, 10, seed=4))
    assert positions(3, 10, 4, seed=0).shape == (4,)  # an incomplete rest is left out


def test_mirroring_and_shifting_do_what_they_say() -> None:
    images = torch.rand(400, 1, 6, 5)
    turned = mirrored(images, named_generator(0, "test", 0))
    same = (turned == images).flatten(1).all(1)
    assert 150 < int(same.sum()) < 250
    assert torch.equal(turned[~same], images[~same].flip(3))
    moved = shifted(images, 2, named_generator(0, "test", 1))
    shapes = {
        tuple((one != 0).nonzero().amax(0)[1:].tolist()) + tuple((one != 0).nonzero().amin(0)[1:].tolist())
        for one in moved
    }
    assert moved.shape == images.shape
    assert len(shapes) == 25, "all 5 x 5 shifts occur"
    centre = moved[(moved[:, 0, 0, 0] == images[:, 0, 0, 0])]
    assert len(centre) > 0


def test_a_trained_denoiser_removes_noise_and_says_what_it_was_trained_for(tmp_path: Path) -> None:
    trained = edm(tmp_path, steps=250, learning_rate=4e-3)
    found = denoisers.load(str(tmp_path))
    assert psnr(found, HELD_OUT, sigma=0.25) > psnr(denoisers.load("identity"), HELD_OUT, sigma=0.25) + 2
    assert read_card(tmp_path).content["training"]["steps"] == trained.steps == 250
    assert found.describe()["schedule"]["kind"] == "edm"


def test_the_average_of_weights_is_what_is_saved(tmp_path: Path) -> None:
    """With mixed precision too: what is saved is float32 and loads."""
    edm(tmp_path, precision="bf16")
    assert {tensor.dtype for tensor in weights(tmp_path).values()} == {torch.float32}
    denoisers.load(str(tmp_path))


def test_psnr_of_known_noise() -> None:
    flat = ArrayDataset(np.full((50, 1, 16, 16), 128), [0] * 50, levels=255)
    assert psnr(lambda noisy, _sigma: noisy, flat, sigma=0.05) == pytest.approx(
        -20 * math.log10(0.05), abs=0.1
    )


def test_finetuning_on_noise_helps_under_noise(tmp_path: Path) -> None:
    before = accuracy(classifiers.load("digits"), HELD_OUT, sigma=0.5)
    trained = tune(tmp_path, epochs=12, shift=0, held_out=HELD_OUT)
    after = accuracy(classifiers.load(tmp_path), HELD_OUT, sigma=0.5)
    assert after > before + 5
    assert trained.figures["accuracy"] == accuracy(classifiers.load(tmp_path), HELD_OUT, sigma=0.5, draws=1)


def test_finetuning_sees_denoised_images_and_leaves_the_denoiser_alone(tmp_path: Path) -> None:
    denoiser = denoisers.load("digits")
    network: nn.Module = denoiser.network  # type: ignore[attr-defined]
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    seen: list[float] = []

    def listening(noisy: Tensor, sigma: float) -> Tensor:
        seen.append(sigma)
        return denoiser(noisy, sigma)

    tune(tmp_path / "again", denoiser=denoiser, epochs=0.5, sigma=0.25)
    tune(tmp_path, denoiser=denoisers.CallableDenoiser(listening), epochs=0.5, sigma=0.25)
    assert seen
    assert set(seen) == {0.25}
    assert all(torch.equal(before[name], tensor) for name, tensor in network.state_dict().items())
    first, second = weights(tmp_path), weights(tmp_path / "again")
    assert all(torch.equal(first[name], second[name]) for name in first)
    assert read_card(tmp_path / "again").content["training"]["denoiser"] == "digits"


def test_a_named_architecture_is_finetuned_and_read_back(tmp_path: Path) -> None:
    colour = ArrayDataset(
        np.random.default_rng(0).integers(0, 256, (64, 3, 32, 32)), [k % 2 for k in range(64)], levels=255
    )
    fresh = classifiers.plain.build("resnet20", classes=("a", "b"), mean=(0.5,) * 3, std=(0.25,) * 3)
    finetune(fresh, colour, tmp_path, sigma=0.1, epochs=1, batch_size=32, device="cpu")
    again = classifiers.load(tmp_path)
    images = torch.rand(4, 3, 32, 32)
    with torch.inference_mode():
        torch.testing.assert_close(again(images), fresh.eval()(images))
    assert not any(parameter.requires_grad for parameter in fresh.parameters())


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"classifier": lambda x: x}, "saved again"),
        ({"denoiser": denoisers.load("digits", sampler="ancestral")}, "named draws"),
        ({"sigma": -1.0}, "sigma"),
        ({"sigma": math.nan}, "sigma"),
        ({"epochs": 0.0}, "epochs"),
        ({"shift": -1}, "shift"),
        ({"precision": "int4"}, "precision"),
    ],
)
def test_what_cannot_be_finetuned_is_refused_before_anything_is_written(
    tmp_path: Path, changed: dict[str, Any], message: str
) -> None:
    given = {"classifier": classifiers.load("digits"), "sigma": 0.25, "device": "cpu", **changed}
    with pytest.raises(InvalidInput, match=message):
        finetune(given.pop("classifier"), DIGITS, tmp_path / "out", **given)
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("shape", [(2, 1, 8, 8), (2, 3, 10, 8), (3, 8, 8)])
def test_images_that_do_not_fit_the_residual_network_are_refused(shape: tuple[int, ...]) -> None:
    network = residual_unet.ResidualUNet(residual_unet.ResidualUNetConfig(3, (8, 8, 8), 1))
    with pytest.raises(InvalidInput, match="multiples of 4"):
        network(torch.zeros(shape), torch.zeros(shape[0]))
