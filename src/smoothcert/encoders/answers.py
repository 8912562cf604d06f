"""A question with a fixed set of answers makes a classifier of a vision-language model.

The score of an answer is its log-likelihood, given the picture and the question. One picture at a time
decides, so votes over noisy draws certify the answer as they certify any label.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn

from smoothcert.encoders import llava
from smoothcert.encoders.dialogue import dialogue, token_ids
from smoothcert.errors import InvalidInput


def answer_classifier(
    model: Any, processor: Any, question: str, answers: Sequence[str], *, end: bool = False
) -> AnswerClassifier:
    """A classifier of pictures: which of the answers the model finds most likely.

    ``sc.SmoothedClassifier(encoders.answer_classifier(model, processor, "Is there a cat?", ["yes", "no"]),
    sigma=0.25).certify(picture)`` then certifies the answer.

    Args:
        model: a ``LlavaForConditionalGeneration``, or one built like it.
        processor: the model's own.
        question: in the processor's chat template, or LLaVA's (``USER: <image>\\n... ASSISTANT:``) where it
            has none; with the image token in it, it is the whole prompt.
        answers: two or more different texts.
        end: whether the model must also stop after the answer; asked for where one answer begins another.

    Raises:
        InvalidInput: answers that cannot be told apart, an empty question, or a model and a processor that
            do not belong together.
    """
    return AnswerClassifier(model, processor, question, answers, end=end)


class AnswerClassifier(nn.Module):
    """Images ``(B, 3, H, W)`` in [0, 1] -> log-likelihoods ``(B, answers)``; see ``answer_classifier``.

    Attributes:
        classes: the answers.
        prompt: the whole text before an answer.
    """

    contexts: Tensor
    present: Tensor
    layers: tuple[int, ...]
    start: int

    def __init__(
        self, model: Any, processor: Any, question: str, answers: Sequence[str], *, end: bool = False
    ) -> None:
        super().__init__()
        tower = llava.vision_tower(model, processor)
        chosen = cast("llava.Selected", tower.network)
        self.preprocessing, self.layers, self.start = (
            tower.preprocessing,
            chosen.layers,
            chosen.start,
        )
        self.model, self.end, self.source = model, end, f"{tower.source} asked {question!r}"
        self.classes, self.prompt = _distinct(answers), dialogue(processor, question)
        self.class_count = len(self.classes)
        sequences = _sequences(processor, self.prompt, self.classes, end)
        self._plan(sequences, llava.image_token(model))
        self._fit(tower)
        self.eval()

    def _plan(self, sequences: list[list[int]], image: int) -> None:
        """Contexts to run, each once; which positions of which one score each answer."""
        first = next(k for k, tokens in enumerate(zip(*sequences, strict=False)) if len(set(tokens)) > 1)
        before = [tuple(one[:-1]) for one in sequences]
        unique = list(dict.fromkeys(before))
        length = max(map(len, unique))
        filled = [list(one) + [0] * (length - len(one)) for one in unique]
        self.places = [k for k, token in enumerate(unique[0]) if token == image]
        contexts = torch.tensor(filled)
        contexts[:, self.places] = 0  # replaced by the picture
        present = torch.tensor([[1] * len(one) + [0] * (length - len(one)) for one in unique])
        device = next(self.model.parameters()).device
        self.register_buffer("contexts", contexts.to(device), persistent=False)
        self.register_buffer("present", present.to(device), persistent=False)
        self.kept = length - first + 1
        self.reads = [(unique.index(own), one[first:]) for own, one in zip(before, sequences, strict=True)]

    def _fit(self, tower: Any) -> None:
        tokens = tower.shape[0]
        if tokens != len(self.places):
            found = f"a prompt with {len(self.places)} image tokens for a picture of {tokens}"
            why = "the model and the processor do not belong together"
            raise InvalidInput(found, why, "Give the processor that was saved with the model")

    def forward(self, images: Tensor) -> Tensor:
        """Log-likelihoods ``(B, answers)``, float32.

        Raises:
            InvalidInput: images that the tower does not take.
        """
        inner = llava.parts_of(self.model)
        pixels = self.preprocessing(images).to(next(inner.vision_tower.parameters()).dtype)
        seen = llava.selected(inner.vision_tower, pixels, self.layers, self.start)
        seen = inner.multi_modal_projector(seen)
        words = self.model.get_input_embeddings()(self.contexts)
        batch, count = len(images), len(words)
        whole = words.expand(batch, -1, -1, -1).clone()
        whole[:, :, self.places] = seen[:, None].to(whole.dtype)
        logits = self.model(
            inputs_embeds=whole.flatten(0, 1),
            attention_mask=self.present.repeat(batch, 1),
            logits_to_keep=self.kept,
            use_cache=False,
        ).logits
        told = logits[:, -self.kept :].float().log_softmax(dim=-1).view(batch, count, self.kept, -1)
        scores = [told[:, context, range(len(tokens)), tokens].sum(dim=1) for context, tokens in self.reads]
        return torch.stack(scores, dim=1)

    def describe(self) -> dict[str, Any]:
        """Plain data for a run's specification."""
        return {
            "kind": "vision-language-answers",
            "architecture": type(self.model).__name__,
            "prompt": self.prompt,
            "answers": list(self.classes),
            "end": self.end,
            "preprocessing": self.preprocessing.describe(),
        }


def _distinct(answers: Sequence[str]) -> tuple[str, ...]:
    found = () if isinstance(answers, str) else tuple(answers)
    texts = all(isinstance(answer, str) and answer.strip() for answer in found)
    if len(found) < 2 or not texts or len({answer.strip() for answer in found}) != len(found):
        why = "a choice needs two different texts or more"
        raise InvalidInput(f"answers {answers!r}", why, 'Write for instance ["yes", "no"]')
    return tuple(answer.strip() for answer in found)


def _sequences(processor: Any, prompt: str, answers: tuple[str, ...], end: bool) -> list[list[int]]:
    """Prompt and answer as tokens, for each answer; none is the beginning of another."""
    gap = "" if prompt[-1].isspace() else " "
    stop: Any = getattr(processor.tokenizer, "eos_token_id", None)
    if end and stop is None:
        why = "the tokenizer has no token that ends a text"
        raise InvalidInput("end=True", why, "Leave it out")
    found = [token_ids(processor, f"{prompt}{gap}{answer}") + ([stop] if end else []) for answer in answers]
    for one, answer in zip(found, answers, strict=True):
        for other, longer in zip(found, answers, strict=True):
            if answer is not longer and other[: len(one)] == one:
                why = f"to the tokenizer it is the beginning of {longer!r}, and so never less likely"
                raise InvalidInput(f"answer {answer!r}", why, "Add end=True, or word the answers differently")
    return found
