"""How a question about a picture is put to a vision-language model."""

from __future__ import annotations

from typing import Any

import numpy as np

from smoothcert.errors import InvalidInput

_PLAIN = "USER: {image}\n{question} ASSISTANT:"  # of LLaVA 1.5


def dialogue(processor: Any, question: str) -> str:
    """The whole prompt: the processor's chat template, or LLaVA's where it has none.

    A question that holds the image token is the whole prompt already.

    Raises:
        InvalidInput: an empty question, one with several image tokens, or a processor of pictures alone.
    """
    if not isinstance(question, str) or not question.strip():
        raise InvalidInput(
            f"question {question!r}", "it asks nothing", 'Write for instance "Is there a cat?"'
        )
    if not (hasattr(processor, "tokenizer") and hasattr(processor, "image_token")):
        raise wrong_processor(processor, "it makes no tokens of texts and pictures")
    image = str(processor.image_token)
    if question.count(image) > 1:
        raise InvalidInput(f"question {question!r}", "it is about several pictures", f"Write {image} once")
    if image in question:
        return question
    if getattr(processor, "chat_template", None):
        content = [{"type": "image"}, {"type": "text", "text": question}]
        turn = [{"role": "user", "content": content}]
        return str(processor.apply_chat_template(turn, add_generation_prompt=True))
    return _PLAIN.format(image=image, question=question.strip())


def token_ids(processor: Any, text: str) -> list[int]:
    """The tokens of a prompt about one picture, with as many image tokens as the picture has."""
    blank = np.zeros((32, 32, 3), dtype=np.uint8)
    found = processor(images=[blank], text=[text])["input_ids"][0]
    return [int(token) for token in found]


def wrong_processor(processor: Any, why: str) -> InvalidInput:
    """The error for a processor that is not that of a vision-language model."""
    instead = "Give the model's own: transformers.AutoProcessor.from_pretrained(DIR)"
    return InvalidInput(f"a processor of type {type(processor).__name__}", why, instead)
