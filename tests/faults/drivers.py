"""Drivers of runs: what the tests start in processes of their own. Imported once by their common parent."""

from __future__ import annotations

import datetime
import os
import random
import resource
import signal
import sys
import tempfile
import threading
import time
from pathlib import Path

from tests.engine import targets

import smoothcert as sc
from smoothcert.cli import main
from smoothcert.engine.cluster import connect
from smoothcert.errors import Interrupted, SmoothcertError

SAID = "said.txt"
_STATUS = {"SIGINT": 130, "SIGTERM": 143}


def drive(directory: Path, **options: object) -> None:
    """A run as a command would make it: an error of ours is one message, and a documented status."""
    try:
        targets.run(directory, **options)  # type: ignore[arg-type]
    except SmoothcertError as error:
        (directory.parent / SAID).write_text(f"{type(error).__name__}: {error}")
        sys.exit(_STATUS.get(error.given, 2) if isinstance(error, Interrupted) else 4)


def drive_marked(directory: Path, mark: str, **options: object) -> None:
    """A run in a process group of its own; it and all it starts can be told by a variable."""
    os.setpgid(0, 0)
    os.environ["SMOOTHCERT_TEST_MARK"] = mark
    drive(directory, **options)


def drive_as_nobody(directory: Path, read: bool = False, **options: object) -> None:
    """A run, or a look at one, by a user without rights (who may not even read the libraries: load them)."""
    with tempfile.TemporaryDirectory() as place:
        sc.verify(targets.run(Path(place) / "run", **options) and sc.open_run(Path(place) / "run"))  # type: ignore[arg-type]
    os.setgid(65534)
    os.setuid(65534)
    if read:
        sys.exit(0 if sc.verify(sc.open_run(directory)).passed else 1)
    drive(directory, **options)


def drive_with_small_files(directory: Path, most: int, **options: object) -> None:
    """A run where no file may grow beyond ``most`` bytes, as under a quota."""
    signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (most, most))
    drive(directory, **options)


def drive_with_a_bad_clock(directory: Path, seed: int, **options: object) -> None:
    """A run during which the clock on the wall is set back, again and again."""
    chance, offset = random.Random(seed), [0.0]
    wall, day = time.time, datetime.datetime
    jumps = [0]

    class Day(day):
        @classmethod
        def now(cls, tz: datetime.tzinfo | None = None) -> datetime.datetime:  # type: ignore[override]
            return day.fromtimestamp(wall() + offset[0], tz)

    def meddle() -> None:
        while True:
            offset[0] -= chance.uniform(0.0, 86_400.0)
            jumps[0] += 1
            time.sleep(0.02)

    time.time = lambda: wall() + offset[0]
    datetime.datetime = Day  # type: ignore[misc]
    threading.Thread(target=meddle, daemon=True).start()
    drive(directory, **options)
    (directory.parent / SAID).write_text(str(jumps[0]))


def connect_and_be_ended(address: str) -> None:
    """SIGTERM meets a driver that has joined a cluster and not begun its run."""
    connect(address, 1)
    os.kill(os.getpid(), signal.SIGTERM)
    time.sleep(30)


def command(place: Path, *words: str) -> None:
    """``smoothcert`` with these words, as the entry point runs it; what it says goes to a file."""
    os.chdir(place)
    sys.argv = ["smoothcert", *words]
    with open(place / SAID, "w") as said:
        os.dup2(said.fileno(), 1)
        os.dup2(said.fileno(), 2)
        main()
