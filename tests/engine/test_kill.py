"""Killed at any instant, a run continues and ends bit for bit as if nothing had happened."""

from __future__ import annotations

import multiprocessing
import os
import random
import signal
import time
from pathlib import Path

import pytest
from tests.engine import targets

import smoothcert as sc
from smoothcert.runlog import tally_digest

CONTEXT = multiprocessing.get_context("forkserver")
CONTEXT.set_forkserver_preload(["tests.engine.targets"])


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> str:
    directory = tmp_path_factory.mktemp("whole") / "run"
    targets.run(directory)
    return tally_digest(sc.open_run(directory))


def kill_until_done(directory: Path, chance: random.Random, *, kills: int) -> int:
    """Start the run again and again, killing the process after a random time, until it ends by itself."""
    struck = 0
    while True:
        process = CONTEXT.Process(target=targets.run, args=(directory,))
        process.start()
        if struck < kills:
            process.join(chance.uniform(0.0, 0.25))
        else:
            process.join()
        if process.exitcode is None and process.pid is not None:
            os.kill(process.pid, signal.SIGKILL)
            process.join()
        if process.exitcode == 0:
            return struck
        assert process.exitcode == -signal.SIGKILL
        struck += 1


def check(directory: Path, undisturbed: str) -> None:
    run = sc.open_run(directory)
    assert tally_digest(run) == undisturbed
    assert sc.verify(run).passed


def test_kill_at_random_instants(tmp_path: Path, undisturbed: str) -> None:
    chance, struck, attempt = random.Random(1), 0, 0
    while struck < 12:  # how many strike before the run ends by itself depends on the machine
        struck += kill_until_done(tmp_path / f"run{attempt}", chance, kills=8)
        check(tmp_path / f"run{attempt}", undisturbed)
        attempt += 1


@pytest.mark.validity_long
def test_kill_at_three_hundred_random_instants(tmp_path: Path, undisturbed: str) -> None:
    chance, struck, attempt = random.Random(2), 0, 0
    while struck < 300:
        struck += kill_until_done(tmp_path / f"run{attempt}", chance, kills=15)
        check(tmp_path / f"run{attempt}", undisturbed)
        attempt += 1


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_polite_stop_keeps_everything_finished(
    tmp_path: Path, undisturbed: str, number: signal.Signals
) -> None:
    directory = tmp_path / "run"
    process = CONTEXT.Process(target=targets.run, args=(directory,), kwargs={"commit_seconds": 3600.0})
    process.start()
    while not (directory / "run.toml").exists():
        time.sleep(0.005)
    process.join(0.1)
    assert process.pid is not None
    os.kill(process.pid, number)
    process.join()
    assert process.exitcode == 1, "Interrupted must reach the caller"
    reached = sum(row.draws for row, _ in sc.open_run(directory).tallies())
    assert 0 < reached < 12 * 1_570, "work finished before the signal is committed, though no commit was due"
    targets.run(directory)
    check(directory, undisturbed)
