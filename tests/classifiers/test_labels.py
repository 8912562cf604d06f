"""Classes of a model and of a data set: the same, the same in another order, or refused."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from smoothcert import certify
from smoothcert.classifiers import CallableClassifier, PretrainedClassifier
from smoothcert.classifiers.labels import Reordered, match
from smoothcert.datasets import ArrayDataset
from smoothcert.errors import InvalidInput
from smoothcert.networks.preprocessing import Preprocessing
from smoothcert.runlog.store import stored_specification
from smoothcert.smoothing import SmoothedClassifier

DATA = ("airplane", "sports_car", "cat")


class Brightness(nn.Module):
    """Dark, middling and bright images are classes 0, 1, 2."""

    def forward(self, images: Tensor) -> Tensor:
        level = images.mean(dim=(1, 2, 3))[:, None]
        return -(level - torch.tensor([0.1, 0.5, 0.9])).abs()


def model(*names: str, count: int = 3) -> PretrainedClassifier:
    classes = names if len(names) else None
    return PretrainedClassifier(
        Brightness(), Preprocessing(channels=1), kind="test", class_count=len(names) or count, classes=classes
    )


@pytest.mark.parametrize(
    ("names", "classes"),
    [
        (("airplane", "sports car", "cat"), DATA),
        (("Airplane, aeroplane", "SPORTS-CAR", "Cat, domestic cat"), DATA),
        (("LABEL_0", "LABEL_1", "LABEL_2"), DATA),
        (("0", "1", "2"), DATA),
        (DATA, ("0", "1", "2")),
        (("tench, fish", "goldfish", "crane"), ("n01440764", "n01443537", "n02012849")),
        (("crane", "maillot", "crane"), ("crane", "maillot", "crane")),  # two of one name, in the same places
        ((), DATA),
        (("a", "b", "c"), ("0", "1")),  # an array of images in which the last class does not occur
    ],
)
def test_classes_that_agree_as_they_are(names: tuple[str, ...], classes: tuple[str, ...]) -> None:
    assert match(model(*names), classes, "data") is None


@pytest.mark.parametrize(
    ("names", "classes", "order"),
    [
        (("cat", "airplane", "sports car"), DATA, (1, 2, 0)),
        (("domestic cat, cat", "Airplane", "sports-car"), DATA, (1, 2, 0)),
        (("2", "0", "1"), ("0", "1", "2"), (1, 2, 0)),
        (("n02", "n01", "n03"), ("n01", "n02", "n03"), (1, 0, 2)),
    ],
)
def test_the_same_classes_in_another_order(
    names: tuple[str, ...], classes: tuple[str, ...], order: tuple[int, ...]
) -> None:
    assert match(model(*names), classes, "data") == order


@pytest.mark.parametrize(
    ("names", "classes", "message"),
    [
        (("airplane", "sports car", "dog"), DATA, "cat not found"),
        (("cat", "cat, airplane", "sports car"), DATA, "cat not found, or more than once"),
        (("a", "b", "c", "d"), DATA, "4 classes"),
        (("LABEL_0", "LABEL_1"), DATA, "2 classes"),
        (
            tuple(f"thing {k}x" for k in range(1000)),
            tuple(f"other {k}x" for k in range(1000)),
            r"1000 in all",
        ),
    ],
)
def test_other_classes_are_refused(names: tuple[str, ...], classes: tuple[str, ...], message: str) -> None:
    with pytest.raises(InvalidInput, match=message) as caught:
        match(model(*names), classes, "data")
    assert len(str(caught.value)) < 800


def test_without_names_the_number_is_compared() -> None:
    with pytest.raises(InvalidInput, match="10 classes"):
        match(model(count=10), DATA, "data")
    assert match(lambda images: images, DATA, "data") is None  # nobody knows


@pytest.mark.parametrize("kind", ["scores", "labels"])
def test_answers_are_renumbered(kind: str) -> None:
    names = ("cat", "airplane", "sports car")
    inner = model(*names)
    plain = inner if kind == "scores" else CallableClassifier(lambda images: inner(images).argmax(1))
    plain.classes = names  # type: ignore[union-attr]
    found = Reordered(plain, (1, 2, 0))
    images = torch.tensor([0.1, 0.5, 0.9]).view(3, 1, 1, 1).expand(3, 1, 4, 4)
    answers = found(images)
    labels = answers.argmax(1) if kind == "scores" else answers
    assert [DATA[k] for k in labels] == ["cat", "airplane", "sports_car"]
    assert found.classes == ("airplane", "sports car", "cat")
    assert found.describe()["class_order"] == [1, 2, 0]


def images_of(levels: tuple[int, ...], classes: tuple[str, ...]) -> ArrayDataset:
    pixels = np.stack([np.full((1, 4, 4), level, np.uint8) for level in levels])
    return ArrayDataset(pixels, np.arange(len(levels)), classes=classes, name="levels", levels=255)


def test_a_run_numbers_the_answers_as_its_data_and_says_so(tmp_path: Path) -> None:
    names = ("dark", "middling", "bright")
    turned = ("bright", "dark", "middling")
    smoothed = SmoothedClassifier(model(*names), 0.05)
    found = certify(smoothed, images_of((230, 25, 128), turned), tmp_path / "run", n0=10, n=50, alpha=0.01)
    assert [row.predicted for row in found.outcomes] == [0, 1, 2]
    specification = stored_specification(tmp_path / "run")
    assert specification is not None
    assert specification.classifier.settings["class_order"] == [2, 0, 1]
    with pytest.raises(InvalidInput, match="their classes differ"):
        certify(smoothed, images_of((25,) * 3, ("x", "y", "z")), tmp_path / "other", n0=10, n=50)
    assert not (tmp_path / "other").exists()
