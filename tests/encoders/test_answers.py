"""A question with fixed answers: scores are the log-likelihoods that the library's own model gives."""

from __future__ import annotations

import json
from typing import Any

import pytest
import torch
from tests.encoders import tiny
from torch import Tensor

from smoothcert.encoders import AnswerClassifier, answer_classifier
from smoothcert.errors import InvalidInput
from smoothcert.smoothing import SmoothedClassifier

pytest.importorskip("transformers", reason="transformers is not installed")

PROMPT = "user: <image> what is it? assistant:"
SETS = [["yes", "no"], ["cat", "dog", "frog"], ["red circle", "red square", "green", "blue square in it"]]


def images(count: int = 2) -> Tensor:
    return torch.stack([torch.from_numpy(tiny.picture(24, 24, seed=k)) for k in range(count)]).float() / 255


def theirs(model: Any, processor: Any, pixels: Tensor, answers: list[str], end: bool = False) -> Tensor:
    """Log-likelihood of each answer after the prompt, by whole calls of the model for one picture each."""
    start = len(processor(images=[tiny.picture(24, 24).transpose(1, 2, 0)], text=PROMPT)["input_ids"][0])
    rows = []
    for image in pixels:
        row = []
        for answer in answers:
            text = f"{PROMPT} {answer}" + (" </s>" if end else "")
            blank = tiny.picture(24, 24).transpose(1, 2, 0)
            ids = torch.as_tensor(processor(images=[blank], text=text, return_tensors="pt")["input_ids"])
            with torch.inference_mode():
                logits = model(input_ids=ids, pixel_values=image[None]).logits[0].log_softmax(-1)
            row.append(sum(logits[k - 1, ids[0, k]] for k in range(start, ids.shape[1])))
        rows.append(torch.stack(row))
    return torch.stack(rows)


@pytest.mark.parametrize("answers", SETS, ids=len)
@pytest.mark.parametrize("end", [False, True])
def test_scores_are_log_likelihoods(answers: list[str], end: bool) -> None:
    model, processor = tiny.llava()
    classifier = answer_classifier(model, processor, PROMPT, answers, end=end)
    assert isinstance(classifier, AnswerClassifier)
    assert classifier.classes == tuple(answers)
    with torch.inference_mode():
        found = classifier(images())
    expected = theirs(model, processor, classifier.preprocessing(images()), answers, end)
    differences = [
        values - values[:, :1] for values in (found, expected)
    ]  # a common beginning is no evidence
    assert torch.allclose(*differences, atol=1e-4)
    assert (found[0] - found[1]).abs().max() > 1e-3, "the picture counts"
    json.dumps(classifier.describe())


def test_single_tokens_are_whole_likelihoods() -> None:
    model, processor = tiny.llava()
    classifier = answer_classifier(model, processor, PROMPT, SETS[0])
    assert len(classifier.contexts) == 1, "one pass for all answers"
    with torch.inference_mode():
        expected = theirs(model, processor, classifier.preprocessing(images()), SETS[0])
        assert torch.allclose(classifier(images()), expected, atol=1e-4)


def test_each_picture_is_answered_by_itself() -> None:
    model, processor = tiny.llava()
    classifier = answer_classifier(model, processor, PROMPT, SETS[2])
    with torch.inference_mode():
        whole = classifier(images(5))
        for k in range(5):
            assert torch.allclose(classifier(images(5)[k : k + 1]), whole[k : k + 1], atol=1e-5)


def test_gradients_reach_the_pixels() -> None:
    model, processor = tiny.llava()
    pixels = images(1).requires_grad_()
    scores = answer_classifier(model, processor, PROMPT, SETS[1])(pixels)
    (scores[0, 0] - scores[0, 1]).backward()  # type: ignore[no-untyped-call]
    assert pixels.grad is not None
    assert pixels.grad.abs().sum() > 0


def test_the_answer_is_certified_like_any_label() -> None:
    model, processor = tiny.llava()
    classifier = answer_classifier(model, processor, PROMPT, SETS[0])
    picture = tiny.picture(24, 24)
    proof = SmoothedClassifier(classifier, sigma=0.05).certify(picture, n0=32, n=200, alpha=0.01)
    again = SmoothedClassifier(classifier, sigma=0.05).certify(picture, n0=32, n=200, alpha=0.01, batch=8)
    assert proof == again
    with torch.inference_mode():
        clean = int(classifier(torch.from_numpy(picture)[None].float() / 255).argmax())
    assert proof.label in (clean, None)
    sure = SmoothedClassifier(classifier, sigma=0.002).certify(picture, n0=16, n=100, alpha=0.01)
    assert sure.label == clean
    assert sure.radius > 0


def test_prompts() -> None:
    model, processor = tiny.llava()
    plain = answer_classifier(model, processor, "what is it?", SETS[0])
    assert plain.prompt == "USER: <image>\nwhat is it? ASSISTANT:"
    assert answer_classifier(model, processor, PROMPT, SETS[0]).prompt == PROMPT
    template = (
        "{% for m in messages %}{{ m['role'] }} : {% for c in m['content'] %}"
        "{% if c['type'] == 'image' %}<image> {% else %}{{ c['text'] }} {% endif %}{% endfor %}{% endfor %}"
        "{% if add_generation_prompt %}assistant :{% endif %}"
    )
    model, processor = tiny.llava(template=template)
    found = answer_classifier(model, processor, "what is it?", SETS[0])
    assert found.prompt == "user : <image> what is it? assistant :"


@pytest.mark.parametrize(
    ("question", "answers", "message"),
    [
        ("", SETS[0], "asks nothing"),
        ("<image> <image> same?", SETS[0], "several pictures"),
        ("what?", ["yes"], "two different"),
        ("what?", "yes", "two different"),
        ("what?", ["yes", " "], "two different"),
        ("what?", ["yes", "yes "], "two different"),
        ("what?", ["Yes", "yes"], "to the tokenizer"),
        ("what?", ["red", "red square"], "end=True"),
        ("what?", ["xyz", "zyx"], "to the tokenizer"),
    ],
)
def test_questions_without_a_choice_are_refused(question: str, answers: Any, message: str) -> None:
    model, processor = tiny.llava()
    with pytest.raises(InvalidInput, match=message):
        answer_classifier(model, processor, question, answers)


def test_one_answer_may_begin_another_if_it_must_end() -> None:
    model, processor = tiny.llava()
    answers = ["red", "red square"]
    classifier = answer_classifier(model, processor, PROMPT, answers, end=True)
    with torch.inference_mode():
        found = classifier(images())
    expected = theirs(model, processor, classifier.preprocessing(images()), answers, end=True)
    assert torch.allclose(found[:, 1] - found[:, 0], expected[:, 1] - expected[:, 0], atol=1e-4)


def test_a_processor_of_another_model_is_refused() -> None:
    model, processor = tiny.llava()
    processor.patch_size = 6
    with pytest.raises(InvalidInput, match="belong together"):
        answer_classifier(model, processor, PROMPT, SETS[0])
    with pytest.raises(InvalidInput, match="no tokens"):
        answer_classifier(model, processor.image_processor, PROMPT, SETS[0])
