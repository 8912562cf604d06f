"""A fixed run whose draws were answered in any order, as a cluster does, and stopped at any point."""

from __future__ import annotations

import random
import sqlite3
from collections.abc import Iterator
from pathlib import Path

import pytest
from tests.engine import targets

import smoothcert as sc
from smoothcert.engine.execute import Queue
from smoothcert.engine.job import Job
from smoothcert.runlog import tally_digest
from smoothcert.runlog.store import TallyRow


class Shuffled:
    """An executor that answers in any order and stops asking after some batches."""

    workers = together = 1

    def __init__(self, seed: int, batches: int) -> None:
        self.chance, self.batches = random.Random(seed), batches

    def answers(self, job: Job, queue: Queue) -> Iterator[list[TallyRow]]:
        evaluation, tasks = job.evaluation(), []
        while (task := queue.take(partly=True)) is not None:
            tasks.append(task)
        self.chance.shuffle(tasks)
        for task in tasks[: self.batches]:
            rows = evaluation.rows(task)
            queue.answered(rows)
            yield rows

    def note(self) -> str:
        return ""


@pytest.mark.parametrize("seed", range(4))
def test_draws_of_a_later_stage_may_be_stored_first(tmp_path: Path, seed: int) -> None:
    smoothed, numbers = sc.SmoothedClassifier(targets.model(), sigma=0.5), {"n0": 70, "n": 400}
    whole, torn = tmp_path / "whole", tmp_path / "torn"
    sc.certify(smoothed, targets.images(4), whole, batch=32, **numbers)  # type: ignore[arg-type]
    some = sc.certify(smoothed, targets.images(4), torn, batch=32, executor=Shuffled(seed, 25), **numbers)  # type: ignore[arg-type]
    assert len(some.outcomes) < 4, "it was stopped"
    with sqlite3.connect(torn / "run.db") as file:
        early = file.execute(
            "SELECT count(*) FROM tallies t WHERE stage = 'estimation' AND 70 > (SELECT coalesce(sum(draws), 0) "
            "FROM tallies s WHERE s.example = t.example AND s.stage = 'selection')"
        ).fetchone()[0]
    assert early > 0, "nothing was out of order, so this test shows nothing"
    checked = sc.verify(sc.open_run(torn))
    assert checked.passed, [check for check in checked.checks if not check.passed]
    rest = sc.certify(smoothed, targets.images(4), torn, batch=32, **numbers)  # type: ignore[arg-type]
    assert len(rest.outcomes) == 4
    assert tally_digest(sc.open_run(torn)) == tally_digest(sc.open_run(whole))
    assert sorted(sc.open_run(torn).finished() or ()) == [0, 1, 2, 3], (
        "the next start would replay the others"
    )


def test_draws_beyond_the_numbers_are_still_refused(tmp_path: Path) -> None:
    smoothed = sc.SmoothedClassifier(targets.model(), sigma=0.5)
    sc.certify(smoothed, targets.images(2), tmp_path / "run", batch=32, n0=70, n=400, executor=Shuffled(0, 8))
    run = sc.open_run(tmp_path / "run")
    row, _ = next((row, digest) for row, digest in run.tallies() if row.stage == "estimation")
    beyond = TallyRow(row.example, "estimation", 400, row.draws, row.tally, 0.0)
    with sqlite3.connect(tmp_path / "run" / "run.db") as file:
        file.execute(
            "INSERT INTO tallies VALUES (?, ?, ?, ?, ?, ?, ?)",
            (
                *(beyond.example, beyond.stage, 400, beyond.draws),
                beyond.tally.to_json(),
                0.0,
                beyond.digest(run.identity),
            ),
        )
    assert not sc.verify(sc.open_run(tmp_path / "run")).passed
