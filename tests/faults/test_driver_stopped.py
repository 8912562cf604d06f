"""A driver that is asked to stop, that meets another one, or whose clock goes wrong; threads of one process."""

from __future__ import annotations

import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from tests.engine import targets
from tests.faults.drivers import SAID, command, drive, drive_with_a_bad_clock
from tests.faults.harness import Run, Whole, begun, refused, start, stored, strike, until

import smoothcert as sc
from smoothcert.errors import RunLocked
from smoothcert.runlog.store import RunWriter

Report = Callable[[str, object], None]
Undisturbed = Callable[[str], Whole]


@pytest.mark.parametrize("signals", [("SIGTERM",), ("SIGINT",), ("SIGTERM", "SIGTERM"), ("SIGINT", "SIGINT")])
def test_a_polite_stop_keeps_everything_finished(
    tmp_path: Path, undisturbed: Undisturbed, report: Report, signals: tuple[str, ...]
) -> None:
    """A second Ctrl-C breaks off at once, and keeps what is finished all the same."""
    directory = tmp_path / "run"
    process = start(drive, directory, commit_seconds=3600.0, slow=0.004)
    until(lambda: (directory / "run.toml").exists(), seconds=60, what="the run")
    process.join(0.3)
    for name in signals:
        assert process.pid is not None
        strike(process.pid, signal.Signals[name])
        process.join(0.001)
    process.join()
    broken_off = signals == ("SIGINT", "SIGINT") and process.exitcode == 1  # a KeyboardInterrupt
    assert broken_off or process.exitcode == {"SIGTERM": 143, "SIGINT": 130}[signals[0]]
    reached = sum(draws for _, _, _, draws in stored(directory))
    assert 0 < reached < 12 * 1_570, "what was finished is committed, though no commit was due"
    report(" twice ".join(dict.fromkeys(signals)) + (" twice" if len(signals) > 1 else ""), 1)
    targets.run(directory, slow=1e-6)
    undisturbed("fixed").matches(directory, report)


def test_broken_off_at_the_end_of_a_commit_nothing_is_committed_twice(
    tmp_path: Path, undisturbed: Undisturbed, report: Report, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second Ctrl-C may come between a commit and the next line."""
    append, times = RunWriter.append, [0]

    def interrupted(writer: RunWriter, rows: Any, finished: Any = ()) -> None:
        append(writer, rows, finished)
        times[0] += 1
        if times[0] == 5:
            raise KeyboardInterrupt

    monkeypatch.setattr(RunWriter, "append", interrupted)
    with pytest.raises(KeyboardInterrupt):
        targets.run(tmp_path / "run", commit_seconds=0.0)
    monkeypatch.undo()
    report("SIGINT twice", 1)
    targets.run(tmp_path / "run")
    undisturbed("fixed").matches(tmp_path / "run", report)


def test_a_batch_queue_ends_a_command_and_the_same_command_continues(tmp_path: Path, report: Report) -> None:
    words = [
        "certify",
        "--data",
        "digits:test[:4]",
        "--denoiser",
        "none",
        "--sigma",
        "0.5",
        "--stop",
        "fixed",
    ]
    words += ["--n0", "20", "--n", "20000", "--workers", "1", "--out", "run"]
    directory, said = tmp_path / "run" / "sigma-0.5", tmp_path / SAID
    process = start(command, tmp_path, *words)
    until(lambda: begun(directory), seconds=120, what="the first commit")
    assert process.pid is not None
    strike(process.pid, signal.SIGTERM)
    process.join()
    assert process.exitcode == 143, said.read_text()
    assert "stopped:" in said.read_text()
    assert "Run the same command to continue" in said.read_text()
    assert "Traceback" not in said.read_text()
    assert 0 < sum(row[3] for row in stored(directory)) < 4 * 20_020
    report("SIGTERM to a command", 1)
    again = start(command, tmp_path, *words)
    again.join()
    assert again.exitcode == 0, said.read_text()
    model = sc.SmoothedClassifier(sc.classifiers.load("digits"), sigma=0.5)
    data = sc.datasets.load("digits:test[:4]")
    sc.certify(model, data, tmp_path / "whole", stop="fixed", n0=20, n=20_000, workers=2)
    Whole(Run.of(tmp_path / "whole")).matches(directory, report)


def test_the_second_of_two_drivers_is_refused(
    tmp_path: Path, undisturbed: Undisturbed, report: Report
) -> None:
    directory = tmp_path / "run"
    first = start(drive, directory, rule="table", slow=0.004)
    until(lambda: begun(directory), seconds=60, what="the first commit")
    for _ in range(3):
        refused(lambda: targets.run(directory, rule="table", slow=0.004), RunLocked, "another process")
        report("second driver", 1)
    assert first.is_alive()
    first.join()
    assert first.exitcode == 0
    undisturbed("table").matches(directory, report)


@pytest.mark.parametrize("rule", ["fixed", "table"])
def test_the_clock_is_set_back(tmp_path: Path, undisturbed: Undisturbed, report: Report, rule: str) -> None:
    directory = tmp_path / "run"
    process = start(drive_with_a_bad_clock, directory, 1, rule=rule, slow=0.004)
    until(lambda: begun(directory) or not process.is_alive(), seconds=60, what="a commit")
    stored_by_then = sum(draws for _, _, _, draws in stored(directory))
    assert stored_by_then < undisturbed(rule).run.draws.total(), "commits go on, whatever the clock says"
    process.join()
    assert process.exitcode == 0
    jumps = int((tmp_path / SAID).read_text())
    assert jumps > 10
    report("clock set back", jumps)
    undisturbed(rule).matches(directory, report)
