"""Calibration images: noise that no certificate uses, the full data set whatever the slice, known by name."""

from __future__ import annotations

import numpy as np
import pytest

import smoothcert as sc
from smoothcert.datasets import load
from smoothcert.errors import InvalidInput
from smoothcert.smoothing.calibration import SEED, calibration
from smoothcert.smoothing.noise import make_noise
from smoothcert.smoothing.streams import STAGES, Segment

SIGMA = 0.5


def test_no_certificate_draws_this_noise() -> None:
    data = load("digits:test[:4]")
    seen = calibration(data, SIGMA, images=8).images
    noise, examples = make_noise("grid", SIGMA, data.levels), load("digits:test")
    for stage in STAGES:
        drawn = noise.noisy(noise.prepare(examples[0].image), SEED, Segment(0, stage, 0, 100))
        same = [bool((one == seen[0]).all()) for one in drawn]
        assert same == [stage == "calibration"] + [False] * 99


def test_slices_share_the_images_of_the_full_data_set() -> None:
    parts = [
        calibration(load(name), SIGMA) for name in ("digits:test", "digits:test[:3]", "digits:test[5::7]")
    ]
    assert parts[0].images.shape == (64, 1, 8, 8)
    for part in parts[1:]:
        assert np.array_equal(part.images, parts[0].images)
        assert part.describe() == parts[0].describe()
    assert calibration(load("digits:train"), SIGMA).describe() != parts[0].describe()


def test_noise_has_the_size_of_sigma() -> None:
    data = load("digits:test")
    residual = (
        calibration(data, SIGMA, images=500).images
        - np.stack([one.image for one in map(data.__getitem__, range(500))]) / 16
    )
    # 32,000 pixels: the standard deviation is known to .4 %, and this allows five times that.
    assert abs(residual.std() / SIGMA - 1) < 0.02


def test_few_images_get_several_draws() -> None:
    pixels = np.arange(2 * 64, dtype=np.uint8).reshape(2, 1, 8, 8)
    data = sc.datasets.ArrayDataset(pixels, [0, 1], levels=255)
    images = calibration(data, SIGMA, images=6).images
    assert len({image.tobytes() for image in images}) == 6


def test_a_classifier_behind_a_denoiser_is_shown_denoised_images() -> None:
    data, denoiser = load("digits:test"), sc.denoisers.load("digits")
    noisy, clean = calibration(data, SIGMA), calibration(data, SIGMA, denoiser=denoiser)
    assert noisy.images.min() < 0 <= clean.images.min()
    assert clean.images.max() <= 1
    assert clean.describe()["denoiser"]["source"] == "digits"
    other = calibration(data, SIGMA, denoiser=sc.denoisers.load("digits", sampler="ddim:3"))
    assert other.describe() != clean.describe()
    drawn = calibration(data, SIGMA, denoiser=sc.denoisers.load("digits", sampler="ancestral"), images=16)
    again = calibration(data, SIGMA, denoiser=sc.denoisers.load("digits", sampler="ancestral"), images=16)
    assert np.array_equal(drawn.images, again.images)


def test_images_to_be_made_later_need_a_name() -> None:
    with pytest.raises(InvalidInput, match="facts="):
        sc.backends.Calibration(lambda: np.zeros((1, 1, 8, 8), np.float32))
