"""A network made elsewhere as a classifier: its own preprocessing in front, its answers checked behind."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from smoothcert.classifiers.callable import checked, unwrapped
from smoothcert.errors import InvalidInput
from smoothcert.networks.preprocessing import Preprocessing


class PretrainedClassifier(nn.Module):
    """Images ``(B, C, H, W)`` in [0, 1] -> scores ``(B, classes)``, whatever the network itself expects.

    Images of any float type are prepared in float32 and reach the network in the type of its weights.

    Args:
        network: prepared images -> scores, or an object that holds them as ``logits``.
        preprocessing: what the network was trained with.
        kind: what a run's specification calls it. settings: what else it says there, as plain data.
        class_count: number of scores. classes: their names in order, where they have names.
        source: the name by which it was found.
    """

    def __init__(
        self,
        network: nn.Module,
        preprocessing: Preprocessing,
        *,
        kind: str,
        class_count: int,
        classes: tuple[str, ...] | None = None,
        settings: Mapping[str, Any] | None = None,
        source: str | None = None,
    ) -> None:
        super().__init__()
        if classes is not None and len(classes) != class_count:
            found = f"{len(classes)} class names for a network of {class_count} scores"
            raise InvalidInput(found, "every score needs one name", "Give one name each, in their order")
        self.network, self.preprocessing = network, preprocessing
        self.kind, self.settings, self.source = kind, dict(settings or {}), source or kind
        self.class_count, self.classes = class_count, classes
        self.train(network.training)

    def forward(self, images: Tensor) -> Tensor:
        """Scores for a batch.

        Raises:
            InvalidInput: images that the network was not made for.
            ModelOutputError: an answer that is no table of scores.
        """
        prepared = self.preprocessing(images)
        weight = next(self.network.parameters(), None)
        prepared = prepared if weight is None else prepared.to(weight.dtype)
        return checked(unwrapped(self.network(prepared)), len(images), self.source)

    def describe(self) -> dict[str, Any]:
        """Plain data for a run's specification."""
        return {
            "kind": self.kind,
            **self.settings,
            "class_count": self.class_count,
            "preprocessing": self.preprocessing.describe(),
        }
