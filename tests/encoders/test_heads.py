"""Prototypes of examples: means of unit features, chosen from a named stream, saved and read to the bit."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from tests.realdata import DATA, cifar10_labels, needs, sheet
from torch import Tensor

from smoothcert import datasets
from smoothcert.datasets import ArrayDataset
from smoothcert.encoders import ZeroShotHead, load
from smoothcert.errors import CheckpointError, DataError, InvalidInput, ModelOutputError

NAMES = ("cat", "dog", "frog")


def flat(images: Tensor) -> Tensor:
    return images.flatten(1)


def pictures(count: int, seed: int = 0) -> np.ndarray[Any, np.dtype[np.uint8]]:
    return np.random.default_rng(seed).integers(0, 256, (count, 1, 4, 4), dtype=np.uint8)


def by_class(count: int = 6) -> dict[str, np.ndarray[Any, np.dtype[np.uint8]]]:
    return {name: pictures(count, seed) for seed, name in enumerate(NAMES)}


def unit(rows: Any) -> Any:
    rows = np.asarray(rows, dtype=np.float64)
    return rows / np.linalg.norm(rows, axis=-1, keepdims=True)


def test_a_prototype_is_the_direction_of_the_mean_of_unit_features() -> None:
    head = ZeroShotHead.from_examples(flat, by_class())
    for row, images in zip(head.prototypes, by_class().values(), strict=True):
        features = unit(images.reshape(6, -1) / 255)
        assert np.allclose(row, unit(features.mean(0)), atol=1e-7)
        assert not np.allclose(row, unit(images.reshape(6, -1).astype(float).mean(0)), atol=1e-4)
    assert head.classes == NAMES
    assert np.allclose(np.linalg.norm(head.prototypes, axis=1), 1.0, atol=1e-12)


def test_tokens_are_one_row() -> None:
    tokens = ZeroShotHead.from_examples(lambda images: images.reshape(len(images), 4, 4), by_class())
    assert np.array_equal(tokens.prototypes, ZeroShotHead.from_examples(flat, by_class()).prototypes)


def test_a_data_set_and_the_same_images_by_class_are_the_same_head() -> None:
    images = np.concatenate(list(by_class().values()))
    order = np.random.default_rng(3).permutation(18)
    data = ArrayDataset(images[order], np.repeat(range(3), 6)[order], levels=255, classes=NAMES)
    assert np.allclose(
        ZeroShotHead.from_examples(flat, data).prototypes,
        ZeroShotHead.from_examples(flat, by_class()).prototypes,
        atol=1e-12,
    )


def test_grey_levels_are_those_of_the_data() -> None:
    images, labels = np.arange(32, dtype=np.uint8).reshape(2, 1, 4, 4) % 17, [0, 1]
    seen: list[Tensor] = []

    def noting(batch: Tensor) -> Tensor:
        seen.append(batch)
        return batch.flatten(1)

    ZeroShotHead.from_examples(noting, ArrayDataset(images, labels, levels=16))
    assert max(float(batch.max()) for batch in seen) == 1.0


def test_shots_are_chosen_by_the_seed_and_nothing_else() -> None:
    one = ZeroShotHead.from_examples(flat, by_class(), shots=2, seed=1)
    again = ZeroShotHead.from_examples(
        flat, dict(reversed(list(by_class().items()))), shots=2, seed=1, batch=1
    )
    assert np.array_equal(one.prototypes, again.prototypes[::-1])
    other = ZeroShotHead.from_examples(flat, by_class(), shots=2, seed=2)
    assert not np.array_equal(one.prototypes, other.prototypes)
    pairs = unit(by_class()["cat"].reshape(6, -1) / np.float32(255))
    sums = [unit(pairs[a] + pairs[b]) for a in range(6) for b in range(a)]
    assert min(np.abs(one.prototypes[0] - found).max() for found in sums) < 1e-7, "two different examples"
    assert one.facts["shots"] == 2


def test_labels_and_scores() -> None:
    head = ZeroShotHead(np.eye(3), NAMES)
    features = np.array([[0.1, 0.2, -5.0], [3.0, 0.0, 1.0]])
    assert np.array_equal(head.scores(features), features)
    assert head.labels(features).tolist() == [1, 0]
    with pytest.raises(InvalidInput, match="features of 4 numbers"):
        head.scores(np.zeros((2, 4)))


def test_a_real_head_is_good() -> None:
    encoder, train, test = load("digits"), datasets.load("digits:train"), datasets.load("digits:test")
    head = ZeroShotHead.from_examples(encoder, train, shots=20, seed=0)
    images = torch.from_numpy(np.stack([test[k].image for k in range(100)])).float() / test.levels
    labels = [test[k].label for k in range(100)]
    assert (head.labels(encoder(images).numpy()) == labels).mean() > 0.9
    assert head.facts["encoder"] == "digits"
    assert head.facts["data"] == train.name


@needs("weights/cifar10_resnet20.npz", "cifar10/cifar10_train_0.webp", "cifar10/cifar10_test_every20.npz")
def test_five_examples_a_class_do_on_cifar10_nearly_what_the_trained_last_layer_does() -> None:
    encoder = load(
        f"resnet20:{DATA}/weights/cifar10_resnet20.npz?mean=0.485,0.456,0.406&std=0.229,0.224,0.225"
    )
    images, known = sheet("cifar10_train_0.webp"), cifar10_labels()
    names = [str(name) for name in known["class_names"]]
    train = ArrayDataset(images, known["train_labels"][:10_000], levels=255, classes=names)
    head = ZeroShotHead.from_examples(encoder, train, shots=5)
    test = np.load(DATA / "cifar10/cifar10_test_every20.npz")
    with torch.inference_mode():
        parts = torch.from_numpy(test["images"]).float().div(255).split(50)
        features = torch.cat([encoder(part) for part in parts]).numpy()
    right = int((head.labels(features) == test["labels"]).sum())
    assert 440 <= right <= 455, "of 500; the last layer has 450"


def test_saved_and_read_to_the_bit(tmp_path: Path) -> None:
    head = ZeroShotHead.from_examples(flat, by_class(), shots=3, seed=5)
    head.save(tmp_path / "new" / "head")
    again = ZeroShotHead.load(tmp_path / "new" / "head")
    assert np.array_equal(again.prototypes, head.prototypes)
    assert (again.classes, again.facts, again.sha256) == (head.classes, head.facts, head.sha256)
    json.dumps(again.describe())
    other = ZeroShotHead(head.prototypes, ("a", "b", "c"))
    assert other.sha256 != head.sha256


def test_another_model_is_not_written_over(tmp_path: Path) -> None:
    (tmp_path / "config.json").write_text('{"model_type": "clip"}')
    head = ZeroShotHead(np.eye(3), ("a", "b", "c"))
    with pytest.raises(CheckpointError, match="holds another model"):
        head.save(tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["config.json"]
    head.save(tmp_path / "heads")
    head.save(tmp_path / "heads")


def test_a_place_that_cannot_be_written_is_one_clear_error(tmp_path: Path) -> None:
    (tmp_path / "file.py").write_text("")
    for place in (tmp_path / "file.py", tmp_path / "file.py" / "below"):
        with pytest.raises(CheckpointError, match="cannot be written"):
            ZeroShotHead(np.eye(3), NAMES).save(place)


@pytest.mark.parametrize("damage", ["names", "weights", "nothing", "architecture"])
def test_a_head_that_was_changed_is_refused(tmp_path: Path, damage: str) -> None:
    ZeroShotHead.from_examples(flat, by_class()).save(tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    if damage == "names":
        (tmp_path / "config.json").write_text(json.dumps({**config, "classes": ["dog", "cat", "frog"]}))
    elif damage == "architecture":
        (tmp_path / "config.json").write_text(json.dumps({**config, "architecture": "other"}))
    elif damage == "weights":
        ZeroShotHead.from_examples(flat, by_class(5)).save(tmp_path / "other")
        (tmp_path / "other" / "model.safetensors").replace(tmp_path / "model.safetensors")
    else:
        (tmp_path / "model.safetensors").write_bytes(b"")
    with pytest.raises(CheckpointError):
        ZeroShotHead.load(tmp_path)


@pytest.mark.parametrize(
    ("rows", "classes", "message"),
    [
        (np.eye(2), ("a",), "one row"),
        (np.eye(1), ("a",), "two classes"),
        (np.eye(2), ("a", "a"), "name of its own"),
        (np.eye(2), ("a", ""), "name of its own"),
        (2 * np.eye(2), ("a", "b"), "length 1"),
        (np.array([[np.nan, 1.0], [0.0, 1.0]]), ("a", "b"), "finite"),
        (np.array([[1.0, 0.0], [1.0, 0.0]]), ("a", "b"), "tell them apart"),
    ],
)
def test_heads_that_cannot_be_are_refused(rows: Any, classes: Any, message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        ZeroShotHead(rows, classes)


@pytest.mark.parametrize(
    ("encoder", "data", "options", "error", "message"),
    [
        (flat, by_class(), {"shots": 7}, InvalidInput, "with 6 images"),
        (flat, by_class(), {"shots": 0}, InvalidInput, "shots=0"),
        (flat, {**by_class(), "ant": pictures(0)}, {}, InvalidInput, "'ant' with 0 images"),
        (flat, {"cat": pictures(3)}, {}, InvalidInput, "two classes"),
        (flat, {"cat": pictures(3), "dog": pictures(3)}, {}, InvalidInput, "tell them apart"),
        (flat, {"cat": pictures(3) * 1.0, "dog": pictures(3)}, {}, InvalidInput, r"in \[0, 1\]"),
        (flat, {"cat": pictures(3)[0], "dog": pictures(3)}, {}, InvalidInput, r"\(N, C, H, W\)"),
        (flat, [1, 2], {}, InvalidInput, "labels"),
        (lambda batch: batch.flatten(1) * 0, by_class(), {}, InvalidInput, "no direction"),
        (lambda batch: batch.flatten(1) / 0, by_class(), {}, InvalidInput, "class 'cat'"),
        (lambda batch: batch.flatten(1).long(), by_class(), {}, ModelOutputError, "floating point"),
        (
            lambda batch: batch[:, :, : len(batch)].flatten(1),
            by_class(3),
            {"batch": 2},
            ModelOutputError,
            "after",
        ),
    ],
)
def test_examples_that_make_no_head_are_refused(
    encoder: Any, data: Any, options: dict[str, int], error: type[Exception], message: str
) -> None:
    with pytest.raises(error, match=message):
        ZeroShotHead.from_examples(encoder, data, **options)


def test_opposite_features_have_no_mean_direction() -> None:
    signs = {"cat": np.zeros((2, 1, 1, 2)), "dog": np.ones((2, 1, 1, 2))}
    signs["cat"][0, ..., 0] = 1.0
    signs["cat"][1, ..., 1] = 1.0
    with pytest.raises(InvalidInput, match="opposite"):
        ZeroShotHead.from_examples(lambda batch: batch[:, 0, 0] * 2 - 1, signs)


def test_a_folder_of_pictures_and_its_slice(tmp_path: Path) -> None:
    for name, images in by_class(4).items():
        (tmp_path / name).mkdir()
        for number, image in enumerate(images):
            Image.fromarray(image[0]).save(tmp_path / name / f"{number}.png")
    whole = datasets.load(f"folder:{tmp_path}?mode=grey")
    found = ZeroShotHead.from_examples(flat, whole)
    assert np.allclose(found.prototypes, ZeroShotHead.from_examples(flat, by_class(4)).prototypes, atol=1e-12)
    half = datasets.load(f"folder:{tmp_path}?mode=grey[::2]")
    some = ZeroShotHead.from_examples(flat, {name: images[::2] for name, images in by_class(4).items()})
    assert np.allclose(ZeroShotHead.from_examples(flat, half).prototypes, some.prototypes, atol=1e-12)
    with pytest.raises(InvalidInput, match="'cat' with 1 image"):
        ZeroShotHead.from_examples(flat, datasets.load(f"folder:{tmp_path}?mode=grey[3:]"), shots=2)
    (tmp_path / "empty").mkdir()
    with pytest.raises((DataError, InvalidInput), match="empty"):
        ZeroShotHead.from_examples(flat, datasets.load(f"folder:{tmp_path}?mode=grey"))
