"""The examples on the real weights and images they are written for."""

from __future__ import annotations

import importlib
import io
import tarfile
from types import ModuleType

import numpy as np
import pytest
import torch
from PIL import Image
from tests.realdata import DATA, needs
from torch import Tensor

import smoothcert as sc
from smoothcert.checkpoints import load_state

WEIGHTS = DATA / "weights"


def example(name: str, monkeypatch: pytest.MonkeyPatch) -> ModuleType:
    monkeypatch.setenv("EXAMPLE_WEIGHTS", str(WEIGHTS))
    torch.set_num_threads(1)
    return importlib.import_module(f"examples.{name}")


def digits(count: int) -> tuple[Tensor, Tensor]:
    with np.load(DATA / "mnist" / "mnist_test.npz") as stored:
        images = torch.from_numpy(stored["images"][:count, None]).float() / 255
        return images, torch.from_numpy(stored["labels"][:count]).long()


@needs("weights/mnist_ddpm.npz", "weights/mnist_lenet5_clntrained.npz", "mnist/mnist_test.npz")
def test_somebody_elses_mnist_models_denoise_and_classify(monkeypatch: pytest.MonkeyPatch) -> None:
    mnist = example("mnist", monkeypatch)
    images, labels = digits(300)

    def accuracy(seen: Tensor) -> float:
        return float((mnist.classifier(seen).argmax(1) == labels).float().mean())

    with torch.inference_mode():
        assert accuracy(images) > 0.97
        noisy = images + 0.5 * torch.randn(images.shape, generator=torch.Generator().manual_seed(0))
        assert accuracy(noisy) < 0.8
        assert accuracy(mnist.denoiser(noisy, 0.5)) > 0.94  # 97 % of 1,000 images


@needs("weights/mnist_ddpm.npz")
def test_times_between_the_rows_of_the_stored_table_are_the_tables_own_waves(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    mnist = example("mnist", monkeypatch)
    table = load_state(WEIGHTS / "mnist_ddpm.npz")["time_embed.weight"]
    torch.testing.assert_close(mnist.time_waves(torch.arange(1000.0)), table, atol=1e-4, rtol=0)


@needs("weights/mnist_ddpm.npz", "weights/mnist_lenet5_clntrained.npz", "mnist/mnist_test.npz")
def test_one_mnist_image_is_certified(monkeypatch: pytest.MonkeyPatch) -> None:
    mnist = example("mnist", monkeypatch)
    images, labels = digits(1)
    g = sc.SmoothedClassifier(mnist.classifier, 0.5, denoiser=mnist.denoiser)
    found = g.certify((255 * images[0]).round().byte().numpy(), n0=20, n=100)
    assert found.label == int(labels[0])
    assert found.radius > 0.5


@needs("weights/imagenet_mobilenet_v2.npz", "imagenet_sample/imagenet_sample_256.tar")
def test_a_converted_mobilenet_names_imagenet_pictures(monkeypatch: pytest.MonkeyPatch) -> None:
    mobilenet = example("mobilenet", monkeypatch)
    right = 0
    with tarfile.open(DATA / "imagenet_sample" / "imagenet_sample_256.tar") as pictures:
        chosen = [m for m in pictures.getmembers() if m.name.lower().endswith((".jpg", ".jpeg"))][::40]
        for member in chosen:
            file = pictures.extractfile(member)
            assert file is not None
            picture = Image.open(io.BytesIO(file.read())).convert("RGB").crop((16, 16, 240, 240))
            image = torch.from_numpy(np.asarray(picture).copy()).permute(2, 0, 1)[None].float() / 255
            with torch.inference_mode():
                right += int(mobilenet.classifier(image).argmax()) == int(member.name.rpartition("/")[2][:4])
    assert right >= 18, f"{right} of {len(chosen)} right; 86.5 % of all 1,000 are"
