"""The vision tower of a LLaVA-style model: pictures to the token features that its language model is given.

Between the tower and the language model stands only the projector, which works on each token by itself. So
whatever the language model learns of a picture, it learns from these ``(B, T, d)`` numbers.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from smoothcert.encoders.dialogue import wrong_processor
from smoothcert.encoders.pretrained import PretrainedEncoder, shape_of
from smoothcert.errors import InvalidInput
from smoothcert.networks import options as opt
from smoothcert.networks import transformers as hf

_STRATEGIES = ("default", "full")


def vision_tower(
    model: Any, processor: Any, *, name: str | None = None, options: Mapping[str, str] | None = None
) -> PretrainedEncoder:
    """The selected hidden states of the model's vision tower: exactly what its projector consumes.

    The tower stays part of the model: nothing is copied, and moving one moves the other.

    Args:
        model: a ``LlavaForConditionalGeneration`` of the transformers library, or one built like it.
        processor: the model's own, or its image processor: how pictures are resized and normalised.
        name: how messages and a run's specification call it.
        options: of preprocessing, as texts, in place of what the processor says.

    Returns:
        An encoder of images ``(B, 3, H, W)`` in [0, 1] to ``(B, T, d)``; gradients pass through.

    Raises:
        InvalidInput: a model that is built in another way.
        CheckpointError: a processor that does something smoothcert does not.
    """
    inner, name = parts_of(model), name or source_of(model)
    config = model.config
    strategy = str(getattr(config, "vision_feature_select_strategy", "default"))
    if strategy not in _STRATEGIES:
        found = f"vision_feature_select_strategy={strategy!r} of {name}"
        raise InvalidInput(
            found, f"only {' and '.join(_STRATEGIES)} are known", "Wrap the tower in a function"
        )
    seeing = getattr(processor, "image_processor", processor)
    if not hasattr(seeing, "to_dict"):
        raise wrong_processor(processor, "it does not say how to prepare pictures")
    own = hf.preprocessing(seeing, name)
    own = opt.preprocessing(options or {}, own)
    tower = Selected(inner.vision_tower, config.vision_feature_layer, without_first=strategy == "default")
    device = next(inner.vision_tower.parameters()).device
    side = int(config.vision_config.image_size)
    probe = own(torch.full((1, own.channels, side, side), 0.5, device=device))
    return PretrainedEncoder(
        tower,
        own,
        kind="vision-tower",
        shape=shape_of(tower, probe, name),
        settings={
            "architecture": type(model).__name__,
            "layers": list(tower.layers),
            "strategy": strategy,
        },
        source=name,
    )


class Selected(nn.Module):
    """Hidden states of chosen layers of an image transformer, side by side.

    Args:
        tower: with ``hidden_states`` in its answer.
        layers: one number or several, counted as transformers does (0 is the embedding, -1 the last).
        without_first: leave out the first token (the class token).
    """

    def __init__(self, tower: Any, layers: int | list[int], *, without_first: bool) -> None:
        super().__init__()
        self.tower = tower
        self.layers = (layers,) if isinstance(layers, int) else tuple(layers)
        self.start = int(without_first)
        self.train(tower.training)

    def forward(self, pixels: Tensor) -> Tensor:
        """Features ``(B, T, d)`` of prepared images."""
        return selected(self.tower, pixels, self.layers, self.start)


def selected(tower: Any, pixels: Tensor, layers: Sequence[int], start: int) -> Tensor:
    """The tokens from ``start`` on of a tower's hidden states of these layers, side by side."""
    states = tower(pixel_values=pixels, output_hidden_states=True, return_dict=True).hidden_states
    return torch.cat([states[layer][:, start:] for layer in layers], dim=-1)


def is_llava(model: Any) -> bool:
    """Whether a model is built as LLaVA is: a tower, a projector for each token, a language model."""
    inner = getattr(model, "model", model)
    parts = all(hasattr(inner, part) for part in ("vision_tower", "multi_modal_projector", "language_model"))
    config = getattr(model, "config", None)
    tiles = hasattr(config, "image_grid_pinpoints")
    return parts and hasattr(config, "vision_feature_layer") and not tiles


def parts_of(model: Any) -> Any:
    """The module that holds the tower, the projector and the language model.

    Raises:
        InvalidInput: a model that is built in another way.
    """
    if not is_llava(model):
        found = f"a model of type {type(model).__name__}"
        why = (
            "it is not built as LLaVA is: a picture through a vision tower, each token through a projector, "
            "to a language model (models that cut pictures into tiles are built in another way)"
        )
        instead = "Give a LlavaForConditionalGeneration of the transformers library"
        if isinstance(model, str | Path):
            found, why = f"the model {str(model)!r}", "it is a name, not a model"
            instead = f"Load it: transformers.LlavaForConditionalGeneration.from_pretrained({str(model)!r})"
        raise InvalidInput(found, why, instead)
    return getattr(model, "model", model)


def image_token(model: Any) -> int:
    """The token in whose places the language model is given the picture (named twice over the years)."""
    config = model.config
    return int(config.image_token_id if hasattr(config, "image_token_id") else config.image_token_index)


def source_of(model: Any) -> str:
    """The name by which the library found a model."""
    where = str(getattr(model.config, "_name_or_path", "") or "")
    return f"{hf.PREFIX}{where}" if where else type(model).__name__
