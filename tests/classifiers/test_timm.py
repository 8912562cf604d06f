"""Models of timm: weights of one's own through the real library, and its own transform on the same image.

Where timm is absent this is skipped; ``tests/timm_environment.sh`` makes an environment that has it.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from tests.torchvision_operators import import_torchvision

from smoothcert.classifiers import PretrainedClassifier, load
from smoothcert.errors import CheckpointError, InvalidInput, MissingExtra, UnknownName
from smoothcert.networks.timm import from_config
from smoothcert.smoothing import SmoothedClassifier


def test_without_the_library_the_install_line_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "timm", None)
    with pytest.raises(MissingExtra, match=r"smoothcert\[timm\]"):
        load("timm:resnet10t")


@pytest.fixture(scope="module")
def timm() -> Any:
    try:
        import_torchvision()
        import timm
        import timm.data
    except ImportError:
        pytest.skip("timm is not installed (tests/timm_environment.sh makes an environment that has it)")
    return timm


MODELS = ["resnet10t", "vit_tiny_patch16_224", "mobilenetv3_small_050", "convnext_atto"]


def weights(timm: Any, model: str, path: Path, classes: int = 5) -> Any:
    torch.manual_seed(0)  # of untrained weights
    network = timm.create_model(model, pretrained=False, num_classes=classes).eval()
    if path.suffix == ".safetensors":
        save_file({key: tensor.contiguous() for key, tensor in network.state_dict().items()}, path)
    else:
        state = {f"module.{key}": tensor for key, tensor in network.state_dict().items()}
        torch.save({"epoch": 3, "arch": model, "state_dict": state}, path)
    return network


@pytest.mark.parametrize("model", MODELS)
def test_inputs_and_scores_are_those_of_timms_own_transform(timm: Any, tmp_path: Path, model: str) -> None:
    network = weights(timm, model, tmp_path / "net.safetensors")
    classifier = load(f"timm:{model}@{tmp_path / 'net.safetensors'}")
    assert isinstance(classifier, PretrainedClassifier)
    transform = timm.data.create_transform(**timm.data.resolve_model_data_config(network), is_training=False)
    std = torch.tensor(classifier.preprocessing.std).view(-1, 1, 1)
    generator = np.random.Generator(np.random.Philox(key=1))
    for size in ((32, 32), (301, 257)):
        pixels = generator.integers(90, 170, (*size, 3), dtype=np.uint8)
        images = torch.from_numpy(pixels).permute(2, 0, 1)[None].float() / 255
        ours, theirs = classifier.preprocessing(images), transform(Image.fromarray(pixels))[None]
        assert float(((ours - theirs) * std).abs().max()) < 1.5 / 255
        with torch.inference_mode():
            assert torch.allclose(classifier(images), network(ours), rtol=1e-4, atol=1e-6)
    assert classifier(torch.zeros(1, 3, 32, 32)).shape == (1, 5)
    assert not any(part.training for part in classifier.modules())


def test_every_spelling_of_the_weights_is_the_same_model(timm: Any, tmp_path: Path) -> None:
    weights(timm, "resnet10t", tmp_path / "net.safetensors")
    weights(timm, "resnet10t", tmp_path / "net.pth")
    names = (
        f"resnet10t@{tmp_path / 'net.pth'}",
        f"resnet10t?checkpoint={tmp_path / 'net.safetensors'}",
        f"resnet10t.c3_in1k@{tmp_path / 'net.pth'}",
    )
    images = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(1))
    answers = [load(f"timm:{name}")(images) for name in names]
    assert all(torch.equal(answers[0], other) for other in answers[1:])


def test_options_replace_what_the_configuration_says(timm: Any, tmp_path: Path) -> None:
    weights(timm, "resnet10t", tmp_path / "net.pth")
    name = f"timm:resnet10t@{tmp_path / 'net.pth'}?size=32&mean=0.5,0.5,0.5&std=1,1,1&grey=repeat&classes=a,b,c,d,e"
    classifier = load(name)
    assert isinstance(classifier, PretrainedClassifier)
    assert classifier.classes == ("a", "b", "c", "d", "e")
    images = torch.rand(2, 1, 28, 28, generator=torch.Generator().manual_seed(2))
    assert classifier.preprocessing(images).shape == (2, 3, 32, 32)
    found = SmoothedClassifier(classifier, 0.25).certify(
        (images[0] * 255).to(torch.uint8), n0=10, n=50, batch=16
    )
    assert found.radius >= 0


def test_a_model_of_all_of_imagenet_has_its_names(
    timm: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    network = timm.create_model("resnet10t", pretrained=False)
    monkeypatch.setattr(timm, "create_model", lambda *arguments, **options: network)
    classifier = load("timm:resnet10t")
    assert isinstance(classifier, PretrainedClassifier)
    assert classifier.classes is not None
    assert len(classifier.classes) == 1000
    assert "tench" in classifier.classes[0]


@pytest.mark.parametrize(
    ("config", "size", "crop"),
    [
        ({}, 36, (32, 32)),
        ({"crop_pct": 1.0}, 32, (32, 32)),
        ({"crop_pct": 0.95}, 33, (32, 32)),
        ({"crop_mode": "squash"}, (36, 36), (32, 32)),
        ({"input_size": (3, 32, 48), "crop_mode": "squash"}, (36, 54), (32, 48)),
    ],
)
def test_crops_are_read_as_timm_means_them(timm: Any, config: dict[str, Any], size: Any, crop: Any) -> None:
    whole = {
        "input_size": (3, 32, 32),
        "interpolation": "bicubic",
        "mean": (0.5, 0.4, 0.3),
        "std": (0.2, 0.3, 0.4),
        "crop_pct": 0.875,
        "crop_mode": "center",
        **config,
    }
    found = from_config(whole)
    assert (found.size, found.crop) == (size, crop)
    pixels = np.random.Generator(np.random.Philox(key=2)).integers(90, 170, (45, 60, 3), dtype=np.uint8)
    theirs = timm.data.create_transform(**whole, is_training=False)(Image.fromarray(pixels))
    ours = found(torch.from_numpy(pixels).permute(2, 0, 1)[None].float() / 255)[0]
    assert float(((ours - theirs) * torch.tensor(found.std).view(-1, 1, 1)).abs().max()) < 1.5 / 255


@pytest.mark.parametrize(
    "change", [{"crop_mode": "border"}, {"interpolation": "hamming"}, {"input_size": (3, 8, 16)}]
)
def test_what_is_not_known_is_refused(change: dict[str, Any]) -> None:
    with pytest.raises(InvalidInput, match="does not know"):
        from_config({"input_size": (3, 8, 8), "mean": (0.5,) * 3, "std": (0.5,) * 3, **change})


def test_names_and_weights_that_do_not_exist_are_refused(timm: Any, tmp_path: Path) -> None:
    with pytest.raises(UnknownName, match="Did you mean 'resnet10t'"):
        load("timm:resnet10")
    with pytest.raises(CheckpointError, match="cannot be read"):
        load(f"timm:resnet10t@{tmp_path / 'none.pth'}")
    weights(timm, "mobilenetv3_small_050", tmp_path / "other.pth")
    with pytest.raises(CheckpointError, match="not of this architecture"):
        load(f"timm:resnet10t@{tmp_path / 'other.pth'}")
