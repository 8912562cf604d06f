"""Small models of real architectures, with tokenizers and processors made here, saved in the real format.

Untrained, but seeded: the same builder gives the same model every time. Each function writes what
``save_pretrained`` of the transformers library writes into a folder and returns the parts.
"""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

import numpy as np
import torch
from tests.torchvision_operators import import_torchvision

with contextlib.suppress(ImportError):  # where torchvision is for another torch, transformers fails with it
    import_torchvision()

WORDS = [
    "a",
    "photo",
    "of",
    "cat",
    "dog",
    "frog",
    "the",
    "an",
    "image",
    "red",
    "green",
    "blue",
    "square",
    "circle",
    "yes",
    "no",
    "is",
    "there",
    "what",
    "color",
    "shape",
    "user",
    "assistant",
    "describe",
    "this",
    "picture",
    ".",
    ",",
    "?",
    ":",
    "in",
    "it",
    "one",
    "two",
]
STATISTICS = {"image_mean": [0.48, 0.45, 0.41], "image_std": [0.27, 0.26, 0.28]}
SMALL = {"hidden_size": 16, "num_hidden_layers": 3, "num_attention_heads": 2, "intermediate_size": 32}
SPECIAL = ("<pad>", "<unk>", "<s>", "</s>", "<image>")


def hf() -> Any:
    """The transformers library."""
    import transformers

    return transformers


def tokenizer(length: int = 64, *, start: str = "<s>", end: str = "</s>", ends: bool = False) -> Any:
    """A word-level tokenizer of ``WORDS``; ``ends`` puts the end token behind every text, as CLIP does."""
    from tokenizers import Tokenizer, models, normalizers, pre_tokenizers, processors

    vocabulary = {word: number for number, word in enumerate((*SPECIAL, *WORDS))}
    words = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    words.normalizer = normalizers.Lowercase()
    words.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.WhitespaceSplit(), pre_tokenizers.Punctuation()]
    )
    words.post_processor = processors.TemplateProcessing(
        single=f"{start} $A {end}" if ends else f"{start} $A",
        special_tokens=[(start, vocabulary[start]), (end, vocabulary[end])],
    )
    return hf().PreTrainedTokenizerFast(
        tokenizer_object=words,
        pad_token="<pad>",
        unk_token="<unk>",
        bos_token=start,
        eos_token=end,
        additional_special_tokens=["<image>"],
        model_max_length=length,
        padding_side="right",
    )


def _text(length: int = 12) -> dict[str, Any]:
    return {
        **SMALL,
        "vocab_size": len(SPECIAL) + len(WORDS),
        "max_position_embeddings": length,
        "pad_token_id": 0,
        "bos_token_id": 2,
        "eos_token_id": 3,
    }


def _seeded() -> None:
    torch.manual_seed(0)  # of untrained weights


def _spread(model: Any, factor: float = 1.0) -> Any:
    """Larger weights than a fresh model's, where those give nearly the same features for all pictures."""
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if weight.ndim > 1 and "norm" not in name:
                weight.mul_(factor)
    return model.eval()


def clip_processor(size: int = 24) -> Any:
    """Resizes the shorter side with cubic filters and cuts out the middle, as CLIP does."""
    return hf().CLIPImageProcessor(
        size={"shortest_edge": size}, crop_size={"height": size, "width": size}, **STATISTICS
    )


def clip(folder: Path) -> tuple[Any, Any, Any]:
    """``CLIPModel`` with both towers, its image processor and its tokenizer."""
    _seeded()
    config = hf().CLIPConfig(
        vision_config={**SMALL, "image_size": 24, "patch_size": 8}, text_config=_text(), projection_dim=10
    )
    model, images, words = _spread(hf().CLIPModel(config)), clip_processor(), tokenizer(12, ends=True)
    for part in (model, images, words):
        part.save_pretrained(folder)
    return model, images, words


def clip_vision(folder: Path, *, projected: bool) -> tuple[Any, Any]:
    """``CLIPVisionModelWithProjection`` or ``CLIPVisionModel``: the image tower alone."""
    _seeded()
    config = hf().CLIPVisionConfig(**SMALL, image_size=24, patch_size=8, projection_dim=10)
    kind = hf().CLIPVisionModelWithProjection if projected else hf().CLIPVisionModel
    model, images = _spread(kind(config)), clip_processor()
    for part in (model, images):
        part.save_pretrained(folder)
    return model, images


def siglip(folder: Path) -> tuple[Any, Any, Any]:
    """``SiglipModel``: squares, an attention pool, prompts filled up to a fixed length."""
    _seeded()
    config = hf().SiglipConfig(
        vision_config={**SMALL, "image_size": 24, "patch_size": 8},
        text_config={**_text(), "projection_size": 16},
    )
    model = _spread(hf().SiglipModel(config))
    images = hf().SiglipImageProcessor(
        size={"height": 24, "width": 24}, image_mean=[0.5] * 3, image_std=[0.5] * 3
    )
    words = tokenizer(12, ends=True)
    for part in (model, images, words):
        part.save_pretrained(folder)
    return model, images, words


def dinov2(folder: Path, *, registers: bool = False) -> tuple[Any, Any]:
    """``Dinov2Model``, with registers or without."""
    _seeded()
    shape = {key: SMALL[key] for key in ("hidden_size", "num_hidden_layers", "num_attention_heads")}
    if registers:
        config = hf().Dinov2WithRegistersConfig(**shape, image_size=28, patch_size=7, num_register_tokens=2)
        model = _spread(hf().Dinov2WithRegistersModel(config), 4.0)
    else:
        model = _spread(hf().Dinov2Model(hf().Dinov2Config(**shape, image_size=28, patch_size=7)), 4.0)
    images = hf().BitImageProcessor(
        size={"shortest_edge": 32}, crop_size={"height": 28, "width": 28}, resample=3, **STATISTICS
    )
    for part in (model, images):
        part.save_pretrained(folder)
    return model, images


def vit(folder: Path, *, pooler: bool = True) -> tuple[Any, Any]:
    """``ViTModel``; without its pooler as many published ones are."""
    _seeded()
    config = hf().ViTConfig(**SMALL, image_size=24, patch_size=8)
    model = _spread(hf().ViTModel(config, add_pooling_layer=pooler), 4.0)
    images = hf().ViTImageProcessor(size={"height": 24, "width": 24}, **STATISTICS)
    for part in (model, images):
        part.save_pretrained(folder)
    return model, images


def llava(
    folder: Path | None = None,
    *,
    layer: int | list[int] = -2,
    strategy: str = "default",
    template: str | None = None,
) -> tuple[Any, Any]:
    """``LlavaForConditionalGeneration``: a CLIP tower of 9 patches, a projector and a small Llama.

    Args:
        folder: where to save it, if anywhere.
        layer, strategy: ``vision_feature_layer`` and ``vision_feature_select_strategy``.
        template: of a chat, for the processor.

    Returns:
        The model in eval mode and its processor (image processor and tokenizer).
    """
    _seeded()
    text = {**_text(128), "model_type": "llama", "num_key_value_heads": 2}
    config = hf().LlavaConfig(
        vision_config=hf().CLIPVisionConfig(**SMALL, image_size=24, patch_size=8),
        text_config=hf().LlamaConfig(**text),
        image_token_index=SPECIAL.index("<image>"),
        vision_feature_layer=layer,
        vision_feature_select_strategy=strategy,
    )
    model = _spread(hf().LlavaForConditionalGeneration(config), 2.0)
    processor = hf().LlavaProcessor(
        image_processor=clip_processor(),
        tokenizer=tokenizer(128),
        patch_size=8,
        vision_feature_select_strategy=strategy,
        num_additional_image_tokens=1,
        chat_template=template,
    )
    if folder is not None:
        model.save_pretrained(folder)
        processor.save_pretrained(folder)
    return model, processor


def picture(height: int, width: int, seed: int = 0) -> np.ndarray[Any, np.dtype[np.uint8]]:
    """``(3, H, W)`` 8-bit, smooth as photographs are, so that filters differ and nothing is clipped."""
    rng = np.random.default_rng(seed)
    rows, columns = np.mgrid[0:height, 0:width]
    waves = [
        np.sin(rows * a / height * 6 + b) * np.cos(columns * c / width * 6 + d)
        for a, b, c, d in rng.uniform(0.2, 2.0, (3, 4))
    ]
    return (128 + 60 * np.stack(waves)).astype(np.uint8)
