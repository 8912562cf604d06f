"""Which draws are evaluated together where their number is fixed: a pure function of the specification.

All draws of a run are laid end to end - image by image, stage by stage - and cut every ``batch`` draws, so
that items of several images share a batch and only the very last batch is padded. A batch is therefore the
same set of draws in the same places whenever it is evaluated: a resumed run repeats no rounding.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from smoothcert.engine.blocks import Batch, Part
from smoothcert.engine.track import Tracker
from smoothcert.errors import RunFileError
from smoothcert.runlog.reading import Progress
from smoothcert.runlog.store import TallyRow
from smoothcert.smoothing.streams import Segment


@dataclass(frozen=True)
class Plan:
    """The draws of a run.

    Attributes:
        examples: stream names of the images, in order.
        stages: (stage, draws) of every image, in order.
        batch: draws evaluated together.
    """

    examples: Sequence[int]
    stages: tuple[tuple[str, int], ...]
    batch: int

    @property
    def draws_each(self) -> int:
        """Draws of one image over all stages."""
        return sum(draws for _, draws in self.stages)

    @property
    def draws(self) -> int:
        """Draws of the whole run."""
        return self.draws_each * len(self.examples)

    @property
    def batches(self) -> int:
        """Number of batches of the whole run."""
        return -(-self.draws // self.batch)

    def segments(self, number: int) -> tuple[Segment, ...]:
        """The draws of batch ``number``, in the order of its rows."""
        found: list[Segment] = []
        start, end = number * self.batch, min((number + 1) * self.batch, self.draws)
        while start < end:
            position, within = divmod(start, self.draws_each)
            segment = self._segment(self.examples[position], within, end - start)
            found.append(segment)
            start += segment.draws
        return tuple(found)

    def missing(self, done: Mapping[int, Progress]) -> Iterator[int]:
        """Numbers of the batches whose draws are not stored yet, in order.

        Raises:
            RunFileError: a batch is stored in part, which no interrupted run can leave behind.
        """
        start = self._finished_prefix(done)
        for number in range(start * self.draws_each // self.batch, self.batches):
            stored = [self._stored(done, segment) for segment in self.segments(number)]
            if all(stored):
                continue
            if any(stored):
                raise RunFileError(
                    f"the stored draws of batch {number}",
                    "cover it in part, but batches are committed whole; the file was edited",
                    "Restore it from a copy ('smoothcert verify' shows what is wrong)",
                )
            yield number

    def _segment(self, example: int, within: int, most: int) -> Segment:
        for stage, draws in self.stages:
            if within < draws:
                return Segment(example, stage, within, min(draws - within, most))
            within -= draws
        raise AssertionError("a draw beyond the last stage")

    def _finished_prefix(self, done: Mapping[int, Progress]) -> int:
        """How many images at the start of the plan are finished: their batches need no look."""
        for position, example in enumerate(self.examples):
            ranges = done[example].ranges if example in done else {}
            if any(ranges.get(stage) != [(0, draws)] for stage, draws in self.stages):
                return position
        return len(self.examples)

    @staticmethod
    def _stored(done: Mapping[int, Progress], segment: Segment) -> bool:
        ranges = done[segment.example].ranges.get(segment.stage, []) if segment.example in done else []
        return any(first <= segment.first and segment.first + segment.draws <= end for first, end in ranges)


class Planned:
    """The batches of a plan that are not stored yet, one after the other."""

    def __init__(self, plan: Plan, tracker: Tracker, done: Mapping[int, Progress]) -> None:
        self._plan, self._tracker, self._numbers = plan, tracker, plan.missing(done)

    def batch(self, *, partly: bool) -> Batch | None:
        """The next batch, or ``None`` after the last."""
        number = next(self._numbers, None)
        return None if number is None else [Part(s, True) for s in self._plan.segments(number)]

    def finished(self, row: TallyRow) -> None:
        """Keep the score."""
        self._tracker.add(row)
