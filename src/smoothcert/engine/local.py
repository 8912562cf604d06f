"""The loop: evaluate the batches a run still lacks, in order, and commit what they answered."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field

import numpy as np

from smoothcert.engine.interrupt import StopRequest
from smoothcert.engine.plan import Plan
from smoothcert.errors import Interrupted
from smoothcert.protocols import Dataset
from smoothcert.runlog.reading import Progress
from smoothcert.runlog.specification import Specification
from smoothcert.runlog.store import RunWriter, TallyRow
from smoothcert.smoothing.classifier import SmoothedClassifier
from smoothcert.smoothing.noise import Noise, Prepared
from smoothcert.smoothing.streams import Segment
from smoothcert.tallies import Votes

COMMIT_SECONDS = 1.0  # a kill loses at most this much work, and a run has at most this many rows a second
_KEPT_IMAGES = 64


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


@dataclass
class Pending:
    """Rows not committed yet; neighbouring ranges of one image and stage are joined."""

    rows: list[TallyRow] = field(default_factory=list)

    def add(self, segment: Segment, votes: Votes, seconds: float) -> None:
        last = self.rows[-1] if self.rows else None
        joins = last and (last.example, last.stage, last.first + last.draws) == segment[:3]
        if last and joins:
            self.rows[-1] = TallyRow(
                last.example,
                last.stage,
                last.first,
                last.draws + segment.draws,
                last.votes + votes,
                last.seconds + seconds,
            )
        else:
            self.rows.append(TallyRow(*segment, votes, seconds))


def execute(
    smoothed: SmoothedClassifier,
    images: Images,
    plan: Plan,
    specification: Specification,
    writer: RunWriter,
    done: Mapping[int, Progress],
    report: Callable[[list[TallyRow]], None],
    *,
    workers: int = 1,
) -> None:
    """Evaluate every missing batch and commit it; ``report`` hears of each batch as it ends.

    Raises:
        Interrupted: Ctrl-C or SIGTERM; all finished batches are committed first.
    """
    pending, committed = Pending(), time.monotonic()
    with StopRequest() as stop:
        try:
            for rows in _evaluated(smoothed, images, plan, specification, done, workers):
                for row in rows:
                    pending.add(Segment(row.example, row.stage, row.first, row.draws), row.votes, row.seconds)
                if time.monotonic() - committed >= COMMIT_SECONDS:
                    writer.append(pending.rows)
                    pending, committed = Pending(), time.monotonic()
                report(rows)
                if stop.received:
                    break
        finally:
            writer.append(pending.rows)
    if stop.received:
        raise Interrupted(
            stop.received,
            "the run was stopped; every finished batch is stored",
            "Run the same command to continue",
        )


def _evaluated(
    smoothed: SmoothedClassifier,
    images: Images,
    plan: Plan,
    specification: Specification,
    done: Mapping[int, Progress],
    workers: int,
) -> Iterator[list[TallyRow]]:
    """The rows of each missing batch, in order; ``workers`` batches are evaluated at a time.

    Each batch runs on one thread from noise to labels, so how many run beside it changes no rounding.
    """
    pool = ThreadPoolExecutor(max_workers=workers, thread_name_prefix="smoothcert")
    waiting: deque[Future[list[TallyRow]]] = deque()
    try:
        for number in plan.missing(done):
            batch = [(images[segment.example], segment) for segment in plan.segments(number)]
            waiting.append(pool.submit(_batch, smoothed, batch, specification, images.noise))
            if len(waiting) > workers:
                yield waiting.popleft().result()
        while waiting:
            yield waiting.popleft().result()
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def _batch(
    smoothed: SmoothedClassifier,
    parts: list[tuple[Prepared, Segment]],
    specification: Specification,
    noise: Noise,
) -> list[TallyRow]:
    """The rows of one batch."""
    started = time.perf_counter()
    seed, batch = specification.noise.seed, specification.execution.batch
    labels = smoothed.labels(parts, seed=seed, batch=batch, noise=noise)
    each = (time.perf_counter() - started) / len(labels)
    cuts = np.cumsum([segment.draws for _, segment in parts])[:-1]
    return [
        TallyRow(*segment, Votes.from_labels(answers), each * segment.draws)
        for (_, segment), answers in zip(parts, np.split(labels, cuts), strict=True)
    ]
