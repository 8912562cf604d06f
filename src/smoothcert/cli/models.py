"""From settled options to a smoothed classifier and a data set."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from smoothcert.cli.options import Settings

CONVERTED = "converted"  # below the directory of the runs: models in other backends

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


class Conversions:
    """Both models in the backends of the settings, for one noise level after another."""

    def __init__(self, settings: Settings, models: tuple[Any, Any | None], data: Dataset) -> None:
        self.settings, self.models, self.data = settings, models, data
        self._moved: dict[str, Any] = {}  # what torch runs is the same for every noise level

    def at(self, sigma: float, batch: int | None) -> tuple[Any, Any | None]:
        """Classifier and denoiser for one noise level, from ``out``/converted where they are there."""
        classifier, denoiser = self.models
        chosen = self.settings.classifier_backend, self.settings.denoiser_backend
        converted = self._part("classifier", classifier, chosen[0], sigma, batch, behind=denoiser)
        if denoiser is None:
            return converted, None
        return converted, self._part("denoiser", denoiser, chosen[1], sigma, batch)

    def _part(
        self, role: str, part: Any, backend: str, sigma: float, batch: int | None, behind: Any | None = None
    ) -> Any:
        from smoothcert import backends
        from smoothcert.smoothing.calibration import calibration
        from smoothcert.smoothing.network import default_batch

        if not backends.parse(backend).is_graph:
            if role not in self._moved:
                self._moved[role] = backends.convert(part, backend)
            return self._moved[role]
        settings, data = self.settings, self.data
        calls = batch or default_batch(data.shape)
        typical = calibration(
            data,
            sigma,
            noise=settings.noise,
            denoiser=behind,
            batch=calls,
            threads=settings.threads or 1,
        )
        return backends.convert(
            part,
            backend,
            sigma=sigma if role == "denoiser" else None,
            shape=data.shape,
            batch=calls,
            calibration=typical,
            cache=settings.out / CONVERTED,
        )


def settled_batch(settings: Settings, directory: Path) -> int | None:
    """The batch size that was asked for, else that of the run that is being continued."""
    from smoothcert.runlog.store import stored_specification

    stored = stored_specification(directory)
    return settings.batch or (stored.execution.batch if stored else None)


def prepared_jobs(settings: Settings, rule: RuleSpec) -> tuple[Dataset, list[Job]]:
    """The data, and one checked job a noise level, each with a directory of its own below ``out``."""
    from smoothcert.engine import prepare

    data, models = load_data(settings), load_models(settings)
    conversions, jobs = Conversions(settings, models, data), []
    for sigma in settings.sigma:
        directory = settings.out / f"sigma-{sigma:g}"
        converted = conversions.at(sigma, settled_batch(settings, directory))
        job = prepare(
            smooth(settings, converted, sigma, data.levels),
            data,
            directory,
            rule,
            seed=settings.seed,
            batch=settings.batch,
            threads=settings.threads,
            workers=settings.workers,
        )
        jobs.append(job)
    return data, jobs
