"""Draws a second of Ray workers against threads of one process: the same runs, interleaved, medians of ratios.

Run: python benchmarks/cluster_throughput.py [--pipeline cifar|digits|wrn] [--rounds 5] [--seconds 20]
Counted from the first answers on, when every worker has loaded the models: starting Ray and its processes is
printed apart. Every run is a whole one: noise, networks, tallies, run file. Two processes that know nothing of each
other, each with a run of its own, show what the machine has to give.
"""

from __future__ import annotations

import argparse
import logging
import statistics
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pipelines import PIPELINES

import smoothcert as sc
from smoothcert.classifiers.pretrained import PretrainedClassifier
from smoothcert.datasets import ArrayDataset
from smoothcert.engine import RayCluster, prepare
from smoothcert.engine.execute import Executor, Queue
from smoothcert.engine.job import Job
from smoothcert.engine.local import Threads
from smoothcert.networks.preprocessing import Preprocessing
from smoothcert.networks.resnet import ResNet
from smoothcert.runlog import tally_digest
from smoothcert.runlog.specification import RuleSpec
from smoothcert.runlog.store import TallyRow


class Timed:
    """An executor whose answers are timed."""

    def __init__(self, inner: Executor) -> None:
        self.inner, self.started = inner, 0.0
        self.seen: list[tuple[float, int]] = []

    @property
    def workers(self) -> int:
        return self.inner.workers

    @property
    def together(self) -> int:
        return self.inner.together

    def answers(self, job: Job, queue: Queue) -> Iterator[list[TallyRow]]:
        self.started = time.perf_counter()
        for rows in self.inner.answers(job, queue):
            if rows:
                self.seen.append((time.perf_counter(), sum(row.draws for row in rows)))
            yield rows

    def note(self) -> str:
        return self.inner.note()

    def rate(self) -> float:
        """Draws a second after the first answers and before the last ones, when some workers are done."""
        skip = 4 * self.workers
        middle = self.seen[skip:-skip]
        return sum(draws for _, draws in middle[1:]) / (middle[-1][0] - middle[0][0])


def parts(name: str) -> tuple[Any, Any, Any, int]:
    """Classifier, denoiser, data and batch."""
    if name == "cifar":
        torch.manual_seed(0)
        pixels = np.random.default_rng(0).integers(0, 256, size=(4, 3, 32, 32)).astype(np.uint8)
        data = ArrayDataset(pixels, np.zeros(4, int), levels=255, name="random", classes=tuple("abcdefghij"))
        prepared = Preprocessing((0.5,) * 3, (0.25,) * 3)
        network = ResNet(56).eval().requires_grad_(False)
        classifier = PretrainedClassifier(network, prepared, kind="resnet56", class_count=10)
        return classifier, sc.denoisers.load("cifar10"), data, 32
    pipeline = PIPELINES[name]()
    return pipeline.classifier, pipeline.denoiser, pipeline.data, pipeline.batch


def rule(n: int, batch: int) -> RuleSpec:
    """Fixed numbers of draws."""
    return RuleSpec.settle("certify", stop="fixed", alpha=0.001, n0=batch, n=n)


def run(models: Any, n: int, place: Path, executor: Executor) -> Timed:
    """One whole run, timed."""
    smoothed, data, batch = models
    timed = Timed(executor)
    job = prepare(smoothed, data, place, rule(n, batch), batch=batch, executor=timed)
    job.run(quiet=True)
    return timed


def smoothed_model(name: str) -> tuple[Any, Any, int]:
    """The smoothed classifier, its data and the batch of a pipeline."""
    classifier, denoiser, data, batch = parts(name)
    return sc.SmoothedClassifier(classifier, 0.25, denoiser=denoiser), data, batch


_models: dict[str, Any] = {}


def alone(name: str, n: int, place: Path) -> tuple[float, str]:
    """The rate of a run in this process, and its votes; models are kept from call to call."""
    if name not in _models:
        _models[name] = smoothed_model(name)
    rate = run(_models[name], n, place, Threads(1)).rate()
    return rate, tally_digest(sc.open_run(place))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("--pipeline", choices=["cifar", *PIPELINES], default="cifar")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=15.0, help="of one run")
    options = parser.parse_args()
    logging.getLogger("smoothcert").setLevel(logging.ERROR)
    smoothed, data, batch = models = smoothed_model(options.pipeline)
    folder = Path(tempfile.mkdtemp())
    trial = prepare(smoothed, data, folder / "trial", rule(batch, batch), batch=batch, workers=1)
    speed = trial.estimate().draws_per_second
    n = max(24, round(speed * options.seconds / batch / len(data))) * batch
    started = time.perf_counter()
    RayCluster(workers=1).settled(trial.specification.execution)
    print(f"Ray started in {time.perf_counter() - started:.1f} s; {n:,} draws an image, batches of {batch}")
    modes: dict[str, Any] = {
        "1 thread": Threads(1),
        "1 Ray worker": RayCluster(workers=1),
        "2 threads": Threads(2),
        "2 Ray workers": RayCluster(workers=2),
        "2 processes apart": None,
    }
    pool = ProcessPoolExecutor(2, mp_context=get_context("spawn"))
    list(pool.map(alone, [options.pipeline] * 2, [24 * batch] * 2, [folder / "a", folder / "b"]))
    rates: dict[str, list[float]] = {name: [] for name in modes}
    begun: list[float] = []
    digests = set()
    for turn in range(options.rounds):
        for name, mode in modes.items():
            places = [folder / f"{name}-{turn}-{k}" for k in range(2)]
            if mode is None:
                found = list(pool.map(alone, [options.pipeline] * 2, [n // 2 // batch * batch] * 2, places))
                rates[name].append(sum(rate for rate, _ in found))
                assert len({digest for _, digest in found}) == 1
                continue
            settled = mode.settled(trial.specification.execution) if isinstance(mode, RayCluster) else mode
            timed = run(models, n, places[0], settled)
            rates[name].append(timed.rate())
            digests.add(tally_digest(sc.open_run(places[0])))
            if isinstance(mode, RayCluster):
                begun.append(timed.seen[0][0] - timed.started)
    pool.shutdown()
    assert len(digests) == 1, "all runs have the same votes"
    print(f"first answer of Ray workers after {statistics.median(begun):.1f} s\n")
    print("| | draws/s | against 1 thread | against 1 Ray worker |\n|---|---|---|---|")
    for name, seen in rates.items():
        ratios = [
            statistics.median(a / b for a, b in zip(seen, rates[other], strict=True))
            for other in ("1 thread", "1 Ray worker")
        ]
        print(f"| {name} | {statistics.median(seen):,.0f} | {ratios[0]:.3f} | {ratios[1]:.3f} |")


if __name__ == "__main__":
    main()
