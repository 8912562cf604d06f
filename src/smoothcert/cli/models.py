"""From settled options to a smoothed classifier and a data set."""

from __future__ import annotations

import os
import sys
from typing import TYPE_CHECKING, Any

from smoothcert.cli.options import Settings

if TYPE_CHECKING:
    from smoothcert.engine import Job
    from smoothcert.protocols import Dataset
    from smoothcert.runlog.specification import RuleSpec
    from smoothcert.smoothing import SmoothedClassifier


def load_data(settings: Settings) -> Dataset:
    """The data set by name."""
    from smoothcert import datasets

    return datasets.load(settings.data, root=settings.data_dir, download=settings.download)


def see_working_directory() -> None:
    """``python:mine:net`` finds mine.py here."""
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())


def load_models(settings: Settings, *, sampler: str | None = None) -> tuple[Any, Any | None]:
    """Classifier and denoiser by name; ``sampler`` overrides the settings'."""
    from smoothcert import classifiers, denoisers

    see_working_directory()
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
        classifier,
        sigma,
        denoiser=denoiser,
        noise=settings.noise,
        levels=levels,
        device=settings.device,
        precision=settings.precision,
    )


def prepared_jobs(settings: Settings, rule: RuleSpec) -> tuple[Dataset, list[Job]]:
    """The data, and one checked job a noise level, each with a directory of its own below ``out``."""
    from smoothcert.engine import prepare

    data, models = load_data(settings), load_models(settings)
    jobs = [
        prepare(
            smooth(settings, models, sigma, data.levels),
            data,
            settings.out / f"sigma-{sigma:g}",
            rule,
            seed=settings.seed,
            batch=settings.batch,
            threads=settings.threads,
            workers=settings.workers,
        )
        for sigma in settings.sigma
    ]
    return data, jobs
