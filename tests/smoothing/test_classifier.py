"""The smoothed classifier on images at hand: input checks, determinism, denoisers and devices."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import smoothcert as sc
from smoothcert.denoisers import GaussianDenoiser
from smoothcert.errors import InvalidInput, ModelOutputError
from smoothcert.protocols import Draws

IMAGE = np.random.default_rng(0).integers(0, 256, size=(3, 6, 6)).astype(np.uint8)


def brightest(noisy: torch.Tensor) -> torch.Tensor:
    """The brightest channel: free of rounding, so equal on every device and at every batch size."""
    return (noisy * 255).round().long().sum((2, 3)).argmax(1)


def test_the_same_call_gives_the_same_certificate() -> None:
    first, second = (
        sc.SmoothedClassifier(brightest, sigma=0.5).certify(IMAGE, n=500, seed=3) for _ in range(2)
    )
    assert first == second
    assert first != sc.SmoothedClassifier(brightest, sigma=0.5).certify(IMAGE, n=500, seed=4)


def test_tensors_and_arrays_and_floats_on_the_grid_are_one_image() -> None:
    smoothed = sc.SmoothedClassifier(brightest, sigma=0.5)
    forms = [
        IMAGE,
        torch.from_numpy(IMAGE),
        (IMAGE / 255).astype(np.float32),
        torch.from_numpy(IMAGE) / 255.0,
    ]
    assert len({smoothed.certify(form, n=300) for form in forms}) == 1


@pytest.mark.parametrize("batch", [2, 7, 64])
def test_the_batch_size_changes_nothing_but_rounding(batch: int) -> None:
    smoothed = sc.SmoothedClassifier(brightest, sigma=0.5)
    assert smoothed.certify(IMAGE, n=300, batch=batch) == smoothed.certify(IMAGE, n=300, batch=32)


def test_predict_and_certify_agree_on_an_easy_image() -> None:
    image = np.stack([np.full((6, 6), value, dtype=np.uint8) for value in (20, 230, 20)])
    smoothed = sc.SmoothedClassifier(brightest, sigma=0.25)
    assert smoothed.predict(image, n=200).label == smoothed.certify(image, n=200).label == 1


def test_the_denoiser_is_asked_with_sigma_and_seen_by_the_classifier() -> None:
    seen = []

    def denoiser(noisy: torch.Tensor, sigma: float) -> torch.Tensor:
        seen.append(sigma)
        return torch.zeros_like(noisy)

    smoothed = sc.SmoothedClassifier(brightest, sigma=0.37, denoiser=denoiser)
    assert smoothed.certify(IMAGE, n=100).label == 0
    assert set(seen) == {0.37}


def test_an_ideal_denoiser_makes_an_image_certain() -> None:
    """Data that is nearly one image: its posterior mean is that image, whatever the noise."""
    mean = torch.from_numpy(IMAGE).double() / 255
    denoiser = GaussianDenoiser(mean, 1e-8 * torch.eye(mean.numel(), dtype=torch.float64))
    bare = sc.SmoothedClassifier(brightest, sigma=2.0).certify(IMAGE, n=500)
    helped = sc.SmoothedClassifier(brightest, sigma=2.0, denoiser=denoiser).certify(IMAGE, n=500)
    assert helped.radius == pytest.approx(2.0 * 2.2, abs=0.1)
    assert bare.radius < helped.radius


class Wandering:
    """A stochastic denoiser: adds noise of its own, from named draws."""

    stochastic = True

    def __call__(self, noisy: torch.Tensor, sigma: float, *, draws: Draws) -> torch.Tensor:
        return noisy + sigma * draws.normal(0) - 0.5 * draws.normal(1)


def test_stochastic_denoisers_draw_from_named_streams() -> None:
    smoothed = sc.SmoothedClassifier(brightest, sigma=0.5, denoiser=Wandering())  # type: ignore[arg-type]
    assert smoothed.certify(IMAGE, n=300, batch=16) == smoothed.certify(IMAGE, n=300, batch=64)


def test_a_broken_pixel_is_no_vote_even_if_the_classifier_answers() -> None:
    def denoiser(noisy: torch.Tensor, sigma: float) -> torch.Tensor:
        return torch.where(noisy[:, :1, :1, :1] > 0.5, torch.nan, noisy)

    found = sc.SmoothedClassifier(brightest, sigma=0.5, denoiser=denoiser).certify(IMAGE, n=300)
    assert found.votes.nonfinite > 0
    assert found.votes.total == 300


@pytest.mark.parametrize(
    "image",
    [
        np.zeros((6, 6), dtype=np.uint8),
        np.zeros((0, 3, 6, 6), dtype=np.uint8),
        np.full((3, 6, 6), 0.3333, dtype=np.float32),
        np.full((3, 6, 6), np.nan, dtype=np.float32),
        np.full((3, 6, 6), 7.0, dtype=np.float32),
    ],
)
def test_images_that_cannot_be_certified_are_refused(image: np.ndarray) -> None:
    with pytest.raises(InvalidInput):
        sc.SmoothedClassifier(brightest, sigma=0.5).certify(image, n=10)


@pytest.mark.parametrize("noise", ["grid", "float"])
@pytest.mark.parametrize("level", [-1, 256])
def test_levels_beyond_those_of_the_data_are_refused(noise: str, level: int) -> None:
    image = np.full((3, 6, 6), level, dtype=np.int32)
    with pytest.raises(InvalidInput, match=r"levels 0\.\.255"):
        sc.SmoothedClassifier(brightest, sigma=0.5, noise=noise).certify(image, n=10)


@pytest.mark.parametrize(
    "options",
    [
        {"n": 0},
        {"n0": 0},
        {"alpha": 0.0},
        {"alpha": 1.0},
        {"bound": "three"},
        {"seed": -1},
        {"seed": "x"},
        {"example": [1, 2]},
        {"example": -1},
        {"batch": 0},
    ],
)
def test_impossible_options_are_refused(options: dict[str, object]) -> None:
    with pytest.raises(InvalidInput):
        sc.SmoothedClassifier(brightest, sigma=0.5).certify(IMAGE, **({"n": 10} | options))  # type: ignore[arg-type]


@pytest.mark.parametrize("sigma", [0.0, -0.5, np.nan, np.inf])
def test_impossible_sigma_is_refused(sigma: float) -> None:
    with pytest.raises(InvalidInput, match="positive finite"):
        sc.SmoothedClassifier(brightest, sigma=sigma)


def test_a_denoiser_of_the_wrong_shape_is_reported() -> None:
    smoothed = sc.SmoothedClassifier(brightest, sigma=0.5, denoiser=lambda noisy, sigma: noisy[:, :1])
    with pytest.raises(ModelOutputError, match="shape of the noisy one"):
        smoothed.certify(IMAGE, n=10)


def test_a_network_that_cannot_take_the_images_is_reported() -> None:
    smoothed = sc.SmoothedClassifier(torch.nn.Linear(7, 2), sigma=0.5)
    with pytest.raises(ModelOutputError, match="failed on a batch"):
        smoothed.certify(IMAGE, n=10)


def test_a_model_trained_between_two_certificates_is_put_back_in_evaluation_mode() -> None:
    torch.manual_seed(0)
    network = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.BatchNorm1d(108), torch.nn.Linear(108, 3))
    smoothed = sc.SmoothedClassifier(network, sigma=0.5)
    first = smoothed.certify(IMAGE, n=200)
    network.train()
    assert smoothed.certify(IMAGE, n=200) == first
    assert not network.training


def test_images_that_are_not_named_do_not_share_their_noise() -> None:
    smoothed = sc.SmoothedClassifier(lambda noisy: (noisy[:, 0, 0, 0] * 255).round().long() % 2, sigma=0.5)
    images = [np.full((3, 6, 6), 100 + 2 * k, dtype=np.uint8) for k in range(6)]
    assert len({smoothed.certify(image, n=1_000).votes for image in images}) > 3
    together = smoothed.certify(np.stack([images[0]] * 6), n=1_000)
    assert len({one.votes for one in together}) > 3


def test_an_image_of_zeros_and_ones_must_say_what_it_is() -> None:
    image = (IMAGE > 128).astype(np.uint8)
    with pytest.raises(InvalidInput, match="levels=1"):
        sc.SmoothedClassifier(brightest, sigma=0.5).certify(image, n=10)
    sc.SmoothedClassifier(brightest, sigma=0.5, levels=1).certify(image, n=10)


@pytest.mark.parametrize("levels", [0, 2.5, -1, True])
def test_levels_are_a_positive_whole_number(levels: float) -> None:
    with pytest.raises(InvalidInput, match="grey levels"):
        sc.SmoothedClassifier(brightest, sigma=0.5, levels=levels)  # type: ignore[arg-type]


def test_a_device_that_does_not_exist_is_one_clear_error() -> None:
    with pytest.raises(InvalidInput, match="device"):
        sc.SmoothedClassifier(torch.nn.Flatten(), sigma=0.5, device="tpu9")


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_cpu_and_cuda_see_the_same_draws() -> None:
    """Grid noise is drawn on the host, so it is the same to the bit; a rounding-free model then agrees."""
    found = [
        sc.SmoothedClassifier(brightest, sigma=0.5, device=device).certify(IMAGE, n=2_000, batch=64)
        for device in ("cpu", "cuda")
    ]
    assert found[0] == found[1]
