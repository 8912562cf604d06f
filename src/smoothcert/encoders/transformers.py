"""Image encoders of the transformers library: ``transformers:HUB_ID_OR_DIRECTORY``.

CLIP, SigLIP and others with a text tower: the image features that they compare with words (pooled,
projected). Image models alone, such as DINOv2: the model's own pooled output, or what ``?pool=`` asks for. A
LLaVA model: what its vision tower gives to the language model.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from smoothcert.encoders import llava
from smoothcert.encoders.pretrained import PretrainedEncoder, shape_of
from smoothcert.encoders.text import TextTower
from smoothcert.errors import CheckpointError, UnknownName
from smoothcert.networks import options as opt
from smoothcert.networks import transformers as hf
from smoothcert.networks.preprocessing import Preprocessing
from smoothcert.networks.transformers import PREFIX as PREFIX

POOLS = ("pooled", "cls", "tokens")
_AS_NAMED = ("VisionModelWithProjection", "ForConditionalGeneration")  # the Auto class would drop a part


def load(name: str) -> PretrainedEncoder:
    """Read ``transformers:HUB_ID_OR_DIRECTORY?options``.

    Beside the options of preprocessing: ``revision=``, and ``pool=pooled`` (the model's own, the default),
    ``pool=cls`` (the last hidden state of the first token) or ``pool=tokens`` (of all, ``(B, T, d)``).

    Raises:
        MissingExtra: transformers is not installed.
        UnknownName: another pool.
        CheckpointError: a model that is not there, lacks weights, needs code of its own, is no image encoder,
            or whose processor does something that smoothcert does not.
    """
    bare, options = opt.split(name, (*opt.PREPROCESSING, "pool", "revision"))
    where, pool = bare.removeprefix(PREFIX), options.get("pool", "pooled")
    if pool not in POOLS:
        raise UnknownName.among("pool", pool, POOLS)
    hub = hf.place(where, options)
    with hf.library("an encoder of the transformers library") as library:
        kind = hf.read(bare, lambda: _class(library, where, hub))
        unused = () if pool == "pooled" else ("pooler.", "vision_model.head.")
        model = hf.read(bare, lambda: hf.network(kind, where, hub, unused=unused))
        processor = hf.read(bare, lambda: hf.image_processor(library, where, hub))
    model = model.float().eval().requires_grad_(False)
    if llava.is_llava(model):
        return llava.vision_tower(model, processor, name=bare, options=options)
    own = _preprocessing(model, processor, bare, options)
    tower, words = _tower(model, pool, bare), pool == "pooled" and hasattr(model, "get_text_features")
    probe = _probe(own, model)
    if isinstance(tower, TwoTowers):
        _confirm(model, tower, probe, bare)
    return PretrainedEncoder(
        tower,
        own,
        kind="transformers-features",
        shape=shape_of(tower, probe, bare),
        settings={"architecture": type(model).__name__, "pool": pool},
        text=_text(model, where, hub, bare) if words else None,
    )


class TwoTowers(nn.Module):
    """The image half of a model of pictures and words: its pooled features, projected where it projects."""

    def __init__(self, tower: nn.Module, projection: nn.Module | None) -> None:
        super().__init__()
        self.tower, self.projection = tower, projection
        self.train(tower.training)

    def forward(self, pixels: Tensor) -> Tensor:
        """Features ``(B, k)`` of prepared images."""
        pooled: Tensor = self.tower(pixel_values=pixels).pooler_output
        return pooled if self.projection is None else self.projection(pooled)


class OneTower(nn.Module):
    """An image model alone: one of its outputs, as features.

    Args:
        tower: the model. output: the attribute of its answer. first: keep only the first token.
    """

    def __init__(self, tower: nn.Module, output: str, *, first: bool = False) -> None:
        super().__init__()
        self.tower, self.output, self.first = tower, output, first
        self.train(tower.training)

    def forward(self, pixels: Tensor) -> Tensor:
        """Features ``(B, k)`` or ``(B, T, d)`` of prepared images."""
        found: Tensor = getattr(self.tower(pixel_values=pixels), self.output)
        return found[:, 0] if self.first else found.flatten(1) if self.output == "pooler_output" else found


def _class(library: Any, where: str, hub: Mapping[str, Any]) -> Any:
    """The class that reads a model with all of its parts."""
    config = library.AutoConfig.from_pretrained(where, trust_remote_code=False, **hub)
    named = str((getattr(config, "architectures", None) or [""])[0])
    if named.endswith(_AS_NAMED) and hasattr(library, named):
        return getattr(library, named)
    return library.AutoModel


def _image_config(model: Any) -> Any:
    return getattr(model.config, "vision_config", model.config)


def _tower(model: Any, pool: str, name: str) -> nn.Module:
    vision: Any = getattr(model, "vision_model", None)
    two = vision is not None and hasattr(model, "get_image_features")
    if not two and getattr(model, "main_input_name", "") != "pixel_values":
        why = f"{type(model).__name__} is no encoder of images that smoothcert knows"
        instead = "Load it yourself, and name a function from images to features python:module:function"
        raise CheckpointError(f"model {name!r}", why, instead)
    if pool != "pooled":
        return OneTower(vision if two else model, "last_hidden_state", first=pool == "cls")
    if two:
        return TwoTowers(vision, getattr(model, "visual_projection", None))
    projected = hasattr(model, "visual_projection")
    return OneTower(model, "image_embeds" if projected else "pooler_output")


def _sides(model: Any) -> tuple[int, int]:
    """``(H, W)`` that a model was trained for."""
    side = getattr(_image_config(model), "image_size", None) or 224
    height, width = side if isinstance(side, list | tuple) else (side, side)
    return int(height), int(width)


def _preprocessing(model: Any, processor: Any, name: str, options: Mapping[str, str]) -> Preprocessing:
    """The model's own, with what the options say; where nothing is resized, images of its size only."""
    channels = int(getattr(_image_config(model), "num_channels", None) or 3)
    own = opt.preprocessing(options, hf.preprocessing(processor, name, channels=channels))
    fixed = own.size is None and own.crop is None
    return dataclasses.replace(own, expects=_sides(model)) if fixed else own


def _probe(own: Preprocessing, model: Any) -> Tensor:
    """A prepared batch of one grey image."""
    return own(torch.full((1, own.channels, *_sides(model)), 0.5))


def _confirm(model: Any, tower: nn.Module, probe: Tensor, name: str) -> None:
    """Refuse a model whose own image features are made in another way than the parts suggest."""
    with torch.inference_mode():
        theirs = model.get_image_features(pixel_values=probe)
        theirs, ours = getattr(theirs, "pooler_output", theirs), tower(probe)
    if ours.shape != theirs.shape or not torch.allclose(ours, theirs, rtol=1e-4, atol=1e-5):
        why = "its own image features are not those of its image tower and projection"
        instead = "Load it yourself, and name a function from images to features python:module:function"
        raise CheckpointError(f"model {name!r}", why, instead)


def _text(model: Any, where: str, hub: Mapping[str, Any], name: str) -> TextTower:
    def tokenizer() -> Any:
        with hf.library() as library:
            read = library.AutoTokenizer.from_pretrained
            return hf.read(name, lambda: read(where, trust_remote_code=False, **hub))

    padded = str(model.config.model_type).startswith("siglip")
    return TextTower(model, tokenizer, length=model.config.text_config.max_position_embeddings, padded=padded)
