"""Classifiers that see pictures and say labels: a function of 8-bit images, with nothing known of its inside.

Rounding and clipping to 8 bits comes after the noise and belongs to the classifier, so a certificate holds as
for any other. Only labels are asked for: hard-label smoothing.
"""

from __future__ import annotations

import difflib
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from smoothcert.errors import InvalidInput, ModelOutputError

Pictures = npt.NDArray[np.uint8]


class BlackBoxClassifier:
    """A function from 8-bit pictures ``(B, H, W, C)`` to B labels, as a classifier of images in [0, 1].

    Args:
        function: a numpy array of pictures -> whole numbers from 0, or names among ``classes``.
        classes: the names of the labels in their order; needed where the function answers with names.
        name: how messages and a run's specification call it.
    """

    def __init__(
        self,
        function: Callable[[Pictures], Iterable[Any]],
        *,
        classes: Sequence[str] | None = None,
        name: str | None = None,
    ) -> None:
        if not callable(function):
            found = f"a black box of type {type(function).__name__}"
            raise InvalidInput(found, "it cannot be called", "Give a function of pictures (B, H, W, C)")
        self.function = function
        self.classes = tuple(classes) if classes else None
        self.source = name or str(getattr(function, "__qualname__", type(function).__qualname__))

    def __call__(self, images: Tensor, /) -> Tensor:
        """Labels ``(B,)``, int64, on the device of the images.

        Raises:
            ModelOutputError: an answer of another length, or a label that is not among the classes.
        """
        answers = self.function(pictures(images))
        return numbered(answers, self.classes, len(images), self.source).to(images.device)

    def describe(self) -> dict[str, Any]:
        """Plain data for a run's specification."""
        return {"kind": "black-box", "classes": None if self.classes is None else list(self.classes)}


def pictures(images: Tensor) -> Pictures:
    """Float images ``(B, C, H, W)`` -> 8-bit pictures ``(B, H, W, C)``: clipped to [0, 1] and rounded.

    A pixel that is no number becomes black; the draw it belongs to is counted as non-finite elsewhere.
    """
    levels = torch.nan_to_num(images.detach().float(), nan=0.0).clamp(0.0, 1.0) * 255
    return levels.round().to(torch.uint8).permute(0, 2, 3, 1).contiguous().cpu().numpy()


def numbered(answers: Any, classes: Sequence[str] | None, batch: int, name: str) -> Tensor:
    """Labels as numbers, one for each image.

    Raises:
        ModelOutputError: another number of them, or one that is no class.
    """
    found = list(answers) if isinstance(answers, Iterable) and not isinstance(answers, str | bytes) else None
    if found is None or len(found) != batch:
        got = f"{type(answers).__name__}" if found is None else f"{len(found)} labels"
        raise ModelOutputError(
            f"classifier {name} returned {got} for {batch} images",
            "each image needs one label",
            "Return a list of labels in the order of the images",
        )
    return torch.tensor([_number(answer, classes, name) for answer in found], dtype=torch.int64)


def _number(answer: Any, classes: Sequence[str] | None, name: str) -> int:
    if isinstance(answer, str) and classes is not None and answer in classes:
        return classes.index(answer)
    whole = isinstance(answer, int | np.integer) and not isinstance(answer, bool | np.bool_)
    if whole and 0 <= answer < (len(classes) if classes is not None else 2**31):
        return int(answer)
    found = f"classifier {name} answered {answer!r:.80}"
    if classes is None:
        why = "without class names a label is a whole number from 0"
        raise ModelOutputError(found, why, "Give classes=, the names in their order")
    close = difflib.get_close_matches(str(answer), classes, n=1)
    hint = f" (perhaps {close[0]!r})" if close else ""
    why = f"that is none of the {len(classes)} classes {', '.join(classes[:6])}{hint}"
    raise ModelOutputError(found, why, "Give classes= as the classifier spells them")
