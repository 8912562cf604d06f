"""From a batch of named draws to the rows of the run file: votes of a classifier, scores of an encoder."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np

from smoothcert.engine.blocks import Batch
from smoothcert.engine.track import Tracker
from smoothcert.protocols import Dataset
from smoothcert.runlog.specification import Specification
from smoothcert.runlog.store import TallyRow
from smoothcert.smoothing.classifier import SmoothedClassifier
from smoothcert.smoothing.encoder import SmoothedEncoder, tally_of
from smoothcert.smoothing.noise import Noise, Prepared
from smoothcert.smoothing.streams import Segment
from smoothcert.tallies import Tally, Votes

_KEPT_IMAGES = 128  # more than are under way at a time, for all but tiny images


@dataclass
class Images:
    """Prepared images by stream name; a few are kept, so memory does not grow with the data set."""

    data: Dataset
    noise: Noise
    positions: Mapping[int, int]
    kept: dict[int, Prepared] = field(default_factory=dict)

    def __getitem__(self, example: int) -> Prepared:
        if example not in self.kept:
            if len(self.kept) >= _KEPT_IMAGES:
                self.kept.pop(next(iter(self.kept)))
            self.kept[example] = self.noise.prepare(self.data[self.positions[example]].image)
        return self.kept[example]


Count = Callable[[Segment, Any], Tally]


class Counting(Protocol):
    """What becomes of the answers of some draws."""

    def counter(self, batch: Batch) -> Count:
        """How the answers of this batch's draws are counted; asked for before they are evaluated."""
        ...


class Voting:
    """A classifier's answers are votes."""

    def counter(self, batch: Batch) -> Count:
        return lambda segment, answers: Votes.from_labels(answers)


@dataclass
class Scoring:
    """An encoder's answers are kept while a pilot is drawn, and summed up by the image's plan after it."""

    tracker: Tracker
    seed: int

    def counter(self, batch: Batch) -> Count:
        courses: dict[int, Any] = {
            part.segment.example: self.tracker.course(part.segment.example) for part in batch if part.counted
        }

        def count(segment: Segment, features: Any) -> Tally:
            return tally_of(courses[segment.example], segment, features, self.seed)

        return count


@dataclass(frozen=True)
class Evaluation:
    """The evaluation of batches of one run."""

    smoothed: SmoothedClassifier | SmoothedEncoder
    images: Images
    specification: Specification
    counting: Counting

    def task(self, batch: Batch) -> Callable[[], list[TallyRow]]:
        """What a worker has to do for this batch; its time is shared by the draws that count."""
        parts = [(self.images[part.segment.example], part.segment) for part in batch]
        count, noise = self.counting.counter(batch), self.images.noise
        seed, size = self.specification.noise.seed, self.specification.execution.batch

        def rows() -> list[TallyRow]:
            started = time.perf_counter()
            answers = self.smoothed.answers(parts, seed=seed, batch=size, noise=noise)
            pieces = np.split(answers, np.cumsum([segment.draws for _, segment in parts])[:-1])
            tallies = [
                (part.segment, count(part.segment, piece))
                for part, piece in zip(batch, pieces, strict=True)
                if part.counted
            ]
            each = (time.perf_counter() - started) / sum(segment.draws for segment, _ in tallies)
            return [TallyRow(*segment, tally, each * segment.draws) for segment, tally in tallies]

        return rows
