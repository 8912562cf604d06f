"""A network made elsewhere as an encoder: its own preprocessing in front, its features checked behind."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from smoothcert.encoders.callable import checked
from smoothcert.errors import CheckpointError, ModelOutputError
from smoothcert.networks.preprocessing import Preprocessing

if TYPE_CHECKING:
    from smoothcert.encoders.text import TextTower


class PretrainedEncoder(nn.Module):
    """Images ``(B, C, H, W)`` in [0, 1] -> features ``(B, k)`` or ``(B, T, d)``, as the network makes them.

    Images of any float type are prepared in float32 and reach the network in the type of its weights.
    Gradients pass through, the preprocessing included.

    Args:
        network: prepared images -> features.
        preprocessing: what the network was trained with.
        kind: what a run's specification calls it. settings: what else it says there, as plain data.
        shape: of one feature, ``(k,)`` or ``(T, d)``.
        text: prompts to features of the same space, where the model can do that.
        source: the name by which it was found.
    """

    def __init__(
        self,
        network: nn.Module,
        preprocessing: Preprocessing,
        *,
        kind: str,
        shape: tuple[int, ...],
        settings: Mapping[str, Any] | None = None,
        text: TextTower | None = None,
        source: str | None = None,
    ) -> None:
        super().__init__()
        self.network, self.preprocessing, self.text = network, preprocessing, text
        self.kind, self.settings, self.source = kind, dict(settings or {}), source or kind
        self.shape = tuple(shape)
        self.train(network.training)

    @property
    def dimension(self) -> int:
        """k of ``(B, k)``, d of ``(B, T, d)``."""
        return self.shape[-1]

    def forward(self, images: Tensor) -> Tensor:
        """Features for a batch.

        Raises:
            InvalidInput: images that the network was not made for.
            ModelOutputError: an answer that is no features, or of another length.
        """
        prepared = self.preprocessing(images)
        weight = next(self.network.parameters(), None)
        prepared = prepared if weight is None else prepared.to(weight.dtype)
        return checked(self.network(prepared), len(images), self.source, self.shape)

    def describe(self) -> dict[str, Any]:
        """Plain data for a run's specification."""
        return {
            "kind": self.kind,
            **self.settings,
            "shape": list(self.shape),
            "preprocessing": self.preprocessing.describe(),
        }


class Penultimate(nn.Module):
    """What the last layer of a classifying network makes scores of: its ``embed``."""

    def __init__(self, network: Any) -> None:
        super().__init__()
        self.network = network
        self.train(network.training)

    def forward(self, images: Tensor) -> Tensor:
        """Features ``(B, k)`` of prepared images."""
        features: Tensor = self.network.embed(images)
        return features


def shape_of(network: nn.Module, prepared: Tensor, name: str) -> tuple[int, ...]:
    """``(k,)`` or ``(T, d)``, asked of the network itself.

    Raises:
        CheckpointError: a network that fails on an image of its own size, or gives no features.
    """
    try:
        with torch.inference_mode():
            weight = next(network.parameters())
            features = checked(network(prepared.to(weight.dtype)), len(prepared), name)
    except (ModelOutputError, RuntimeError, ValueError, TypeError, AttributeError) as error:
        first = (str(error).splitlines() or [type(error).__name__])[0].rstrip(".")
        why = f"it gives no features for an image of its own size ({first})"
        instead = "Load it yourself, and name a function from images to features python:module:function"
        raise CheckpointError(f"model {name!r}", why, instead) from error
    return tuple(features.shape[1:])
