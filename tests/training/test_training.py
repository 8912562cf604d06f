"""Tiny real trainings: they learn, repeat bit for bit from their seed, and save what others can load."""

from __future__ import annotations

import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from smoothcert import classifiers, denoisers, encoders
from smoothcert.checkpoints import hashes, read_card
from smoothcert.datasets import ArrayDataset, load
from smoothcert.errors import CheckpointError, InvalidInput, MissingExtra
from smoothcert.training import (
    Trained,
    accuracy,
    add_figures,
    finetune,
    train_booster,
    train_classifier,
    train_denoiser,
    train_edm_denoiser,
)

DIGITS = load("digits:train[:256]")
Train = Callable[..., Trained]


def tiny_classifier(out: Path, **options: Any) -> Trained:
    small = {"epochs": 4, "width": 8, "batch_size": 32, "learning_rate": 1e-2, "device": "cpu"}
    return train_classifier(DIGITS, out, **{**small, **options})


def tiny_denoiser(out: Path, **options: Any) -> Trained:
    small = {"steps": 12, "batch_size": 32, "channels": (8, 8), "device": "cpu"}
    return train_denoiser(DIGITS, out, **{**small, **options})


BOTH = pytest.mark.parametrize("train", [tiny_classifier, tiny_denoiser])


@pytest.mark.parametrize(
    ("train", "longer"), [(tiny_classifier, {"epochs": 20, "mix": 1}), (tiny_denoiser, {"steps": 120})]
)
def test_training_reduces_the_loss(tmp_path: Path, train: Train, longer: dict[str, int]) -> None:
    losses: list[float] = []
    trained = train(tmp_path, progress=lambda step, steps, loss: losses.append(loss), **longer)
    assert len(losses) == trained.steps
    assert trained.loss < 0.8 * np.mean(losses[:4])


@BOTH
def test_the_same_seed_gives_the_same_bits(tmp_path: Path, train: Train) -> None:
    train(tmp_path / "a", seed=3)
    torch.manual_seed(12345)
    torch.rand(7)
    train(tmp_path / "b", seed=3)
    train(tmp_path / "c", seed=4)
    first, second, other = (hashes(tmp_path / name) for name in "abc")
    assert first == second
    weights = next(name for name in first if name.endswith(".safetensors"))
    assert first[weights] != other[weights]


@BOTH
def test_the_callers_random_state_is_left_alone(tmp_path: Path, train: Train) -> None:
    torch.manual_seed(7)
    expected = torch.rand(3)
    torch.manual_seed(7)
    train(tmp_path)
    assert torch.equal(torch.rand(3), expected)


@BOTH
def test_the_number_of_threads_is_kept_put_back_and_written_down(tmp_path: Path, train: Train) -> None:
    train(tmp_path / "one", threads=1)
    train(tmp_path / "two", threads=2)
    assert torch.get_num_threads() == 1
    assert [read_card(tmp_path / n).content["versions"]["threads"] for n in ("one", "two")] == [1, 2]


@BOTH
def test_the_card_names_data_settings_versions_and_files(tmp_path: Path, train: Train) -> None:
    train(tmp_path, seed=5, command="smoothcert train something")
    card = read_card(tmp_path)
    assert card.content["command"] == "smoothcert train something"
    assert card.content["data"]["name"] == "digits:train[:256]"
    assert card.content["training"]["seed"] == 5
    assert card.content["versions"]["torch"] == torch.__version__
    assert card.sha256 == hashes(tmp_path)


def test_a_classifier_learns_loads_and_reports_its_accuracy(tmp_path: Path) -> None:
    trained = tiny_classifier(tmp_path, epochs=40, mix=1, held_out=load("digits:test"))
    classifier = classifiers.load(tmp_path)
    measured = accuracy(classifier, load("digits:test"))
    assert measured > 85
    assert trained.figures == read_card(tmp_path).content["figures"] == {"accuracy": measured}


def test_blending_is_the_default_on_clean_images_only(tmp_path: Path) -> None:
    for noise_sigma, blended in ((0.0, 4), (0.25, 1)):
        tiny_classifier(tmp_path / f"{blended}", noise_sigma=noise_sigma, epochs=1)
        assert read_card(tmp_path / f"{blended}").content["training"]["mix"] == blended


def test_noise_trained_classifiers_see_noise(tmp_path: Path) -> None:
    """At sigma .5, training on noisy images must beat training on clean ones by far more than chance."""
    for name, sigma in (("clean", 0.0), ("noisy", 0.5)):
        tiny_classifier(tmp_path / name, noise_sigma=sigma, epochs=40, mix=1)
    clean, noisy = (
        accuracy(classifiers.load(tmp_path / name), load("digits:test"), sigma=0.5)
        for name in ("clean", "noisy")
    )
    assert noisy > clean + 5


def test_a_denoiser_saves_a_pipeline_that_diffusers_itself_loads(tmp_path: Path) -> None:
    from diffusers import DDPMPipeline

    tiny_denoiser(tmp_path)
    for name in ("model_index.json", "unet/config.json", "unet/diffusion_pytorch_model.safetensors"):
        assert (tmp_path / name).is_file()
    pipeline: Any = DDPMPipeline.from_pretrained(tmp_path)  # type: ignore[no-untyped-call]
    assert pipeline.scheduler.config.prediction_type == "v_prediction"
    images = pipeline(
        batch_size=2, num_inference_steps=2, output_type="np", generator=torch.Generator()
    ).images
    assert images.shape[:3] == (2, 8, 8)


def test_a_denoiser_loads_in_its_own_room_and_removes_noise(tmp_path: Path) -> None:
    tiny_denoiser(tmp_path, steps=150, sigmas=(0.2, 0.6))
    denoiser = denoisers.load(tmp_path)
    clean = torch.stack([torch.from_numpy(load("digits")[i].image / np.float32(16)) for i in range(64)])
    noisy = clean + 0.5 * torch.randn(clean.shape, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        cleaned = denoiser(noisy, 0.5)
    assert float((cleaned - clean).square().mean()) < 0.5 * float((noisy.clamp(0, 1) - clean).square().mean())


def test_other_shapes_and_one_noise_level_train_too(tmp_path: Path) -> None:
    images = np.random.default_rng(0).random((40, 3, 8, 16)).astype(np.float32)
    dataset = ArrayDataset(images, [0, 1] * 20, name="coloured")
    train_denoiser(dataset, tmp_path / "d", steps=2, channels=(8, 8), sigmas=(0.25, 0.25), device="cpu")
    train_classifier(dataset, tmp_path / "c", epochs=1, width=4, noise_sigma=0.25, device="cpu")
    assert denoisers.load(tmp_path / "d")(torch.rand(2, 3, 8, 16), 0.25).shape == (2, 3, 8, 16)
    assert classifiers.load(tmp_path / "c")(torch.rand(2, 3, 8, 16)).shape == (2, 2)


def tiny_edm(out: Path, **options: Any) -> Trained:
    small = {"steps": 4, "batch_size": 8, "channels": (8, 8), "blocks": 1, "device": "cpu"}
    return train_edm_denoiser(DIGITS, out, **{**small, **options})


def tiny_finetune(out: Path, **options: Any) -> Trained:
    small = {"sigma": 0.5, "epochs": 0.1, "batch_size": 16, "device": "cpu", "flip": False, "shift": 0}
    return finetune(classifiers.load("digits"), DIGITS, out, **{**small, **options})


def tiny_booster(out: Path, **options: Any) -> Trained:
    small = {"steps": 2, "batch_size": 8, "width": 16, "blocks": 1, "device": "cpu", "sigmas": (0.25, 0.5)}
    return train_booster(encoders.load("digits"), DIGITS, out, **{**small, **options})


@pytest.mark.parametrize("train", [tiny_classifier, tiny_denoiser, tiny_edm, tiny_finetune, tiny_booster])
def test_a_model_that_is_there_is_not_written_over(tmp_path: Path, train: Train) -> None:
    """Neither one of other settings, nor of another kind, nor somebody else's; the same one is made again."""
    train(tmp_path / "mine", seed=3)
    before = hashes(tmp_path / "mine")
    with pytest.raises(InvalidInput, match="seed 3, not 4"):
        train(tmp_path / "mine", seed=4)
    other = tiny_denoiser if train is not tiny_denoiser else tiny_classifier
    with pytest.raises(InvalidInput, match="trained otherwise"):
        other(tmp_path / "mine", seed=3)
    assert hashes(tmp_path / "mine") == before
    train(tmp_path / "mine", seed=3)
    assert hashes(tmp_path / "mine") == before
    (tmp_path / "theirs").mkdir()
    (tmp_path / "theirs/config.json").write_text('{"model_type": "clip"}')
    with pytest.raises(InvalidInput, match=r"config\.json, which this training did not write"):
        train(tmp_path / "theirs")
    assert [path.name for path in (tmp_path / "theirs").iterdir()] == ["config.json"]


def test_figures_can_be_added_only_to_untouched_files(tmp_path: Path) -> None:
    tiny_classifier(tmp_path)
    before = dict(read_card(tmp_path).content)
    add_figures(tmp_path, {"images_per_second": 12, "note": 'said "so"\\ é'})
    after = read_card(tmp_path).content
    assert after["figures"] == {"images_per_second": 12, "note": 'said "so"\\ é'}
    assert {**after, "figures": {}} == before
    (tmp_path / "config.json").write_text("{}")
    with pytest.raises(CheckpointError, match=r"config\.json"):
        add_figures(tmp_path, {"accuracy": 100.0})


@pytest.mark.parametrize(
    ("train", "options"),
    [
        (tiny_classifier, {"epochs": 0}),
        (tiny_classifier, {"batch_size": 0}),
        (tiny_classifier, {"noise_sigma": -0.1}),
        (tiny_classifier, {"noise_sigma": float("nan")}),
        (tiny_classifier, {"mix": 0}),
        (tiny_classifier, {"width": 0}),
        (tiny_classifier, {"learning_rate": 0.0}),
        (tiny_classifier, {"seed": -1}),
        (tiny_classifier, {"seed": 2**32}),
        (tiny_classifier, {"device": "gpu"}),
        (tiny_classifier, {"threads": 0}),
        (tiny_denoiser, {"steps": 0}),
        (tiny_denoiser, {"batch_size": 0}),
        (tiny_denoiser, {"augment": -1.0}),
        (tiny_denoiser, {"channels": ()}),
        (tiny_denoiser, {"channels": (12,)}),
        (tiny_denoiser, {"channels": (8, 8, 8, 8, 8)}),
        (tiny_denoiser, {"layers": 0}),
        (tiny_denoiser, {"sigmas": (0.5, 0.25)}),
        (tiny_denoiser, {"sigmas": (0.0, 0.25)}),
        (tiny_denoiser, {"sigmas": (0.25, 1e9)}),
        (tiny_denoiser, {"learning_rate": float("nan")}),
    ],
)
def test_settings_that_cannot_train_are_refused_before_anything_is_written(
    tmp_path: Path, train: Train, options: dict[str, Any]
) -> None:
    with pytest.raises(InvalidInput) as refused:
        train(tmp_path / "out", **options)
    assert next(iter(options)).removesuffix("s") in str(refused.value), "the setting to blame"
    assert not (tmp_path / "out").exists()


def test_a_loss_that_is_not_finite_stops_the_training(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="training diverged"):
        tiny_classifier(tmp_path / "out", noise_sigma=1e38)
    assert not (tmp_path / "out").exists()


@BOTH
def test_without_accelerate_the_install_line_is_given(
    tmp_path: Path, train: Train, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "accelerate", None)
    with pytest.raises(MissingExtra, match=r'pip install "smoothcert\[train\]"'):
        train(tmp_path / "out")
