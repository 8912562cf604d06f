"""The text towers of models that were trained on pictures and words: prompts to features."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from smoothcert.errors import CheckpointError, InvalidInput


class TextTower:
    """Prompts -> features ``(B, k)`` of the same space as the images' features, on the CPU or where it lies.

    No module of its own, so that an encoder's weights and their hash are those of its image tower alone.

    Args:
        network: with ``get_text_features``, as in the transformers library.
        tokenizer: called once, when the first prompt comes, to read the tokenizer.
        length: most tokens that the tower takes.
        padded: whether it was trained with prompts filled up to that length (SigLIP) or as long as they are.
    """

    def __init__(
        self, network: Any, tokenizer: Callable[[], Any], *, length: int, padded: bool = False
    ) -> None:
        self._network, self._read, self._length, self._padded = network, tokenizer, length, padded
        self._tokenizer: Any = None

    def __call__(self, prompts: Sequence[str]) -> Tensor:
        """Features of the prompts, one row each.

        Raises:
            InvalidInput: a prompt longer than the tower takes, of which the end would be lost.
            CheckpointError: a model without its own tokenizer.
        """
        self._tokenizer = self._tokenizer or _belonging(self._read(), self._network)
        filled: dict[str, Any] = {"padding": True}
        if self._padded:
            filled = {"padding": "max_length", "max_length": self._length}
        tokens = self._tokenizer(list(prompts), return_tensors="pt", truncation=False, **filled)
        if tokens["input_ids"].shape[1] > self._length:
            lengths = [len(one) for one in self._tokenizer(list(prompts))["input_ids"]]
            longest = prompts[lengths.index(max(lengths))]
            why = f"it has {max(lengths)} tokens, and the text tower takes {self._length}"
            raise InvalidInput(f"prompt {longest!r}", why, "Shorten it")
        device = next(self._network.text_model.parameters()).device
        with torch.inference_mode():
            found = self._network.get_text_features(
                **{key: value.to(device) for key, value in tokens.items()}
            )
        features: Tensor = getattr(found, "pooler_output", found)
        return features.detach()


def _belonging(tokenizer: Any, network: Any) -> Any:
    """A tokenizer that has the model's words: the library makes an empty one where its files are missing.

    Raises:
        CheckpointError: it has far fewer, or more, words than the model.
    """
    words, rows = len(tokenizer), int(network.config.text_config.vocab_size)
    if not rows / 2 < words <= rows:
        found = f"tokenizer of {words} tokens for a text tower of {rows}"
        instead = "Save or fetch the model with its tokenizer (tokenizer.json)"
        raise CheckpointError(found, "its files are missing, or those of another model", instead)
    return tokenizer


def text_of(encoder: Any) -> Callable[[Sequence[str]], Tensor]:
    """The text tower of an encoder.

    Raises:
        InvalidInput: it has none.
    """
    found = getattr(encoder, "text", None)
    if not callable(found):
        source = getattr(encoder, "source", type(encoder).__qualname__)
        raise InvalidInput(
            f"encoder {source!r} for prompts",
            "it has no text tower, so words have no place among its features",
            "Use a model of pictures and words (CLIP, SigLIP: encoders.load('transformers:...')), or make "
            "prototypes of examples with ZeroShotHead.from_examples",
        )
    return found  # type: ignore[no-any-return]
