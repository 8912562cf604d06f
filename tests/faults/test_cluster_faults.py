"""Faults of a run whose batches a Ray cluster evaluates: drivers, workers, nodes and messages that fail."""

from __future__ import annotations

import functools
import logging
import os
import random
import signal
import threading
import time
import uuid
from collections.abc import Callable
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any, ClassVar

import pytest
from tests.engine import targets
from tests.faults.drivers import SAID, connect_and_be_ended, drive, drive_marked, drive_with_a_bad_clock
from tests.faults.harness import (
    Run,
    Whole,
    alive,
    begun,
    hands,
    marked,
    refused,
    start,
    stored,
    strike,
    title,
    until,
)

from smoothcert.engine import RayCluster, crew
from smoothcert.engine.dispatch import Dispatch
from smoothcert.errors import (
    CheckpointError,
    Interrupted,
    RunLocked,
    SmoothcertError,
    WorkerRefused,
    WorkersLost,
)

Report = Callable[[str, object], None]
Undisturbed = Callable[[str], Whole]
SLOW = 0.004  # seconds of a batch, so that a fault meets it at work


def on(cluster: Any, **options: Any) -> RayCluster:
    return RayCluster(address=cluster.address, **options)


def ready(number: int = 1) -> bool:
    """Whether that many workers have loaded the run and evaluate."""
    return sum(title(pid).startswith("ray::Hand.rows") for pid in hands()) >= number


def until_more(directory: Path, rows: int, process: BaseProcess) -> None:
    """Wait for a commit, or the end of the run."""
    until(lambda: begun(directory, more_than=rows) or not process.is_alive(), seconds=120, what="a commit")


# The driver is killed.


def kill_drivers(
    place: Path,
    cluster: Any,
    whole: Whole,
    report: Report,
    *,
    rule: str,
    times: int,
    seed: int,
    workers: int = 2,
) -> None:
    """Kill the driver, mostly at work, until it was killed often enough; nothing may stay behind it."""
    chance, struck, attempt = random.Random(seed), 0, 0
    while struck < times:
        directory, kills = place / f"run{attempt}", 0
        while True:
            rows = len(stored(directory))
            process = start(drive, directory, rule=rule, slow=SLOW, address=cluster.address, workers=workers)
            if kills < 6 and struck < times:
                early = chance.random() < 0.25
                if not early:
                    until_more(directory, rows, process)
                process.join(chance.uniform(0.0, 3.0 if early else 0.8))
            else:
                process.join()
            if process.exitcode is None and process.pid is not None:
                strike(process.pid)
                process.join()
            if process.exitcode == 0:
                break
            assert process.exitcode == -signal.SIGKILL
            kills, struck = kills + 1, struck + 1
            until(lambda: not hands(), seconds=60, what="the end of the killed driver's workers")
        whole.matches(directory, report)
        attempt += 1
    report("driver killed (Ray)", struck)


def test_the_driver_is_killed(cluster: Any, tmp_path: Path, undisturbed: Undisturbed, report: Report) -> None:
    kill_drivers(tmp_path, cluster, undisturbed("table"), report, rule="table", times=1, seed=2, workers=1)


@pytest.mark.faults_long
@pytest.mark.parametrize("rule", targets.RULES)
def test_the_driver_is_killed_often(
    cluster: Any, tmp_path: Path, undisturbed: Undisturbed, report: Report, rule: str
) -> None:
    kill_drivers(tmp_path, cluster, undisturbed(rule), report, rule=rule, times=10, seed=11)


def of_a_cluster(mark: str) -> list[int]:
    """What is left of a cluster, but for two agents of Ray's, which hold nothing and take a minute to notice."""
    return [
        pid for pid in marked(mark) if not title(pid).startswith(("ray::DashboardAgent", "ray::RuntimeEnv"))
    ]


@pytest.mark.faults_long
@pytest.mark.parametrize("attempt", range(3))
def test_a_cluster_that_the_driver_started_ends_with_it(
    tmp_path: Path, undisturbed: Undisturbed, report: Report, attempt: int
) -> None:
    mark, directory = uuid.uuid4().hex, tmp_path / "run"
    process = start(drive_marked, directory, mark, slow=SLOW, address="local", workers=1)
    until(lambda: begun(directory), seconds=120, what="the first commit")
    assert len(marked(mark)) > 3, "the driver, its cluster and its worker"
    assert process.pid is not None
    strike(process.pid)
    process.join()
    until(lambda: not of_a_cluster(mark), seconds=60, what="the end of the killed driver's cluster")
    report("driver killed (Ray)", 1)
    targets.run(directory, slow=SLOW)
    undisturbed("fixed").matches(directory, report)


@pytest.mark.faults_long
def test_the_head_of_the_cluster_is_killed(tmp_path: Path, undisturbed: Undisturbed, report: Report) -> None:
    """Workers go on for a while without it; Ray would end the driver after a minute, without a word of ours."""
    mark, directory = uuid.uuid4().hex, tmp_path / "run"
    process = start(drive_marked, directory, mark, slow=0.1, address="local", workers=1)
    until(lambda: begun(directory), seconds=120, what="the first commit")
    (head,) = [pid for pid in marked(mark) if "gcs_server" in title(pid)]
    strike(head)
    process.join(90)
    assert process.exitcode == 4, process.exitcode
    assert (tmp_path / SAID).read_text().startswith("WorkersLost: the head of the cluster")
    until(lambda: not of_a_cluster(mark), seconds=90, what="the end of the cluster")
    report("head of the cluster killed", 1)
    targets.run(directory, slow=0.1)
    undisturbed("fixed").matches(directory, report)


# A worker is killed.


class Killer(threading.Thread):
    """Kills a worker of this process now and then, loading or at work, as long as it is let."""

    def __init__(self, chance: random.Random, times: int, pause: tuple[float, float]) -> None:
        super().__init__(daemon=True)
        self.chance, self.times, self.pause = chance, times, pause
        self.struck, self.over = 0, threading.Event()

    def run(self) -> None:
        while self.struck < self.times and not self.over.wait(self.chance.uniform(*self.pause)):
            if found := hands():
                self.struck += strike(self.chance.choice(found))


def kill_workers(
    directory: Path,
    cluster: Any,
    whole: Whole,
    report: Report,
    *,
    rule: str,
    times: int,
    workers: int,
    slow: float,
    seed: int,
) -> None:
    killer = Killer(random.Random(seed), times, (0.2, 4.0))
    killer.start()
    for _ in range(100):
        try:
            targets.run(directory, rule=rule, slow=slow, executor=on(cluster), workers=workers)
        except WorkersLost as error:
            # Three deaths in a row without an answer between: chance may have it, if there are so many.
            assert times >= 3, error  # noqa: PT017
        else:
            break
    killer.over.set()
    killer.join()
    report("worker killed", killer.struck)
    assert killer.struck
    whole.matches(directory, report)


def test_workers_are_killed(cluster: Any, tmp_path: Path, undisturbed: Undisturbed, report: Report) -> None:
    """Another takes the place of the only one."""
    whole = undisturbed("fixed")
    kill_workers(
        tmp_path / "run", cluster, whole, report, rule="fixed", times=1, workers=1, slow=0.01, seed=3
    )


@pytest.mark.faults_long
@pytest.mark.parametrize("rule", targets.RULES)
def test_workers_are_killed_often(
    cluster: Any, tmp_path: Path, undisturbed: Undisturbed, report: Report, rule: str
) -> None:
    whole = undisturbed(rule)
    kill_workers(tmp_path / "run", cluster, whole, report, rule=rule, times=9, workers=2, slow=0.06, seed=5)


@pytest.mark.parametrize("workers", [1, pytest.param(3, marks=pytest.mark.faults_long)])
def test_an_image_that_kills_its_worker_ends_the_run_and_not_what_is_done(
    cluster: Any, tmp_path: Path, report: Report, monkeypatch: pytest.MonkeyPatch, workers: int
) -> None:
    if workers == 1:
        monkeypatch.setattr(crew, "MOST_FAILURES", 2)  # each costs seconds
    data, trap = targets.images(white=5), tmp_path / "trap"
    trap.touch()
    targets.run(tmp_path / "whole", data=data, classifier=targets.Deadly(targets.model(), trap))
    options: dict[str, Any] = {
        "data": data,
        "classifier": targets.Deadly(targets.model(), trap),
        "executor": on(cluster),
        "workers": workers,
    }
    directory = tmp_path / "run"
    before = len(hands())
    refused(lambda: targets.run(directory, **options), WorkersLost, "died", "image 5", "exit", "--batch")
    until(lambda: len(hands()) <= before, seconds=60, what="the end of the workers")
    finished = Run.of(directory).draws
    assert all(finished[example, "estimation", 1_400] for example in range(5)), "what came before is stored"
    assert not finished[5, "estimation", 700]
    report("worker killed by its model", 2 if workers == 1 else 4)
    trap.unlink()  # the model is mended
    targets.run(directory, **(options | {"executor": "local"} if workers == 1 else options))
    Whole(Run.of(tmp_path / "whole")).matches(directory, report)


# A node goes.


def add_node(cluster: Any) -> Any:
    return cluster.add_node(num_cpus=2, include_dashboard=False, object_store_memory=10**8)


def remove_nodes(
    directory: Path, cluster: Any, whole: Whole, report: Report, *, rule: str, times: int, seed: int
) -> None:
    """A node goes while one of its workers evaluates, and another comes."""
    chance, node = random.Random(seed), add_node(cluster)
    process = start(drive, directory, rule=rule, slow=0.07, address=cluster.address)
    for _ in range(times):
        until(lambda: ready(2) or not process.is_alive(), seconds=120, what="work of two workers")
        process.join(chance.uniform(0.0, 0.5))
        if not process.is_alive():
            break
        before = hands()
        cluster.remove_node(node, allow_graceful=False)
        until(lambda: any(not alive(pid) for pid in before), seconds=30, what="the end of a worker")  # noqa: B023
        report("node removed", 1)
        node = add_node(cluster)
    process.join()
    cluster.remove_node(node)
    assert process.exitcode == 0
    whole.matches(directory, report)


@pytest.mark.faults_long
@pytest.mark.parametrize("rule", targets.RULES)
def test_nodes_are_removed_often(
    cluster: Any, tmp_path: Path, undisturbed: Undisturbed, report: Report, rule: str
) -> None:
    remove_nodes(tmp_path / "run", cluster, undisturbed(rule), report, rule=rule, times=3, seed=4)


# A worker is slow, or not the right one.


class Watched(Dispatch):
    """The real desk, with its late answers counted."""

    late: ClassVar[list[int]] = []
    repeats: ClassVar[list[int]] = []

    def answered(self, number: int, worker: int, now: float, seconds: float) -> bool:
        counts = super().answered(number, worker, now, seconds)
        if not counts:
            self.late.append(number)
        self.repeats[:] = [self.repeated]
        return counts


def stop_a_worker(seconds: float | None) -> threading.Thread:
    """Let a worker at work stand still; for good, if no seconds are given."""

    def stop() -> None:
        until(lambda: ready(2), seconds=120, what="work of two workers")
        pid = next(pid for pid in hands() if title(pid).startswith("ray::Hand.rows"))
        strike(pid, signal.SIGSTOP)
        if seconds is not None:
            time.sleep(seconds)
            strike(pid, signal.SIGCONT)

    thread = threading.Thread(target=stop, daemon=True)
    thread.start()
    return thread


@pytest.mark.parametrize("seconds", [2.5, pytest.param(None, marks=pytest.mark.faults_long)])
def test_a_worker_stands_still(
    cluster: Any, tmp_path: Path, report: Report, monkeypatch: pytest.MonkeyPatch, seconds: float | None
) -> None:
    """Its batches are given to another; what it answers when it wakes up is thrown away."""
    monkeypatch.setattr(crew, "Dispatch", Watched)
    Watched.late.clear()
    data = targets.images(3)
    targets.run(tmp_path / "whole", rule="table", data=data)
    stopper = stop_a_worker(seconds)
    targets.run(tmp_path / "run", rule="table", data=data, slow=0.04, executor=on(cluster), workers=2)
    stopper.join()
    assert Watched.repeats[0] > 0
    assert bool(Watched.late) == (seconds is not None)
    until(lambda: not hands(), seconds=60, what="the end of the workers")
    report("worker stopped", 1)
    Whole(Run.of(tmp_path / "whole")).matches(tmp_path / "run", report)


def test_workers_that_are_not_the_right_ones_are_refused_and_the_others_go_on(
    cluster: Any,
    tmp_path: Path,
    undisturbed: Undisturbed,
    report: Report,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Three workers: one with other weights and another torch, one without the file, one as it should be."""
    load = functools.partial(targets.loaded_in_turn, tmp_path)
    with caplog.at_level(logging.WARNING, "smoothcert"):
        targets.run(tmp_path / "run", executor=on(cluster, load=load), workers=3, slow=0.02)
    said = [record.getMessage() for record in caplog.records if "refused" in record.getMessage()]
    for words in (
        ("classifier.sha256", "the run has", "here is"),
        ("execution.libraries.torch", "0.1"),
        ("weights.pt", "is not there"),
    ):
        assert sum(all(word in line for word in words) for line in said) == 1, said
    report("worker refused", len(said))
    undisturbed("fixed").matches(tmp_path / "run", report)


@pytest.mark.parametrize(
    ("load", "kind", "words"),
    [
        pytest.param(
            targets.load_other_weights,
            WorkerRefused,
            ("classifier.sha256", "the run has", "here is"),
            marks=pytest.mark.faults_long,
        ),
        (targets.load_that_rounds_otherwise, WorkerRefused, ("answered differently",)),
        pytest.param(targets.load_missing, CheckpointError, ("weights.pt",), marks=pytest.mark.faults_long),
        pytest.param(targets.load_broken, WorkersLost, ("ZeroDivisionError",), marks=pytest.mark.faults_long),
    ],
)
def test_no_worker_is_the_right_one(
    cluster: Any,
    tmp_path: Path,
    report: Report,
    load: Callable[[], Any],
    kind: type[SmoothcertError],
    words: tuple[str, ...],
) -> None:
    model = targets.Choosy(targets.model()) if load is targets.load_that_rounds_otherwise else None
    options: dict[str, Any] = {"classifier": model, "slow": 0.0 if model else 0.02, "workers": 1}
    refused(lambda: targets.run(tmp_path / "run", executor=on(cluster, load=load), **options), kind, *words)
    report("worker refused", 1)
    assert not stored(tmp_path / "run")


def test_a_run_that_waits_for_room_says_so(
    cluster: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """A batch queue may end it meanwhile, at once."""
    monkeypatch.setattr(crew, "PATIENCE", 1.0)
    timer = threading.Timer(4.0, strike, (os.getpid(), signal.SIGTERM))
    timer.start()
    started = time.monotonic()
    with caplog.at_level(logging.WARNING, "smoothcert"), pytest.raises(Interrupted):
        targets.run(tmp_path / "run", executor=on(cluster), workers=1, threads=64)
    assert time.monotonic() - started < crew.GRACE
    said = [record.getMessage() for record in caplog.records if "no worker has begun" in record.getMessage()]
    assert len(said) == 1
    assert "'num_cpus': 64" in said[0]


# The driver is stopped, meets another, loses its clock.


@pytest.mark.parametrize("after", ["threads", pytest.param("cluster", marks=pytest.mark.faults_long)])
def test_two_drivers_then_a_batch_queue_then_a_bad_clock(
    cluster: Any, tmp_path: Path, undisturbed: Undisturbed, report: Report, after: str
) -> None:
    directory, options = tmp_path / "run", {"rule": "table", "slow": 0.03, "workers": 1}
    first = start(drive, directory, address=cluster.address, **options)
    until(lambda: begun(directory), seconds=120, what="the first commit")
    for executor in ("local", on(cluster)):
        refused(lambda: targets.run(directory, executor=executor, **options), RunLocked)  # type: ignore[arg-type]  # noqa: B023
        report("second driver", 1)
    assert first.is_alive(), "the first is not disturbed"
    assert first.pid is not None
    strike(first.pid, signal.SIGTERM)
    first.join()
    assert first.exitcode == 143
    assert "Run the same command to continue" in (tmp_path / SAID).read_text()
    until(lambda: not hands(), seconds=60, what="the end of the workers")
    assert stored(directory)
    report("SIGTERM", 1)
    options["slow"] = 0.005
    address = cluster.address if after == "cluster" else None
    again = start(drive_with_a_bad_clock, directory, 1, address=address, **options)
    again.join()
    assert again.exitcode == 0
    report("clock set back", int((tmp_path / SAID).read_text()))
    undisturbed("table").matches(directory, report)


def test_a_batch_queue_ends_a_driver_before_its_run(cluster: Any, report: Report) -> None:
    """Ray sets a handler of its own, which would end the process with status 15."""
    process = start(connect_and_be_ended, cluster.address)
    process.join(60)
    assert process.exitcode == -signal.SIGTERM, "143 to a shell"
    report("SIGTERM", 1)


@pytest.mark.faults_long
@pytest.mark.parametrize("whom", ["driver", "everybody"])
def test_a_batch_queue_ends_a_driver_and_the_cluster_it_started(
    tmp_path: Path, undisturbed: Undisturbed, report: Report, whom: str
) -> None:
    """Some queues tell every process of a job, and Ray's processes end at once."""
    mark, directory = uuid.uuid4().hex, tmp_path / "run"
    process = start(drive_marked, directory, mark, slow=0.02, address="local", workers=2)
    until(lambda: begun(directory), seconds=120, what="the first commit")
    assert process.pid is not None
    rows = len(stored(directory))
    for pid in [process.pid, *(marked(mark) if whom == "everybody" else [])]:
        strike(pid, signal.SIGTERM)
    process.join(60)
    assert process.exitcode == 143, process.exitcode
    assert len(stored(directory)) >= rows
    until(lambda: not of_a_cluster(mark), seconds=60, what="the end of the cluster")
    report("SIGTERM", 1)
    targets.run(directory, slow=0.02)
    undisturbed("fixed").matches(directory, report)
