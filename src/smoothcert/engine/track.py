"""The images of a run on their way: which draws each needs, and what is proved of those that are finished."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from smoothcert.certificates.course import Course, Design
from smoothcert.runlog.reading import outcome
from smoothcert.runlog.standing import Standing
from smoothcert.runlog.store import TallyRow
from smoothcert.tallies import Tally, Votes, merged


@dataclass
class Under:
    """One image under way: its course, and the votes of the draws it needs that came in so far.

    Where the number of draws is fixed they are made in any order: those of a later stage wait in ``early``.
    """

    course: Course
    tally: Tally
    seconds: float
    early: list[TallyRow] = field(default_factory=list)

    def add(self, row: TallyRow) -> bool:
        """Count a row; true when the needed draws are complete and the course has moved on."""
        self.seconds += row.seconds
        self.early.append(row)
        moved = False
        while (need := self.course.need) is not None:
            now = [
                row for row in self.early if row.stage == need.stage and need.first <= row.first < need.end
            ]
            self.tally = merged([self.tally, *(row.tally for row in now)])
            self.early = [row for row in self.early if row not in now] if len(now) < len(self.early) else []
            if self.tally.total < need.end - need.first:
                break
            self.course, self.tally, moved = self.course.add(self.tally), Votes(), True
        return moved


class Tracker:
    """Every image of a run, kept up to date row by row.

    Args:
        labels: stream name -> true class, of all images.
        stored: where the images stand that have stored draws; those noted as finished may be left out.
        done: how many were left out.
        radii: at which ``accuracy`` is kept. Only these counts are kept of an image that is finished.

    Attributes:
        done: how many images are finished.
        draws: how many draws were counted.
    """

    def __init__(
        self,
        design: Design,
        labels: Mapping[int, int],
        stored: Mapping[int, Standing],
        *,
        done: int = 0,
        radii: Sequence[float] = (0.0,),
    ) -> None:
        self._design, self._labels = design, labels
        self._under: dict[int, Under] = {}
        self._certified = dict.fromkeys(radii, 0)
        self.done = self._before = done
        self.draws = 0
        self._newly: list[int] = []
        for example, standing in stored.items():
            self._resume(example, standing)

    def course(self, example: int) -> Course:
        """Where an image that is not finished stands."""
        return self._find(example).course

    def add(self, row: TallyRow) -> bool:
        """Count a row; true when its image's course has moved on."""
        self.draws += row.draws
        image = self._find(row.example)
        if not image.add(row):
            return False
        if image.course.need is None:
            self._finish(row.example, image.course, image.seconds)
            del self._under[row.example]
        return True

    def finished(self, example: int) -> bool:
        """Whether an image that was under way needs nothing more."""
        return example not in self._under

    def newly_finished(self) -> list[int]:
        """The images that finished since this was asked last."""
        newly, self._newly = self._newly, []
        return newly

    @property
    def any_finished(self) -> bool:
        """Whether there is an image that ``accuracy`` speaks of as finished."""
        return self.done > self._before

    def accuracy(self, radius: float) -> float:
        """Share of the images begun that are correct and certified at ``radius`` (if they have one).

        Those under way count as not certified: what is soon decided finishes first. Those left out at the
        start count neither way.
        """
        begun = self.done - self._before + len(self._under)
        return self._certified[radius] / begun if begun else 0.0

    def _find(self, example: int) -> Under:
        if example not in self._under:
            self._under[example] = Under(self._design.begin(self._labels[example]), Votes(), 0.0)
        return self._under[example]

    def _resume(self, example: int, standing: Standing) -> None:
        if standing.course.need is None:
            self._finish(example, standing.course, standing.seconds)
        else:
            tally = merged(row.tally for row in standing.partial)
            seconds = standing.seconds + sum(row.seconds for row in standing.later)
            self._under[example] = Under(standing.course, tally, seconds, list(standing.later))

    def _finish(self, example: int, course: Course, seconds: float) -> None:
        verdict = course.verdict()
        assert verdict is not None, "a finished course has a verdict"
        found = outcome(example, self._labels[example], verdict, seconds)
        for radius in self._certified:
            self._certified[radius] += found.correct if found.radius is None else found.certified_at(radius)
        self.done += 1
        self._newly.append(example)
