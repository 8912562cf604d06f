"""What exact noise costs: microseconds a draw, and its share of the smallest network that ships.

Run: python benchmarks/noise.py
The noise and the network are timed in turn, in one process on one thread; medians are printed.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

import numpy as np
import torch

import smoothcert as sc
from smoothcert.smoothing.network import default_batch
from smoothcert.smoothing.noise import make_noise
from smoothcert.smoothing.streams import Segment

ROUNDS = 31


def interleaved(**calls: Callable[[], object]) -> dict[str, float]:
    """Median seconds of each call, taken in turn."""
    took: dict[str, list[float]] = {name: [] for name in calls}
    for call in calls.values():
        call()
    for _ in range(ROUNDS):
        for name, call in calls.items():
            started = time.perf_counter()
            call()
            took[name].append(time.perf_counter() - started)
    return {name: statistics.median(times) for name, times in took.items()}


def noise_call(
    kind: str, sigma: float, levels: int, shape: tuple[int, int, int], draws: int
) -> Callable[[], object]:
    noise = make_noise(kind, sigma, levels)
    image = noise.prepare(np.full(shape, levels // 2, dtype=np.uint8))
    return lambda: noise.noisy(image, 0, Segment(0, "check", 0, draws))


def main() -> None:
    torch.set_num_threads(1)
    print(
        f"{'image':>12} {'sigma':>6} {'grid us/draw':>13} {'float us/draw':>14} {'torch.randn us/draw':>20}"
    )
    for shape, levels in (((1, 8, 8), 16), ((3, 32, 32), 255), ((3, 224, 224), 255)):
        draws = default_batch(shape)
        for sigma in (0.25, 1.0):
            found = interleaved(
                grid=noise_call("grid", sigma, levels, shape, draws),
                float=noise_call("float", sigma, levels, shape, draws),
                randn=lambda shape=shape, draws=draws: torch.randn(draws, *shape),
            )
            each = {name: 1e6 * seconds / draws for name, seconds in found.items()}
            size = "x".join(map(str, shape))
            print(
                f"{size:>12} {sigma:>6g} {each['grid']:>13.2f} {each['float']:>14.2f} {each['randn']:>20.2f}"
            )
    classifier, denoiser = sc.classifiers.load("digits"), sc.denoisers.load("digits")
    images = torch.rand(256, 1, 8, 8)
    with torch.inference_mode():
        found = interleaved(
            noise=noise_call("grid", 1.0, 16, (1, 8, 8), 256),
            classifier=lambda: classifier(images),
            both=lambda: classifier(denoiser(images, 0.5)),
        )
    print(f"\nembedded models at 1x8x8, batch 256: noise {1e6 * found['noise'] / 256:.2f} us a draw,")
    print(
        f"  {found['noise'] / found['classifier']:.1%} of the classifier alone (the smallest network that ships),"
    )
    print(f"  {found['noise'] / found['both']:.2%} of denoiser and classifier")


if __name__ == "__main__":
    main()
