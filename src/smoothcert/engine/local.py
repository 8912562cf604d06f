"""Evaluation by threads of this process."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING

from smoothcert.engine.execute import Queue
from smoothcert.runlog.specification import ExecutionSpec
from smoothcert.runlog.store import TallyRow
from smoothcert.smoothing.network import intra_op_threads

if TYPE_CHECKING:
    from smoothcert.engine.job import Job


@dataclass(frozen=True)
class Threads:
    """Threads of this process, each evaluating a batch at a time.

    Each batch runs on one thread from noise to labels, so how many run beside it changes no rounding. A
    batch is evaluated partly filled only when a thread would have nothing to do otherwise.
    """

    workers: int = 1

    @property
    def together(self) -> int:
        """All of them."""
        return self.workers

    def answers(self, job: Job, queue: Queue) -> Iterator[list[TallyRow]]:
        """The rows of each batch, in the order the batches were made."""
        evaluation, waiting = job.evaluation(), deque[Future[list[TallyRow]]]()
        pool = ThreadPoolExecutor(max_workers=self.workers, thread_name_prefix="smoothcert")
        with intra_op_threads(job.specification.execution.threads):
            try:
                while True:
                    while len(waiting) <= self.workers and (
                        task := queue.take(partly=len(waiting) < self.workers)
                    ):
                        waiting.append(pool.submit(evaluation.rows, task))
                    if not waiting:
                        return
                    rows = waiting.popleft().result()
                    queue.answered(rows)
                    yield rows
            finally:
                pool.shutdown(wait=True, cancel_futures=True)

    def note(self) -> str:
        return ""


def default_workers(execution: ExecutionSpec) -> int:
    """Batches in work at a time: on a CPU as many as the cores have room for.

    Beside an accelerator they draw the noise while two of them compute (``smoothing.lanes``): more than one,
    so that neither waits for the other.
    """
    if execution.device != "cpu":
        return min(max(usable_cores(), 3), 8)
    return max(1, usable_cores() // execution.threads)


def usable_cores() -> int:
    """Cores this process may use, which a container or batch queue can limit."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
