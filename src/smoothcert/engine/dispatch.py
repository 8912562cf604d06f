"""Who of a cluster's workers evaluates which batch: back-pressure, stragglers, batches of dead workers.

Nothing here knows Ray or the time of day, so the same lines run in a simulation of many workers. Work is
pure, so it may be given out twice: the first answer counts, a later one is thrown away unread. A draw is
therefore counted once, whoever made it; and since draws are only made when a rule has asked for them, no
draw is ever left over when an image stops.
"""

from __future__ import annotations

import itertools
import math
import statistics
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Protocol

from smoothcert.engine.evaluate import Work
from smoothcert.errors import WorkersLost

STRAGGLER = 2.0  # times the usual time that a batch is out before an idle worker repeats it
SHORTEST = 0.5  # seconds: below, a batch is not late
AHEAD = 0.1  # seconds of work that wait at a worker, more than a message takes
MOST_AHEAD = 16  # batches that wait there
MOST_DEATHS = 4  # workers that died over one batch before the run gives up
_NAMED = 4  # images of a batch that an error names
_REMEMBERED = 200  # answers whose times make up the usual one


class Supply(Protocol):
    """Where work comes from."""

    def take(self, *, partly: bool) -> Work | None:
        """The next work; ``partly`` filled where there is no more and somebody would be idle."""
        ...


@dataclass
class Item:
    """Work that somebody has: since when each worker has it, and how many died over it."""

    number: int
    work: Work
    since: dict[int, float] = field(default_factory=dict)
    deaths: int = 0

    def __str__(self) -> str:
        counted = [part.segment for part in self.work.batch if part.counted]
        images = dict.fromkeys(f"image {segment.example}" for segment in counted)
        return f"from {counted[0].first} of {', '.join([*images][:_NAMED])}{', ...' * (len(images) > _NAMED)}"


class Dispatch:
    """The desk at which workers (numbers) fetch work and leave answers.

    Args:
        supply: where new work comes from.
        lanes: batches that a worker evaluates at a time. It has at least one more, so that it never waits;
            where a batch is shorter than a message may take, as many more as fill that time.
        taken: work that was taken already.
    """

    def __init__(self, supply: Supply, lanes: int, taken: Sequence[Work] = ()) -> None:
        self._supply, self._lanes = supply, lanes
        self._evaluation = AHEAD  # seconds, of a batch: a running mean
        self._numbers: Iterator[int] = itertools.count()
        self._out: dict[int, Item] = {}
        self._back = deque(Item(next(self._numbers), work) for work in taken)  # and what dead workers left
        self._held: dict[int, dict[int, None]] = {}  # worker -> numbers of its batches, in the order given
        self._times: deque[float] = deque(maxlen=_REMEMBERED)
        self.repeated = 0

    @property
    def busy(self) -> bool:
        """Whether anything is out, or waits for another worker."""
        return bool(self._out or self._back)

    @property
    def depth(self) -> int:
        """Batches that a worker may have at a time: all that is ever in flight is this often the workers."""
        ahead = math.ceil(AHEAD / max(self._evaluation, 1e-9))
        return self._lanes + min(max(ahead, 1), MOST_AHEAD)

    def load(self, worker: int) -> int:
        """Batches a worker has."""
        return len(self._held.get(worker, ()))

    def give(self, worker: int, now: float) -> Item | None:
        """The next batch for a worker that has room; ``None`` where it has none, or there is nothing.

        First what dead workers left, then new work, then, for a worker with nothing else to do, the batch
        that is out longest, if it is late.
        """
        if self.load(worker) >= self.depth:
            return None
        idle = not self.load(worker)
        item = self._left() or self._new(partly=idle) or (self._late(worker, now) if idle else None)
        if item is not None:
            item.since[worker] = now
            self._out[item.number] = item
            self._held.setdefault(worker, {})[item.number] = None
        return item

    def answered(self, number: int, worker: int, now: float, seconds: float) -> bool:
        """Whether this answer to a batch is its first, the one that counts; making it took ``seconds``."""
        del self._held[worker][number]
        self._evaluation += 0.1 * (seconds - self._evaluation)
        item = self._out.pop(number, None)
        if item is None:
            return False
        self._times.append(now - item.since[worker])
        return True

    def left(self, worker: int, died: str | None) -> list[Item]:
        """A worker will answer nothing of what it has: it ``died`` of something, or was sent away.

        A death is put down to the batches it was evaluating, which are returned, not to those that waited
        behind them.

        Raises:
            WorkersLost: too many died over one batch.
        """
        held = [self._out[number] for number in self._held.pop(worker, {}) if number in self._out]
        for place, item in enumerate(held):
            del item.since[worker]
            item.deaths += died is not None and place < self._lanes
            if not item.since:
                del self._out[item.number]
                self._back.append(item)
        for item in held:
            if item.deaths >= MOST_DEATHS:
                raise died_over(item, str(died))
        return held[: self._lanes]

    def close(self) -> None:
        """Nothing more is given out: only what is out is waited for."""
        self._back.clear()

    def _left(self) -> Item | None:
        return self._back.popleft() if self._back else None

    def _new(self, *, partly: bool) -> Item | None:
        work = self._supply.take(partly=partly)
        return None if work is None else Item(next(self._numbers), work)

    def _late(self, worker: int, now: float) -> Item | None:
        """The batch that is out longest, if it should be back and only one other worker has it."""
        if not self._times:
            return None
        limit = max(STRAGGLER * statistics.median(self._times), SHORTEST)
        late = (i for i in self._out.values() if len(i.since) == 1 and worker not in i.since)
        oldest = min(late, key=lambda item: min(item.since.values()), default=None)
        if oldest is None or now - min(oldest.since.values()) < limit:
            return None
        self.repeated += 1
        return oldest


def died_over(item: Item, why: str) -> WorkersLost:
    """The error for work that kills whoever touches it."""
    return WorkersLost(
        f"{item.deaths} workers died one after the other over the same draws ({item})",
        f"trying again would not end. The last one: {why}",
        "Nothing that was answered is lost. If memory ran out, start fewer workers on a node (--workers) or "
        "a new run with a smaller --batch; then run the same command to continue",
    )
