"""The embedded data set: 1,797 handwritten digits, 8x8 pixels of 17 grey levels (0..16).

The images are the test part of "Optical Recognition of Handwritten Digits" (E. Alpaydin and C. Kaynak, 1998,
UCI Machine Learning Repository, https://doi.org/10.24432/C50P49, licence CC BY 4.0), as scikit-learn
distributes them in ``load_digits``. They are stored unchanged, in that order, in ``digits.npz`` beside this
module, so that nothing has to be downloaded or installed.

The split is fixed for ever: a permutation drawn with numpy's Philox, the first 500 for testing, as many as
the field certifies on larger data sets, and the remaining 1,297 for training.
"""

from __future__ import annotations

from functools import cache
from pathlib import Path

import numpy as np
import numpy.typing as npt

from smoothcert.datasets.arrays import ArrayDataset
from smoothcert.errors import UnknownName

LEVELS = 16
SOURCE = (
    "E. Alpaydin and C. Kaynak, Optical Recognition of Handwritten Digits, UCI Machine Learning Repository, "
    "1998, https://doi.org/10.24432/C50P49, CC BY 4.0; the images of scikit-learn's load_digits"
)
SPLITS = ("test", "train")
_TEST_IMAGES = 500
_SPLIT_KEY = 20260


@cache
def digits(split: str = "test") -> ArrayDataset:
    """The handwritten digits, for certifying (``test``, 500 images) or for training (``train``, 1,297).

    Images are ``(1, 8, 8)`` uint8 in 0..16, classes "0" to "9"; ``Example.index`` is the position in the
    split.

    Raises:
        UnknownName: a split other than those two.
    """
    if split not in SPLITS:
        raise UnknownName.among("split of digits", split, SPLITS)
    images, labels = _stored()
    chosen = split_positions(split)
    return ArrayDataset(
        images[chosen],
        labels[chosen],
        levels=LEVELS,
        name=f"digits:{split}",
        classes=tuple("0123456789"),
        source=SOURCE,
    )


def split_positions(split: str) -> npt.NDArray[np.int64]:
    """Where the examples of a split stand in scikit-learn's order, ``(500,)`` or ``(1297,)``."""
    order = _philox_permutation(1797)
    return order[:_TEST_IMAGES] if split == "test" else order[_TEST_IMAGES:]


def _philox_permutation(count: int) -> npt.NDArray[np.int64]:
    """Order by raw 64-bit Philox words: unlike ``Generator.permutation``, numpy promises to keep these."""
    words = np.random.Philox(key=_SPLIT_KEY).random_raw(count)
    return np.argsort(words, kind="stable").astype(np.int64)


def _stored() -> tuple[npt.NDArray[np.uint8], npt.NDArray[np.uint8]]:
    """Images ``(1797, 1, 8, 8)`` and labels ``(1797,)`` in scikit-learn's order."""
    with np.load(Path(__file__).with_name("digits.npz"), allow_pickle=False) as stored:
        return stored["images"], stored["labels"]
