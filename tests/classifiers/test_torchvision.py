"""Models of torchvision: weights of one's own, and the library's own transform on the same image.

Where torchvision is absent this is skipped; ``tests/timm_environment.sh`` makes an environment that has it.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from tests.torchvision_operators import import_torchvision

from smoothcert.classifiers import PretrainedClassifier, load
from smoothcert.errors import CheckpointError, MissingExtra, UnknownName


def test_without_the_library_the_install_line_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torchvision", None)
    with pytest.raises(MissingExtra, match=r"smoothcert\[torchvision\]"):
        load("torchvision:resnet18")


@pytest.fixture(scope="module")
def models() -> Any:
    try:
        import_torchvision()
    except ImportError:
        pytest.skip(
            "torchvision is not installed (tests/timm_environment.sh makes an environment that has it)"
        )
    from torchvision import models

    return models


def weights(models: Any, model: str, path: Path, **sizes: Any) -> Any:
    torch.manual_seed(0)  # of untrained weights
    network = models.get_model(model, weights=None, **sizes).eval()
    torch.save(network.state_dict(), path)
    return network


@pytest.mark.parametrize("model", ["mobilenet_v3_small", "squeezenet1_1", "shufflenet_v2_x0_5"])
def test_inputs_and_scores_are_those_of_the_librarys_own_transform(
    models: Any, tmp_path: Path, model: str
) -> None:
    network = weights(models, model, tmp_path / "net.pth", num_classes=7)
    classifier = load(f"torchvision:{model}@{tmp_path / 'net.pth'}")
    assert isinstance(classifier, PretrainedClassifier)
    transform = models.get_model_weights(model).DEFAULT.transforms()
    std = torch.tensor(classifier.preprocessing.std).view(-1, 1, 1)
    generator = np.random.Generator(np.random.Philox(key=1))
    for size in ((32, 32), (301, 257)):
        pixels = generator.integers(90, 170, (*size, 3), dtype=np.uint8)
        images = torch.from_numpy(pixels).permute(2, 0, 1)[None].float() / 255
        ours, theirs = classifier.preprocessing(images), transform(Image.fromarray(pixels))[None]
        assert float(((ours - theirs) * std).abs().max()) < 1.5 / 255
        with torch.inference_mode():
            assert torch.allclose(classifier(images), network(ours), rtol=1e-4, atol=1e-6)
    assert classifier(torch.zeros(1, 3, 32, 32)).shape == (1, 7)


def test_every_classifier_of_the_library_has_preprocessing_that_is_known(models: Any) -> None:
    from smoothcert.classifiers.torchvision import from_transform

    pixels = np.random.Generator(np.random.Philox(key=2)).integers(90, 170, (40, 51, 3), dtype=np.uint8)
    images, seen = torch.from_numpy(pixels).permute(2, 0, 1)[None].float() / 255, set()
    for name in models.list_models(module=models):
        transform = models.get_model_weights(name).DEFAULT.transforms()
        found = from_transform(transform)
        if found in seen:
            continue
        seen.add(found)
        gap = (found(images)[0] - transform(Image.fromarray(pixels))) * torch.tensor(found.std).view(-1, 1, 1)
        assert float(gap.abs().max()) < 1.5 / 255, name
    assert len(seen) > 5


def test_the_librarys_weights_bring_their_names(models: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    network = models.get_model("squeezenet1_1", weights=None)
    monkeypatch.setattr(models, "get_model", lambda *arguments, **options: network)
    classifier = load("torchvision:squeezenet1_1?weights=IMAGENET1K_V1")
    assert isinstance(classifier, PretrainedClassifier)
    assert classifier.classes is not None
    assert (len(classifier.classes), classifier.classes[0]) == (1000, "tench")


def test_inception_renormalises_its_input_as_its_weights_need(models: Any, tmp_path: Path) -> None:
    weights(models, "googlenet", tmp_path / "net.pth", num_classes=3, init_weights=False)
    classifier = load(f"torchvision:googlenet@{tmp_path / 'net.pth'}")
    assert classifier.network.transform_input is True  # type: ignore[attr-defined]


def test_what_does_not_exist_is_refused(models: Any, tmp_path: Path) -> None:
    with pytest.raises(UnknownName, match="Did you mean 'resnet18'"):
        load("torchvision:resnet-18")
    with pytest.raises(UnknownName, match="IMAGENET1K_V1"):
        load("torchvision:resnet18?weights=IMAGENET")
    weights(models, "squeezenet1_1", tmp_path / "other.pth")
    with pytest.raises(CheckpointError, match="not of this architecture"):
        load(f"torchvision:resnet18@{tmp_path / 'other.pth'}")
