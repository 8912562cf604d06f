"""A smoothed vision tower inside a real LLaVA model: generation, features, certificates, and what is refused."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from tests.encoders import tiny
from torch import Tensor

from smoothcert.errors import InvalidInput, ModelOutputError, UnknownName
from smoothcert.smoothing.vlm import Answer, SmoothedVLM

pytest.importorskip("transformers", reason="transformers is not installed")

QUESTION = "what is in the picture?"
PICTURE = tiny.picture(24, 24)


def images(count: int = 4) -> Tensor:
    return torch.stack([torch.from_numpy(tiny.picture(24, 24, seed=k)) for k in range(count)]).float() / 255


@pytest.fixture(scope="module")
def parts() -> tuple[Any, Any]:
    return tiny.llava()


def clean_features(model: Any, processor: Any) -> np.ndarray[Any, Any]:
    vlm = SmoothedVLM(model, processor, 0.1, norm=1.0)
    with torch.inference_mode():
        found: np.ndarray[Any, Any] = vlm.tower(torch.from_numpy(PICTURE)[None].float() / 255)[0].numpy()
    return found


def test_little_noise_gives_nearly_the_plain_features_and_answer(parts: tuple[Any, Any]) -> None:
    model, processor = parts
    clean = clean_features(model, processor)
    vlm = SmoothedVLM(model, processor, 1e-3, norm=float(np.linalg.norm(clean)), n=8)
    served = vlm.features(PICTURE)
    assert served.shape == (9, 16)
    assert np.allclose(served, clean, atol=0.02)
    inputs = processor(
        images=[Image.fromarray(PICTURE.transpose(1, 2, 0))],
        text=f"USER: <image>\n{QUESTION} ASSISTANT:",
        return_tensors="pt",
    )
    said = model.generate(**inputs, max_new_tokens=6, do_sample=False)
    plain = processor.tokenizer.decode(said[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True)
    answer = vlm.answer(PICTURE, QUESTION, max_new_tokens=6)
    assert isinstance(answer, Answer)
    assert answer.text == plain.strip()
    assert np.array_equal(answer.features, served)
    assert answer.certificate is None


def test_much_noise_gives_the_direction_of_the_mean_of_unit_features(parts: tuple[Any, Any]) -> None:
    vlm = SmoothedVLM(*parts, 0.2, norm=7.0, n=64)
    draws = vlm.smoothed.draws(PICTURE, 64, stage="prediction")
    mean = draws.mean(axis=0)
    assert np.allclose(np.linalg.norm(draws, axis=1), 1.0)
    assert np.linalg.norm(mean) < 0.999, "noise shortens the mean"
    assert np.allclose(vlm.features(PICTURE).ravel(), 7.0 * mean / np.linalg.norm(mean), atol=1e-9)


def test_every_picture_is_served_with_the_same_length(parts: tuple[Any, Any]) -> None:
    vlm = SmoothedVLM(*parts, 0.2, calibration=images(), n=16)
    lengths = [np.linalg.norm(vlm.features(tiny.picture(24, 24, seed=k))) for k in range(3)]
    assert np.allclose(lengths, vlm.norm)
    with torch.inference_mode():
        clean = vlm.tower(images()).flatten(1).norm(dim=1)
    assert vlm.norm == pytest.approx(float(clean.mean()), rel=1e-6)


def test_inside_the_model_sees_the_served_features_and_nothing_of_the_pixels(parts: tuple[Any, Any]) -> None:
    model, processor = parts
    vlm = SmoothedVLM(model, processor, 0.1, norm=5.0, n=4)
    text = f"USER: <image>\n{QUESTION} ASSISTANT:"
    pictures = [Image.fromarray(tiny.picture(24, 24, seed=k).transpose(1, 2, 0)) for k in range(2)]
    inputs = [processor(images=[one], text=text, return_tensors="pt") for one in pictures]
    with torch.inference_mode():
        before = [model(**one).logits for one in inputs]
        with vlm.serving(vlm.features(PICTURE)) as inside:
            within = [inside(**one).logits for one in inputs]
        after = [model(**one).logits for one in inputs]
    assert torch.equal(within[0], within[1])
    assert not torch.allclose(before[0], before[1], atol=1e-4)
    assert torch.equal(after[0], before[0])
    projected = model.model.multi_modal_projector(torch.from_numpy(vlm.features(PICTURE)).float()[None])
    with torch.inference_mode(), vlm.serving(vlm.features(PICTURE)):
        hidden = model(**inputs[0]).image_hidden_states
    assert torch.allclose(hidden, projected[0], atol=1e-5)


def test_the_model_is_as_before_also_after_an_error(parts: tuple[Any, Any]) -> None:
    model, processor = parts
    vlm = SmoothedVLM(model, processor, 0.1, norm=5.0, n=4)
    with pytest.raises(RuntimeError, match="stop"), vlm.serving(vlm.features(PICTURE)):
        raise RuntimeError("stop")
    assert not model.model.multi_modal_projector._forward_pre_hooks


def test_several_pictures_are_served_one_each(parts: tuple[Any, Any]) -> None:
    model, processor = parts
    vlm = SmoothedVLM(model, processor, 0.1, norm=5.0, n=4)
    both = np.stack([tiny.picture(24, 24, seed=k) for k in range(2)])
    served = vlm.features(both, example=[0, 1])
    assert served.shape == (2, 9, 16)
    assert np.array_equal(served[1], vlm.features(both[1], example=1))
    text = f"USER: <image>\n{QUESTION} ASSISTANT:"
    pictures = [Image.fromarray(one.transpose(1, 2, 0)) for one in both]
    inputs = processor(images=pictures, text=[text, text], return_tensors="pt")
    with torch.inference_mode():
        with vlm.serving(served):
            logits = model(**inputs).logits
        with vlm.serving(served[1]):
            second = model(**processor(images=[pictures[0]], text=text, return_tensors="pt")).logits
        assert torch.allclose(logits[1], second[0], atol=1e-4)
        with vlm.serving(served), pytest.raises(InvalidInput, match="2 served features for 1"):
            model(**processor(images=[pictures[0]], text=text, return_tensors="pt"))


def test_beams_share_the_picture(parts: tuple[Any, Any]) -> None:
    answer = SmoothedVLM(*parts, 0.1, norm=5.0, n=4).answer(
        PICTURE, QUESTION, max_new_tokens=4, generation={"num_beams": 3}
    )
    assert isinstance(answer.text, str)


def test_a_certificate_comes_with_the_answer(parts: tuple[Any, Any]) -> None:
    vlm = SmoothedVLM(*parts, 0.05, calibration=images(), n=500)
    answer = vlm.answer(PICTURE, QUESTION, max_new_tokens=3, certificate={"n0": 50, "n": 1000, "alpha": 0.01})
    proof: Any = answer.certificate
    assert proof.served == 500
    assert proof.sigma == 0.05
    assert 0.9 < proof.m_lower < 1.0
    ideal, served = proof.cosine_lower(0.02), proof.served_cosine_lower(0.02)
    assert 0.0 < served < ideal < 1.0
    again = vlm.certify(PICTURE, n0=50, n=1000, alpha=0.01)
    assert again.m_lower == proof.m_lower
    nearby = vlm.features((PICTURE + 1).astype(np.uint8), example=7)  # one grey level: 42 / 255 in L2
    distance = float(np.sqrt(PICTURE.size)) / 255
    cosine = float((nearby * answer.features).sum()) / vlm.norm**2
    assert cosine >= proof.served_cosine_lower(distance)


@pytest.mark.parametrize(
    ("settings", "error", "message"),
    [
        (
            {"certificate": {"served": 5_000}},
            InvalidInput,
            "served by n=4: the certificate would speak of other",
        ),
        ({"n": 8, "certificate": {"served": 4}}, InvalidInput, "served by n=8"),
        ({"certificate": {"seed": 1}}, InvalidInput, "served by seed=0"),
        ({"certificate": {"example": 1}}, InvalidInput, "served by example=None"),
        ({"certificate": {"draws": 10}}, UnknownName, "'draws'"),
        ({"certificate": {"n0": 0}}, InvalidInput, "n0 = 0"),
        ({"certificate": "yes"}, InvalidInput, "no set of arguments"),
        ({"generation": {"inputs_embeds": 0}}, InvalidInput, "inputs_embeds"),
        ({"max_new_tokens": 0}, InvalidInput, "max_new_tokens = 0"),
        ({"n": 0}, InvalidInput, "n = 0"),
    ],
)
def test_a_certificate_of_other_features_is_refused_before_anything_is_said(
    parts: tuple[Any, Any],
    settings: Any,
    error: type[Exception],
    message: str,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    vlm = SmoothedVLM(*parts, 0.1, norm=5.0, n=4)

    def said(**_: Any) -> None:
        raise AssertionError("it was generated")

    monkeypatch.setattr(parts[0], "generate", said)
    with pytest.raises(error, match=message):
        vlm.answer(PICTURE, QUESTION, **settings)


def test_the_numbers_of_the_served_features_may_be_repeated(parts: tuple[Any, Any]) -> None:
    vlm = SmoothedVLM(*parts, 0.1, norm=5.0, n=4)
    asked = {"served": 6, "seed": 3, "example": 2, "n0": 2, "n": 20}
    answer = vlm.answer(PICTURE, QUESTION, n=6, seed=3, example=2, max_new_tokens=1, certificate=asked)
    assert answer.certificate is not None
    assert answer.certificate.served == 6


def test_zero_draws_are_not_the_usual_number(parts: tuple[Any, Any]) -> None:
    vlm = SmoothedVLM(*parts, 0.1, norm=5.0, n=4)
    with pytest.raises(InvalidInput, match="n = 0"):
        vlm.features(PICTURE, n=0)
    with pytest.raises(InvalidInput, match="served = 0"):
        vlm.certify(PICTURE, served=0)


def test_calibration_images_are_levels_or_floats_as_any_image(parts: tuple[Any, Any]) -> None:
    wanted = SmoothedVLM(*parts, 0.1, calibration=images()).norm
    levels = np.rint(255 * images().numpy()).astype(np.uint8)
    for given in (levels, torch.from_numpy(levels), levels / 255):
        assert SmoothedVLM(*parts, 0.1, calibration=given).norm == pytest.approx(wanted, rel=1e-6)


@pytest.mark.parametrize("shape", [(9, 15), (8, 16), (1, 10, 16), (16,), (9, 16, 1, 1)])
def test_features_of_another_shape_are_not_served(parts: tuple[Any, Any], shape: tuple[int, ...]) -> None:
    vlm = SmoothedVLM(*parts, 0.1, norm=5.0)
    with pytest.raises(InvalidInput, match="9x16"), vlm.serving(np.ones(shape)):
        pass


def test_features_that_are_not_finite_are_not_served(parts: tuple[Any, Any]) -> None:
    vlm = SmoothedVLM(*parts, 0.1, norm=5.0)
    with pytest.raises(InvalidInput, match="finite"), vlm.serving(np.full((9, 16), np.nan)):
        pass


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({}, "one fixed length"),
        ({"norm": 1.0, "calibration": images(2)}, "one fixed length"),
        ({"norm": 0.0}, "positive"),
        ({"norm": float("nan")}, "positive"),
        ({"norm": "1"}, "norm='1'"),
        ({"norm": 1.0, "n": 0}, "n = 0"),
        ({"calibration": 255 * images(2)}, r"finite and in \[0, 1\]"),
        ({"calibration": (255 * images(2)).numpy().astype(np.int32) + 300}, r"levels 0\.\.255"),
        ({"calibration": images(2)[:0]}, "at least one"),
        ({"calibration": images(2)[0]}, "at least one"),
        ({"calibration": [1.0]}, "type list"),
    ],
)
def test_settings_that_cannot_be_are_refused(parts: tuple[Any, Any], settings: Any, message: str) -> None:
    with pytest.raises(InvalidInput, match=message):
        SmoothedVLM(*parts, 0.1, **settings)


def test_bad_questions_and_pictures(parts: tuple[Any, Any], tmp_path: Path) -> None:
    vlm = SmoothedVLM(*parts, 0.1, norm=5.0, n=4)
    for model, processor, message in (
        ("llava", parts[1], r"LlavaForConditionalGeneration\.from_pretrained\('llava'\)"),
        (parts[0], None, r"AutoProcessor\.from_pretrained"),
    ):
        with pytest.raises(InvalidInput, match=message):
            SmoothedVLM(model, processor, 0.1, norm=5.0)
    with pytest.raises(InvalidInput, match="asks nothing"):
        vlm.answer(PICTURE, " ")
    with pytest.raises(InvalidInput, match="one picture"):
        vlm.answer(np.stack([PICTURE, PICTURE]), QUESTION)
    with pytest.raises((InvalidInput, ModelOutputError), match="channel"):
        vlm.answer(PICTURE[:1], QUESTION)
    with pytest.raises(InvalidInput, match=r"24x24x3: this network takes images \(3, H, W\)"):
        vlm.answer(PICTURE.transpose(1, 2, 0), QUESTION)
    with pytest.raises(InvalidInput, match=r"type Image: .* \(C, H, W\)"):
        vlm.answer(Image.fromarray(PICTURE.transpose(1, 2, 0)), QUESTION)  # type: ignore[arg-type]
    clip, _, _ = tiny.clip(tmp_path)
    with pytest.raises(InvalidInput, match="CLIPModel"):
        SmoothedVLM(clip, parts[1], 0.1, norm=5.0)


def test_denoiser_and_mapper_stand_around_the_tower(parts: tuple[Any, Any]) -> None:
    class Turned:
        sigmas = (0.05, 0.2)

        def __call__(self, features: Tensor, sigma: float, /) -> Tensor:
            assert features.shape[1:] == (9, 16)
            return features.flip(2)

    model, processor = parts
    plain = SmoothedVLM(model, processor, 0.1, norm=5.0, n=4)
    mapped = SmoothedVLM(model, processor, 0.1, norm=5.0, n=4, mapper=Turned())
    assert np.allclose(mapped.features(PICTURE), plain.features(PICTURE)[:, ::-1], atol=1e-6)
    grey = SmoothedVLM(
        model, processor, 0.1, norm=5.0, n=4, denoiser=lambda noisy, sigma: torch.full_like(noisy, 0.5)
    )
    assert np.allclose(grey.features(PICTURE), grey.features(tiny.picture(24, 24, seed=3)), atol=1e-6)
