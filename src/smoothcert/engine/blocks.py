"""Full batches from images that finish at different times: which draws are evaluated together, and where.

The draws of an image are cut into blocks, and a block has one place in a batch: block c of the image at
position P of the data set sits in slot (c + P) mod m of the m slots. A batch takes one block for each slot,
of whatever images have one waiting. So the row of the network at which a draw is evaluated is a pure function
of the draw's name, and the rows beside it change no answer (the model check demands that): the order in which
images finish, the number of workers and interruptions cannot change a vote.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Mapping, Sequence
from typing import NamedTuple

from smoothcert.certificates.course import Need
from smoothcert.engine.track import Tracker
from smoothcert.runlog.standing import Standing
from smoothcert.runlog.store import TallyRow
from smoothcert.smoothing.streams import Segment

_LARGEST = 16  # draws in a block; looks are multiples of it
_FILLER = 2 * 10**6  # draws of the "check" stream from here on fill rows that no image wants; never counted
PROBE = 3 * 10**6  # and from here on show whether two processes answer alike


class Part(NamedTuple):
    """Draws of one image in neighbouring rows of a batch; fillers are evaluated and forgotten."""

    segment: Segment
    counted: bool


Batch = list[Part]


def block_size(batch: int) -> int:
    """The largest divisor of the batch that is at most 16."""
    return next(size for size in range(min(_LARGEST, batch), 0, -1) if batch % size == 0)


def enough_under_way(batch: int, workers: int) -> int:
    """How many images to have under way, so that every slot of every worker's next batch has a block."""
    return 2 * (batch // block_size(batch)) * (workers + 2)


class Blocks:
    """The waiting draws of a sequential run; opens images as slots run empty.

    Args:
        examples: stream names of all images, in the order of the data set.
        tracker: what each image needs.
        stored: images with stored draws.
        batch: rows of a batch.
        most: how many images may be under way at a time.
        finished: for each image in that order, 1 where it needs nothing; these are passed over.

    Attributes:
        under_way: images that have asked for draws and are not finished.
    """

    def __init__(
        self,
        examples: Sequence[int],
        tracker: Tracker,
        stored: Mapping[int, Standing],
        batch: int,
        most: int,
        finished: bytearray | None = None,
    ) -> None:
        self._examples, self._tracker, self._stored = examples, tracker, stored
        self._size = block_size(batch)
        self._slots: list[deque[Segment]] = [deque() for _ in range(batch // self._size)]
        self._positions: dict[int, int] = {}  # of the images under way
        self._finished = finished or bytearray(len(examples))
        self._next, self.under_way, self._most = 0, 0, most

    def batch(self, *, partly: bool) -> Batch | None:
        """The next batch: one with a block in every slot, or ``partly`` filled where there is no more."""
        while not all(self._slots) and self._open():
            pass
        if not any(self._slots) or not (partly or all(self._slots)):
            return None
        parts: Batch = []
        filled = 0
        for slot, waiting in enumerate(self._slots):
            if waiting:
                segment = waiting.popleft()
                row = slot * self._size + segment.first % self._size
                filled = place(parts, segment, row, filled)
        return parts

    def finished(self, row: TallyRow) -> None:
        """Count a row; its image asks for more draws, or makes room for another."""
        if not self._tracker.add(row):
            return
        if self._tracker.finished(row.example):
            self.under_way -= 1
            del self._positions[row.example]
        else:
            need = self._tracker.course(row.example).need
            self._ask(row.example, [need] if need else [])

    def _open(self) -> bool:
        """Bring one more image under way; false where there is none, or enough are."""
        while self.under_way < self._most:
            position = self._finished.find(0, self._next)
            if position < 0:
                break
            example, self._next = self._examples[position], position + 1
            standing = self._stored.get(example)
            if standing is None:
                need = self._tracker.course(example).need
                wanted = [need] if need else []
            else:
                wanted = standing.missing()
            if wanted:
                self.under_way += 1
                self._positions[example] = position
                self._ask(example, wanted)
                return True
        return False

    def _ask(self, example: int, needs: list[Need]) -> None:
        """Put the blocks of the needed draws into their slots."""
        for stage, first, end in needs:
            while first < end:
                block = first // self._size
                stop = min((block + 1) * self._size, end)
                slot = (block + self._positions[example]) % len(self._slots)
                self._slots[slot].append(Segment(example, stage, first, stop - first))
                first = stop


def place(parts: Batch, segment: Segment, row: int, filled: int) -> int:
    """Append draws at their row, joined to the one before where it continues it; returns the rows filled."""
    if row > filled:
        parts.append(Part(Segment(segment.example, "check", _FILLER, row - filled), False))
    last = parts[-1] if parts else None
    if last and last.counted and (*last.segment[:2], last.segment.first + last.segment.draws) == segment[:3]:
        parts[-1] = Part(last.segment._replace(draws=last.segment.draws + segment.draws), True)
    else:
        parts.append(Part(segment, True))
    return row + segment.draws
