"""From a batch of named draws to the rows of the run file: votes of a classifier, scores of an encoder."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from smoothcert.engine.blocks import Batch
from smoothcert.engine.specify import same_image
from smoothcert.engine.track import Tracker
from smoothcert.errors import DataError
from smoothcert.protocols import Dataset
from smoothcert.runlog.rows import ExampleRow
from smoothcert.runlog.specification import Specification
from smoothcert.runlog.store import TallyRow
from smoothcert.smoothing.classifier import SmoothedClassifier
from smoothcert.smoothing.encoder import SmoothedEncoder, tally_of
from smoothcert.smoothing.noise import Noise, Prepared
from smoothcert.smoothing.streams import Segment
from smoothcert.tallies import Tally, Votes

_KEPT_IMAGES = 128  # more than are under way at a time, for all but tiny images

Place = tuple[int, ExampleRow]
"""Where an image stands in its data set, and what the run knows it by."""


@dataclass(frozen=True)
class Images:
    """Prepared images by stream name, each compared with the run's when it is loaded; for several threads.

    A few are kept, so memory does not grow with the data set; ``dataclasses.replace`` keeps them.

    Attributes:
        place: stream name -> its place.
    """

    data: Dataset
    noise: Noise
    place: Callable[[int], Place]
    _kept: dict[int, Prepared] = field(default_factory=dict, repr=False)
    _lock: threading.Lock = field(default_factory=threading.Lock, repr=False)

    def __getitem__(self, example: int) -> Prepared:
        found = self._kept.get(example)
        if found is None:
            found = self._load(example)
            with self._lock:
                self._kept[example] = found
                while len(self._kept) > _KEPT_IMAGES:
                    del self._kept[next(iter(self._kept))]
        return found

    def _load(self, example: int) -> Prepared:
        position, row = self.place(example)
        found = self.data[position]
        if not same_image(found, self.data.shape, row):
            raise DataError(
                f"image {example} of {self.data.name} (position {position})",
                "is not the one this run is about: its pixels, label or index are others",
                "Give the data the run was started with, on every machine; every finished batch is stored",
            )
        return self.noise.prepare(found.image)


class Work(NamedTuple):
    """A batch and what its answers are counted by: plain data, so that anybody can do it, and do it again.

    Attributes:
        batch: the draws, in the order of their rows.
        plans: image -> the plan that sums up its features, where its draws have one (``tally_of``).
    """

    batch: Batch
    plans: Mapping[int, Any]


def work(batch: Batch, tracker: Tracker, specification: Specification) -> Work:
    """A batch as work: votes need nothing else, features beyond the pilot the plan of their image."""
    if specification.rule.task != "encode":
        return Work(batch, {})
    courses: dict[int, Any] = {
        part.segment.example: tracker.course(part.segment.example) for part in batch if part.counted
    }
    return Work(batch, {example: course.plan for example, course in courses.items()})


@dataclass(frozen=True)
class Evaluation:
    """What turns work into rows: a pure function of the draws' names, whoever calls it and how often."""

    smoothed: SmoothedClassifier | SmoothedEncoder
    images: Images
    specification: Specification

    def rows(self, task: Work) -> list[TallyRow]:
        """The rows of one batch; the time it took is shared by the draws that count."""
        started = time.perf_counter()
        parts = [(self.images[part.segment.example], part.segment) for part in task.batch]
        seed, size = self.specification.noise.seed, self.specification.execution.batch
        answers = self.smoothed.answers(parts, seed=seed, batch=size, noise=self.images.noise)
        pieces = np.split(answers, np.cumsum([segment.draws for _, segment in parts])[:-1])
        tallies = [
            (part.segment, self._tally(task, part.segment, piece))
            for part, piece in zip(task.batch, pieces, strict=True)
            if part.counted
        ]
        each = (time.perf_counter() - started) / sum(segment.draws for segment, _ in tallies)
        return [TallyRow(*segment, tally, each * segment.draws) for segment, tally in tallies]

    def _tally(self, task: Work, segment: Segment, answers: Any) -> Tally:
        """A classifier's answers are votes; an encoder's are kept, or summed up as the plan says."""
        if self.specification.rule.task != "encode":
            return Votes.from_labels(answers)
        seed = self.specification.noise.seed
        return tally_of(task.plans.get(segment.example), segment, answers, seed)
