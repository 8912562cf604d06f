"""Each prediction type against its definition, on images whose noise is known."""

from __future__ import annotations

import importlib
import math
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from torch import Tensor

from smoothcert.diffusion.prediction import clean_estimate
from smoothcert.errors import ModelOutputError, UnknownName

LIBRARY: Any = importlib.import_module("diffusers")  # untyped

SIGMA = 0.7
ALPHA_BAR = 1 / (1 + SIGMA**2)


def known() -> tuple[Tensor, Tensor, Tensor]:
    """Clean images, their noise, and what the network sees."""
    stream = torch.Generator().manual_seed(1)
    clean = torch.rand((3, 2, 4, 5), generator=stream, dtype=torch.float64) * 2 - 1
    noise = torch.randn(clean.shape, generator=stream, dtype=torch.float64)
    return clean, noise, math.sqrt(ALPHA_BAR) * clean + math.sqrt(1 - ALPHA_BAR) * noise


def outputs() -> dict[str, Tensor]:
    clean, noise, _ = known()
    velocity = math.sqrt(ALPHA_BAR) * noise - math.sqrt(1 - ALPHA_BAR) * clean
    return {"epsilon": noise, "x0": clean, "sample": clean, "v": velocity, "v_prediction": velocity}


@pytest.mark.parametrize("prediction", ["epsilon", "x0", "sample", "v", "v_prediction"])
def test_a_perfect_output_gives_the_clean_image(prediction: str) -> None:
    clean, _, seen = known()
    estimate = clean_estimate(outputs()[prediction], seen, SIGMA, prediction=prediction)
    torch.testing.assert_close(estimate, clean, rtol=0, atol=1e-13)


@pytest.mark.parametrize("prediction", ["epsilon", "sample", "v_prediction"])
def test_estimates_are_those_of_diffusers(prediction: str) -> None:
    scheduler = LIBRARY.DDPMScheduler(prediction_type=prediction, clip_sample=True)
    t = 145
    alpha_bar = float(scheduler.alphas_cumprod[t])
    seen, output = known()[2].float(), known()[1].float()
    theirs = scheduler.step(output, t, seen, return_dict=True).pred_original_sample
    ours = clean_estimate(output, seen, math.sqrt(1 / alpha_bar - 1), prediction=prediction)
    torch.testing.assert_close(ours, theirs, rtol=0, atol=2e-6)


def test_clamping_is_to_the_models_scale_and_can_be_left_out() -> None:
    seen = torch.zeros(1, 1, 2, 2)
    far = torch.full_like(seen, 3.0)
    assert clean_estimate(far, seen, SIGMA, prediction="x0").eq(1).all()
    assert clean_estimate(-far, seen, SIGMA, prediction="x0").eq(-1).all()
    assert clean_estimate(far, seen, SIGMA, prediction="x0", clamp=False).eq(3).all()


def test_learned_variance_is_dropped_and_a_wrapped_tensor_is_found() -> None:
    clean, noise, seen = known()
    both = torch.cat([noise, torch.full_like(noise, 7.0)], dim=1)
    for output in (both, SimpleNamespace(sample=both), SimpleNamespace(sample=noise)):
        torch.testing.assert_close(clean_estimate(output, seen, SIGMA), clean, rtol=0, atol=1e-13)


@pytest.mark.parametrize("value", [math.inf, -math.inf, math.nan])
@pytest.mark.parametrize("prediction", ["epsilon", "x0", "v"])
def test_clamping_never_hides_what_is_not_finite(prediction: str, value: float) -> None:
    _, noise, seen = known()
    noise[0, 0, 0, 0] = value
    estimate = clean_estimate(noise, seen, SIGMA, prediction=prediction)
    assert estimate.isnan().sum() == 1
    assert estimate[0, 0, 0, 0].isnan()


@pytest.mark.parametrize(
    "output",
    [
        torch.zeros(3, 3, 4, 5),
        torch.zeros(3, 2, 5, 4),
        torch.zeros(2, 4, 5),
        torch.zeros(1, 2, 4, 5),
        torch.zeros(3, 2, 4, 5, dtype=torch.int64),
        None,
        (torch.zeros(3, 2, 4, 5),),
        SimpleNamespace(sample=None),
    ],
    ids=str,
)
def test_any_other_output_is_refused(output: object) -> None:
    with pytest.raises(ModelOutputError):
        clean_estimate(output, known()[2], SIGMA)


def test_an_unknown_prediction_lists_what_exists() -> None:
    _, noise, seen = known()
    with pytest.raises(UnknownName, match="v_prediction"):
        clean_estimate(noise, seen, SIGMA, prediction="eps")
