"""The vision tower of a LLaVA model: what comes out is what the model's own projector is given."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image
from tests.encoders import tiny

from smoothcert.encoders import PretrainedEncoder, load, vision_tower
from smoothcert.errors import CheckpointError, InvalidInput

pytest.importorskip("transformers", reason="transformers is not installed")


def consumed(model: Any, processor: Any, pixels: Any) -> torch.Tensor:
    """What the library itself gives to the projector for one picture."""
    seen: list[torch.Tensor] = []
    handle = model.model.multi_modal_projector.register_forward_pre_hook(
        lambda _, arguments: seen.append(arguments[0])
    )
    inputs = processor(images=[Image.fromarray(pixels)], text="<image> what is it", return_tensors="pt")
    with torch.inference_mode():
        model(**inputs)
    handle.remove()
    return seen[0]


@pytest.mark.parametrize(
    ("layer", "strategy", "shape"),
    [
        (-2, "default", (9, 16)),
        (-1, "full", (10, 16)),
        (1, "default", (9, 16)),
        ([-2, -1], "default", (9, 32)),
    ],
)
def test_the_features_are_what_the_projector_consumes(
    layer: int | list[int], strategy: str, shape: tuple[int, int]
) -> None:
    model, processor = tiny.llava(layer=layer, strategy=strategy)
    encoder = vision_tower(model, processor)
    assert encoder.shape == shape
    pixels = tiny.picture(24, 24)
    theirs = consumed(model, processor, pixels.transpose(1, 2, 0))
    ours = encoder(torch.from_numpy(pixels)[None].float() / 255)
    assert ours.shape == (1, *shape)
    assert torch.allclose(ours, theirs, atol=1e-5)
    resized = torch.from_numpy(tiny.picture(40, 52))[None].float() / 255
    theirs = consumed(model, processor, tiny.picture(40, 52).transpose(1, 2, 0))
    assert torch.cosine_similarity(encoder(resized).flatten(1), theirs.flatten(1)).min() > 0.99


def test_gradients_reach_the_pixels() -> None:
    model, processor = tiny.llava()
    images = (torch.from_numpy(tiny.picture(30, 40))[None].float() / 255).requires_grad_()
    vision_tower(model, processor)(images).square().sum().backward()  # type: ignore[no-untyped-call]
    assert images.grad is not None
    assert images.grad.abs().sum() > 0


def test_a_saved_model_by_name_is_its_tower(tmp_path: Path) -> None:
    model, processor = tiny.llava(tmp_path)
    encoder = load(f"transformers:{tmp_path}")
    assert isinstance(encoder, PretrainedEncoder)
    images = torch.from_numpy(tiny.picture(24, 24))[None].float() / 255
    assert torch.allclose(encoder(images), vision_tower(model, processor)(images), atol=1e-6)
    tower = sum(weight.numel() for weight in model.model.vision_tower.parameters())
    assert sum(weight.numel() for weight in encoder.parameters()) == tower
    assert encoder.source == f"transformers:{tmp_path}"
    json.dumps(encoder.describe())
    assert load(f"transformers:{tmp_path}?grey=repeat")(images[:, :1]).shape == (1, 9, 16)


def test_models_built_in_another_way_are_refused(tmp_path: Path) -> None:
    model, processor = tiny.llava()
    clip, _, _ = tiny.clip(tmp_path)
    with pytest.raises(InvalidInput, match="CLIPModel"):
        vision_tower(clip, processor)
    with pytest.raises(InvalidInput, match=r"AutoProcessor\.from_pretrained"):
        vision_tower(model, None)
    model.config.image_grid_pinpoints = [[24, 48]]
    with pytest.raises(InvalidInput, match="tiles"):
        vision_tower(model, processor)
    del model.config.image_grid_pinpoints
    model.config.__dict__["vision_feature_select_strategy"] = "cls"  # this library refuses it, others may not
    with pytest.raises(InvalidInput, match="default and full"):
        vision_tower(model, processor)


def test_a_processor_that_pads_is_refused_and_not_guessed() -> None:
    model, processor = tiny.llava()
    processor.image_processor = tiny.hf().LlavaImageProcessor(
        size={"shortest_edge": 24}, crop_size={"height": 24, "width": 24}, do_pad=True
    )
    with pytest.raises(CheckpointError, match="its own processor differs"):
        vision_tower(model, processor)
