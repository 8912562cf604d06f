"""Killed at any instant, a run on threads continues and ends bit for bit as if nothing had happened."""

from __future__ import annotations

import random
import signal
from collections.abc import Callable
from pathlib import Path

import pytest
from tests.engine import targets
from tests.faults.drivers import drive
from tests.faults.harness import Whole, start, strike

Report = Callable[[str, object], None]


def kill_until_done(directory: Path, chance: random.Random, *, rule: str, kills: int) -> int:
    """Start the run again and again, killing the process after a random time, until it ends by itself."""
    struck = 0
    while True:
        process = start(drive, directory, rule=rule)
        process.join(chance.uniform(0.0, 0.25) if struck < kills else None)
        if process.exitcode is None and process.pid is not None:
            strike(process.pid)
            process.join()
        if process.exitcode == 0:
            return struck
        assert process.exitcode == -signal.SIGKILL
        struck += 1


def kill_often(place: Path, whole: Whole, report: Report, rule: str, *, times: int, kills: int) -> None:
    """How many kills strike before a run ends by itself depends on the machine; go on until enough did."""
    chance, struck, attempt = random.Random(times), 0, 0
    while struck < times:
        struck += kill_until_done(place / f"run{attempt}", chance, rule=rule, kills=kills)
        whole.matches(place / f"run{attempt}", report)
        attempt += 1
    report("driver killed (threads)", struck)


@pytest.mark.parametrize("rule", targets.RULES)
def test_kill_at_random_instants(
    tmp_path: Path, undisturbed: Callable[[str], Whole], report: Report, rule: str
) -> None:
    kill_often(tmp_path, undisturbed(rule), report, rule, times=4, kills=4)


@pytest.mark.faults_long
@pytest.mark.parametrize("rule", targets.RULES)
def test_kill_at_many_random_instants(
    tmp_path: Path, undisturbed: Callable[[str], Whole], report: Report, rule: str
) -> None:
    kill_often(tmp_path, undisturbed(rule), report, rule, times=60, kills=15)
