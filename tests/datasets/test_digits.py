"""The embedded digits: unchanged images of scikit-learn, a split that never moves."""

from __future__ import annotations

import hashlib

import numpy as np
import pytest

from smoothcert.datasets import digits, load
from smoothcert.datasets.digits import split_positions
from smoothcert.errors import UnknownName
from smoothcert.protocols import Dataset

CONTENT = {
    "test": "c41e99ca2001e7e5ad73a4bc495c693db013cd0596f2f8bb2d007bd28b3a2afa",
    "train": "93b804cbff34c5633dad87d147450bd97cfc2a5ca63ff6116e96fefb6067470e",
}
ORDER = {
    "test": "e9161f35dff2bb1983d46b2113691de7686e82155443e2f2ae1f6d0fd35b2b12",
    "train": "9743730409ffed2669485cda37ae3b9d506d02aa4230ccf25418e3790b2b0e61",
}


def content_hash(dataset: Dataset) -> str:
    examples = (dataset[position] for position in range(len(dataset)))
    return hashlib.sha256(b"".join(e.image.tobytes() + bytes([e.label]) for e in examples)).hexdigest()


@pytest.mark.parametrize("split", ["test", "train"])
def test_images_labels_and_order_never_change(split: str) -> None:
    assert content_hash(digits(split)) == CONTENT[split]
    assert hashlib.sha256(split_positions(split).astype("<i8").tobytes()).hexdigest() == ORDER[split]


def test_is_scikit_learns_data_split_without_overlap() -> None:
    source = pytest.importorskip("sklearn.datasets").load_digits()
    positions = {split: split_positions(split) for split in ("test", "train")}
    assert sorted(np.concatenate(list(positions.values()))) == list(range(1797))
    for split, origin in positions.items():
        dataset = digits(split)
        assert len(dataset) == len(origin)
        for example, place in zip((dataset[i] for i in range(len(dataset))), origin, strict=True):
            np.testing.assert_array_equal(example.image[0], source.images[place])
            assert example.label == source.target[place]


def test_satisfies_the_protocol() -> None:
    test = load("digits")
    assert isinstance(test, Dataset)
    assert (test.name, len(test), test.levels, test.shape) == ("digits:test", 500, 16, (1, 8, 8))
    assert test.classes == tuple("0123456789")
    example = test[17]
    assert (example.index, example.name) == (17, "digits:test-17")
    assert example.image.dtype == np.uint8
    assert int(max(test[i].image.max() for i in range(500))) == 16


def test_every_class_is_in_both_splits() -> None:
    for split in ("test", "train"):
        dataset = digits(split)
        counts = np.bincount([dataset[i].label for i in range(len(dataset))], minlength=10)
        assert counts.min() >= len(dataset) * 0.08


def test_images_cannot_be_changed_by_a_caller() -> None:
    image = load("digits")[0].image
    with pytest.raises(ValueError, match="read-only"):
        image[0, 0, 0] = 1


def test_unknown_split_lists_the_known_ones() -> None:
    with pytest.raises(UnknownName, match=r"'tests'.*Did you mean 'test'.*Known: test, train"):
        digits("tests")
