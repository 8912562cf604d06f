"""From settled options to a smoothed classifier and a data set."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from smoothcert.cli.settings import Settings
from smoothcert.cli.terminal import say
from smoothcert.errors import InvalidInput, UnknownName

HEADS = ("examples:DATA", "prompts:FILE", "a directory written by ZeroShotHead.save", "none")
CONVERTED = "converted"  # below the directory of the runs: models in other backends

if TYPE_CHECKING:
    from smoothcert.engine import Job
    from smoothcert.protocols import Dataset
    from smoothcert.runlog.specification import HeadSpec, RuleSpec
    from smoothcert.smoothing import SmoothedClassifier, SmoothedEncoder


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
    from smoothcert import classifiers

    see_working_directory()
    return classifiers.load(settings.classifier), load_denoiser(settings, sampler=sampler)


def load_denoiser(settings: Settings, *, sampler: str | None = None) -> Any | None:
    """The denoiser by name, ``None`` where there is none; ``sampler`` overrides the settings'."""
    from smoothcert import denoisers

    if settings.denoiser == "none":
        return None
    return denoisers.load(settings.denoiser, sampler=sampler or settings.sampler)


def load_encoding(settings: Settings) -> tuple[Any, Any | None, Any | None]:
    """Encoder, denoiser and mapper by name."""
    from smoothcert import encoders

    see_working_directory()
    encoder = encoders.load(settings.encoder)
    return encoder, load_denoiser(settings), _load_mapper(settings.mapper)


def _load_mapper(name: str) -> Any | None:
    """The mapper by name, ``None`` for none."""
    from smoothcert.encoders import mapper as mappers

    try:
        return None if name == "none" else mappers.load(name)
    except UnknownName as error:
        raise UnknownName.among("--mapper", name, (*mappers.NAMES, "none")) from error


def load_head(settings: Settings, encoder: Any, data: Dataset) -> Any | None:
    """The head by name: examples of a data set, prompts of a file, or a saved head."""
    from smoothcert import datasets
    from smoothcert.encoders import ZeroShotHead
    from smoothcert.protocols import named
    from smoothcert.smoothing.network import intra_op_threads

    kind, _, rest = settings.head.partition(":")
    if settings.head == "none":
        return None
    if kind == "examples":
        shown = datasets.load(rest, root=settings.data_dir, download=settings.download)
        with intra_op_threads(1):  # prototypes are part of the specification: the same on any machine's cores
            head = ZeroShotHead.from_examples(encoder, shown)
    elif kind == "prompts":
        head = ZeroShotHead.from_prompts(encoder, _prompts(rest, data.classes), data.classes)
    elif Path(settings.head).is_dir():
        head = ZeroShotHead.load(settings.head)
    else:
        raise UnknownName.among("--head", settings.head, HEADS)
    return named(head, settings.head)


def _prompts(path: str, classes: Sequence[str]) -> list[str]:
    """The prompts of a text file: a line for each class, or templates for all."""
    lines = _lines(path)
    templates = sum("{}" in line for line in lines)
    if not lines or (templates < len(lines) and (templates or len(lines) != len(classes))):
        mixed = f" ({templates} with {{}})" if templates else ""
        raise InvalidInput(
            f"--head prompts:{path} with {len(lines)} lines{mixed} for {len(classes)} classes",
            "the file has one prompt a class, or templates alone, which hold {} for the name of any class",
            "Write a line for each class, in the order of the data, or templates such as: a photo of a {}",
        )
    return lines


def _lines(path: str) -> list[str]:
    """The prompts of a text file, one a line."""
    try:
        found = [line.strip() for line in Path(path).read_text(encoding="utf-8").splitlines() if line.strip()]
    except (OSError, UnicodeDecodeError) as error:
        raise InvalidInput(
            f"--head prompts:{path}", f"cannot be read ({error})", "Name a text file"
        ) from error
    return found


def prepared_encodings(settings: Settings, *, quiet: bool) -> tuple[Dataset, list[Job]]:
    """The data, and one checked job a noise level, each with a directory of its own below ``out``."""
    from smoothcert.engine.run import encode_rule
    from smoothcert.smoothing.encoder import head_spec

    data, (encoder, denoiser, mapper) = load_data(settings), load_encoding(settings)
    if mapper is not None and (denoiser is None) != (mapper.config.denoiser in ("", "none")):
        told = f"{settings.mapper} was trained with denoiser {mapper.config.denoiser or 'none'}"
        say(f"note: {told}; with {settings.denoiser} it is as sound, and seldom as good", quiet=quiet)
    head = load_head(settings, encoder, data)
    decision: Any = settings.decision
    rule = encode_rule(
        head, decision=decision, served=settings.served, n0=settings.n0, n=settings.n, alpha=settings.alpha
    )
    spec = head_spec(head, data.classes) if head is not None else None
    conversions = Conversions(settings, data)

    def smoothed(sigma: float, batch: int | None) -> SmoothedEncoder:
        converted = conversions.denoiser(denoiser, sigma, batch)
        return smooth_encoder(settings, (encoder, converted, mapper), sigma, data.levels)

    return data, _jobs(settings, data, rule, smoothed, head=spec, quiet=quiet)


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


def smooth_encoder(
    settings: Settings, models: tuple[Any, Any | None, Any | None], sigma: float, levels: int | None
) -> SmoothedEncoder:
    """The smoothed encoder of one noise level, of encoder, denoiser and mapper."""
    from smoothcert.smoothing import SmoothedEncoder

    encoder, denoiser, mapper = models
    return SmoothedEncoder(
        encoder,
        sigma,
        denoiser=denoiser,
        mapper=mapper,
        noise=settings.noise,
        levels=levels,
        device=settings.device,
        precision=settings.precision,
    )


class Conversions:
    """Models in the backends of the settings, for one noise level after another.

    Graphs come from ``out``/converted where they are there.
    """

    def __init__(self, settings: Settings, data: Dataset) -> None:
        self.settings, self.data = settings, data
        self._moved: dict[str, Any] = {}  # what torch runs is the same for every noise level

    def both(self, models: tuple[Any, Any | None], sigma: float, batch: int | None) -> tuple[Any, Any | None]:
        """Classifier and denoiser for one noise level."""
        classifier, denoiser = models
        backend = self.settings.classifier_backend
        converted = self._part("classifier", classifier, backend, sigma, batch, behind=denoiser)
        return converted, self.denoiser(denoiser, sigma, batch)

    def denoiser(self, part: Any | None, sigma: float, batch: int | None) -> Any | None:
        """The denoiser for one noise level, if there is one."""
        if part is None:
            return None
        return self._part("denoiser", part, self.settings.denoiser_backend, sigma, batch)

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
            cache=settings.shared / CONVERTED,
        )


def executor_of(settings: Settings) -> Any:
    """Who evaluates: this process, or the cluster that was asked for."""
    if settings.executor == "local":
        return "local"
    from smoothcert.engine import RayCluster

    return RayCluster(settings.address, gpus=settings.gpus_per_worker)


def settled_batch(settings: Settings, directory: Path) -> int | None:
    """The batch size that was asked for, else that of the run that is being continued."""
    from smoothcert.runlog.store import stored_specification

    stored = stored_specification(directory)
    return settings.batch or (stored.execution.batch if stored else None)


def prepared_jobs(settings: Settings, rule: RuleSpec, *, quiet: bool) -> tuple[Dataset, list[Job]]:
    """The data, and one checked job a noise level, each with a directory of its own below ``out``."""
    data, models = load_data(settings), load_models(settings)
    conversions = Conversions(settings, data)

    def smoothed(sigma: float, batch: int | None) -> SmoothedClassifier:
        return smooth(settings, conversions.both(models, sigma, batch), sigma, data.levels)

    return data, _jobs(settings, data, rule, smoothed, quiet=quiet)


def _jobs(
    settings: Settings,
    data: Dataset,
    rule: RuleSpec,
    smoothed: Callable[[float, int | None], SmoothedClassifier | SmoothedEncoder],
    *,
    head: HeadSpec | None = None,
    quiet: bool,
) -> list[Job]:
    """A job for each noise level and its batch size, where and how the settings say; images are read once."""
    from smoothcert.engine import prepare

    jobs: list[Job] = []
    for sigma in settings.sigma:
        directory = settings.out / f"sigma-{sigma:g}"
        job = prepare(
            smoothed(sigma, settled_batch(settings, directory)),
            data,
            directory,
            rule,
            head=head,
            seed=settings.seed,
            batch=settings.batch,
            threads=settings.threads,
            workers=settings.workers,
            executor=executor_of(settings),
            shard=settings.shard,
            rows=jobs[0].rows if jobs else None,
            quiet=quiet,
        )
        jobs.append(job)
    return jobs
