"""Prompts to prototypes, through the models' own text towers and tokenizers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tests.encoders import tiny

from smoothcert.encoders import PretrainedEncoder, ZeroShotHead, load
from smoothcert.encoders.prompts import by_class
from smoothcert.errors import CheckpointError, InvalidInput

pytest.importorskip("transformers", reason="transformers is not installed")

PROMPTS = ["a photo of a cat", "a photo of a dog", "the green frog in a circle"]


def unit(rows: Any) -> Any:
    rows = np.asarray(rows, dtype=np.float64)
    return rows / np.linalg.norm(rows, axis=-1, keepdims=True)


def theirs(model: Any, words: Any, prompts: list[str], **options: Any) -> Any:
    """Unit text features as the library itself makes them."""
    tokens = words(prompts, return_tensors="pt", **({"padding": True} | options))
    with torch.inference_mode():
        return unit(model.get_text_features(**tokens).pooler_output)


def test_prototypes_are_the_librarys_unit_text_features(tmp_path: Path) -> None:
    model, _, words = tiny.clip(tmp_path)
    head = ZeroShotHead.from_prompts(load(f"transformers:{tmp_path}"), PROMPTS)
    assert head.classes == tuple(PROMPTS)
    assert np.allclose(head.prototypes, theirs(model, words, PROMPTS), atol=1e-6)
    assert np.allclose(head.prototypes[:1], theirs(model, words, PROMPTS[:1]), atol=1e-6), (
        "padding is no word"
    )
    assert head.facts["encoder"] == f"transformers:{tmp_path}"


def test_zero_shot_labels_are_the_librarys(tmp_path: Path) -> None:
    model, _, words = tiny.clip(tmp_path)
    encoder = load(f"transformers:{tmp_path}")
    assert isinstance(encoder, PretrainedEncoder)
    head = ZeroShotHead.from_prompts(encoder, PROMPTS)
    images = torch.stack([torch.from_numpy(tiny.picture(24, 24, seed=k)) for k in range(8)]).float() / 255
    tokens = words(PROMPTS, padding=True, return_tensors="pt")
    with torch.inference_mode():
        scores = model(**tokens, pixel_values=encoder.preprocessing(images)).logits_per_image
        features = encoder(images).numpy()
    assert head.labels(features).tolist() == scores.argmax(1).tolist()
    cosines = head.scores(unit(features))
    assert np.allclose(cosines * model.logit_scale.exp().item(), scores.numpy(), atol=1e-4)


def test_siglip_prompts_are_filled_up_as_it_was_trained(tmp_path: Path) -> None:
    model, _, words = tiny.siglip(tmp_path)
    head = ZeroShotHead.from_prompts(load(f"transformers:{tmp_path}"), PROMPTS)
    expected = theirs(model, words, PROMPTS, padding="max_length", max_length=12)
    assert np.allclose(head.prototypes, expected, atol=1e-6)
    assert not np.allclose(head.prototypes, theirs(model, words, PROMPTS), atol=1e-3)


def test_templates_are_averaged_as_unit_vectors(tmp_path: Path) -> None:
    model, _, words = tiny.clip(tmp_path)
    encoder = load(f"transformers:{tmp_path}")
    templates, names = ["a photo of a {}", "{}", "there is one {} in the picture"], ["cat", "dog"]
    head = ZeroShotHead.from_prompts(encoder, templates, names)
    for row, name in zip(head.prototypes, names, strict=True):
        own = [template.replace("{}", name) for template in templates]
        features = theirs(model, words, own)
        assert np.allclose(row, unit(features.mean(0)), atol=1e-6)
        tokens = words(own, padding=True, return_tensors="pt")
        with torch.inference_mode():
            raw = model.get_text_features(**tokens).pooler_output.numpy()
        assert not np.allclose(row, unit(raw.mean(0)), atol=1e-5), "a long feature would count for more"
    mapping = {name: [template.replace("{}", name) for template in templates] for name in names}
    assert np.array_equal(ZeroShotHead.from_prompts(encoder, mapping).prototypes, head.prototypes)
    assert head.classes == tuple(names)


def test_prompts_that_are_too_long_are_not_cut(tmp_path: Path) -> None:
    tiny.clip(tmp_path)
    with pytest.raises(InvalidInput, match="16 tokens, and the text tower takes 12"):
        ZeroShotHead.from_prompts(load(f"transformers:{tmp_path}"), ["a cat", " ".join(["cat"] * 14)])


def test_without_a_text_tower_there_are_no_prompts(tmp_path: Path) -> None:
    tiny.dinov2(tmp_path)
    for encoder in (load(f"transformers:{tmp_path}"), load("digits"), lambda images: images.flatten(1)):
        with pytest.raises(InvalidInput, match="no text tower"):
            ZeroShotHead.from_prompts(encoder, PROMPTS)


def test_a_model_saved_without_its_tokenizer(tmp_path: Path) -> None:
    tiny.clip(tmp_path)
    for file in ("tokenizer.json", "tokenizer_config.json"):
        (tmp_path / file).unlink()
    encoder = load(f"transformers:{tmp_path}")
    with pytest.raises(CheckpointError, match="tokenizer"):
        ZeroShotHead.from_prompts(encoder, PROMPTS)


@pytest.mark.parametrize(
    ("prompts", "classes", "message"),
    [
        ([], None, "two classes or more"),
        ("a cat", None, "two classes or more"),
        (["a cat"], None, "two classes or more"),
        ({}, None, "two classes or more"),
        (["a cat", ""], None, "words in it"),
        (["a cat", "  "], ["cat", "dog"], "words in it"),
        (["a cat", 5], ["cat", "dog"], "words in it"),
        ({"cat": "a cat", "dog": []}, None, "words in it"),
        (["a cat", "a cat"], None, "name of its own"),
        (["a cat", "a dog"], ["cat", "cat"], "name of its own"),
        (["a cat", "a dog"], ["cat", "dog", "frog"], "2 prompts for 3 classes"),
        (["a photo of a {}"], None, r"classes=\[\.\.\.\]"),
        (["a photo of a {}", "cats"], ["cat", "dog"], "in every prompt or in none"),
        ({"cat": "a cat", "dog": "a dog"}, ["cat", "frog"], "not the same names"),
    ],
)
def test_prompts_that_make_no_head_are_refused(prompts: Any, classes: Any, message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        by_class(prompts, classes)


def test_the_order_is_that_of_the_classes() -> None:
    assert list(by_class({"cat": "a cat", "dog": ["a dog", "dog"]}, ["dog", "cat"])) == ["dog", "cat"]
    assert by_class(["a cat", "a dog"], ["cat", "dog"]) == {"cat": ("a cat",), "dog": ("a dog",)}
