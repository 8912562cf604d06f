"""Plain state dicts of a named architecture, on real weights and real images; what is refused."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from tests.realdata import DATA, needs
from torch import Tensor

from smoothcert.classifiers import load, plain
from smoothcert.errors import CheckpointError, InvalidInput, UnknownName

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
TOLD = "?mean=0.485,0.456,0.406&std=0.229,0.224,0.225"
CLASSES = ("airplane", "automobile", "bird", "cat", "deer", "dog", "frog", "horse", "ship", "truck")
EVERY_20TH = "cifar10/cifar10_test_every20.npz"
RIGHT = {"resnet20": 450, "resnet56": 474}  # of 500: 90.0 % and 94.8 %


def weights(depth: int) -> str:
    return f"weights/cifar10_resnet{depth}.npz"


def state_of(depth: int) -> dict[str, Tensor]:
    return {name: torch.from_numpy(array) for name, array in np.load(DATA / weights(depth)).items()}


def right_answers(name: str) -> int:
    stored = np.load(DATA / EVERY_20TH)
    images = torch.from_numpy(stored["images"]).float() / 255
    classifier = load(name)
    with torch.inference_mode():
        labels = torch.cat([classifier(part).argmax(1) for part in images.split(50)])
    return int((labels.numpy() == stored["labels"]).sum())


@pytest.fixture
def untrained(tmp_path: Path) -> Path:
    network = plain.build("resnet20", classes=CLASSES, mean=MEAN, std=STD).network
    torch.save(network.state_dict(), tmp_path / "net.th")
    return tmp_path / "net.th"


@needs(weights(20), EVERY_20TH)
@pytest.mark.parametrize("ending", ["npz", "th", "safetensors"])
def test_the_published_accuracy_from_every_kind_of_file(tmp_path: Path, ending: str) -> None:
    path = DATA / weights(20)
    if ending == "th":  # as data-parallel training saves it
        path = tmp_path / "resnet20.th"
        torch.save({"state_dict": {f"module.{k}": v for k, v in state_of(20).items()}, "best": 1}, path)
    if ending == "safetensors":
        path = tmp_path / "resnet20.safetensors"
        save_file(state_of(20), path)
    assert right_answers(f"resnet20:{path}{TOLD}") == RIGHT["resnet20"]


@needs(weights(56), EVERY_20TH)
def test_the_published_accuracy_of_the_deep_one() -> None:
    assert right_answers(f"resnet56:{DATA / weights(56)}{TOLD}") == RIGHT["resnet56"]


@needs(weights(20), EVERY_20TH)
def test_a_wrong_normalisation_is_worse() -> None:
    swapped = "?mean=0.229,0.224,0.225&std=0.485,0.456,0.406"
    assert right_answers(f"resnet20:{DATA / weights(20)}{swapped}") < RIGHT["resnet20"] - 5


@pytest.mark.parametrize("depth", [20, 32, 44, 56, 110])
def test_every_depth_is_built_and_read_again(tmp_path: Path, depth: int) -> None:
    made = plain.build(f"resnet{depth}", classes=CLASSES[:3], mean=(0.5,), std=(0.25,))
    blocks = sum("conv" in name for name, _ in made.network.named_parameters())
    assert blocks == depth - 1  # and the last, linear, layer
    plain.save(made, tmp_path / "saved")
    again = load(tmp_path / "saved")
    images = torch.rand(2, 1, 32, 32, generator=torch.Generator().manual_seed(1))
    assert torch.equal(again(images), made.eval()(images))
    assert isinstance(again, plain.PretrainedClassifier)
    assert (again.classes, again.describe()) == (made.classes, made.describe())


@pytest.mark.parametrize("beside", ["config.json", "card.toml"])
def test_a_file_beside_the_weights_may_say_the_normalisation(untrained: Path, beside: str) -> None:
    told = load(f"resnet20:{untrained}{TOLD}&classes={','.join(CLASSES)}")
    if beside == "config.json":
        content = json.dumps({"mean": MEAN, "std": STD, "classes": CLASSES})
    else:
        content = f"classes = {list(CLASSES)}\n[preprocessing]\nmean = {list(MEAN)}\nstd = {list(STD)}\n"
    untrained.with_name(beside).write_text(content)
    found = load(f"resnet20:{untrained}")
    assert isinstance(found, plain.PretrainedClassifier)
    assert isinstance(told, plain.PretrainedClassifier)
    assert (found.describe(), found.classes) == (told.describe(), CLASSES)


def test_without_a_normalisation_nothing_is_guessed(untrained: Path) -> None:
    with pytest.raises(InvalidInput, match=r"\?mean=0\.485,0\.456,0\.406&std="):
        load(f"resnet20:{untrained}")


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ("?mean=0.5", "without a std"),
        ("?mean=0.5&std=0", "positive"),
        ("?mean=0.5,0.5&std=1,1", "3 channels"),
        ("?mean=a&std=1", "list of numbers"),
        ("?mean=nan&std=1", "finite"),
        ("?mean", "option=value"),
        ("?mean=1&mean=1&std=1", "twice"),
        (f"{TOLD}&size=0", "no size"),
        (f"{TOLD}&interpolation=magic", "bilinear"),
        (f"{TOLD}&classes=cat,dog", "10 scores"),
        (f"{TOLD}&classes=cat", "two named classes"),
    ],
)
def test_options_that_cannot_be_are_refused(untrained: Path, options: str, message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        load(f"resnet20:{untrained}{options}")


def test_an_unknown_option_suggests_the_known(untrained: Path) -> None:
    with pytest.raises(UnknownName, match="Did you mean 'mean'"):
        load(f"resnet20:{untrained}?meen=0.5&std=1")


def test_weights_of_another_architecture_are_refused(tmp_path: Path, untrained: Path) -> None:
    with pytest.raises(CheckpointError, match=r"another|not of this architecture"):
        load(f"resnet56:{untrained}{TOLD}")
    torch.save({"fc.weight": torch.zeros(10, 4)}, tmp_path / "other.pt")
    with pytest.raises(CheckpointError, match="not of this architecture"):
        load(f"resnet20:{tmp_path / 'other.pt'}{TOLD}")


def test_weights_that_are_not_what_the_card_promises_are_refused(untrained: Path) -> None:
    card = f'mean = [0.5]\nstd = [0.5]\n[sha256]\n"{untrained.name}" = "{"0" * 64}"\n'
    untrained.with_name("card.toml").write_text(card)
    with pytest.raises(CheckpointError, match="SHA-256"):
        load(f"resnet20:{untrained}")


def test_images_of_another_size_or_colour_are_one_clear_error(untrained: Path) -> None:
    classifier = load(f"resnet20:{untrained}{TOLD}")
    with pytest.raises(InvalidInput, match=r"\?grey=repeat"):
        classifier(torch.zeros(2, 1, 28, 28))
    with pytest.raises(InvalidInput, match="size=32x32"):
        classifier(torch.zeros(2, 3, 28, 28))
    told = load(f"resnet20:{untrained}{TOLD}&grey=repeat&size=32x32")
    grey = torch.rand(2, 1, 28, 28, generator=torch.Generator().manual_seed(2))
    assert torch.equal(told(grey), told(grey.expand(2, 3, 28, 28)))


def test_a_saved_directory_that_was_changed_is_refused(tmp_path: Path) -> None:
    made = plain.build("resnet20", classes=CLASSES, mean=MEAN, std=STD)
    plain.save(made, tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    for change in ({"preprocessing": None}, {"classes": ["a", "b"]}, {"preprocessing": {"mode": 1}}):
        (tmp_path / "config.json").write_text(json.dumps({**config, **change}))
        with pytest.raises(CheckpointError, match=r"config\.json"):
            load(tmp_path)
