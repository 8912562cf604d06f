"""Small real runs that tests start in processes of their own, in order to kill them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

import smoothcert as sc
from smoothcert.datasets import ArrayDataset
from smoothcert.engine import execute

CLASSES = tuple("abcde")
RULES = {
    "fixed": {"n0": 70, "n": 1_500},
    "table": {"stop": "table:0,0.1,0.2,0.3", "n": 6_000},
    "anytime": {"stop": "anytime", "n0": 70, "n": 1_500},
    "encode": {"n0": 70, "n": 1_500},
}


def images(count: int = 12) -> ArrayDataset:
    pixels = np.random.default_rng(0).integers(0, 256, size=(count, 1, 8, 8)).astype(np.uint8)
    return ArrayDataset(pixels, np.arange(count) % 5, levels=255, name="random images", classes=CLASSES)


def model() -> torch.nn.Sequential:
    torch.manual_seed(0)
    return torch.nn.Sequential(
        torch.nn.Conv2d(1, 8, 3), torch.nn.ReLU(), torch.nn.Flatten(), torch.nn.Linear(8 * 36, len(CLASSES))
    )


def run(directory: Path, *, rule: str = "fixed", commit_seconds: float = 0.01, **options: object) -> None:
    """The run that is killed: about half a second of work on one thread."""
    execute.COMMIT_SECONDS = commit_seconds
    given: dict[str, object] = {"batch": 32, "workers": 2} | RULES[rule] | options
    if rule == "encode":
        encoder = sc.SmoothedEncoder(model()[:3], sigma=0.5)
        sc.encode(encoder, images(), directory, **given)  # type: ignore[arg-type]
        return
    smoothed = sc.SmoothedClassifier(model(), sigma=0.5)
    sc.certify(smoothed, images(), directory, **given)  # type: ignore[arg-type]
