"""Where each image of a run stands: its course, replayed from the stored votes."""

from __future__ import annotations

import itertools
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field, replace

from smoothcert.certificates.course import Course, Design, Need
from smoothcert.errors import RunFileError
from smoothcert.runlog.store import TallyRow
from smoothcert.tallies import merged


@dataclass(frozen=True)
class Standing:
    """One image on its way.

    Attributes:
        course: after every need whose draws are all stored.
        partial: rows that cover a part of the draws needed next.
        seconds: what its stored draws cost.
        later: rows of draws that the course will ask for whatever is answered, made before its turn: answers
            of a cluster come in any order.
        unasked: stored draws that the course never asked for; 0 in a run this package wrote.
        drawn: stored draws, all told.
    """

    course: Course
    partial: tuple[TallyRow, ...] = ()
    seconds: float = 0.0
    later: tuple[TallyRow, ...] = ()
    unasked: int = 0
    drawn: int = 0

    @property
    def draws(self) -> int:
        """Draws of the need under way that are stored already."""
        return sum(row.draws for row in self.partial)

    def missing(self) -> list[Need]:
        """The draws to make next, in order: what is needed less what is stored."""
        need, gaps = self.course.need, []
        if need is None:
            return []
        start = need.first
        for row in self.partial:
            if row.first > start:
                gaps.append(Need(need.stage, start, row.first))
            start = row.first + row.draws
        return [*gaps, *([Need(need.stage, start, need.end)] if start < need.end else [])]

    def add(self, rows: Iterable[TallyRow]) -> Standing:
        """The standing after some of the missing draws were made."""
        partial = tuple(sorted((*self.partial, *rows), key=lambda row: row.first))
        seconds = self.seconds + sum(row.seconds for row in partial) - sum(r.seconds for r in self.partial)
        grown = replace(self, partial=partial, seconds=seconds)
        need = self.course.need
        if need is None or grown.draws < need.end - need.first:
            return grown
        tally = merged(row.tally for row in partial)
        return replace(grown, course=self.course.add(tally), partial=())


@dataclass
class _Rows:
    """The rows of one image by stage, each ascending."""

    stages: dict[str, list[TallyRow]] = field(default_factory=dict)

    def take(self, need: Need) -> list[TallyRow]:
        """Remove and return the rows that lie within a need."""
        rows = self.stages.get(need.stage, [])
        within = (need.first <= row.first and row.first + row.draws <= need.end for row in rows)
        count = sum(itertools.takewhile(bool, within))
        self.stages[need.stage] = rows[count:]
        return rows[:count]

    @property
    def draws(self) -> int:
        return sum(row.draws for rows in self.stages.values() for row in rows)


def standings(design: Design, rows: Iterable[TallyRow], labels: Mapping[int, int]) -> dict[int, Standing]:
    """Replay every image that has stored draws.

    Raises:
        RunFileError: two rows cover the same draw.
    """
    ordered = sorted(rows, key=lambda row: (row.example, row.stage, row.first))
    return dict(replayed(design, ordered, labels))


def replayed(
    design: Design, rows: Iterable[TallyRow], labels: Mapping[int, int]
) -> Iterator[tuple[int, Standing]]:
    """The same image by image, from rows by example, stage and first draw: no more than one is held."""
    for example, found in itertools.groupby(rows, key=lambda row: row.example):
        image = _Rows()
        for row in found:
            stage = image.stages.setdefault(row.stage, [])
            if stage and row.first < stage[-1].first + stage[-1].draws:
                raise counted_twice(row)
            stage.append(row)
        yield example, _replayed(design, image, labels.get(example))


def counted_twice(row: TallyRow) -> RunFileError:
    """The error for a draw that two rows hold."""
    return RunFileError(
        f"draws {row.first}.. of example {row.example}, stage {row.stage}",
        "are counted twice, which would void the certificate",
        "Restore the run file from a copy",
    )


def _replayed(design: Design, rows: _Rows, label: int | None) -> Standing:
    standing = Standing(design.begin(label), drawn=rows.draws)
    while (need := standing.course.need) is not None:
        grown = standing.add(rows.take(need))
        if grown.course is standing.course:
            certain: tuple[Need, ...] = getattr(design, "certain", ())
            later = tuple(row for ahead in certain if ahead.stage != need.stage for row in rows.take(ahead))
            return replace(grown, later=later, unasked=rows.draws)
        standing = grown
    return replace(standing, unasked=rows.draws)
