"""A network made elsewhere as a classifier: its own preprocessing in front, its answers checked behind."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from smoothcert.classifiers.callable import checked, unwrapped
from smoothcert.classifiers.preprocessing import Preprocessing
from smoothcert.errors import CheckpointError, InvalidInput


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


def fill(network: nn.Module, state: Mapping[str, Tensor], name: str) -> nn.Module:
    """Put weights into a network, all of them and no others, and return it ready to use.

    Counts of batches that old files leave out (``num_batches_tracked``) change no answer and may be missing.

    Raises:
        CheckpointError: weights of another architecture, or numbers that are not finite.
    """
    broken = [key for key, tensor in state.items() if not torch.isfinite(tensor).all()]
    if broken:
        why = f"{_some(broken)} holds numbers that are not finite"
        raise CheckpointError(f"classifier {name!r}", why, "Fetch or save the weights again")
    try:
        missing, unexpected = network.load_state_dict(dict(state), strict=False)
    except RuntimeError as error:
        shapes = str(error).splitlines()[1:2] or [str(error)]
        raise _misfit(name, shapes[0].strip()) from error
    missing = [key for key in missing if not key.endswith("num_batches_tracked")]
    if missing or unexpected:
        raise _misfit(name, f"missing: {_some(missing)}; not of this network: {_some(unexpected)}")
    return network.eval().requires_grad_(False)


def _some(names: list[str]) -> str:
    shown = ", ".join(names[:4]) or "nothing"
    return shown if len(names) <= 4 else f"{shown} and {len(names) - 4} more"


def _misfit(name: str, why: str) -> CheckpointError:
    found = f"the weights are not of this architecture ({why})"
    return CheckpointError(f"classifier {name!r}", found, "Name the architecture they were saved from")
