"""The desk: whatever workers do - answer late, twice, die, are sent away - each batch counts once."""

from __future__ import annotations

import random
from collections import Counter
from dataclasses import dataclass, field

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tests.engine.test_blocks import NAMES, RULES, designed, play, row

from smoothcert.engine.blocks import Batch, Blocks, Part
from smoothcert.engine.dispatch import MOST_AHEAD, MOST_DEATHS, SHORTEST, Dispatch, Item
from smoothcert.engine.evaluate import Work
from smoothcert.engine.track import Tracker
from smoothcert.errors import WorkersLost
from smoothcert.runlog.standing import standings
from smoothcert.runlog.store import TallyRow
from smoothcert.smoothing.streams import Segment

BATCH, MOST_DRAWS = 32, 600


class Supply:
    """Batches of a real run under a stopping rule."""

    def __init__(self, stop: str) -> None:
        self.design, self.labels = designed(stop, MOST_DRAWS), dict.fromkeys(NAMES, 0)
        self.tracker = Tracker(self.design, self.labels, {})
        self.blocks = Blocks(NAMES, self.tracker, {}, BATCH, 64)
        self.rows: list[TallyRow] = []
        self.stopped: set[int] = set()
        self.refused_partly = False

    def take(self, *, partly: bool) -> Work | None:
        batch = self.blocks.batch(partly=partly)
        self.refused_partly = batch is None and partly
        return None if batch is None else Work(batch, {})

    def answered(self, work: Work) -> None:
        for part in work.batch:
            if part.counted:
                self.rows.append(row(part.segment))
                self.blocks.finished(self.rows[-1])
        self.stopped.update(self.tracker.newly_finished())


@dataclass
class Crowd:
    """Workers that answer when chance has it, die, stand still and are sent away."""

    desk: Dispatch
    supply: Supply
    chance: random.Random
    lanes: int
    workers: set[int]
    mortality: float
    now: float = 0.0
    held: dict[int, list[Item]] = field(default_factory=dict)
    counted: Counter[int] = field(default_factory=Counter)
    still: set[int] = field(default_factory=set)
    killed_over: Counter[int] = field(default_factory=Counter)
    dropped: int = 0
    repeated: int = 0

    def play(self) -> None:
        while True:
            self.hand_out()
            if not self.desk.busy:
                return
            self.now += self.chance.expovariate(4.0)
            self.still = {worker for worker in self.workers if self.chance.random() < 0.2}
            self.step()

    def hand_out(self) -> None:
        for worker in sorted(self.workers, key=lambda _: self.chance.random()):
            while True:
                idle, before = not self.held.get(worker), dict(self.outstanding())
                item = self.desk.give(worker, self.now)
                if item is None:
                    break
                if item.number in before:
                    self.repeated += 1
                    assert idle, "only who has nothing else to do repeats"
                    assert self.supply.refused_partly, "only where there is nothing new"
                    assert before[item.number] != {worker}
                    assert len(before[item.number]) == 1, "at most two evaluate the same"
                    since = min(at for who, at in item.since.items() if who != worker)
                    assert self.now - since >= SHORTEST
                self.held.setdefault(worker, []).append(item)
                assert len(self.held[worker]) == self.desk.load(worker) <= self.desk.depth
                assert self.desk.depth <= self.lanes + MOST_AHEAD

    def outstanding(self) -> dict[int, set[int]]:
        """Batches that were given out and did not count yet, and who has them."""
        found: dict[int, set[int]] = {}
        for worker, items in self.held.items():
            for item in items:
                if not self.counted[item.number]:
                    found.setdefault(item.number, set()).add(worker)
        return found

    def step(self) -> None:
        busy = [worker for worker in self.workers if self.held.get(worker) and worker not in self.still]
        if not busy:
            return
        worker = self.chance.choice(sorted(busy))
        fate = self.chance.random()
        if fate < self.mortality:
            evaluated = self.held.pop(worker)[: self.lanes]
            self.killed_over.update(item.number for item in evaluated if not self.counted[item.number])
            self.desk.left(worker, "chance")
        elif fate < 1.2 * self.mortality and len(self.workers) > 1:
            self.held.pop(worker)
            self.workers.remove(worker)
            self.desk.left(worker, None)
        else:
            place = self.chance.randrange(min(self.lanes, len(self.held[worker])))
            self.answer(worker, self.held[worker].pop(place))

    def answer(self, worker: int, item: Item) -> None:
        if not self.desk.answered(item.number, worker, self.now, self.chance.expovariate(10.0)):
            self.dropped += 1
            assert self.counted[item.number] == 1, "only a later answer is thrown away"
            return
        self.counted[item.number] += 1
        self.supply.answered(item.work)
        in_flight = {
            part.segment.example
            for items in self.held.values()
            for other in items
            if not self.counted[other.number]
            for part in other.work.batch
            if part.counted
        }
        assert self.supply.stopped.isdisjoint(in_flight), "draws are left over where an image stopped"


def crowd(stop: str, seed: int, workers: int, lanes: int, mortality: float) -> Crowd:
    supply = Supply(stop)
    first = supply.take(partly=True)
    assert first is not None
    desk = Dispatch(supply, lanes, [first])
    return Crowd(desk, supply, random.Random(seed), lanes, set(range(workers)), mortality)


def verdicts(supply: Supply, rows: list[TallyRow]) -> dict[int, str]:
    """What the rows of a run prove of each image."""
    replayed = standings(supply.design, rows, supply.labels)
    assert all(standing.course.need is None and not standing.unasked for standing in replayed.values())
    return {example: str(standing.course.verdict()) for example, standing in replayed.items()}


@settings(max_examples=60, deadline=None)
@given(
    st.sampled_from(RULES),
    st.integers(0, 10**6),
    st.integers(1, 6),
    st.integers(1, 3),
    st.sampled_from([0.0, 0.02]),
)
def test_every_draw_counts_once_whatever_the_workers_do(
    stop: str, seed: int, workers: int, lanes: int, mortality: float
) -> None:
    """And the outcome is that of one worker without faults; no draw is left over where an image stops."""
    found = crowd(stop, seed, workers, lanes, mortality)
    try:
        found.play()
    except WorkersLost:
        assert max(found.killed_over.values()) >= MOST_DEATHS
        return
    supply = found.supply
    assert set(found.counted.values()) == {1}
    reference = play(stop, MOST_DRAWS, BATCH, stored=[], order=random.Random(0), ahead=1)
    draws = Counter((r.example, r.stage, r.first + k) for r in supply.rows for k in range(r.draws))
    assert draws == Counter(dict.fromkeys(reference[0], 1))
    assert verdicts(supply, supply.rows) == verdicts(supply, reference[1])
    assert supply.stopped == set(NAMES)


def test_batches_are_repeated_and_late_answers_thrown_away() -> None:
    """The schedules above are worth something: they hold late answers of every kind."""
    found = [crowd("anytime", seed, 4, 1, 0.02) for seed in range(20)]
    for one in found:
        one.play()
    assert sum(one.repeated for one in found) > 20
    assert sum(one.dropped for one in found) > 10
    assert sum(one.killed_over.total() for one in found) > 5


class Plenty:
    """Work without end, or as much as there is."""

    def __init__(self, most: int = 10**6) -> None:
        self.most = most

    def take(self, *, partly: bool) -> Work | None:
        self.most -= 1
        batch: Batch = [Part(Segment(7, "estimation", 32 * self.most, 32), True)]
        return Work(batch, {}) if self.most >= 0 else None


def given_to(desk: Dispatch, worker: int, now: float = 0.0) -> list[Item]:
    found = []
    while (item := desk.give(worker, now)) is not None:
        found.append(item)
    return found


@pytest.mark.parametrize(
    ("seconds", "lanes", "expected"), [(10.0, 1, 2), (0.1, 1, 2), (0.02, 1, 6), (1e-5, 1, 17), (10.0, 3, 4)]
)
def test_a_bounded_number_is_in_flight(seconds: float, lanes: int, expected: int) -> None:
    """One more than a worker evaluates; of short batches as many as fill the time of a message."""
    desk = Dispatch(Plenty(), lanes)
    for _ in range(300):
        for item in given_to(desk, 1):
            desk.answered(item.number, 1, 0.0, seconds)
    assert len(given_to(desk, 1)) == desk.depth == expected
    assert desk.give(1, 0.0) is None


def test_a_late_batch_goes_to_an_idle_worker_once() -> None:
    desk = Dispatch(Plenty(3), 1)
    slow, quick = given_to(desk, 1), given_to(desk, 2)
    assert (len(slow), len(quick)) == (2, 1)
    assert desk.answered(quick[0].number, 2, 0.2, 0.1)
    assert desk.give(2, 0.3) is None, "not late yet"
    assert desk.give(2, 0.6) is slow[0]
    assert desk.give(2, 9.0) is None, "who evaluates something is not idle"
    assert desk.give(3, 9.0) is slow[1]
    assert desk.give(4, 9.0) is None, "two have each of them"
    assert desk.answered(slow[0].number, 2, 9.1, 0.1)
    assert not desk.answered(slow[0].number, 1, 9.2, 9.0)
    assert desk.answered(slow[1].number, 1, 9.3, 0.1)
    assert not desk.busy, "nobody waits for the third"


def test_what_a_dead_worker_had_goes_first_to_others() -> None:
    desk = Dispatch(Plenty(), 1)
    had = given_to(desk, 1)
    assert desk.left(1, "killed") == had[:1], "the others waited"
    assert given_to(desk, 2) == had
    assert desk.load(1) == 0


def test_batches_that_wait_behind_a_deadly_one_are_not_blamed() -> None:
    """However often a worker dies, only what it was evaluating can end the run."""
    desk = Dispatch(Plenty(), 1)
    for _ in range(300):
        item = desk.give(1, 0.0)
        assert item is not None
        desk.answered(item.number, 1, 0.0, 0.001)
    for _ in range(3 * MOST_DEATHS):
        had = given_to(desk, 1)
        assert len(had) == 1 + MOST_AHEAD
        assert desk.answered(had[0].number, 1, 0.0, 0.001)
        desk.left(1, "killed")


def test_work_that_kills_whoever_touches_it_ends_the_run() -> None:
    desk = Dispatch(Plenty(5), 1)
    deadly = desk.give(0, 0.0)
    assert deadly is not None
    for worker in range(1, MOST_DEATHS):
        desk.left(worker - 1, "out of memory")
        assert desk.give(worker, 0.0) is deadly
    with pytest.raises(
        WorkersLost, match=r"4 workers died.*image 7.*out of memory.*Nothing that was answered"
    ):
        desk.left(MOST_DEATHS - 1, "out of memory")


def test_being_sent_away_is_not_dying() -> None:
    desk = Dispatch(Plenty(), 1)
    for worker in range(3 * MOST_DEATHS):
        assert given_to(desk, worker)
        desk.left(worker, None)


def test_a_closed_desk_waits_only_for_what_is_out() -> None:
    desk = Dispatch(Plenty(3), 1)
    first = given_to(desk, 1)
    given_to(desk, 2)
    desk.left(2, "killed")
    desk.close()
    for item in first:
        assert desk.busy
        desk.answered(item.number, 1, 0.0, 0.1)
    assert not desk.busy
