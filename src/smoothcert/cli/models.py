"""From settled options to a smoothed classifier and a data set."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Any

from smoothcert.cli.options import Settings

if TYPE_CHECKING:
    from smoothcert.protocols import Dataset
    from smoothcert.smoothing import SmoothedClassifier


def load_data(settings: Settings) -> Dataset:
    """The data set by name."""
    from smoothcert import datasets

    return datasets.load(settings.data)


def load_models(settings: Settings, *, sampler: str | None = None) -> tuple[Any, Any | None]:
    """Classifier and denoiser by name; ``sampler`` overrides the settings'."""
    from smoothcert import classifiers, denoisers

    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())  # python:mine:net finds mine.py here
    classifier = classifiers.load(settings.classifier)
    if settings.denoiser == "none":
        return classifier, None
    return classifier, denoisers.load(settings.denoiser, sampler=sampler or settings.sampler)


def smooth(
    settings: Settings, models: tuple[Any, Any | None], sigma: float, levels: int | None
) -> SmoothedClassifier:
    """The smoothed classifier of one noise level."""
    from smoothcert.smoothing import SmoothedClassifier

    classifier, denoiser = models
    return SmoothedClassifier(
        classifier, sigma, denoiser=denoiser, noise=settings.noise, levels=levels, device=settings.device
    )
