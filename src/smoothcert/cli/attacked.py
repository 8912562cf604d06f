"""A finished run as something to attack: its certificates, its images, its models as they were."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from smoothcert.cli import models
from smoothcert.cli.settings import Settings, settle
from smoothcert.errors import CheckpointError, DataError, InvalidInput, RunFileError, UnknownName

if TYPE_CHECKING:
    from smoothcert.attacks.record import Record
    from smoothcert.attacks.search import Search
    from smoothcert.protocols import Dataset, Example
    from smoothcert.runlog.specification import Specification

FEATURE_RADII = (0.25, 0.5)


@dataclass(frozen=True)
class Attacked:
    """A run opened for attacks.

    Attributes:
        directory, specification, description: of the run.
        proofs: what it certifies, by image.
        labels, hashes: of its images, as stored.
        data: where the images come from.
        smoothed: the model the run certified. surrogate: where gradients come from if that has none.
    """

    directory: Path
    specification: Specification
    description: str
    proofs: dict[int, Any]
    hashes: dict[int, str]
    data: Dataset
    smoothed: Any
    surrogate: Any | None

    @classmethod
    def open(cls, directory: Path, *, data_dir: Path | None, device: str | None) -> Attacked:
        """Read a run, find its data, load its models, and check that they are the same.

        Raises:
            RunFileError: a run of predictions, or one in which no image is finished.
            CheckpointError: models whose weights are others.
        """
        from smoothcert.runlog import open_run
        from smoothcert.runlog.reading import describe
        from smoothcert.runlog.standing import standings

        run = open_run(directory)
        spec = run.specification
        if spec.rule.task == "predict":
            raise RunFileError(
                str(directory), "it holds predictions, which claim no radius", "Attack a run of certify"
            )
        rows = run.examples()
        standing = standings(spec.design(), run.checked_tallies(), {row.example: row.label for row in rows})
        verdicts = {example: found.course.verdict() for example, found in standing.items()}
        proofs = {example: verdict.proof for example, verdict in verdicts.items() if verdict is not None}
        if not proofs:
            raise RunFileError(str(directory), "no image of it is finished", "Continue the run first")
        settings = _settings(directory, spec, data_dir, device)
        data = models.load_data(settings)
        smoothed, surrogate = _models(settings, spec, data)
        hashes = {row.example: row.sha256 for row in rows}
        return cls(directory, spec, describe(spec), proofs, hashes, data, smoothed, surrogate)

    @property
    def encodes(self) -> bool:
        """Whether the run certifies features."""
        return self.specification.rule.task == "encode"

    def claimed_radius(self, example: int) -> float:
        """The radius of an image's certificate; for features the largest one of an answer."""
        proof = self.proofs[example]
        if self.encodes:
            return max((float(made.radius) for made in proof.decisions), default=0.0)
        return float(proof.radius)

    def chosen(self, count: int, *, certified: bool) -> list[Example]:
        """``count`` finished images, spread evenly over the run; only ``certified`` ones if so wished.

        Raises:
            DataError: an image that is not the one certified.
        """
        from smoothcert.engine.specify import example_row

        names = sorted(e for e in self.proofs if not certified or self.claimed_radius(e) > 0.0)
        wanted = {names[k * len(names) // min(count, len(names))] for k in range(min(count, len(names)))}
        found: list[Example] = []
        for position in range(len(self.data)):
            if len(found) == len(wanted):
                break
            example = self.data[position]
            if example.index in wanted:
                if example_row(example, self.data.shape).sha256 != self.hashes[example.index]:
                    raise DataError(
                        f"image {example.index} of {self.data.name}",
                        "its pixels are not those of the run",
                        "Name the folder with the run's own data: --data-dir",
                    )
                found.append(example)
        return found


def records(
    run: Attacked,
    radii: tuple[float, ...],
    images: int,
    search: Search,
    *,
    target: str,
    draws: int,
    most: int,
) -> Iterator[Record]:
    """Every attack of a command, radius after radius."""
    from smoothcert.attacks import campaign
    from smoothcert.smoothing.network import intra_op_threads

    execution = run.specification.execution
    judging = campaign.Judging(draws, most, search.seed, execution.batch)
    own = not radii and not run.encodes
    chosen = run.chosen(images, certified=own)
    with intra_op_threads(execution.threads):
        for radius in radii or ((0.0,) if own else FEATURE_RADII):
            jobs: Any = [
                (example, run.proofs[example.index], radius or run.claimed_radius(example.index))
                for example in chosen
            ]
            if run.encodes:
                yield from _feature_records(run, jobs, search, judging, target)
            else:
                yield from _vote_records(run, jobs, search, judging, target)


def _feature_records(run: Attacked, jobs: Any, search: Search, judging: Any, target: str) -> Iterator[Any]:
    from smoothcert.attacks import campaign

    head = run.specification.head
    if head is None and target != "away":
        raise InvalidInput(
            f"--target {target}",
            "the run has no head whose answer could be another one",
            "Write --target away to attack the feature itself, or certify with --head",
        )
    named = target not in ("away", "label")
    goal = "target" if named else target
    number = class_number(target, head.classes) if named and head else None
    yield from campaign.features(
        run.smoothed,
        jobs,
        search=search,
        judging=judging,
        goal=goal,
        target=number,
        prototypes=None if head is None else head.rows(),
        surrogate=run.surrogate,
    )


def _vote_records(run: Attacked, jobs: Any, search: Search, judging: Any, target: str) -> Iterator[Any]:
    from smoothcert.attacks import campaign

    spec = run.specification
    alone = spec.rule.bound == "one"
    claims = [
        (example, campaign.VoteClaim(proof.label, float(proof.radius), alone), radius)
        for example, proof, radius in jobs
    ]
    number = None if target in ("away", "label") else class_number(target, spec.data.classes)
    yield from campaign.votes(
        run.smoothed,
        claims,
        classes=len(spec.data.classes),
        search=search,
        judging=judging,
        target=number,
        surrogate=run.surrogate,
    )


def class_number(target: str, classes: tuple[str, ...]) -> int:
    """A class by its name, or by its number.

    Raises:
        UnknownName: neither.
    """
    if target in classes:
        return classes.index(target)
    if target.isdecimal() and int(target) < len(classes):
        return int(target)
    raise UnknownName.among("target", target, ("away", "label", *classes))


def _settings(directory: Path, spec: Specification, data_dir: Path | None, device: str | None) -> Settings:
    """The run in the words of the command line; its data are where its run.toml says, or in data_dir."""
    from smoothcert.runlog import configuration

    words = configuration.settings(spec)
    task = words.pop("task")
    written = directory / configuration.FILE
    if data_dir is None and written.is_file():
        known = configuration.read_configuration(written).get("data_dir")
        data_dir = Path(str(known)) if known else None
    if device is not None:
        words["device"] = device
    if data_dir is not None:
        words["data_dir"] = data_dir
    return settle(task, None, {**words, "out": directory.parent})


def _models(settings: Settings, spec: Specification, data: Dataset) -> tuple[Any, Any | None]:
    """The smoothed model of the run, and the same in plain torch where another library ran it."""
    from smoothcert.engine.specify import with_classes_of

    sigma, batch, conversions = spec.noise.sigma, spec.execution.batch, models.Conversions(settings, data)
    plain = {settings.classifier_backend, settings.denoiser_backend} == {"torch"}
    found: list[Any]
    roles: tuple[str, ...]
    if spec.rule.task == "encode":
        encoder, denoiser, mapper = models.load_encoding(settings)
        run = conversions.denoiser(denoiser, sigma, batch)
        found = [
            models.smooth_encoder(settings, (encoder, part, mapper), sigma, data.levels)
            for part in ([run] if plain else [run, denoiser])
        ]
        roles = ("encoder", "denoiser", "mapper")
    else:
        loaded = models.load_models(settings)
        both = conversions.both(loaded, sigma, batch)
        found = [
            with_classes_of(models.smooth(settings, pair, sigma, data.levels), data)
            for pair in ([both] if plain else [both, loaded])
        ]
        roles = ("classifier", "denoiser")
    smoothed, *gradients = found
    _same(spec, {role: getattr(smoothed, role) for role in roles})
    return smoothed, gradients[0] if gradients else None


def _same(spec: Specification, parts: dict[str, Any]) -> None:
    """Refuse weights that are not the run's: its certificates speak about its own."""
    from smoothcert.engine.specify import component

    for role, part in parts.items():
        stored = getattr(spec, role)
        if (stored is None) != (part is None):
            raise InvalidInput(f"the run's {role}", "it was not found again", "Report this as a bug")
        if stored is not None and component(part).sha256 != stored.sha256:
            raise CheckpointError(
                f"{role} {stored.source!r}",
                "its weights are not those that the run certified",
                "Put the run's own weights back, or make a new run",
            )
