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
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    digests = {}
    for rule in targets.RULES:
        directory = tmp_path_factory.mktemp("whole") / rule
        targets.run(directory, rule=rule)
        digests[rule] = tally_digest(sc.open_run(directory))
    return digests


def kill_until_done(directory: Path, chance: random.Random, *, rule: str, kills: int) -> int:
    """Start the run again and again, killing the process after a random time, until it ends by itself."""
    struck = 0
    while True:
        process = CONTEXT.Process(target=targets.run, args=(directory,), kwargs={"rule": rule})
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


@pytest.mark.parametrize("rule", targets.RULES)
def test_kill_at_random_instants(tmp_path: Path, undisturbed: dict[str, str], rule: str) -> None:
    kill_often(tmp_path, undisturbed, rule, times=8, kills=6)


@pytest.mark.validity_long
@pytest.mark.parametrize("rule", targets.RULES)
def test_kill_at_three_hundred_random_instants(
    tmp_path: Path, undisturbed: dict[str, str], rule: str
) -> None:
    kill_often(tmp_path, undisturbed, rule, times=300, kills=15)


def kill_often(place: Path, undisturbed: dict[str, str], rule: str, *, times: int, kills: int) -> None:
    """How many kills strike before a run ends by itself depends on the machine; go on until enough did."""
    chance, struck, attempt = random.Random(times), 0, 0
    while struck < times:
        struck += kill_until_done(place / f"run{attempt}", chance, rule=rule, kills=kills)
        check(place / f"run{attempt}", undisturbed[rule])
        attempt += 1


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_polite_stop_keeps_everything_finished(
    tmp_path: Path, undisturbed: dict[str, str], number: signal.Signals
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
    check(directory, undisturbed["fixed"])
