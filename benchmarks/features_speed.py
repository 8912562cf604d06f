"""What certified features cost beside the networks: curves of bounds, plans, counting draws.

python benchmarks/features_speed.py

Medians of several rounds, interleaved; microseconds and milliseconds of CPU time.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable

import numpy as np

from smoothcert.certificates import cosine
from smoothcert.certificates.encoding_plan import Numbers, Plan

DIMENSION, CLASSES, ROUNDS = 64, 10, 7


def main() -> None:
    """Time everything and print it."""
    rng = np.random.default_rng(0)

    def drawn(count: int) -> np.ndarray:
        rows = np.eye(DIMENSION)[0] + 0.3 * rng.normal(size=(count, DIMENSION)) / np.sqrt(
            1 + np.arange(DIMENSION)
        )
        return np.asarray(rows / np.linalg.norm(rows, axis=1, keepdims=True))

    prototypes = rng.normal(size=(CLASSES, DIMENSION))
    prototypes[0, 0] += 3.0
    prototypes /= np.linalg.norm(prototypes, axis=1, keepdims=True)
    pilot, some, many = drawn(100), drawn(16), drawn(256)
    numbers = Numbers(1_000, 1e-3, prototypes, "auto")
    plan = Plan.make(np.eye(DIMENSION)[0], pilot, numbers)
    m, ratios = rng.uniform(0.5, 0.99, size=(1_000, 1)), np.linspace(0.0, 3.0, 100)
    jobs: dict[str, tuple[Callable[[], object], float, str]] = {
        "100 radii for 1,000 images": (lambda: cosine.best(m, 0.2 * (1 - m**2), ratios), 1.0, "s"),
        "plan of an image, head of 10": (lambda: Plan.make(np.eye(DIMENSION)[0], pilot, numbers), 1e-3, "ms"),
        "counting a draw, 16 at a time": (lambda: plan.scores(some, None), 16e-6, "us"),
        "counting a draw, 256 at a time": (lambda: plan.scores(many, None), 256e-6, "us"),
    }
    took: dict[str, list[float]] = {name: [] for name in jobs}
    for job, _, _ in jobs.values():
        job()
    for _ in range(ROUNDS):
        for name, (job, unit, _) in jobs.items():
            started = time.process_time()
            job()
            took[name].append((time.process_time() - started) / unit)
    for name, (_, _, word) in jobs.items():
        print(f"{name}: {statistics.median(took[name]):.2f} {word}")


if __name__ == "__main__":
    main()
