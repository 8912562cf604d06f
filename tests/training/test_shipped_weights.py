"""The weights inside the package reach what their cards promise, on the 500 test images.

Every figure is a share of 500 images (times the draws of noise). The measurement here uses other noise than
the card's, so the two differ by chance: by less than four standard errors of one draw (a one in ten thousand
event each, and rarer, as both look at the same images).
"""

from __future__ import annotations

import math

import pytest

from smoothcert import classifiers, denoisers
from smoothcert.checkpoints import embedded, read_card
from smoothcert.datasets import load
from smoothcert.training import accuracy

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
