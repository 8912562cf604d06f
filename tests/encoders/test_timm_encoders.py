"""Feature extractors of timm: what ``num_classes=0`` gives there, from files with and without a last layer.

Where timm is absent this is skipped; ``tests/timm_environment.sh`` makes an environment that has it.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from safetensors.torch import save_file
from tests.encoders import tiny
from tests.torchvision_operators import import_torchvision

from smoothcert.encoders import PretrainedEncoder, load
from smoothcert.errors import CheckpointError, InvalidInput, MissingExtra, UnknownName


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


@pytest.mark.parametrize(
    "model", ["resnet10t", "vit_tiny_patch16_224", "mobilenetv3_small_050", "convnext_atto"]
)
@pytest.mark.parametrize("classes", [5, 0])
def test_features_are_those_of_timm(timm: Any, tmp_path: Path, model: str, classes: int) -> None:
    torch.manual_seed(0)  # of untrained weights
    network = timm.create_model(model, pretrained=False, num_classes=classes).eval()
    state = {key: tensor.contiguous() for key, tensor in network.state_dict().items()}
    save_file(state, tmp_path / "net.safetensors")
    encoder = load(f"timm:{model}@{tmp_path / 'net.safetensors'}")
    assert isinstance(encoder, PretrainedEncoder)
    pixels = tiny.picture(180, 260)
    config = timm.data.resolve_model_data_config(network)
    theirs = timm.data.create_transform(**config, is_training=False)(
        Image.fromarray(pixels.transpose(1, 2, 0))
    )
    images = torch.from_numpy(pixels)[None].float() / 255
    std = torch.tensor(encoder.preprocessing.std).view(-1, 1, 1)
    assert float(((encoder.preprocessing(images)[0] - theirs) * std).abs().max()) < 1.5 / 255
    network.reset_classifier(0)
    with torch.inference_mode():
        assert torch.allclose(encoder(images), network(encoder.preprocessing(images)), rtol=1e-4, atol=1e-5)
    assert encoder(images).shape == (1, *encoder.shape)


def test_what_cannot_be_read_is_refused(timm: Any, tmp_path: Path) -> None:
    with pytest.raises(UnknownName, match="resnet"):
        load("timm:resnet10tt")
    network = timm.create_model("resnet10t", pretrained=False, num_classes=5)
    torch.save(network.state_dict(), tmp_path / "net.pt")
    with pytest.raises(CheckpointError, match="not of this architecture"):
        load(f"timm:resnet18@{tmp_path / 'net.pt'}")
    with pytest.raises(InvalidInput, match="channel"):
        load(f"timm:resnet10t@{tmp_path / 'net.pt'}")(torch.rand(1, 1, 64, 64))
