"""How busy 64 workers are kept, with slow ones, pauses and a death, under a sequential stopping rule.

Run: python benchmarks/cluster_simulation.py [--pipeline digits|wrn|vit] [--images 500] [--workers 64] ...
What is simulated is time, the networks' answers and the workers; everything that decides who does what is the
engine's own code: the rule's courses, the blocks of draws, the desk that gives batches out, repeats late ones
and takes back those of dead workers. Times of a batch are measured here first, on the real networks; the
driver's own time for each answer is measured while the simulation runs, and answers wait for it.
"""

from __future__ import annotations

import argparse
import heapq
import itertools
import json
import statistics
import time
from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from pipelines import PIPELINES
from scipy.special import ndtr

from smoothcert.engine.blocks import Blocks, enough_under_way
from smoothcert.engine.dispatch import Dispatch, Item
from smoothcert.engine.evaluate import Work
from smoothcert.engine.track import Tracker
from smoothcert.runlog.specification import RuleSpec
from smoothcert.runlog.store import TallyRow
from smoothcert.smoothing.network import intra_op_threads
from smoothcert.smoothing.streams import Segment
from smoothcert.tallies import Votes

SIGMA = 0.5


def measured(name: str, batches: int) -> tuple[list[float], int]:
    """Seconds of single batches on one thread, noise included, and the batch size."""
    pipeline = PIPELINES[name]()
    smoothed = pipeline.smoothed(pipeline.denoiser, pipeline.classifier, "cpu", "float32")
    noise = smoothed.noise_for(pipeline.data.levels)
    image, found = noise.prepare(pipeline.data[0].image), []
    with intra_op_threads(1):
        for k in range(batches + 2):
            segment = Segment(0, "check", k * pipeline.batch, pipeline.batch)
            started = time.perf_counter()
            smoothed.labels([(image, segment)], seed=0, batch=pipeline.batch, noise=noise)
            found.append(time.perf_counter() - started)
    return found[2:], pipeline.batch


def chances(images: int, log: Path | None, rng: np.random.Generator) -> np.ndarray[Any, Any]:
    """For each image the probability of the true class: from radii of a published log, or made up like them."""
    if log is None:
        return ndtr(rng.normal(1.0, 1.4, size=images))
    lines = [line.split("\t") for line in log.read_text(encoding="utf-8").splitlines()[1:]]
    ratios = [float(line[3]) / SIGMA if line[4].strip() == "1" else -1.0 for line in lines if len(line) > 4]
    return ndtr(rng.choice(ratios, size=images))


@dataclass
class Hand:
    """A worker: how slow it is, what it was given and has not answered, whether it works; its lives so far."""

    slowness: float
    waiting: deque[Item] = field(default_factory=deque)
    held: list[Item] = field(default_factory=list)
    busy: bool = False
    dead: bool = False
    life: int = 0


@dataclass
class Supply:
    """The run's queue: blocks of draws that the courses ask for."""

    blocks: Blocks

    def take(self, *, partly: bool) -> Work | None:
        batch = self.blocks.batch(partly=partly)
        return None if batch is None else Work(batch, {})


class Simulation:
    """Events in order of their time: a batch is done, its answer reaches the driver, a worker dies."""

    def __init__(self, options: argparse.Namespace, times: Sequence[float], batch: int) -> None:
        self.rng = np.random.default_rng(options.seed)
        self.times, self.batch, self.pauses = times, batch, options.pauses
        self.chances = chances(options.images, options.log, self.rng)
        rule = RuleSpec.settle("certify", stop=options.stop, alpha=0.001, n=options.n)
        design = rule.design(alpha=0.001, sigma=SIGMA, noise_error=0.0)
        self.tracker = Tracker(design, dict.fromkeys(range(options.images), 0), {})
        most = enough_under_way(batch, options.workers)
        self.blocks = Blocks(range(options.images), self.tracker, {}, batch, most)
        self.desk = Dispatch(Supply(self.blocks), 1)
        slowness = np.exp(self.rng.normal(0.0, 0.1, size=options.workers))
        slowness[: options.slow] *= 3.0
        self.hands = [Hand(float(value)) for value in slowness]
        self.events: list[tuple[float, int, str, int, int, Item | None]] = []
        self.order = itertools.count()
        self.driver_free, self.driver_seconds, self.answers = 0.0, 0.0, 0
        self.useful: list[tuple[float, float]] = []  # when an answer counted, and its seconds of work
        self.took: dict[tuple[int, int], float] = {}
        self.filled = 0

    def run(self, deaths: Sequence[float]) -> None:
        """Until nothing is left; ``deaths`` are the times at which a worker dies (it is back a minute later)."""
        for k, when in enumerate(deaths):
            self._event(when, "dies", len(self.hands) - 1 - k, None)
        self._serve(0.0, None)
        while self.events and (self.desk.busy or self.answers == 0):
            now, _, kind, worker, life, item = heapq.heappop(self.events)
            if life != self.hands[worker].life:
                continue  # of a process that is dead
            if kind == "answer":
                self._answer(now, worker, item)
            elif kind == "done":
                self._done(now, worker, item)
            else:
                self._died_or_back(now, worker, kind)

    def _event(self, when: float, kind: str, worker: int, item: Item | None) -> None:
        heapq.heappush(self.events, (when, next(self.order), kind, worker, self.hands[worker].life, item))

    def _serve(self, now: float, call: Any) -> None:
        """The driver's real work on an answer, and handing out; both take the time they really take."""
        begun = max(now, self.driver_free)
        started = time.process_time()
        if call is not None:
            call(begun)
        given = True
        while given:
            given = False
            for worker in sorted(range(len(self.hands)), key=self.desk.load):
                if not self.hands[worker].dead and (item := self.desk.give(worker, begun)) is not None:
                    self.hands[worker].waiting.append(item)
                    self.hands[worker].held.append(item)
                    self._begin(begun, worker)
                    given = True
        took = time.process_time() - started
        self.driver_seconds += took
        self.driver_free = begun + took

    def _begin(self, now: float, worker: int) -> None:
        hand = self.hands[worker]
        if hand.busy or hand.dead or not hand.waiting:
            return
        hand.busy = True
        item = hand.waiting.popleft()
        seconds = float(self.rng.choice(self.times)) * hand.slowness
        if self.rng.random() < self.pauses:
            seconds *= 10.0
        self.took[item.number, worker] = seconds
        self._event(now + seconds, "done", worker, item)

    def _done(self, now: float, worker: int, item: Item | None) -> None:
        self.hands[worker].busy = False
        self._event(now, "answer", worker, item)
        self._begin(now, worker)

    def _answer(self, now: float, worker: int, item: Item | None) -> None:
        assert item is not None
        self.hands[worker].held.remove(item)
        typical = statistics.fmean(self.times)

        def count(begun: float) -> None:
            self.answers += 1
            if not self.desk.answered(item.number, worker, begun, typical):
                return
            rows = [self._row(part.segment) for part in item.work.batch if part.counted]
            counted = sum(row.draws for row in rows)
            self.filled += self.batch - counted
            self.useful.append((now, self.took[item.number, worker] * counted / self.batch))
            for row in rows:
                self.blocks.finished(row)

        self._serve(now, count)

    def _row(self, segment: Segment) -> TallyRow:
        right = int(self.rng.binomial(segment.draws, self.chances[segment.example]))
        labels = np.repeat([0, 1], [right, segment.draws - right])
        return TallyRow(*segment, Votes.from_labels(labels), 0.0)

    def _died_or_back(self, now: float, worker: int, kind: str) -> None:
        hand = self.hands[worker]
        if kind == "dies":
            hand.dead, hand.busy, hand.life = True, False, hand.life + 1
            self.desk.left(worker, "it was killed")
            hand.waiting.clear()
            hand.held.clear()
            self._event(now + 60.0, "back", worker, None)
        else:
            hand.dead = False
        self._serve(now, None)


def report(simulation: Simulation, options: argparse.Namespace) -> dict[str, Any]:
    """Utilisation: seconds spent on draws that counted, of the seconds that all workers had.

    A slow worker's second is a second, and a pause in a batch that counted is a part of it; lost are waiting,
    rows that were fillers, repeated batches and what dead workers had begun.
    """
    when, work = np.array(simulation.useful).T
    order = np.argsort(when)
    when, done = when[order], np.cumsum(work[order])
    early = int(np.searchsorted(done, 0.98 * done[-1]))
    return {
        "workers": options.workers,
        "images": options.images,
        "stop": options.stop,
        "batch": simulation.batch,
        "median seconds a batch": round(statistics.median(simulation.times), 4),
        "batches": len(when),
        "draws": simulation.tracker.draws,
        "hours": round(float(when[-1]) / 3600, 3),
        "utilisation until the last 2 %": round(float(done[early] / (options.workers * when[early])), 4),
        "utilisation": round(float(done[-1] / (options.workers * when[-1])), 4),
        "rows that were fillers": round(simulation.filled / (len(when) * simulation.batch), 4),
        "repeated batches": simulation.desk.repeated,
        "driver: ms of CPU an answer": round(1e3 * simulation.driver_seconds / max(1, simulation.answers), 3),
        "driver: busy": round(simulation.driver_seconds / float(when[-1]), 4),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--pipeline", choices=[*PIPELINES], default="wrn")
    parser.add_argument("--seconds", type=float, help="of a batch, instead of measuring")
    parser.add_argument("--batch", type=int, help="draws in a batch, with --seconds")
    parser.add_argument("--images", type=int, default=500)
    parser.add_argument("--workers", type=int, default=64)
    parser.add_argument("--stop", default="table:0,0.25,0.5,0.75,1")
    parser.add_argument("--n", type=int)
    parser.add_argument("--slow", type=int, default=2, help="workers that take three times as long")
    parser.add_argument(
        "--pauses", type=float, default=0.005, help="share of batches that take ten times as long"
    )
    parser.add_argument("--deaths", type=int, default=2)
    parser.add_argument("--log", type=Path, help="published TSV log whose radii say how hard images are")
    parser.add_argument("--measure", type=int, default=30, help="batches to time")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    times, batch = (
        ([options.seconds], options.batch or 32)
        if options.seconds
        else measured(options.pipeline, options.measure)
    )
    simulation = Simulation(options, times, batch)
    typical = statistics.fmean(times)
    simulation.run([typical * 200 * (k + 1) for k in range(options.deaths)])
    print(json.dumps(report(simulation, options), indent=1))


if __name__ == "__main__":
    main()
