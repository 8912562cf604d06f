"""Models of the transformers library, saved by it and read here: the same scores as from its own processor."""

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

from smoothcert.classifiers import PretrainedClassifier, load
from smoothcert.errors import CheckpointError, InvalidInput, MissingExtra, UnknownName
from smoothcert.networks.transformers import from_processor

hf = pytest.importorskip("transformers", reason="transformers is not installed")

NAMES = ("cat", "dog", "frog")
LABELS = {"id2label": dict(enumerate(NAMES)), "label2id": {name: k for k, name in enumerate(NAMES)}}
SMALL = {"hidden_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2, "intermediate_size": 16}
STATISTICS = {"image_mean": [0.48, 0.45, 0.41], "image_std": [0.23, 0.22, 0.21]}


def vit() -> tuple[Any, Any]:
    config = hf.ViTConfig(**SMALL, image_size=48, patch_size=8, **LABELS)
    return hf.ViTForImageClassification(config), hf.ViTImageProcessor(
        size={"height": 48, "width": 48}, **STATISTICS
    )


def deit() -> tuple[Any, Any]:
    config = hf.DeiTConfig(**SMALL, image_size=48, patch_size=8, **LABELS)
    processor = hf.DeiTImageProcessor(size={"height": 56, "width": 56}, crop_size={"height": 48, "width": 48})
    return hf.DeiTForImageClassification(config), processor


def beit() -> tuple[Any, Any]:
    config = hf.BeitConfig(**SMALL, image_size=48, patch_size=8, out_indices=[1], **LABELS)
    return hf.BeitForImageClassification(config), hf.BeitImageProcessor(
        size={"height": 48, "width": 48}, do_center_crop=False, resample=2
    )


def resnet() -> tuple[Any, Any]:
    config = hf.ResNetConfig(
        embedding_size=8, hidden_sizes=[8, 16], depths=[1, 1], layer_type="basic", **LABELS
    )
    processor = hf.ConvNextImageProcessor(size={"shortest_edge": 40}, crop_pct=0.875, **STATISTICS)
    return hf.ResNetForImageClassification(config), processor


def convnext_384() -> tuple[Any, Any]:
    config = hf.ConvNextConfig(hidden_sizes=[8, 8, 8, 8], depths=[1, 1, 1, 1], **LABELS)
    return hf.ConvNextForImageClassification(config), hf.ConvNextImageProcessor(size={"shortest_edge": 384})


def swin() -> tuple[Any, Any]:
    config = hf.SwinConfig(
        image_size=64, patch_size=4, embed_dim=8, depths=[1, 1], num_heads=[1, 2], window_size=4, **LABELS
    )
    return hf.SwinForImageClassification(config), hf.ViTImageProcessor(
        size={"height": 64, "width": 64}, resample=3, **STATISTICS
    )


def mobilenet() -> tuple[Any, Any]:
    config = hf.MobileNetV2Config(depth_multiplier=0.25, image_size=32, **LABELS)
    processor = hf.MobileNetV2ImageProcessor(
        size={"shortest_edge": 37},
        crop_size={"height": 32, "width": 32},
        image_mean=[0.5] * 3,
        image_std=[0.5] * 3,
    )
    return hf.MobileNetV2ForImageClassification(config), processor


def mobilevit() -> tuple[Any, Any]:
    config = hf.MobileViTConfig(
        image_size=32,
        hidden_sizes=[8, 8, 8],
        neck_hidden_sizes=[8, 8, 8, 8, 8, 8, 8],
        num_attention_heads=2,
        **LABELS,
    )
    processor = hf.MobileViTImageProcessor(size={"shortest_edge": 36}, crop_size={"height": 32, "width": 32})
    return hf.MobileViTForImageClassification(config), processor


def efficientnet() -> tuple[Any, Any]:
    config = hf.EfficientNetConfig(
        image_size=32, width_coefficient=0.25, depth_coefficient=0.25, hidden_dim=320, **LABELS
    )
    processor = hf.EfficientNetImageProcessor(
        size={"height": 36, "width": 36}, rescale_factor=1 / 127.5, rescale_offset=True, **STATISTICS
    )
    return hf.EfficientNetForImageClassification(config), processor


def levit() -> tuple[Any, Any]:
    config = hf.LevitConfig(
        image_size=64,
        hidden_sizes=[16, 16, 16],
        num_attention_heads=[1, 1, 1],
        depths=[1, 1, 1],
        key_dim=[8, 8, 8],
        **LABELS,
    )
    processor = hf.LevitImageProcessor(size={"shortest_edge": 64}, crop_size={"height": 64, "width": 64})
    return hf.LevitForImageClassification(config), processor


KINDS = [vit, deit, beit, resnet, convnext_384, swin, mobilenet, mobilevit, efficientnet, levit]
WELL_CONDITIONED = [vit, deit, beit, resnet]  # untrained deep convolutions blow rounding up


def saved(kind: Callable[[], tuple[Any, Any]], folder: Path) -> tuple[Any, Any]:
    torch.manual_seed(0)  # of untrained weights
    model, processor = kind()
    model.save_pretrained(folder)
    processor.save_pretrained(folder)
    return model.eval(), processor


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    found = tmp_path_factory.mktemp("vit")
    saved(vit, found)
    return found


@pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
def test_the_answers_are_those_of_the_librarys_own_pipeline(
    tmp_path: Path, kind: Callable[[], tuple[Any, Any]]
) -> None:
    model, processor = saved(kind, tmp_path)
    classifier = load(f"transformers:{tmp_path}")
    assert isinstance(classifier, PretrainedClassifier)
    std = torch.tensor(classifier.preprocessing.std).view(-1, 1, 1)
    generator = np.random.Generator(np.random.Philox(key=1))
    for size in ((33, 47), (101, 90), (64, 64)):
        pixels = generator.integers(90, 170, (*size, 3), dtype=np.uint8)
        images = torch.from_numpy(pixels).permute(2, 0, 1)[None].float() / 255
        theirs = processor(images=Image.fromarray(pixels), return_tensors="pt")["pixel_values"]
        ours = classifier.preprocessing(images)
        assert float(((ours - theirs) * std).abs().max()) < 1.5 / 255
        with torch.inference_mode():
            assert torch.allclose(classifier(images), model(ours).logits, rtol=1e-4)
            if kind in WELL_CONDITIONED:
                expected = model(theirs).logits
                assert torch.allclose(classifier(images), expected, atol=0.05 * float(expected.abs().max()))
    assert classifier.classes == NAMES
    assert not any(part.training for part in classifier.modules())
    json.dumps(classifier.describe())


def test_an_image_of_the_models_own_size_is_only_normalised(folder: Path) -> None:
    classifier = load(f"transformers:{folder}")
    model = hf.ViTForImageClassification.from_pretrained(folder).eval()
    images = (
        torch.rand(2, 3, 48, 48, generator=torch.Generator().manual_seed(1)) * 3 - 1
    )  # as noise leaves it
    mean, std = (torch.tensor(STATISTICS[name]).view(3, 1, 1) for name in ("image_mean", "image_std"))
    assert torch.allclose(classifier(images), model((images - mean) / std).logits, atol=1e-6)


@pytest.mark.parametrize(
    ("config", "expected"),
    [
        ({"size": 32, "feature_extractor_type": "ViTFeatureExtractor"}, ((32, 32), None)),
        ({"size": {"height": 30, "width": 40}}, ((30, 40), None)),
        ({"size": [30, 40]}, ((30, 40), None)),
        ({"size": {"shortest_edge": 40, "longest_edge": None}}, (40, None)),
        ({"size": 40, "image_processor_type": "CLIPImageProcessor"}, (40, None)),
        ({"size": {"shortest_edge": 40}, "do_center_crop": True, "crop_size": 32}, (40, (32, 32))),
        ({"size": {"shortest_edge": 40}, "do_center_crop": False, "crop_size": 32}, (40, None)),
        (
            {"size": {"shortest_edge": 224}, "image_processor_type": "ConvNextImageProcessor"},
            (256, (224, 224)),
        ),
        (
            {
                "size": {"shortest_edge": 224},
                "image_processor_type": "ConvNextImageProcessor",
                "crop_pct": 0.95,
            },
            (235, (224, 224)),
        ),
        (
            {"size": {"shortest_edge": 384}, "image_processor_type": "ConvNextFeatureExtractor"},
            ((384, 384), None),
        ),
        ({"size": 32, "do_resize": False}, (None, None)),
    ],
)
def test_sizes_are_read_in_all_their_spellings(config: dict[str, Any], expected: tuple[Any, Any]) -> None:
    found = from_processor(config)
    assert (found.size, found.crop) == expected


@pytest.mark.parametrize(
    ("config", "black", "white"),
    [
        ({"do_normalize": True, "image_mean": [0.5], "image_std": [0.25]}, -2.0, 2.0),
        ({"do_normalize": False, "image_mean": [0.5], "image_std": [0.25]}, 0.0, 1.0),
        ({"do_normalize": False, "rescale_factor": 1 / 127.5, "rescale_offset": True}, -1.0, 1.0),
        ({"do_normalize": False, "do_rescale": False}, 0.0, 255.0),
        ({"do_normalize": True, "do_rescale": False, "image_mean": 127.5, "image_std": 127.5}, -1.0, 1.0),
        ({"do_normalize": True, "image_mean": [0.5], "image_std": [0.5], "include_top": True}, -2.0, 2.0),
    ],
)
def test_scales_are_read_in_all_their_spellings(config: dict[str, Any], black: float, white: float) -> None:
    found = from_processor({"do_resize": False, **config})
    ends = torch.stack([torch.zeros(3, 4, 4), torch.ones(3, 4, 4)])
    assert torch.allclose(found(ends)[:, 0, 0, 0], torch.tensor([black, white]), atol=1e-5)


def test_a_processor_that_does_something_else_is_refused(tmp_path: Path) -> None:
    saved(vit, tmp_path)
    hf.PerceiverImageProcessor(size={"height": 48, "width": 48}).save_pretrained(tmp_path)  # it crops first
    with pytest.raises(CheckpointError, match="its own processor differs"):
        load(f"transformers:{tmp_path}")


def test_options_replace_what_the_processor_says(folder: Path) -> None:
    told = load(f"transformers:{folder}?grey=repeat&classes=a,b,c&interpolation=bicubic")
    assert isinstance(told, PretrainedClassifier)
    assert told.classes == ("a", "b", "c")
    assert told.preprocessing.interpolation == "bicubic"
    grey = torch.rand(2, 1, 28, 28, generator=torch.Generator().manual_seed(2))
    assert torch.equal(told(grey), told(grey.expand(2, 3, 28, 28)))
    with pytest.raises(InvalidInput, match="grey=repeat"):
        load(f"transformers:{folder}")(grey)


def change(folder: Path, file: str, **entries: Any) -> None:
    stored = json.loads((folder / file).read_text())
    (folder / file).write_text(json.dumps({**stored, **entries}))


def test_a_model_without_its_last_layer_is_refused(tmp_path: Path) -> None:
    model, processor = vit()
    model.vit.save_pretrained(tmp_path)
    processor.save_pretrained(tmp_path)
    with pytest.raises(CheckpointError, match="classifier"):
        load(f"transformers:{tmp_path}")


def test_code_that_comes_with_a_model_is_refused_and_not_run(tmp_path: Path) -> None:
    saved(vit, tmp_path)
    auto = {"AutoConfig": "evil.EvilConfig", "AutoModelForImageClassification": "evil.EvilModel"}
    change(tmp_path, "config.json", model_type="evil", auto_map=auto)
    (tmp_path / "evil.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'w')\n")
    with pytest.raises(CheckpointError, match="never run here"):
        load(f"transformers:{tmp_path}")
    assert not (tmp_path / "ran").exists()


class Evil:
    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return open, (str(self.path), "w")


def test_pickled_weights_with_code_are_refused_and_not_run(tmp_path: Path) -> None:
    saved(vit, tmp_path)
    (tmp_path / "model.safetensors").unlink()
    (tmp_path / "pytorch_model.bin").write_bytes(pickle.dumps({"x": Evil(tmp_path / "ran")}, protocol=2))
    with pytest.raises(CheckpointError):
        load(f"transformers:{tmp_path}")
    assert not (tmp_path / "ran").exists()


def test_plain_pickled_weights_are_read(tmp_path: Path) -> None:
    model, _ = saved(vit, tmp_path)
    (tmp_path / "model.safetensors").unlink()
    torch.save(model.state_dict(), tmp_path / "pytorch_model.bin")
    images = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(3))
    saved(vit, tmp_path / "other")
    assert torch.equal(
        load(f"transformers:{tmp_path}")(images), load(f"transformers:{tmp_path / 'other'}")(images)
    )


@pytest.mark.parametrize("file", ["config.json", "preprocessor_config.json", "model.safetensors"])
@pytest.mark.parametrize("damage", ["missing", "garbage", "empty"])
def test_damaged_files_are_one_clear_error(tmp_path: Path, file: str, damage: str) -> None:
    saved(vit, tmp_path)
    if damage == "missing":
        (tmp_path / file).unlink()
    else:
        (tmp_path / file).write_bytes(b"\x00garbage" if damage == "garbage" else b"")
    with pytest.raises(CheckpointError):
        load(f"transformers:{tmp_path}")


def test_what_is_not_there_is_one_clear_error(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(CheckpointError, match="no such directory"):
        load("transformers:/no/such/place")
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    with pytest.raises(CheckpointError, match="hub"):
        load("transformers:smoothcert-nobody/no-such-model")
    with pytest.raises(UnknownName, match="classes"):
        load("transformers:some/model?klasses=a,b")


def test_without_the_library_the_install_line_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(__import__("sys").modules, "transformers", None)
    with pytest.raises(MissingExtra, match=r"smoothcert\[hf\]"):
        load("transformers:some/model")
