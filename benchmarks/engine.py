"""Engine overhead, and memory: both should not depend on how much there is to do.

Run: python benchmarks/engine.py [--quick] [overhead] [memory]
Overhead is the share of a run's wall time that is not spent inside the networks, on one worker: noise,
batching, tallies, run file, progress and certificates; medians of several runs. Memory is the largest resident
size of a whole process that makes one run, at n draws an image, at 10 n, and with 10 times as many images.
"""

from __future__ import annotations

import argparse
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

import smoothcert as sc
from smoothcert.datasets import ArrayDataset
from smoothcert.denoisers import DiffusionDenoiser
from smoothcert.diffusion.schedule import beta_schedule
from smoothcert.engine import prepare
from smoothcert.protocols import Dataset
from smoothcert.runlog.specification import RuleSpec

ROUNDS = 3


def share_outside_networks(smoothed: sc.SmoothedClassifier, data: Dataset, n: int) -> tuple[float, float]:
    """(share of wall time outside the networks, draws a second) of one run."""
    inside = 0.0
    labels = smoothed.network.labels

    def timed(*arguments: Any) -> Any:
        nonlocal inside
        started = time.perf_counter()
        answer = labels(*arguments)
        inside += time.perf_counter() - started
        return answer

    smoothed.network.labels = timed  # type: ignore[method-assign]
    with tempfile.TemporaryDirectory() as directory:
        job = prepare(smoothed, data, Path(directory) / "run", rule(n), workers=1)
        inside, started = 0.0, time.perf_counter()
        job.run(quiet=True)
        total = time.perf_counter() - started
    smoothed.network.labels = labels  # type: ignore[method-assign]
    return 1.0 - inside / total, len(data) * (100 + n) / total


def rule(n: int) -> RuleSpec:
    return RuleSpec(task="certify", alpha=0.001, n0=100, n=n, stop="fixed")


def digits() -> sc.SmoothedClassifier:
    return sc.SmoothedClassifier(
        sc.classifiers.load("digits"), sigma=0.5, denoiser=sc.denoisers.load("digits")
    )


def cifar_size() -> tuple[sc.SmoothedClassifier, Dataset, int]:
    """A 1.8 M parameter U-Net and a small convolutional classifier at 3x32x32, random weights."""
    from diffusers import UNet2DModel

    torch.manual_seed(0)
    network = UNet2DModel(
        sample_size=32,
        in_channels=3,
        out_channels=3,
        layers_per_block=1,
        block_out_channels=(32, 64, 64),
        down_block_types=("DownBlock2D",) * 3,
        up_block_types=("UpBlock2D",) * 3,
        norm_num_groups=8,
    )
    classifier = torch.nn.Sequential(
        torch.nn.Conv2d(3, 32, 3, stride=2),
        torch.nn.ReLU(),
        torch.nn.AdaptiveAvgPool2d(1),
        torch.nn.Flatten(),
        torch.nn.Linear(32, 10),
    )
    denoiser = DiffusionDenoiser(network.eval(), beta_schedule("linear", 1000))
    return sc.SmoothedClassifier(classifier, sigma=0.5, denoiser=denoiser), random_images(2), 800


def random_images(count: int) -> Dataset:
    pixels = np.random.default_rng(0).integers(0, 256, size=(count, 3, 32, 32)).astype(np.uint8)
    return ArrayDataset(
        pixels, np.zeros(count, dtype=np.int64), levels=255, name="random", classes=tuple("0123456789")
    )


def linear() -> sc.SmoothedClassifier:
    """So small a network at 3x32x32 that what the engine itself keeps would show."""
    torch.manual_seed(0)
    layers = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(3072, 10))
    return sc.SmoothedClassifier(layers, sigma=0.5)


def one_run(case: str, images: int, n: int) -> None:
    """One run in this process; prints its largest resident size in MB."""
    small = case == "digits"
    data = sc.datasets.load(f"digits:test[:{images}]") if small else random_images(images)
    with tempfile.TemporaryDirectory() as directory:
        prepare(digits() if small else linear(), data, Path(directory) / "run", rule(n)).run(quiet=True)
    print(largest_resident_size())


def largest_resident_size() -> float:
    """Of this process in MB. ``ru_maxrss`` would also count the process that started it, so it comes second."""
    status = Path("/proc/self/status")
    if status.exists():
        line = next(line for line in status.read_text().splitlines() if line.startswith("VmHWM:"))
        return int(line.split()[1]) / 1024
    unit = 2**20 if sys.platform == "darwin" else 2**10
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / unit


def peak(case: str, images: int, n: int) -> float:
    """The same in a process of its own."""
    command = [sys.executable, __file__, "--one-run", case, str(images), str(n)]
    return float(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


def memory(quick: bool) -> None:
    print("| models | images | n | largest resident size | at 10 n | at 10 times the images |")
    print("|---|---|---|---|---|---|")
    for case, name, images, n in (
        ("digits", "embedded, 1x8x8", 4, 200 if quick else 1_000),
        ("linear", "a linear classifier at 3x32x32", 10, 200 if quick else 2_000),
    ):
        sizes = [peak(case, *at) for at in ((images, n), (images, 10 * n), (10 * images, n))]
        shown = " | ".join(f"{size:.0f} MB" for size in sizes)
        print(f"| {name} | {images} | {n:,} | {shown} |", flush=True)


def overhead(quick: bool) -> None:
    print("| models | outside the networks | draws a second |")
    print("|---|---|---|")
    for name, case in {
        "embedded, 1x8x8": (digits(), sc.datasets.load("digits:test[:20]"), 200 if quick else 5_000),
        "a 1.8 M-parameter U-Net at 3x32x32": cifar_size(),
    }.items():
        found = [share_outside_networks(*case) for _ in range(1 if quick else ROUNDS)]
        outside, speed = (statistics.median(column) for column in zip(*found, strict=True))
        print(f"| {name} | {outside:.2%} | {speed:,.0f} |", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("what", nargs="*", help="overhead, memory, or both")
    parser.add_argument("--quick", action="store_true", help="one short round: does everything run?")
    parser.add_argument("--one-run", nargs=3, metavar=("CASE", "IMAGES", "N"), help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.one_run:
        case, images, n = options.one_run
        return one_run(case, int(images), int(n))
    for name, measure in (("overhead", overhead), ("memory", memory)):
        if not options.what or name in options.what:
            measure(options.quick)
            print()


if __name__ == "__main__":
    main()
