"""The weights inside the package reach what their cards promise, on the 500 test images.

Every figure is a share of 500 images (times the draws of noise). The measurement here uses other noise than
the card's, so the two differ by chance: by less than four standard errors of one draw (a one in ten thousand
event each, and rarer, as both look at the same images).
"""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from tests.realdata import DATA, needs

from smoothcert import classifiers, denoisers
from smoothcert.checkpoints import embedded, read_card
from smoothcert.datasets import ArrayDataset, load
from smoothcert.training import accuracy, psnr

TEST = load("digits")
PROMISED = {0.25: 96.3, 0.5: 80.7, 1.0: 41.6}
"""What a first prototype reached; what ships must not be worse."""


def four_standard_errors(percent: float, trials: int = 500) -> float:
    return 400 * math.sqrt(percent / 100 * (1 - percent / 100) / trials)


def test_the_classifier_is_99_percent_right_on_clean_images() -> None:
    promised = read_card(embedded("digits-classifier")).content["figures"]["accuracy"]
    measured = accuracy(classifiers.load("digits"), TEST)
    assert promised >= 99
    assert abs(measured - promised) <= 0.21  # no noise: at most one image may tip with the machine


@pytest.mark.parametrize("place", [0, 1, 2])
def test_one_shot_denoising_reaches_the_cards_figures(place: int) -> None:
    figures = read_card(embedded("digits-denoiser")).content["figures"]
    sigma = figures["sigma"][place]
    promised, without = figures["accuracy_denoised"][place], figures["accuracy_noisy"][place]
    classifier, denoiser = classifiers.load("digits"), denoisers.load("digits")
    measured = accuracy(classifier, TEST, sigma=sigma, denoiser=denoiser, draws=1, seed=1)
    noisy = accuracy(classifier, TEST, sigma=sigma, draws=1, seed=1)
    assert promised >= PROMISED[sigma]
    assert abs(measured - promised) <= four_standard_errors(promised)
    assert abs(noisy - without) <= four_standard_errors(without)
    assert measured > noisy


CIFAR = DATA / "cifar10" / "cifar10_test_every20.npz"


def cifar(count: int) -> ArrayDataset:
    with np.load(CIFAR) as stored:
        return ArrayDataset(stored["images"][:count], stored["labels"][:count], levels=255, name="cifar10")


@needs("cifar10/cifar10_test_every20.npz", "weights/cifar10_resnet56.npz")
@pytest.mark.parametrize("sigma", [0.12, 0.25, 0.5, 1.0])
def test_the_cifar10_denoiser_reaches_its_cards_figures(sigma: float) -> None:
    figures = read_card(embedded("cifar10-denoiser")).content["figures"]
    place = figures["sigma"].index(sigma)
    denoiser, data = denoisers.load("cifar10"), cifar(250)
    assert psnr(denoiser, data, sigma=sigma, seed=1) == pytest.approx(figures["psnr"][place], abs=0.3)
    source = f"resnet56:{DATA}/weights/cifar10_resnet56.npz?mean=0.485,0.456,0.406&std=0.229,0.224,0.225"
    found = accuracy(classifiers.load(source), data, sigma=sigma, denoiser=denoiser, draws=1, seed=1)
    promised = figures["accuracy_denoised"][place]
    assert abs(found - promised) <= four_standard_errors(promised, trials=250)


def test_the_cifar10_denoiser_removes_noise_from_smooth_pictures() -> None:
    """Without the data set: on pictures of any kind it must beat doing nothing by far."""
    draw = torch.Generator().manual_seed(0)
    coarse = torch.rand((16, 3, 4, 4), generator=draw)
    smooth = torch.nn.functional.interpolate(coarse, size=32, mode="bilinear")
    data = ArrayDataset((255 * smooth).round().numpy().astype(np.uint8), [0] * 16, levels=255)
    for sigma in (0.12, 0.25, 0.5):
        gained = psnr(denoisers.load("cifar10"), data, sigma=sigma) + 20 * math.log10(sigma)
        assert gained > 8, f"{gained:.1f} dB at sigma {sigma}"
