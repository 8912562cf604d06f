"""Evaluation by a Ray cluster: one on many machines, or one started here for the GPUs or cores of this one.

Ray starts the workers, carries models, images and answers, and says who died. What is given to whom is
``dispatch``'s; what a worker does is ``bench``'s. This process alone writes the run file.
"""

from __future__ import annotations

import logging
import os
import signal
import tempfile
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from smoothcert.engine.bench import Shipment, Smoothed
from smoothcert.engine.crew import Crew
from smoothcert.engine.execute import Queue
from smoothcert.engine.local import usable_cores
from smoothcert.engine.pulse import host_and_port, knock
from smoothcert.errors import InvalidInput, MissingExtra
from smoothcert.runlog.specification import ExecutionSpec
from smoothcert.runlog.store import TallyRow

if TYPE_CHECKING:
    from smoothcert.engine.job import Job

_MOST_LANES = 8  # threads that draw noise for one GPU
_MOST_GPUS = 64  # of one worker


@dataclass(frozen=True)
class RayCluster:
    """The workers of a Ray cluster, for ``executor=``; any number of them gives the same result to the bit.

    Args:
        address: of a cluster (``"auto"`` for the one this machine belongs to); left out, the one that
            RAY_ADDRESS names, and otherwise one is started here and ended with this process.
        workers: how many; left out, one for each GPU, or one for each core without one.
        gpus: of each worker of a run on a GPU, by default 1; 0.5 puts two on one.
        load: makes the ``SmoothedClassifier`` or ``SmoothedEncoder`` on the worker, from files that are
            there, instead of sending it.

    Raises:
        InvalidInput: a number of workers or a part of a GPU that cannot be.
    """

    address: str | None = None
    workers: int | None = None
    gpus: float | None = None
    load: Callable[[], Smoothed] | None = None

    def __post_init__(self) -> None:
        if self.workers is not None and (not isinstance(self.workers, int) or self.workers < 1):
            raise InvalidInput(f"workers = {self.workers!r}", "at least one must work", "Write --workers 8")
        number = isinstance(self.gpus, int | float)
        if self.gpus is not None and not (number and 0.0 < self.gpus <= _MOST_GPUS):
            raise InvalidInput(
                f"gpus (--gpus-per-worker) = {self.gpus!r}",
                "each worker needs a GPU, several, or a part of one",
                "Write --gpus-per-worker 1, or 0.5 for two workers on each",
            )

    def settled(self, execution: ExecutionSpec) -> RayExecutor:
        """Connected, with the number of workers known. Beside a GPU, threads of a worker draw the noise.

        Raises:
            MissingExtra: Ray is not installed. InvalidInput: nothing that could work is at that address.
        """
        if execution.device == "cpu" and self.gpus is not None:
            raise InvalidInput(
                f"gpus (--gpus-per-worker) = {self.gpus:g} for a run on the CPU",
                "its workers use none, so the GPUs would stand idle",
                "Write --device cuda for a run on GPUs, or leave it out",
            )
        found = connect(self.address, execution.threads * (self.workers or 1))
        cores, gpus = found.get("CPU", 1.0), found.get("GPU", 0.0)
        if execution.device == "cpu":
            workers = self.workers or max(1, int(cores) // execution.threads)
            return RayExecutor(workers, 1, {"num_cpus": execution.threads}, self.load)
        if not gpus:
            raise InvalidInput(
                f"a run on {execution.device} and a cluster without GPUs",
                "its workers would never start",
                "Start Ray where the GPUs are, or write --device cpu",
            )
        each = 1.0 if self.gpus is None else float(self.gpus)
        lanes = min(max(1, int(cores * each / gpus)), _MOST_LANES)
        workers = self.workers or max(1, int(gpus / each))
        return RayExecutor(workers, lanes, {"num_cpus": lanes, "num_gpus": each}, self.load)


class RayExecutor:
    """Workers of a cluster that is there.

    Args:
        processes: how many. lanes: batches that each evaluates at a time. resources: Ray's, of each.
        load: as for ``RayCluster``.
    """

    def __init__(
        self,
        processes: int,
        lanes: int,
        resources: dict[str, float],
        load: Callable[[], Smoothed] | None = None,
    ) -> None:
        self._processes, self._lanes, self._resources, self._load = processes, lanes, resources, load
        self._crew: Crew | None = None

    @property
    def workers(self) -> int:
        """Batches evaluated at a time."""
        return self._processes * self._lanes

    @property
    def together(self) -> int:
        """Batches evaluated at a time by one process."""
        return self._lanes

    def answers(self, job: Job, queue: Queue) -> Iterator[list[TallyRow]]:
        """The rows of each batch, whichever is answered first; nothing now and then, while it waits."""
        first = queue.take(partly=True)
        if first is None:
            return
        shipment = Shipment.of(job, self._load)
        self._crew = Crew(shipment, job.rows, self._processes, self._lanes, self._resources)
        try:
            yield from self._crew.answers(queue, first)
        finally:
            self._crew.dismiss()

    def note(self) -> str:
        """How many workers there are, and what each does in a second."""
        return self._crew.note() if self._crew else ""


def connect(address: str | None, cores: int) -> dict[str, float]:
    """Join or start a cluster; its resources.

    Raises:
        MissingExtra: Ray is not installed. InvalidInput: no cluster is there.
    """
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")  # its coming default; silences a notice
    try:
        import ray
    except ImportError as error:
        raise MissingExtra.install("ray", "ray", "executor 'ray'") from error
    if address is not None and address.startswith("ray://"):
        raise InvalidInput(
            f"address {address!r}",
            "through Ray's client every answer makes a detour, and a broken connection ends the run",
            "Start this command on a machine of the cluster with address 'auto', or by 'ray job submit'",
        )
    there = address or os.environ.get("RAY_ADDRESS")
    options: dict[str, Any] = {"address": there or "local"}
    if not there:
        options |= {"num_cpus": max(usable_cores(), cores), "include_dashboard": False}
    joined = ray.is_initialized()
    try:
        if found := host_and_port(address if joined else _noted(there)):
            knock(found)
        if not joined:
            with _own_signals():
                ray.init(log_to_driver=False, logging_level=logging.ERROR, **options)
    except (ConnectionError, RuntimeError, ValueError, OSError) as error:
        raise InvalidInput(
            f"a Ray cluster at {there or 'this machine'}",
            f"cannot be used ({str(error).splitlines()[0]})",
            "Write the address that 'ray start --head' printed (and set RAY_AUTH_MODE=token where that "
            "cluster asks for one), or leave --address out to start one here",
        ) from error
    resources: Any = ray.cluster_resources  # untyped
    return dict(resources())


def _noted(address: str | None) -> str | None:
    """An address to knock at first: Ray tries a dead one for minutes, also one it has noted itself."""
    if address != "auto":
        return address
    note = Path(os.environ.get("RAY_TMPDIR", tempfile.gettempdir())) / "ray" / "ray_current_cluster"
    return note.read_text(encoding="utf-8").strip() if note.is_file() else None


@contextmanager
def _own_signals() -> Iterator[None]:
    """Keep what this process does on SIGTERM: Ray would end it with status 15, which nobody expects."""
    before = signal.getsignal(signal.SIGTERM)
    try:
        yield
    finally:
        if threading.current_thread() is threading.main_thread():
            signal.signal(signal.SIGTERM, before)
