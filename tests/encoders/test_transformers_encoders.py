"""CLIP, SigLIP, DINOv2 and others, saved by their library and read here: the features are the library's own."""

from __future__ import annotations

import json
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from tests.encoders import tiny
from torch import Tensor

from smoothcert.encoders import PretrainedEncoder, load
from smoothcert.errors import CheckpointError, InvalidInput, MissingExtra, ModelOutputError, UnknownName

pytest.importorskip("transformers", reason="transformers is not installed")


def clip(folder: Path) -> tuple[Any, Any, Callable[[Tensor], Tensor]]:
    model, processor, _ = tiny.clip(folder)
    return model, processor, lambda pixels: model.get_image_features(pixel_values=pixels).pooler_output


def clip_projected(folder: Path) -> tuple[Any, Any, Callable[[Tensor], Tensor]]:
    model, processor = tiny.clip_vision(folder, projected=True)
    return model, processor, lambda pixels: model(pixel_values=pixels).image_embeds


def clip_vision(folder: Path) -> tuple[Any, Any, Callable[[Tensor], Tensor]]:
    model, processor = tiny.clip_vision(folder, projected=False)
    return model, processor, lambda pixels: model(pixel_values=pixels).pooler_output


def siglip(folder: Path) -> tuple[Any, Any, Callable[[Tensor], Tensor]]:
    model, processor, _ = tiny.siglip(folder)
    return model, processor, lambda pixels: model.get_image_features(pixel_values=pixels).pooler_output


def dinov2(folder: Path) -> tuple[Any, Any, Callable[[Tensor], Tensor]]:
    model, processor = tiny.dinov2(folder)
    return model, processor, lambda pixels: model(pixel_values=pixels).pooler_output


def dinov2_registers(folder: Path) -> tuple[Any, Any, Callable[[Tensor], Tensor]]:
    model, processor = tiny.dinov2(folder, registers=True)
    return model, processor, lambda pixels: model(pixel_values=pixels).pooler_output


def vit(folder: Path) -> tuple[Any, Any, Callable[[Tensor], Tensor]]:
    model, processor = tiny.vit(folder)
    return model, processor, lambda pixels: model(pixel_values=pixels).pooler_output


KINDS = [clip, clip_projected, clip_vision, siglip, dinov2, dinov2_registers, vit]
Kind = Callable[[Path], tuple[Any, Any, Callable[[Tensor], Tensor]]]


def batch(*sizes: int) -> Tensor:
    return torch.stack([torch.from_numpy(tiny.picture(*sizes, seed=k)) for k in range(2)]).float() / 255


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
@pytest.mark.parametrize("size", [(33, 47), (101, 90), (24, 24)])
def test_features_are_those_of_the_library_on_its_own_processors_output(
    tmp_path: Path, kind: Kind, size: tuple[int, int]
) -> None:
    _, processor, features = kind(tmp_path)
    encoder = load(f"transformers:{tmp_path}")
    assert isinstance(encoder, PretrainedEncoder)
    images = batch(*size)
    pictures = [Image.fromarray(tiny.picture(*size, seed=k).transpose(1, 2, 0)) for k in range(2)]
    theirs = processor(images=pictures, return_tensors="pt")["pixel_values"]
    ours = encoder.preprocessing(images)
    std = torch.tensor(encoder.preprocessing.std).view(-1, 1, 1)
    assert float(((ours - theirs) * std).abs().max()) < 1.5 / 255
    with torch.inference_mode():
        found, expected = encoder(images), features(theirs)
        assert torch.allclose(found, features(ours), rtol=1e-4, atol=1e-5)
    assert found.shape == (2, encoder.dimension)
    between = 1 - float(torch.cosine_similarity(found[:1], found[1:]))
    rounded = float((1 - torch.cosine_similarity(found, expected)).max())
    assert rounded < 0.05 * between, "the processor's 8 bits turn features far less than another picture does"
    json.dumps(encoder.describe())


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_gradients_reach_the_pixels_through_resizing(tmp_path: Path, kind: Kind) -> None:
    kind(tmp_path)
    encoder = load(tmp_path)
    images = batch(40, 31).double().requires_grad_()
    encoder(images)[0].square().sum().backward()  # type: ignore[no-untyped-call]
    assert images.grad is not None
    assert images.grad[0].abs().sum() > 0
    assert images.grad[1].abs().sum() == 0, "another picture of the batch"


def test_only_the_image_tower_is_the_encoder(tmp_path: Path) -> None:
    model, _, _ = tiny.clip(tmp_path)
    encoder = load(f"transformers:{tmp_path}")
    assert isinstance(encoder, PretrainedEncoder)
    count = sum(weight.numel() for weight in encoder.parameters())
    vision = [*model.vision_model.parameters(), *model.visual_projection.parameters()]
    assert count == sum(weight.numel() for weight in vision)
    assert not any(weight.requires_grad for weight in encoder.parameters())


def test_the_projection_is_not_dropped(tmp_path: Path) -> None:
    tiny.clip_vision(tmp_path / "with", projected=True)
    tiny.clip_vision(tmp_path / "without", projected=False)
    found = [load(f"transformers:{tmp_path / name}")(batch(24, 24)).shape[1] for name in ("with", "without")]
    assert found == [10, 16]


@pytest.mark.parametrize("kind", [clip, dinov2, dinov2_registers, vit], ids=lambda kind: kind.__name__)
def test_other_outputs_may_be_asked_for(tmp_path: Path, kind: Kind) -> None:
    model, _, _ = kind(tmp_path)
    images = batch(30, 30)
    tokens, first = (load(f"transformers:{tmp_path}?pool={pool}") for pool in ("tokens", "cls"))
    assert isinstance(tokens, PretrainedEncoder)
    with torch.inference_mode():
        vision = getattr(model, "vision_model", model)
        states = vision(pixel_values=tokens.preprocessing(images)).last_hidden_state
        assert torch.allclose(tokens(images), states, atol=1e-5)
        assert torch.allclose(first(images), states[:, 0], atol=1e-5)
    assert tokens.dimension == 16
    assert tokens.text is None


def test_a_model_without_its_pooling_layer_says_what_to_write(tmp_path: Path) -> None:
    tiny.vit(tmp_path, pooler=False)
    with pytest.raises(CheckpointError, match=r"pooler"):
        load(f"transformers:{tmp_path}")
    assert load(f"transformers:{tmp_path}?pool=cls")(batch(24, 24)).shape == (2, 16)
    with pytest.raises(UnknownName, match="tokens"):
        load(f"transformers:{tmp_path}?pool=max")


def test_a_classifier_of_the_library_gives_its_features(tmp_path: Path) -> None:
    hf = tiny.hf()
    config = hf.ViTConfig(**tiny.SMALL, image_size=24, patch_size=8, num_labels=3)
    model = hf.ViTForImageClassification(config).eval()
    model.save_pretrained(tmp_path)
    tiny.vit(tmp_path / "other")
    (tmp_path / "other" / "preprocessor_config.json").rename(tmp_path / "preprocessor_config.json")
    encoder = load(f"transformers:{tmp_path}?pool=cls")
    assert isinstance(encoder, PretrainedEncoder)
    images = batch(24, 24)
    with torch.inference_mode():
        scores = model.classifier(encoder(images))
        assert torch.allclose(scores, model(encoder.preprocessing(images)).logits, atol=1e-5)


def test_models_that_encode_no_images_are_refused(tmp_path: Path) -> None:
    hf = tiny.hf()
    shape = {key: tiny.SMALL[key] for key in tiny.SMALL}
    hf.BertModel(hf.BertConfig(**shape, vocab_size=20)).save_pretrained(tmp_path)
    tiny.clip_processor().save_pretrained(tmp_path)
    with pytest.raises(CheckpointError, match="BertModel is no encoder"):
        load(f"transformers:{tmp_path}")


def test_a_processor_that_does_something_else_is_refused(tmp_path: Path) -> None:
    tiny.clip(tmp_path)
    tiny.hf().PerceiverImageProcessor(size={"height": 24, "width": 24}).save_pretrained(tmp_path)
    with pytest.raises(CheckpointError, match="its own processor differs"):
        load(f"transformers:{tmp_path}")


def test_images_without_resizing_must_fit(tmp_path: Path) -> None:
    tiny.dinov2(tmp_path)
    stored = json.loads((tmp_path / "preprocessor_config.json").read_text())
    changed = {**stored, "do_resize": False, "do_center_crop": False}
    (tmp_path / "preprocessor_config.json").write_text(json.dumps(changed))
    encoder = load(f"transformers:{tmp_path}")
    assert encoder(batch(28, 28)).shape == (2, 16)
    with pytest.raises(InvalidInput, match="28x28"):
        encoder(batch(30, 30))
    assert load(f"transformers:{tmp_path}?size=28")(batch(30, 30)).shape == (2, 16)


def test_grey_images_and_wrong_channels(tmp_path: Path) -> None:
    tiny.clip(tmp_path)
    with pytest.raises(InvalidInput, match="grey=repeat"):
        load(f"transformers:{tmp_path}")(batch(24, 24)[:, :1])
    grey = load(f"transformers:{tmp_path}?grey=repeat")
    assert torch.equal(grey(batch(24, 24)[:, :1]), grey(batch(24, 24)[:, :1].expand(-1, 3, -1, -1)))
    with pytest.raises(InvalidInput, match="channel"):
        load(f"transformers:{tmp_path}")(torch.rand(2, 4, 24, 24))


def test_tokens_may_not_change_their_number(tmp_path: Path) -> None:
    tiny.dinov2(tmp_path)
    encoder = load(f"transformers:{tmp_path}?pool=tokens&size=28")
    assert isinstance(encoder, PretrainedEncoder)
    encoder(batch(28, 28))
    object.__setattr__(encoder.preprocessing, "size", (35, 35))
    with pytest.raises(ModelOutputError, match="features of 26x16 numbers after features of 17x16"):
        encoder(batch(28, 28))


class Evil:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return open, (str(self.path), "w")


@pytest.mark.parametrize("way", ["code", "pickle"])
def test_nothing_that_comes_with_a_model_is_run(tmp_path: Path, way: str) -> None:
    tiny.clip(tmp_path)
    if way == "code":
        stored = json.loads((tmp_path / "config.json").read_text())
        auto = {"AutoConfig": "evil.EvilConfig", "AutoModel": "evil.EvilModel"}
        (tmp_path / "config.json").write_text(json.dumps({**stored, "model_type": "evil", "auto_map": auto}))
        (tmp_path / "evil.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\n")
    else:
        (tmp_path / "model.safetensors").unlink()
        (tmp_path / "pytorch_model.bin").write_bytes(pickle.dumps({"x": Evil(tmp_path / "ran")}, protocol=2))
    with pytest.raises(CheckpointError):
        load(f"transformers:{tmp_path}")
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("file", ["config.json", "preprocessor_config.json", "model.safetensors"])
def test_damaged_files_are_one_clear_error(tmp_path: Path, file: str) -> None:
    tiny.clip(tmp_path)
    (tmp_path / file).write_bytes(b"\x00garbage")
    with pytest.raises(CheckpointError):
        load(f"transformers:{tmp_path}")


def test_without_the_library_the_install_line_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "transformers", None)
    with pytest.raises(MissingExtra, match=r"smoothcert\[hf\]"):
        load("transformers:some/model")


def test_noise_beyond_the_range_is_not_clipped(tmp_path: Path) -> None:
    tiny.clip(tmp_path)
    encoder = load(f"transformers:{tmp_path}")
    images = batch(24, 24) * 3 - 1
    assert not np.allclose(encoder(images).numpy(), encoder(images.clamp(0, 1)).numpy(), atol=1e-3)
