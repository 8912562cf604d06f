"""Which draws are evaluated together where their number is fixed: a pure function of the specification.

All draws of a run are laid end to end - image by image, stage by stage - and cut every ``batch`` draws, so
that items of several images share a batch and only the very last batch is padded. A batch is therefore the
same set of draws in the same places whenever it is evaluated: a resumed run repeats no rounding. A shard
evaluates the batches of the whole run that hold draws of its images, with fillers in the place of the others.
"""

from __future__ import annotations

import bisect
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from smoothcert.engine.blocks import Batch, place
from smoothcert.engine.track import Tracker
from smoothcert.errors import RunFileError
from smoothcert.runlog.reading import Progress
from smoothcert.runlog.store import TallyRow
from smoothcert.smoothing.streams import Segment


@dataclass(frozen=True)
class Plan:
    """The draws of a run, or of a shard of it: the batches of the whole run that hold draws of its images.

    Attributes:
        examples: stream names of the images, in order.
        stages: (stage, draws) of every image, in order.
        batch: draws evaluated together.
        positions: ascending, where the images to certify are among ``examples``; ``None`` for all of them.
    """

    examples: Sequence[int]
    stages: tuple[tuple[str, int], ...]
    batch: int
    positions: Sequence[int] | None = None

    @property
    def held(self) -> Sequence[int]:
        """The positions of the images to certify."""
        return range(len(self.examples)) if self.positions is None else self.positions

    @property
    def draws_each(self) -> int:
        """Draws of one image over all stages."""
        return sum(draws for _, draws in self.stages)

    @property
    def draws(self) -> int:
        """Draws of the images to certify."""
        return self.draws_each * len(self.held)

    @property
    def batches(self) -> int:
        """Number of batches of the whole run."""
        return -(-self._end // self.batch)

    @property
    def _end(self) -> int:
        """Draws of all images, laid end to end."""
        return self.draws_each * len(self.examples)

    def segments(self, number: int) -> tuple[Segment, ...]:
        """The draws of batch ``number``, in the order of its rows, of whatever images."""
        return tuple(segment for _, _, segment in self._laid(number))

    def wanted(self, number: int) -> list[tuple[int, Segment]]:
        """Those of them that belong to images to certify, each with its first row."""
        laid = self._laid(number)
        return [(row, segment) for row, position, segment in laid if self._holds(position)]

    def parts(self, number: int) -> Batch:
        """The batch: each wanted draw at its row of the whole run, fillers where other draws would be."""
        parts: Batch = []
        filled = 0
        for row, segment in self.wanted(number):
            filled = place(parts, segment, row, filled)
        return parts

    def missing(self, done: Mapping[int, Progress], finished: bytearray | None = None) -> Iterator[int]:
        """Numbers of the batches whose draws are not stored yet, in order.

        Args:
            done: stored draws of images.
            finished: for each image in order, 1 where it needs nothing; ``done`` need not have it.

        Raises:
            RunFileError: a batch is stored in part, which no interrupted run can leave behind.
        """
        finished = self._finished(done) if finished is None else finished
        number = 0
        while number < self.batches:
            # A batch that begins in a finished image: go on with the one in which an unfinished one begins.
            begun = finished.find(0, number * self.batch // self.draws_each)
            if begun < 0:
                return
            number = max(number, begun * self.draws_each // self.batch)
            stored = [
                bool(finished[position]) or self._stored(done, segment)
                for _, position, segment in self._laid(number)
                if self._holds(position)
            ]
            if not all(stored):
                if any(stored):
                    raise RunFileError(
                        f"the stored draws of batch {number}",
                        "cover it in part, but batches are committed whole; the file was edited",
                        "Restore it from a copy ('smoothcert verify' shows what is wrong)",
                    )
                yield number
            number += 1

    def _laid(self, number: int) -> list[tuple[int, int, Segment]]:
        """Row, position of the image, and draws, of everything in a batch of the whole run."""
        found: list[tuple[int, int, Segment]] = []
        first, end = number * self.batch, min((number + 1) * self.batch, self._end)
        start = first
        while start < end:
            position, within = divmod(start, self.draws_each)
            segment = self._segment(self.examples[position], within, end - start)
            found.append((start - first, position, segment))
            start += segment.draws
        return found

    def _holds(self, position: int) -> bool:
        if self.positions is None:
            return True
        k = bisect.bisect_left(self.positions, position)
        return k < len(self.positions) and self.positions[k] == position

    def _segment(self, example: int, within: int, most: int) -> Segment:
        for stage, draws in self.stages:
            if within < draws:
                return Segment(example, stage, within, min(draws - within, most))
            within -= draws
        raise AssertionError("a draw beyond the last stage")

    def _finished(self, done: Mapping[int, Progress]) -> bytearray:
        """For each image, whether it needs nothing: all its draws are stored, or nobody asks for them."""
        whole = {stage: [(0, draws)] for stage, draws in self.stages}
        held = set(self.held)
        return bytearray(
            position not in held or (example in done and done[example].ranges == whole)
            for position, example in enumerate(self.examples)
        )

    @staticmethod
    def _stored(done: Mapping[int, Progress], segment: Segment) -> bool:
        ranges = done[segment.example].ranges.get(segment.stage, []) if segment.example in done else []
        return any(first <= segment.first and segment.first + segment.draws <= end for first, end in ranges)


class Planned:
    """The batches of a plan that are not stored yet, one after the other."""

    def __init__(
        self, plan: Plan, tracker: Tracker, done: Mapping[int, Progress], finished: bytearray | None = None
    ) -> None:
        self._plan, self._tracker, self._numbers = plan, tracker, plan.missing(done, finished)

    def batch(self, *, partly: bool) -> Batch | None:
        """The next batch, or ``None`` after the last."""
        number = next(self._numbers, None)
        return None if number is None else self._plan.parts(number)

    def finished(self, row: TallyRow) -> None:
        """Keep the score."""
        self._tracker.add(row)
