"""What every encoder must do, whatever it is made of: one suite that each kind passes.

Images have seven neighbours in a batch of fixed shape, as in the engine. Kinds whose library is absent are
skipped (timm: ``tests/timm_environment.sh``).
"""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tests.torchvision_operators import import_torchvision
from torch import Tensor, nn

from smoothcert.classifiers import plain
from smoothcert.encoders import load, vision_tower
from smoothcert.engine.specify import component
from smoothcert.errors import InvalidInput, ModelOutputError
from smoothcert.networks import convnet
from smoothcert.networks.convnet import ConvNet, ConvNetConfig
from smoothcert.protocols import Encoder
from smoothcert.smoothing import SmoothedEncoder
from smoothcert.smoothing.network import modules_of

BATCH = 8
GREY, COLOUR = (1, 8, 8), (3, 32, 32)
EXACT_PLACE = 1e-5  # of the features' size: rows of a matrix product may round differently


def embedded_digits(folder: Path) -> Encoder:
    return load("digits")


def directory(folder: Path) -> Encoder:
    convnet.save(ConvNet(ConvNetConfig(GREY, ("a", "b"), width=8)).train(), folder)
    return load(folder)


def function(folder: Path) -> Encoder:
    return load(lambda images: images.flatten(1).sin())


def function_of_tokens(folder: Path) -> Encoder:
    return load(lambda images: images[:, 0].cos())


def module_with_batch_norm_and_dropout(folder: Path) -> Encoder:
    features = nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Dropout(0.5))
    return load(nn.Sequential(features, nn.Linear(144, 12)).train())


def cifar_resnet(folder: Path) -> Encoder:
    made = plain.build("resnet20", classes=("a", "b"), mean=(0.5,) * 3, std=(0.25,) * 3)
    folder.mkdir(exist_ok=True)
    torch.save(made.network.state_dict(), folder / "net.th")
    return load(f"resnet20:{folder / 'net.th'}?mean=0.5,0.5,0.5&std=0.25,0.25,0.25")


def of_transformers(name: str, options: str = "") -> Callable[[Path], Encoder]:
    def build(folder: Path) -> Encoder:
        pytest.importorskip("transformers", reason="transformers is not installed")
        from tests.encoders import tiny

        getattr(tiny, name)(folder)
        return load(f"transformers:{folder}{options}")

    build.__name__ = name + options
    return build


def llava_tower(folder: Path) -> Encoder:
    pytest.importorskip("transformers", reason="transformers is not installed")
    from tests.encoders import tiny

    return vision_tower(*tiny.llava())


def timm_resnet(folder: Path) -> Encoder:
    try:
        import_torchvision()
        import timm
    except ImportError:
        pytest.skip("timm is not installed")
    folder.mkdir(exist_ok=True)
    torch.save(timm.create_model("resnet10t", num_classes=3).state_dict(), folder / "net.pth")
    return load(f"timm:resnet10t@{folder / 'net.pth'}?size=48")


KINDS: dict[Callable[[Path], Encoder], tuple[int, int, int]] = {
    embedded_digits: GREY,
    directory: GREY,
    function: GREY,
    function_of_tokens: GREY,
    module_with_batch_norm_and_dropout: GREY,
    cifar_resnet: COLOUR,
    of_transformers("clip"): COLOUR,
    of_transformers("siglip"): COLOUR,
    of_transformers("dinov2"): COLOUR,
    of_transformers("clip", "?pool=tokens"): COLOUR,
    llava_tower: COLOUR,
    timm_resnet: COLOUR,
}


class Case:
    """An encoder with images as a smoothed model shows them: noise leaves [0, 1]."""

    def __init__(self, build: Callable[[Path], Encoder], folder: Path) -> None:
        torch.manual_seed(0)  # of untrained networks only
        self.build, self.folder, self.shape = build, folder, KINDS[build]
        self.encoder: Any = build(folder)

    def noisy(self, seed: int) -> Tensor:
        generator = torch.Generator().manual_seed(seed)
        shape = (BATCH, *self.shape)
        return torch.rand(shape, generator=generator) + 0.5 * torch.randn(shape, generator=generator)


@pytest.fixture(params=list(KINDS), ids=lambda kind: kind.__name__, scope="module")
def case(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Case:
    return Case(request.param, tmp_path_factory.mktemp("models") / "model")


@torch.inference_mode()
def features(encoder: Any, images: Tensor) -> Tensor:
    found: Tensor = encoder(images)
    return found


def test_gives_finite_features_of_the_length_it_says(case: Case) -> None:
    found = features(case.encoder, case.noisy(0))
    assert found.ndim in (2, 3)
    assert len(found) == BATCH
    assert bool(torch.isfinite(found).all())
    assert tuple(found.shape[1:]) == case.encoder.shape
    assert found.shape[-1] == case.encoder.dimension
    assert float(found.flatten(1).norm(dim=1).min()) > 0


def test_the_same_batch_gets_the_same_features(case: Case) -> None:
    images = case.noisy(1)
    before, first = images.clone(), features(case.encoder, images)
    torch.manual_seed(99)
    assert torch.equal(features(case.encoder, images.clone()), first)
    assert torch.equal(images, before)


def test_features_do_not_depend_on_batch_mates(case: Case) -> None:
    images = case.noisy(3)
    alone_at = features(case.encoder, images)
    for place in range(0, BATCH, 3):
        others = case.noisy(4)
        others[place] = images[place]
        assert torch.equal(features(case.encoder, others)[place], alone_at[place])


def test_features_do_not_depend_on_the_place_in_the_batch(case: Case) -> None:
    images = case.noisy(9)
    order = torch.randperm(BATCH, generator=torch.Generator().manual_seed(0))
    moved, expected = features(case.encoder, images[order]), features(case.encoder, images)[order]
    assert torch.allclose(moved, expected, rtol=0.0, atol=EXACT_PLACE * float(expected.abs().max()))


def test_a_gradient_is_the_slope(case: Case) -> None:
    images = case.noisy(5)[:1].double()
    encoder = copy.deepcopy(case.encoder)
    for module in modules_of(encoder):
        module.double()
    images.requires_grad_()
    direction = torch.randn(images.shape, generator=torch.Generator().manual_seed(6), dtype=torch.float64)
    weight = torch.randn(
        encoder(images).shape, generator=torch.Generator().manual_seed(7), dtype=torch.float64
    )
    (encoder(images) * weight).sum().backward()
    assert images.grad is not None
    slope, step = float((images.grad * direction).sum()), 1e-5
    with torch.inference_mode():
        ends = [(encoder(images + side * step * direction) * weight).sum() for side in (1, -1)]
    assert slope == pytest.approx(float(ends[0] - ends[1]) / (2 * step), rel=1e-3, abs=1e-4)
    assert slope != 0.0


def test_no_module_is_left_in_training_mode(case: Case) -> None:
    features(case.encoder, case.noisy(10))
    assert not any(part.training for module in modules_of(case.encoder) for part in module.modules())


def test_half_precision_stays_near(case: Case) -> None:
    images = case.noisy(11).bfloat16()
    half = copy.deepcopy(case.encoder)
    for module in modules_of(half):
        module.bfloat16()
    found, whole = features(half, images).float(), features(case.encoder, images.float()).float()
    assert float(torch.cosine_similarity(found.flatten(1), whole.flatten(1)).mean()) > 0.97


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_cpu_and_cuda_agree(case: Case) -> None:
    images = case.noisy(12)
    expected, there = features(case.encoder, images), copy.deepcopy(case.encoder)
    for module in modules_of(there):
        module.cuda()
    found = features(there, images.cuda())
    assert found.device.type == "cuda"
    assert float(torch.cosine_similarity(found.cpu().flatten(1), expected.flatten(1)).min()) > 0.999


def test_its_description_is_plain_data_and_the_same_when_loaded_again(case: Case) -> None:
    again = Case(case.build, case.folder)
    ours, theirs = component(case.encoder), component(again.encoder)
    assert json.loads(json.dumps(ours.settings))["kind"]
    assert (ours.settings, ours.sha256) == (theirs.settings, theirs.sha256)
    assert (ours.sha256 is not None) == bool(modules_of(case.encoder))


def test_images_of_another_kind_are_one_clear_error(case: Case) -> None:
    if case.build in (function, module_with_batch_norm_and_dropout):
        pytest.skip("it says nothing of what it takes")
    if case.build is function_of_tokens:
        with pytest.raises(ModelOutputError):
            features(case.encoder, torch.zeros(BATCH, 1, 9, 8))
        return
    other = (BATCH, 4 if case.shape == COLOUR else 3, *case.shape[1:])
    with pytest.raises(InvalidInput):
        features(case.encoder, torch.zeros(other))


def test_it_can_be_smoothed(case: Case) -> None:
    image = np.random.default_rng(1).integers(2, 256, case.shape, dtype=np.uint8)
    smoothed = SmoothedEncoder(case.encoder, 0.1)
    found = smoothed.encode(image, n=20, batch=BATCH)
    assert np.array_equal(found, smoothed.encode(image, n=20, batch=BATCH))
    assert found.shape == (int(np.prod(case.encoder.shape)),)
    assert 0.0 < float(np.linalg.norm(found)) <= 1.0
