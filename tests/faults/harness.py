"""What every fault is judged by: no draw lost, none doubled, none different, and the auditor agrees.

The draws are counted from the file as SQLite reads it, not through the library that wrote it.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import sqlite3
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from multiprocessing.process import BaseProcess
from pathlib import Path

import pytest
from tests.engine import targets

import smoothcert as sc
from smoothcert.engine.execute import Queue
from smoothcert.engine.job import Job
from smoothcert.engine.local import Threads
from smoothcert.errors import Interrupted, SmoothcertError
from smoothcert.runlog import tally_digest
from smoothcert.runlog.store import TallyRow

CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(["tests.faults.drivers"])


@dataclass(frozen=True)
class Run:
    """A run file as it stands: how often each draw is stored, and the hash of what they answered."""

    draws: Counter[tuple[int, str, int]]
    digest: str

    @classmethod
    def of(cls, directory: Path) -> Run:
        draws: Counter[tuple[int, str, int]] = Counter()
        for example, stage, first, count in stored(directory):
            draws.update((example, stage, draw) for draw in range(first, first + count))
        reader = sc.open_run(directory)
        digest = tally_digest(reader)
        reader.close()
        return cls(draws, digest)


def stored(directory: Path) -> list[tuple[int, str, int, int]]:
    """Every row of the run file; none where there is no file yet."""
    if not (directory / "run.db").exists():
        return []
    connection = sqlite3.connect(directory / "run.db", timeout=30.0)
    try:
        return connection.execute("SELECT example, stage, first, draws FROM tallies").fetchall()
    finally:
        connection.close()


@dataclass(frozen=True)
class Whole:
    """An undisturbed run, to compare with."""

    run: Run

    def matches(self, directory: Path, report: Callable[[str, object], None]) -> None:
        """Count the damage, report it, and fail over any."""
        found = Run.of(directory)
        lost = sum(found.draws[draw] == 0 for draw in self.run.draws)
        doubled = sum(count > 1 for count in found.draws.values())
        asked = sum(draw not in self.run.draws for draw in found.draws)
        different = asked + int(found.digest != self.run.digest)
        report("damage", (lost, doubled, different))
        assert (lost, doubled, different) == (0, 0, 0)
        reader = sc.open_run(directory)
        verification = sc.verify(reader)
        assert verification.passed, [check for check in verification.checks if not check.passed]
        assert verification.results is not None
        assert verification.results.complete
        reader.close()


@dataclass(frozen=True)
class Cut(Threads):
    """Threads that hear SIGTERM after some batches: what leaves half a run behind, always the same half."""

    after: int = 40

    def answers(self, job: Job, queue: Queue) -> Iterator[list[TallyRow]]:
        for k, rows in enumerate(super().answers(job, queue)):
            if k == self.after:
                signal.raise_signal(signal.SIGTERM)
            yield rows


def half_a_run(directory: Path, rule: str) -> None:
    """Make some of a run."""
    with pytest.raises(Interrupted):
        targets.run(directory, rule=rule, executor=Cut(1))
    assert begun(directory)


def start(target: Callable[..., object], *arguments: object, **options: object) -> BaseProcess:
    """A process of its own, with everything imported."""
    process = CONTEXT.Process(target=target, args=arguments, kwargs=options)
    process.start()
    return process


def until(condition: Callable[[], object], *, seconds: float, what: str) -> None:
    """Wait for something that must come about."""
    end = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < end, (
            f"{what} did not come about in {seconds:g} s; here are {[title(pid) for pid in descendants(os.getpid())]}"
        )
        time.sleep(0.01)


def begun(directory: Path, *, more_than: int = 0) -> bool:
    """Whether a run has stored rows."""
    try:
        return len(stored(directory)) > more_than
    except sqlite3.Error:
        return False


def refused(action: Callable[[], object], kind: type[SmoothcertError], *words: str) -> str:
    """The one clear error that some call ends with."""
    with pytest.raises(kind) as caught:
        action()
    text = str(caught.value)
    assert all(word in text for word in words), text
    return text


def alive(pid: int) -> bool:
    """Whether a process is there and no zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] not in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return False


def descendants(root: int) -> list[int]:
    """All processes that a process started, and those they started."""
    parents: dict[int, list[int]] = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                fields = (entry / "stat").read_text().rsplit(")", 1)[1].split()
            except (FileNotFoundError, ProcessLookupError):
                continue
            parents.setdefault(int(fields[1]), []).append(int(entry.name))
    found, waiting = [], [root]
    while waiting:
        children = parents.get(waiting.pop(), [])
        found += children
        waiting += children
    return found


def hands(root: int | None = None) -> list[int]:
    """The worker processes of the clusters that this process started: no one else's."""
    return [pid for pid in descendants(root or os.getpid()) if title(pid).startswith("ray::Hand")]


def marked(mark: str) -> list[int]:
    """All processes that were started with ``SMOOTHCERT_TEST_MARK`` of that value."""
    return [
        int(entry.name) for entry in Path("/proc").iterdir() if entry.name.isdigit() and _has(entry, mark)
    ]


def _has(process: Path, mark: str) -> bool:
    try:
        found = f"SMOOTHCERT_TEST_MARK={mark}".encode() in (process / "environ").read_bytes()
    except (OSError, ProcessLookupError):
        return False
    return found and alive(int(process.name))


def title(pid: int) -> str:
    """How a process calls itself."""
    try:
        return Path(f"/proc/{pid}/cmdline").read_bytes().decode(errors="replace")
    except (FileNotFoundError, ProcessLookupError):
        return ""


def strike(pid: int, number: signal.Signals = signal.SIGKILL) -> bool:
    """Send a signal to a process that may have ended."""
    try:
        os.kill(pid, number)
    except ProcessLookupError:
        return False
    return True
