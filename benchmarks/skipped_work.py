"""What is no longer done, or done for less, at the same answers: microseconds before and after.

Run: python benchmarks/skipped_work.py
The check for finite numbers and the look-up of a noise level in the schedule are timed in turn in one process on
one thread; memory that the C library keeps is timed as draws a second of whole runs, in processes in turn.
Medians are printed.
"""

from __future__ import annotations

import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch

import smoothcert as sc
from smoothcert.denoisers import DiffusionDenoiser
from smoothcert.engine import prepare
from smoothcert.runlog.specification import RuleSpec
from smoothcert.smoothing import network
from smoothcert.smoothing.finite import finite_rows

ROUNDS = 5


def interleaved(calls: dict[str, Callable[[], object]], repeats: int = 200) -> dict[str, float]:
    """Median microseconds of each call, taken in turn."""
    took: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(repeats):
        for name, call in calls.items():
            started = time.perf_counter()
            call()
            took[name].append(1e6 * (time.perf_counter() - started))
    return {name: statistics.median(times) for name, times in took.items()}


def asked_of_every_number(values: torch.Tensor) -> torch.Tensor:
    return torch.isfinite(values).flatten(1).all(dim=1)


def arithmetic() -> None:
    torch.set_num_threads(1)
    print("| once a batch | before | now |")
    print("|---|---|---|")
    with torch.inference_mode():
        for shape in ((256, 1, 8, 8), (32, 3, 32, 32), (16, 3, 224, 224)):
            values = torch.rand(shape)
            found = interleaved(
                {
                    "before": lambda values=values: asked_of_every_number(values),
                    "now": lambda values=values: finite_rows(values),
                }
            )
            size = " x ".join(map(str, shape))
            print(f"| is {size} finite? | {found['before']:.1f} us | {found['now']:.1f} us |")
        denoiser = sc.denoisers.load("digits")
        assert isinstance(denoiser, DiffusionDenoiser)
        schedule = denoiser.schedule
        found = interleaved(
            {
                "before": lambda: schedule.condition(schedule.time_of(1.0)),
                "now": lambda: denoiser._condition(1.0),
            }
        )
        print(f"| the time of a noise level | {found['before']:.1f} us | {found['now']:.1f} us |\n")


def draws_a_second(kept: bool, workers: int) -> float:
    """Of a run of the embedded models, in this process."""
    if not kept:
        network.keep_freed_memory = lambda: False  # type: ignore[assignment]
    smoothed = sc.SmoothedClassifier(
        sc.classifiers.load("digits"), sigma=0.5, denoiser=sc.denoisers.load("digits")
    )
    data, n = sc.datasets.load("digits:test[:6]"), 5_000
    rule = RuleSpec(task="certify", alpha=0.001, n0=100, n=n, stop="fixed")
    with tempfile.TemporaryDirectory() as directory:
        job = prepare(smoothed, data, Path(directory) / "run", rule, workers=workers)
        started = time.perf_counter()
        job.run(quiet=True)
        return len(data) * (n + 100) / (time.perf_counter() - started)


def allocator() -> None:
    print("| whole runs of the embedded models | memory given back | memory kept | ratio |")
    print("|---|---|---|---|")
    for workers in (1, 2):
        speeds: dict[bool, list[float]] = {False: [], True: []}
        for _ in range(ROUNDS):
            for kept in (False, True):
                command = [sys.executable, __file__, str(int(kept)), str(workers)]
                done = subprocess.run(command, capture_output=True, text=True, check=True)
                speeds[kept].append(float(done.stdout))
        before, now = (statistics.median(speeds[kept]) for kept in (False, True))
        print(f"| {workers} workers | {before:,.0f}/s | {now:,.0f}/s | {now / before:.2f} |", flush=True)


if __name__ == "__main__":
    if len(sys.argv) == 3:
        print(draws_a_second(sys.argv[1] == "1", int(sys.argv[2])))
    else:
        arithmetic()
        allocator()
