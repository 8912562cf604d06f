"""What a process elsewhere needs to do a run's work, and how it proves that it would do the same work.

A ``Shipment`` travels once to each worker. Before it may answer, a worker compares what it got and where it
stands with the specification: weights by their hashes, versions of the libraries that round, the device and
its precision; and it repeats one batch of the driver, whose answers must be the same.
"""

from __future__ import annotations

import hashlib
import platform
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

import smoothcert
from smoothcert.engine.blocks import PROBE
from smoothcert.engine.evaluate import Evaluation, Images, Place, Work
from smoothcert.engine.specify import found_here, with_classes_of
from smoothcert.errors import InvalidInput, WorkerRefused
from smoothcert.protocols import Dataset
from smoothcert.runlog.specification import Specification
from smoothcert.runlog.store import TallyRow
from smoothcert.smoothing.classifier import SmoothedClassifier
from smoothcert.smoothing.encoder import SmoothedEncoder
from smoothcert.smoothing.network import intra_op_threads
from smoothcert.smoothing.streams import Segment

if TYPE_CHECKING:
    from smoothcert.engine.job import Job

Smoothed = SmoothedClassifier | SmoothedEncoder
Places = Mapping[int, Place]


@dataclass(frozen=True)
class Shipment:
    """A run as it travels to a worker.

    Attributes:
        smoothed: the model, or a function that loads it where it is called.
        data: the data set; one that reads files reads them where it is used.
        specification: canonical JSON.
        version: of smoothcert. numerics: how the driver's torch rounds.
        probe: the place of an image, and a hash of the driver's answers to one batch of it.
    """

    smoothed: Smoothed | Callable[[], Smoothed]
    data: Dataset
    specification: str
    version: str
    numerics: dict[str, Any]
    probe: tuple[Place, str]

    @classmethod
    def of(cls, job: Job, load: Callable[[], Smoothed] | None) -> Shipment:
        """What the workers of a job need; ``load`` makes the model there instead of sending it."""
        first = job.rows[0]
        with intra_op_threads(job.specification.execution.threads):
            answers = probe(job.evaluation(), first.example)
        return cls(
            load or job.smoothed,
            job.data,
            job.specification.canonical(),
            smoothcert.__version__,
            numerics(),
            ((0, first), answers),
        )


class Bench:
    """A run on a worker: models loaded and checked once, then any of its work.

    Raises:
        WorkerRefused: what is here is not what the run's specification names.
    """

    def __init__(self, shipment: Shipment) -> None:
        if shipment.version != smoothcert.__version__:
            found = [f"smoothcert {smoothcert.__version__}, and the run is made with {shipment.version}"]
            raise refused(found)
        self._specification = specification = Specification.parse(shipment.specification)
        _set_numerics(shipment.numerics)
        smoothed = shipment.smoothed
        if not isinstance(smoothed, Smoothed):
            smoothed = smoothed()
            if not isinstance(smoothed, Smoothed):
                raise InvalidInput(
                    f"load=, which returned {type(smoothed).__name__}",
                    "it must make the smoothed model of the run",
                    "Return a SmoothedClassifier, or the SmoothedEncoder of a run that encodes",
                )
            if isinstance(smoothed, SmoothedClassifier):
                smoothed = with_classes_of(smoothed, shipment.data)
        smoothed.network.settle()
        if lines := specification.difference(found_here(smoothed, specification), ("the run has", "here is")):
            raise refused(lines)
        place, answers = shipment.probe
        noise = smoothed.noise_for(shipment.data.levels)
        images = Images(shipment.data, noise, lambda _: place)
        self._evaluation = Evaluation(smoothed, images, specification)
        with intra_op_threads(specification.execution.threads):
            if probe(self._evaluation, place[1].example) != answers:
                raise refused(
                    ["the same draws are answered differently here: this device rounds differently"]
                )

    def rows(self, task: Work, places: Places) -> list[TallyRow]:
        """The rows of some work on images at these places."""
        images = replace(self._evaluation.images, place=places.__getitem__)
        with intra_op_threads(self._specification.execution.threads):
            return replace(self._evaluation, images=images).rows(task)


def probe(evaluation: Evaluation, example: int) -> str:
    """A hash of the answers to a batch that no certificate uses; features to the step they are counted in."""
    spec, images = evaluation.specification, evaluation.images
    batch = spec.execution.batch
    answers = evaluation.smoothed.answers(
        [(images[example], Segment(example, "check", PROBE, batch))],
        seed=spec.noise.seed,
        batch=batch,
        noise=images.noise,
    )
    whole = np.rint(np.asarray(answers) * (1 << 15)).astype(np.int64)
    return hashlib.sha256(whole.tobytes()).hexdigest()


def numerics() -> dict[str, Any]:
    """Switches of torch that decide how it rounds, which a script may have set in its own process only."""
    return {
        "matmul": torch.get_float32_matmul_precision(),
        "dtype": torch.get_default_dtype(),
        "deterministic": torch.are_deterministic_algorithms_enabled(),
        "benchmark": torch.backends.cudnn.benchmark,
    }


def _set_numerics(found: Mapping[str, Any]) -> None:
    torch.set_float32_matmul_precision(found["matmul"])
    torch.set_default_dtype(found["dtype"])
    torch.use_deterministic_algorithms(found["deterministic"])
    torch.backends.cudnn.benchmark = found["benchmark"]


def refused(lines: list[str]) -> WorkerRefused:
    """The error of a worker that would answer for another model."""
    return WorkerRefused(
        f"a worker on {platform.node()}",
        "its answers would not be those of this run:\n  " + "\n  ".join(lines),
        "\nGive every node the same versions, weights and kind of device, or start a run of its own there",
    )
