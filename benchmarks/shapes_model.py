"""A small LLaVA for SHAPES, trained end to end from nothing, and saved as transformers saves such models.

python benchmarks/shapes_model.py OUT [--steps 7000] [--captions 250] [--looks 1500] [--seed 0]

A CLIP vision tower (30x30 pixels, patches of 10: a token for each cell), a projector and a Llama of six
layers; the question comes before the image. As LLaVA was, it is taught to describe images first and to answer
questions then, and between the two to say what is seen from each cell. Images are composed of the cells of
the 640 training images, questions are of the same grammar (``shapes_data.Maker``). Behind the image are nine
places, one for each cell, before the one that answers; while it learns, the model has to tell there whether
that cell shows what is asked for. Of the test split it sees nothing before it is measured on all 1,024 of it.
No noise is added anywhere: it is the model "off the shelf" that smoothing is then tried on.
"""

from __future__ import annotations

import argparse
import json
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import shapes_data as shapes
import torch
from torch import Tensor, nn
from torch.nn import functional

from smoothcert.training.loop import fit, repeatable

MEAN, STD = 0.1, 0.3
_SIDE, _PATCH = 30, 10
_SPECIAL = ("<pad>", "<s>", "</s>", "<unk>", "<image>")
_ANSWERS = ("no", "yes")
_PLACES = " :" * 10  # places to think about each cell, and one to answer


def new_model() -> Any:
    """``LlavaForConditionalGeneration`` with fresh weights, 1.5 million of them."""
    from transformers import CLIPVisionConfig, LlamaConfig, LlavaConfig, LlavaForConditionalGeneration

    vision = CLIPVisionConfig(
        hidden_size=96, intermediate_size=192, num_hidden_layers=2, num_attention_heads=4,
        image_size=_SIDE, patch_size=_PATCH, projection_dim=96,
    )  # fmt: skip
    text = LlamaConfig(
        vocab_size=len(_SPECIAL) + len(shapes.WORDS), hidden_size=128, intermediate_size=384,
        num_hidden_layers=6, num_attention_heads=4, max_position_embeddings=64, pad_token_id=0,
        bos_token_id=1, eos_token_id=2, tie_word_embeddings=False,
    )  # fmt: skip
    config = LlavaConfig(
        vision_config=vision, text_config=text, image_token_index=_SPECIAL.index("<image>"),
        vision_feature_layer=-1, vision_feature_select_strategy="default", image_seq_length=9,
    )  # fmt: skip
    return LlavaForConditionalGeneration(config)


def loaded(directory: str | Path) -> Any:
    """A saved model, in float32."""
    from transformers import LlavaForConditionalGeneration

    return LlavaForConditionalGeneration.from_pretrained(directory, local_files_only=True).float()


def new_processor() -> Any:
    """Its ``LlavaProcessor``: a word for a token, and pixels centred."""
    from tokenizers import Tokenizer, models, pre_tokenizers, processors
    from transformers import LlavaProcessor, PreTrainedTokenizerFast

    words = {word: number for number, word in enumerate((*_SPECIAL, *shapes.WORDS))}
    tokenizer = Tokenizer(models.WordLevel(words, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    fast = PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, pad_token="<pad>", bos_token="<s>", eos_token="</s>", unk_token="<unk>",
        additional_special_tokens=["<image>"], padding_side="left",
    )  # fmt: skip
    asked = "{% for part in messages[0]['content'] if part.type == 'text' %}{{ part.text }} ? {% endfor %}"
    template = f"{asked}<image>{_PLACES}"
    return LlavaProcessor(
        image_processor=_image_processor(), tokenizer=fast, patch_size=_PATCH, image_token="<image>",
        vision_feature_select_strategy="default", num_additional_image_tokens=1,
        chat_template=template,
    )  # fmt: skip


def _image_processor() -> Any:
    try:
        from transformers import CLIPImageProcessorPil as Processor
    except ImportError:  # before transformers 5 the one with Pillow has no name of its own
        from transformers import CLIPImageProcessor as Processor
    return Processor(
        do_resize=True, do_center_crop=True, do_rescale=True, do_normalize=True, do_convert_rgb=True,
        image_mean=[MEAN] * 3, image_std=[STD] * 3, size={"shortest_edge": _SIDE},
        crop_size={"height": _SIDE, "width": _SIDE},
    )  # fmt: skip


def prompt(question: str) -> str:
    """What the processor is given beside the image."""
    return f"{question} ? <image>{_PLACES}"


class Reader:
    """Questions as token ids, without the processor's cost a call: a test holds that it writes the same."""

    def __init__(self) -> None:
        self._numbers = {word: number for number, word in enumerate((*_SPECIAL, *shapes.WORDS))}
        self.answers = [self._numbers[word] for word in _ANSWERS]

    def number(self, word: str) -> int:
        """Of one word."""
        return self._numbers[word]

    def __call__(self, questions: Sequence[str], said: Sequence[str] = ()) -> tuple[Tensor, Tensor]:
        """``(B, L)`` ids and their attention mask: each question, its image and what is said of it.

        Padded on the left, so that all images and all words said stand in the same places.
        """
        texts = [prompt(text).replace("<image>", "<image> " * 9) for text in questions]
        whole = [f"{text} {words}" for text, words in zip(texts, said or [""] * len(texts), strict=True)]
        rows = [[self._numbers[word] for word in ("<s>", *text.split())] for text in whole]
        longest = max(map(len, rows))
        ids = torch.tensor([[0] * (longest - len(row)) + row for row in rows])
        return ids, (ids != 0).long()


def pixels(images: Any) -> Tensor:
    """uint8 images or images in [0, 1] ``(B, 3, 30, 30)`` -> what the tower is given."""
    scaled = torch.as_tensor(images).float()
    return ((scaled / 255 if torch.as_tensor(images).dtype == torch.uint8 else scaled) - MEAN) / STD


def scores(model: nn.Module, reader: Reader, images: Any, questions: Sequence[str]) -> Tensor:
    """``(B, vocabulary)`` logits of the next word after each question."""
    ids, mask = reader(questions)
    found: Tensor = model(
        pixel_values=pixels(images), input_ids=ids, attention_mask=mask, logits_to_keep=1
    ).logits
    return found[:, -1]


@torch.inference_mode()
def accuracy(model: nn.Module, split: shapes.Split, size: int = 128) -> float:
    """Share of questions whose likelier answer, yes or no, is right; in percent."""
    reader, right = Reader(), 0
    for start in range(0, len(split.questions), size):
        part = slice(start, start + size)
        both = scores(model, reader, split.images[part], split.questions[part])[:, reader.answers]
        right += int((both.argmax(1).numpy() == split.answers[part]).sum())
    return 100 * right / len(split.questions)


def _answering(model: nn.Module, reader: Reader, made: shapes.Split) -> Tensor:
    """Cross-entropy of the answer, and at the place of each cell that of whether it is asked for."""
    ids, mask = reader(made.questions)
    logits = model(
        pixel_values=pixels(made.images), input_ids=ids, attention_mask=mask, logits_to_keep=10
    ).logits
    answers = torch.tensor(reader.answers)
    whether = functional.cross_entropy(logits[:, -1], answers[torch.from_numpy(made.answers).long()])
    where = answers[torch.from_numpy(made.where).long()]
    return whether + functional.cross_entropy(logits[:, :-1].flatten(0, 1), where.flatten())


def _looking(model: nn.Module, reader: Reader, images: Any, questions: Sequence[str], words: Any) -> Tensor:
    """Cross-entropy, at the place of each cell, of the word for what is seen from it."""
    ids, mask = reader(questions)
    logits = model(pixel_values=pixels(images), input_ids=ids, attention_mask=mask, logits_to_keep=10).logits
    wanted = torch.tensor([[reader.number(word) for word in row] for row in words])
    return functional.cross_entropy(logits[:, :-1].flatten(0, 1), wanted.flatten())


def _saying(
    model: nn.Module, reader: Reader, images: Any, questions: Sequence[str], said: Sequence[str]
) -> Tensor:
    """Cross-entropy of each word of what is said after the image, given those before it."""
    ids, mask = reader(questions, said)
    count = len(said[0].split())
    logits = model(
        pixel_values=pixels(images), input_ids=ids, attention_mask=mask, logits_to_keep=count + 1
    ).logits
    return functional.cross_entropy(logits[:, :-1].flatten(0, 1), ids[:, -count:].flatten())


def train(
    out: Path,
    *,
    steps: int,
    captions: int,
    looks: int,
    batch_size: int,
    learning_rate: float,
    seed: int,
    threads: int,
    start: str | None,
) -> Any:
    """Train, save model and processor in ``out``, and say how well it answers."""
    maker, reader = shapes.Maker(shapes.read("train").images), Reader()

    def loss_of(model: nn.Module, _device: torch.device, step: int) -> Tensor:
        rng = np.random.default_rng([seed, step])
        if step < captions:
            images, kinds = maker.images(batch_size, rng)
            said = [shapes.described(grid) for grid in kinds]
            return _saying(model, reader, images, ["describe"] * batch_size, said)
        if step < captions + looks or step % 3 == 0:
            return _looking(model, reader, *maker.looks(batch_size, rng))
        return _answering(model, reader, maker.batch(batch_size, rng))

    started = time.perf_counter()
    seen: list[float] = []

    def told(step: int, whole: int, loss: float) -> None:
        seen.append(loss)
        if step % 100 == 0:
            took = time.perf_counter() - started
            print(f"{step}/{whole} loss {np.mean(seen[-100:]):.3f}, {took:.0f} s", flush=True)

    with repeatable(seed, threads):
        model = new_model() if start is None else loaded(start)
        outcome = fit(
            model, loss_of, steps=steps, learning_rate=learning_rate, weight_decay=0.01, average=0.999,
            device="cpu", progress=told,
        )  # fmt: skip
    model.save_pretrained(out)
    new_processor().save_pretrained(out)
    figures = {
        "accuracy": {split: accuracy(model, shapes.read(split)) for split in ("train", "val", "test")},
        "majority": {
            split: 100 * max(1 - shapes.read(split).answers.mean(), shapes.read(split).answers.mean())
            for split in ("train", "val", "test")
        },
        "steps": steps, "captions": captions, "looks": looks,
        "batch_size": batch_size, "learning_rate": learning_rate, "seed": seed,
        "seconds": outcome.seconds, "noise": "none", "start": start or "fresh weights",
    }  # fmt: skip
    (out / "training.txt").write_text(json.dumps(figures, indent=2, default=float) + "\n", encoding="utf-8")
    return figures


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("out", type=Path)
    parser.add_argument("--steps", type=int, default=7_000)
    parser.add_argument("--captions", type=int, default=250, help="steps that describe, before the questions")
    parser.add_argument("--looks", type=int, default=1_500, help="steps that look around, after them")
    parser.add_argument("--batch-size", type=int, default=32)
    parser.add_argument("--learning-rate", type=float, default=1e-3)
    parser.add_argument("--start", help="a directory to go on from, in place of fresh weights")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--threads", type=int, default=1)
    given = vars(parser.parse_args())
    print(json.dumps(train(given.pop("out"), **given), indent=2, default=float))
