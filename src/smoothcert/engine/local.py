"""The loop: evaluate the batches a run still lacks, and commit what they answered."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from typing import Protocol

from smoothcert.engine.blocks import Batch
from smoothcert.engine.evaluate import Evaluation
from smoothcert.engine.interrupt import StopRequest
from smoothcert.errors import Interrupted
from smoothcert.runlog.store import RunWriter, TallyRow
from smoothcert.tallies import merged

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


def execute(
    evaluation: Evaluation,
    source: Source,
    writer: RunWriter,
    report: Callable[[], None],
    *,
    workers: int = 1,
) -> None:
    """Evaluate batch after batch until the source has no more, and commit; ``report`` is called after each.

    Raises:
        Interrupted: Ctrl-C or SIGTERM; all finished batches are committed first.
    """
    looks_at = evaluation.specification.design().looks_at
    pending, committed = Pending(looks_at), time.monotonic()
    with StopRequest() as stop:
        try:
            for rows in _evaluated(evaluation, source, workers):
                pending.rows += rows
                if time.monotonic() - committed >= COMMIT_SECONDS:
                    writer.append(pending.joined())
                    pending.rows, committed = [], time.monotonic()
                report()
                if stop.received:
                    break
        finally:
            writer.append(pending.joined())
    if stop.received:
        raise Interrupted(
            stop.received,
            "the run was stopped; every finished batch is stored",
            "Run the same command to continue",
        )


def _evaluated(evaluation: Evaluation, source: Source, workers: int) -> Iterator[list[TallyRow]]:
    """The rows of each batch, in the order the batches were made; ``workers`` are evaluated at a time.

    Each batch runs on one thread from noise to labels, so how many run beside it changes no rounding. A
    batch is evaluated partly filled only when a worker would have nothing to do otherwise.
    """
    pool = ThreadPoolExecutor(max_workers=workers, thread_name_prefix="smoothcert")
    waiting: deque[Future[list[TallyRow]]] = deque()
    try:
        while True:
            while len(waiting) <= workers and (batch := source.batch(partly=len(waiting) < workers)):
                waiting.append(pool.submit(evaluation.task(batch)))
            if not waiting:
                return
            rows = waiting.popleft().result()
            for row in rows:
                source.finished(row)
            yield rows
    finally:
        pool.shutdown(wait=True, cancel_futures=True)
