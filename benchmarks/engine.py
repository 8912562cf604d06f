"""Engine overhead: the share of a run's wall time that is not spent inside the networks, one worker.

Run: python benchmarks/engine.py
Noise, batching, tallies, run file, progress and certificates all count as overhead; medians of several runs.
"""

from __future__ import annotations

import statistics
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
    outputs = smoothed.network.outputs

    def timed(*arguments: Any) -> torch.Tensor:
        nonlocal inside
        started = time.perf_counter()
        answer = outputs(*arguments)
        inside += time.perf_counter() - started
        return answer

    smoothed.network.outputs = timed  # type: ignore[method-assign]
    with tempfile.TemporaryDirectory() as directory:
        rule = RuleSpec(task="certify", alpha=0.001, n0=100, n=n)
        job = prepare(smoothed, data, Path(directory) / "run", rule, workers=1)
        inside, started = 0.0, time.perf_counter()
        job.run(quiet=True)
        total = time.perf_counter() - started
    smoothed.network.outputs = outputs  # type: ignore[method-assign]
    return 1.0 - inside / total, job.plan.draws / total


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
    pixels = np.random.default_rng(0).integers(0, 256, size=(2, 3, 32, 32)).astype(np.uint8)
    data = ArrayDataset(
        pixels, np.zeros(2, dtype=np.int64), levels=255, name="random", classes=tuple("0123456789")
    )
    return sc.SmoothedClassifier(classifier, sigma=0.5, denoiser=denoiser), data, 800


def main() -> None:
    digits = sc.SmoothedClassifier(
        sc.classifiers.load("digits"), sigma=0.5, denoiser=sc.denoisers.load("digits")
    )
    cases = {
        "embedded models, 1x8x8": (digits, sc.datasets.load("digits:test[:6]"), 1_000),
        "1.8 M U-Net, 3x32x32": cifar_size(),
    }
    for name, case in cases.items():
        found = [share_outside_networks(*case) for _ in range(ROUNDS)]
        outside, speed = (statistics.median(column) for column in zip(*found, strict=True))
        print(f"{name}: {outside:.2%} outside the networks, {speed:,.0f} draws/s on one worker")


if __name__ == "__main__":
    main()
