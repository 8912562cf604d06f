"""Do the classes of a model mean the classes of a data set? Compared by name where both have names.

A certificate for "class 3" is worth nothing if 3 is a cat in the data and a dog in the model.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from smoothcert.errors import InvalidInput

_GENERIC = re.compile(r"(label|class|output)?[ _-]*[0-9]+", re.IGNORECASE)
_WORDNET = re.compile(r"n[0-9]{8}")
_SHOWN = 6


def meaningful(names: Sequence[str]) -> tuple[str, ...] | None:
    """The names, or ``None`` where they only count (``LABEL_0``, ``LABEL_1``, ...)."""
    return None if all(_GENERIC.fullmatch(str(name)) for name in names) else tuple(map(str, names))


def match(classifier: Any, classes: Sequence[str], data: str) -> tuple[int, ...] | None:
    """Which of the model's answers means each class of the data; ``None`` where they agree as they are.

    Names are compared without regard to case and to ``_ - `` between words; one of several names separated by
    commas is enough. Where one side has no names, or only one has WordNet numbers, the numbers of classes are
    compared; data whose classes are numbers may have fewer.

    Args:
        classifier: with ``classes`` (names) or ``class_count``; one that has neither is not judged.
        classes: of the data. data: its name, for the message.

    Raises:
        InvalidInput: other classes, or another number of them.
    """
    names = getattr(classifier, "classes", None)
    count = len(names) if names else getattr(classifier, "class_count", None)
    at_least = _numbers(classes)  # arrays without names know only the classes that occur
    if count is not None and (count < len(classes) or (count > len(classes) and not at_least)):
        raise _different(classifier, names or [f"{count} without names"], classes, data, f"{count} classes")
    if names and _numbers(names) and at_least and len(names) == len(classes):
        return _order(classifier, names, classes, data)
    theirs, ours = meaningful(names or ()), meaningful(classes)
    if theirs is None or ours is None or _wordnet(theirs) != _wordnet(ours):
        return None
    return _order(classifier, theirs, ours, data)


class Reordered:
    """A classifier whose answers are numbered as the classes of the data.

    Args:
        classifier: with names for its answers.
        order: its own number of each class of the data.
    """

    def __init__(self, classifier: Any, order: Sequence[int]) -> None:
        self.classifier, self.order = classifier, tuple(order)
        self._orders: dict[torch.device, Tensor] = {}
        self.classes = tuple(classifier.classes[k] for k in order)
        self.source = str(getattr(classifier, "source", type(classifier).__qualname__))
        self.function = getattr(classifier, "function", classifier)  # what a wrapped classifier is made of
        if hasattr(classifier, "weights_sha256"):
            self.weights_sha256 = classifier.weights_sha256

    def __call__(self, images: Tensor, /) -> Tensor:
        """Scores or labels, renumbered."""
        answers: Tensor = self.classifier(images)
        order = self._order_on(answers.device)
        return answers[:, order] if answers.ndim == 2 else order.argsort()[answers]

    def _order_on(self, device: torch.device) -> Tensor:
        """The order on the device, made once: copying numbers to an accelerator waits for all it does."""
        if device not in self._orders:
            with torch.inference_mode(False):
                self._orders[device] = torch.tensor(self.order, device=device)
        return self._orders[device]

    def describe(self) -> dict[str, Any]:
        """The classifier's own words, and the order of the data's classes among its own."""
        own = self.classifier.describe() if hasattr(self.classifier, "describe") else {}
        return {**own, "class_order": list(self.order)}


def _order(classifier: Any, theirs: Sequence[str], ours: Sequence[str], data: str) -> tuple[int, ...] | None:
    mine, yours = [_synonyms(name) for name in ours], [_synonyms(name) for name in theirs]
    if all(a & b for a, b in zip(mine, yours, strict=True)):
        return None
    found = [[k for k, other in enumerate(yours) if own & other] for own in mine]
    if all(len(places) == 1 for places in found):
        order = tuple(places[0] for places in found)
        if len(set(order)) == len(order):
            return order
    lacking = [name for name, places in zip(ours, found, strict=True) if len(places) != 1]
    raise _different(classifier, theirs, ours, data, f"{_short(lacking)} not found, or more than once, in it")


def _synonyms(name: str) -> frozenset[str]:
    parts = (re.sub(r"[\s_-]+", " ", part).strip().casefold() for part in name.split(","))
    return frozenset(part for part in parts if part)


def _numbers(names: Sequence[str]) -> bool:
    return all(str(name).isdecimal() for name in names)


def _wordnet(names: Sequence[str]) -> bool:
    return all(_WORDNET.fullmatch(name) for name in names)


def _short(names: Sequence[str]) -> str:
    shown = ", ".join(map(str, names[:_SHOWN]))
    return shown if len(names) <= _SHOWN else f"{shown}, ... ({len(names)} in all)"


def _different(
    classifier: Any, theirs: Sequence[str], ours: Sequence[str], data: str, why: str
) -> InvalidInput:
    source = getattr(classifier, "source", type(classifier).__qualname__)
    return InvalidInput(
        f"classifier {source!r} on {data}",
        f"their classes differ: the classifier has {_short(theirs)}; the data has {_short(ours)} ({why})",
        "Choose a classifier for these classes; if only the words differ, add ?classes=... with the data's "
        "names in the classifier's order, or ?classes=unnamed if that order is the data's",
    )
