"""The loop of a run: let an executor evaluate what is missing, commit what was answered, stop when asked."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Protocol

from smoothcert.engine.blocks import Batch
from smoothcert.engine.evaluate import Work, work
from smoothcert.engine.interrupt import StopRequest
from smoothcert.engine.track import Tracker
from smoothcert.errors import Interrupted
from smoothcert.runlog.specification import Specification
from smoothcert.runlog.store import RunWriter, TallyRow
from smoothcert.tallies import merged

if TYPE_CHECKING:
    from smoothcert.engine.job import Job

COMMIT_SECONDS = 1.0  # a kill loses at most this much work, and a run has at most this many rows a second


class Source(Protocol):
    """Where batches come from, and where their rows go."""

    def batch(self, *, partly: bool) -> Batch | None:
        """The next batch; ``None`` when there is none, or only one in part and ``partly`` is false."""
        ...

    def finished(self, row: TallyRow) -> None:
        """Hear what some draws answered, which may call for others."""
        ...


@dataclass
class Pending:
    """Rows not committed yet; neighbouring ranges are joined, but not across a look (votes read alone)."""

    looks_at: Callable[[int], bool]
    rows: list[TallyRow] = field(default_factory=list)

    def joined(self) -> list[TallyRow]:
        """The rows to commit, as few as there can be."""
        found: list[TallyRow] = []
        for row in sorted(self.rows, key=lambda row: (row.example, row.stage, row.first)):
            last = found[-1] if found else None
            if last and self._continues(last, row):
                draws, seconds = last.draws + row.draws, last.seconds + row.seconds
                found[-1] = replace(last, draws=draws, tally=merged([last.tally, row.tally]), seconds=seconds)
            else:
                found.append(row)
        return found

    def _continues(self, last: TallyRow, row: TallyRow) -> bool:
        end = last.first + last.draws
        same = (last.example, last.stage, end) == (row.example, row.stage, row.first)
        return same and not self.looks_at(end)


class Executor(Protocol):
    """Who evaluates batches: threads of this process, or a cluster.

    Attributes:
        workers: how many batches are evaluated at a time. together: how many of them in one process.
    """

    @property
    def workers(self) -> int: ...
    @property
    def together(self) -> int: ...

    def answers(self, job: Job, queue: Queue) -> Iterator[list[TallyRow]]:
        """The rows of each batch of the queue, whichever is answered first; every batch once.

        When the queue hands out nothing more, whether it is empty or was closed, the batches that are out
        are waited for.
        """
        ...

    def note(self) -> str:
        """What progress should say of the workers; nothing where they are all alike."""
        ...


class Queue:
    """Work for an executor: what the source still lacks, until the run is asked to stop.

    What was answered waits here to be committed: exactly the rows that were counted, so that an image which
    they finish is noted as finished together with the last of them.
    """

    def __init__(self, source: Source, tracker: Tracker, specification: Specification) -> None:
        self._source, self._tracker, self._specification = source, tracker, specification
        self._pending = Pending(specification.design().looks_at)
        self._finished = self._tracker.newly_finished()
        self.closed = False

    def take(self, *, partly: bool) -> Work | None:
        """The next work; ``partly`` filled where there is no more and somebody would be idle."""
        batch = None if self.closed else self._source.batch(partly=partly)
        return None if batch is None else work(batch, self._tracker, self._specification)

    def answered(self, rows: list[TallyRow]) -> None:
        """Count rows, which may put more work into the queue. Any order will do: a look is taken only when
        all draws it needs are there, and tallies are whole numbers."""
        for row in rows:
            self._source.finished(row)
        self._pending.rows += rows
        self._finished += self._tracker.newly_finished()

    def commit(self, writer: RunWriter) -> None:
        """Store what was answered since the last time."""
        # Open-ended images are never finished for good: more draws may be asked of them another day.
        notes = () if self._specification.rule.open_ended else self._finished
        rows = self._pending.joined()
        # Forgotten first: whoever breaks off at the end of the commit must not have them committed twice.
        self._pending.rows, self._finished = [], []
        writer.append(rows, notes)

    def finished(self, example: int) -> bool:
        """Whether an image that was under way needs no more draws."""
        return self._tracker.finished(example)


def execute(
    executor: Executor,
    job: Job,
    source: Source,
    tracker: Tracker,
    writer: RunWriter,
    report: Callable[[], None],
) -> None:
    """Evaluate batch after batch until the source has no more, and commit; ``report`` is called after each.

    Raises:
        Interrupted: Ctrl-C or SIGTERM; the batches that were being evaluated are finished and committed.
    """
    queue, committed = Queue(source, tracker, job.specification), time.monotonic()
    with StopRequest() as stop:
        try:
            for _ in executor.answers(job, queue):
                if time.monotonic() - committed >= COMMIT_SECONDS:
                    queue.commit(writer)
                    committed = time.monotonic()
                report()
                queue.closed = bool(stop.received)
        finally:
            queue.commit(writer)
    if stop.received:
        raise Interrupted(
            stop.received,
            "the run was stopped; every finished batch is stored",
            "Run the same command to continue",
        )
