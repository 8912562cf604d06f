"""Encoders found by name: penultimate features are those that the last layer makes its scores of."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tests.realdata import DATA, needs
from torch import Tensor, nn

from smoothcert import classifiers
from smoothcert.classifiers import plain
from smoothcert.encoders import CallableEncoder, PretrainedEncoder, load
from smoothcert.errors import CheckpointError, InvalidInput, ModelOutputError, UnknownName
from smoothcert.networks import convnet
from smoothcert.networks.convnet import ConvNet, ConvNetConfig

TOLD = "?mean=0.485,0.456,0.406&std=0.229,0.224,0.225"
RESNET56 = "weights/cifar10_resnet56.npz"


def images(*shape: int, seed: int = 0) -> Tensor:
    """As noise leaves them: outside [0, 1] too."""
    return torch.rand(*shape, generator=torch.Generator().manual_seed(seed)) * 2 - 0.5


def test_the_embedded_encoder_is_the_embedded_classifier_before_its_last_layer() -> None:
    encoder, classifier = load("digits"), classifiers.load("digits")
    assert isinstance(encoder, PretrainedEncoder)
    assert isinstance(classifier, ConvNet)
    batch = images(5, 1, 8, 8)
    features = encoder(batch)
    assert features.shape == (5, encoder.dimension)
    assert torch.equal(classifier.head(features), classifier(batch))
    assert encoder.source == "digits"
    assert not any(part.training for part in encoder.modules())
    json.dumps(encoder.describe())


@needs(RESNET56)
def test_the_last_layer_on_the_features_gives_the_published_scores() -> None:
    name = f"resnet56:{DATA / RESNET56}{TOLD}"
    encoder, classifier = load(name), classifiers.load(name)
    assert isinstance(encoder, PretrainedEncoder)
    assert isinstance(classifier, classifiers.PretrainedClassifier)
    batch = images(4, 3, 32, 32)
    features = encoder(batch)
    assert features.shape == (4, 64)
    assert encoder.dimension == 64
    last: Any = classifier.network.linear
    assert torch.allclose(last(features), classifier(batch), atol=1e-5)


def test_a_normalisation_is_part_of_the_encoder(tmp_path: Path) -> None:
    made = plain.build("resnet20", classes=("a", "b"), mean=(0.5,) * 3, std=(0.25,) * 3).eval()
    torch.save(made.network.state_dict(), tmp_path / "net.pt")
    batch = images(2, 3, 32, 32)
    network: Any = made.network
    expected = network.embed((batch - 0.5) / 0.25)
    assert torch.allclose(
        load(f"resnet20:{tmp_path / 'net.pt'}?mean=0.5&std=0.25")(batch), expected, atol=1e-6
    )
    with pytest.raises(InvalidInput, match="normalised"):
        load(f"resnet20:{tmp_path / 'net.pt'}")
    with pytest.raises(InvalidInput, match="size=32x32"):
        load(f"resnet20:{tmp_path / 'net.pt'}?mean=0.5&std=0.25")(images(2, 3, 28, 28))


@pytest.mark.parametrize("kind", ["convnet", "resnet20"])
def test_a_trained_directory(tmp_path: Path, kind: str) -> None:
    if kind == "convnet":
        network: Any = ConvNet(ConvNetConfig((3, 12, 8), ("a", "b", "c"), width=4)).eval()
        convnet.save(network, tmp_path)
        batch = images(3, 3, 12, 8)
        expected = network.embed(batch)
    else:
        made = plain.build("resnet20", classes=("a", "b"), mean=(0.5,) * 3, std=(0.25,) * 3).eval()
        plain.save(made, tmp_path)
        batch = images(3, 3, 32, 32)
        network = made.network
        expected = network.embed((batch - 0.5) / 0.25)
    for source in (tmp_path, str(tmp_path)):
        encoder = load(source)
        assert torch.allclose(encoder(batch), expected, atol=1e-6)
        assert getattr(encoder, "source", None) == str(tmp_path)


def test_images_of_another_shape_are_one_clear_error() -> None:
    with pytest.raises(InvalidInput, match="8x8"):
        load("digits")(images(2, 1, 9, 8))
    with pytest.raises(InvalidInput, match="channel"):
        load("digits")(images(2, 3, 8, 8))


def test_gradients_pass_through() -> None:
    batch = images(2, 1, 8, 8).requires_grad_()
    load("digits")(batch).square().sum().backward()  # type: ignore[no-untyped-call]
    assert batch.grad is not None
    assert batch.grad.abs().sum() > 0


@pytest.mark.parametrize("shape", [(7,), (4, 3)])
def test_any_callable_of_the_right_shape_is_an_encoder(shape: tuple[int, ...]) -> None:
    weight = torch.randn(64, int(np.prod(shape)), generator=torch.Generator().manual_seed(1))
    encoder = load(lambda batch: (batch.flatten(1) @ weight).view(-1, *shape))
    assert isinstance(encoder, CallableEncoder)
    assert encoder.dimension is None
    assert encoder(images(3, 1, 8, 8)).shape == (3, *shape)
    assert encoder.dimension == shape[-1]


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (lambda batch: batch.flatten(1).long(), "floating point"),
        (lambda batch: batch.flatten(1).to(torch.complex64), "floating point"),
        (lambda batch: batch.flatten(1).sum(1), "floating point"),
        (lambda batch: batch, "floating point"),
        (lambda batch: batch.flatten(1)[:-1], "for 3 images"),
        (lambda batch: batch.flatten(1)[:, :0], "for 3 images"),
        (lambda batch: batch.flatten(1).numpy(), "not a tensor"),
        (lambda batch: [1.0, 2.0, 3.0], "pooler_output"),
    ],
)
def test_answers_that_are_no_features_are_refused(answer: Any, message: str) -> None:
    with pytest.raises(ModelOutputError, match=message):
        load(answer)(images(3, 1, 8, 8))


def test_features_may_not_change_their_length() -> None:
    encoder = load(lambda batch: batch.flatten(1))
    encoder(images(2, 1, 8, 8))
    encoder(images(5, 1, 8, 8))
    with pytest.raises(ModelOutputError, match="features of 56 numbers after features of 64"):
        encoder(images(2, 1, 8, 7))
    lengths = iter((4, 5))
    fickle = load(lambda batch: torch.zeros(len(batch), next(lengths)))
    fickle(images(2, 1, 8, 8))
    with pytest.raises(ModelOutputError, match="different lengths"):
        fickle(images(2, 1, 8, 8))


def test_modules_are_used_in_evaluation_mode() -> None:
    module = nn.Sequential(nn.Flatten(), nn.Dropout(0.9), nn.Linear(64, 5)).train()
    encoder = load(module)
    batch = images(4, 1, 8, 8)
    assert torch.equal(encoder(batch), encoder(batch))


def test_an_encoder_of_a_module_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "smoothcert_test_encoder.py").write_text("def flat(images):\n    return images.flatten(1)\n")
    monkeypatch.syspath_prepend(tmp_path)
    encoder = load("python:smoothcert_test_encoder:flat")
    assert encoder(images(2, 1, 8, 8)).shape == (2, 64)
    assert getattr(encoder, "source", "") == "python:smoothcert_test_encoder:flat"


def test_what_is_no_encoder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UnknownName, match="Did you mean 'digits'"):
        load("digit")
    with pytest.raises(UnknownName, match="resnet56:PATH"):
        load("resnet57:somewhere")
    with pytest.raises(UnknownName):
        load("")
    with pytest.raises(InvalidInput, match="class"):
        load(nn.Linear)  # type: ignore[arg-type]
    with pytest.raises(InvalidInput, match="cannot be called"):
        load(5)  # type: ignore[arg-type]
    with pytest.raises(UnknownName, match="transformers:HUB_ID_OR_DIRECTORY"):
        load(tmp_path / "nowhere")
    with pytest.raises(CheckpointError, match=r"encoder .* no config\.json.* smoothcert train classifier"):
        load(tmp_path)
    (tmp_path / "config.json").write_text('{"architecture": "smoothcert-mapper"}')
    with pytest.raises(CheckpointError, match=r"'smoothcert-mapper', which is no encoder.* save_pretrained"):
        load(tmp_path)
    with pytest.raises(UnknownName, match="mean"):
        load(f"resnet20:{tmp_path / 'x.npz'}?meen=1")
