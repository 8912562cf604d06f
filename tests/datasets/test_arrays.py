"""Arrays in memory: accepted once they are what they claim, refused with a reason otherwise."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from hypothesis import given
from hypothesis import strategies as st

from smoothcert.datasets import ArrayDataset, Subset
from smoothcert.errors import InvalidInput
from smoothcert.protocols import Dataset

IMAGES: npt.NDArray[np.uint8] = np.arange(24, dtype=np.uint8).reshape(2, 3, 2, 2)


def test_integer_images_keep_their_levels() -> None:
    dataset = ArrayDataset(IMAGES.astype(np.int64), [1, 0], levels=255, name="tiny")
    assert isinstance(dataset, Dataset)
    assert (len(dataset), dataset.shape, dataset.levels) == (2, (3, 2, 2), 255)
    assert dataset[1].image.dtype == np.uint8
    np.testing.assert_array_equal(dataset[1].image, IMAGES[1])
    assert (dataset[0].label, dataset[0].name, dataset.classes) == (1, "tiny-0", ("0", "1"))


def test_float_images_become_float32() -> None:
    dataset = ArrayDataset(IMAGES / 23.0, np.array([0, 2]), classes=("a", "b", "c"))
    assert dataset.levels is None
    assert dataset[0].image.dtype == np.float32
    assert dataset.classes == ("a", "b", "c")


def test_keeps_a_copy_of_its_own() -> None:
    mine = IMAGES.copy()
    dataset = ArrayDataset(mine, [0, 0], levels=255)
    mine[:] = 0
    np.testing.assert_array_equal(dataset[0].image, IMAGES[0])


@pytest.mark.parametrize(
    ("images", "labels", "options"),
    [
        (IMAGES[0], [0, 0], {"levels": 255}),
        (IMAGES[:0], [], {"levels": 255}),
        (IMAGES, [0, 0], {}),
        (IMAGES, [0, 0], {"levels": 22}),
        (IMAGES, [0, 0], {"levels": 0}),
        (IMAGES, [0, 0], {"levels": 256}),
        (IMAGES.astype(np.int16) - 1, [0, 0], {"levels": 255}),
        (IMAGES / 23.0, [0, 0], {"levels": 255}),
        (IMAGES / 22.0, [0, 0], {}),
        (IMAGES / 23.0 - 0.1, [0, 0], {}),
        (np.full((2, 1, 2, 2), np.nan), [0, 0], {}),
        (np.full((2, 1, 2, 2), np.inf), [0, 0], {}),
        (IMAGES > 3, [0, 0], {"levels": 1}),
        (IMAGES, [0], {"levels": 255}),
        (IMAGES, [[0], [0]], {"levels": 255}),
        (IMAGES, [0.0, 1.0], {"levels": 255}),
        (IMAGES, [0, -1], {"levels": 255}),
        (IMAGES, [0, 3], {"levels": 255, "classes": ("a", "b", "c")}),
        (np.array([["x"]]), [0], {}),
    ],
)
def test_refuses_what_cannot_be_certified(
    images: npt.NDArray[Any], labels: list[Any], options: dict[str, Any]
) -> None:
    with pytest.raises(InvalidInput):
        ArrayDataset(images, labels, **options)


@given(st.permutations(range(6)).flatmap(lambda order: st.integers(1, 6).map(lambda k: tuple(order[:k]))))
def test_subset_is_the_full_data_set_at_those_positions(positions: tuple[int, ...]) -> None:
    full = ArrayDataset(np.arange(6, dtype=np.uint8).reshape(6, 1, 1, 1), [0] * 6, levels=5)
    subset = Subset(full, positions, "some")
    assert [subset[i].index for i in range(len(subset))] == list(positions)
    assert [int(subset[i].image.item()) for i in range(len(subset))] == list(positions)


@pytest.mark.parametrize("positions", [(), (0, 0), (2,), (-1,)])
def test_subset_refuses_repeats_and_strangers(positions: tuple[int, ...]) -> None:
    with pytest.raises(InvalidInput, match="positions"):
        Subset(ArrayDataset(IMAGES, [0, 0], levels=255), positions, "some")
