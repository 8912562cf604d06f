"""Small real runs that tests start in processes of their own, or in a cluster, in order to disturb them."""

from __future__ import annotations

import dataclasses
import os
import signal
import time
from pathlib import Path
from typing import Any

import numpy as np
import torch

import smoothcert as sc
from smoothcert.datasets import ArrayDataset
from smoothcert.engine import RayCluster, execute, specify
from smoothcert.engine.execute import Executor
from smoothcert.errors import CheckpointError
from smoothcert.protocols import Example
from smoothcert.runlog.results import Results

CLASSES = tuple("abcde")
RULES = {
    "fixed": {"n0": 70, "n": 1_500},
    "table": {"stop": "table:0,0.1,0.2,0.3", "n": 6_000},
    "anytime": {"stop": "anytime", "n0": 70, "n": 1_500},
    "encode": {"n0": 70, "n": 1_500},
}


def images(count: int = 12, *, white: int | None = None) -> ArrayDataset:
    """Random images; the one at ``white`` any model can tell from the others through the noise."""
    pixels = np.random.default_rng(0).integers(0, 256, size=(count, 1, 8, 8)).astype(np.uint8)
    if white is not None:
        pixels[white] = 255
    return ArrayDataset(pixels, np.arange(count) % 5, levels=255, name="random images", classes=CLASSES)


def model() -> torch.nn.Sequential:
    torch.manual_seed(0)
    return torch.nn.Sequential(
        torch.nn.Conv2d(1, 8, 3), torch.nn.ReLU(), torch.nn.Flatten(), torch.nn.Linear(8 * 36, len(CLASSES))
    )


class Slow(torch.nn.Module):
    """A model that takes its time, so that a fault can meet it at work, whatever the machine."""

    def __init__(self, inner: torch.nn.Module, seconds: float = 0.004) -> None:
        super().__init__()
        self.inner, self.seconds = inner, seconds

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        time.sleep(self.seconds)
        answers: torch.Tensor = self.inner(images)
        return answers


class Deadly(torch.nn.Module):
    """A model that kills the process it is in over white images, as long as ``trap`` is there.

    Not the process that made it: there it answers, as memory may suffice on one machine and not on another.
    """

    def __init__(self, inner: torch.nn.Module, trap: Path) -> None:
        super().__init__()
        self.inner, self.trap, self.home = inner, trap, os.getpid()

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        white = bool((images.mean(dim=(1, 2, 3)) > 0.8).any())
        if white and os.getpid() != self.home and self.trap.exists():
            os.kill(os.getpid(), signal.SIGKILL)
        answers: torch.Tensor = self.inner(images)
        return answers


class Confused(Deadly):
    """A model that fails over white images anywhere but at home: an answer without classes, or a bug."""

    def __init__(self, inner: torch.nn.Module, trap: Path, *, bug: bool = False) -> None:
        super().__init__(inner, trap)
        self.bug = bug

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        answers: torch.Tensor = self.inner(images)
        white = bool((images.mean(dim=(1, 2, 3)) > 0.8).any())
        if not white or os.getpid() == self.home or not self.trap.exists():
            return answers
        if self.bug:
            raise ZeroDivisionError("a model with a bug")
        return answers[:, :1]


class Choosy(torch.nn.Module):
    """A model that answers otherwise where torch rounds otherwise than its author chose."""

    def __init__(self, inner: torch.nn.Module) -> None:
        super().__init__()
        self.inner = inner

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        answers: torch.Tensor = self.inner(images)
        return answers if torch.get_float32_matmul_precision() == "high" else -answers


class OtherElsewhere(ArrayDataset):
    """A data set of which another node has another version: one pixel of image 5 differs."""

    home: int

    def __getitem__(self, position: int) -> Example:
        found = super().__getitem__(position)
        if position != 5 or os.getpid() == self.home:
            return found
        pixels = np.array(found.image)
        pixels[0, 0, 0] ^= 1
        return dataclasses.replace(found, image=pixels)


def load_other_weights() -> sc.SmoothedClassifier:
    other = model()
    with torch.no_grad():
        other[0].weight += 1.0  # type: ignore[operator]
    return sc.SmoothedClassifier(Slow(other), sigma=0.5)


def load_missing() -> sc.SmoothedClassifier:
    raise CheckpointError("weights.pt", "is not there", "Copy it to this node")


def load_broken() -> sc.SmoothedClassifier:
    raise ZeroDivisionError("a loader with a bug")


def load_another_version() -> sc.SmoothedClassifier:
    """Other weights, on a node with another torch."""
    here = specify._version
    specify._version = lambda name: "0.1" if name == "torch" else here(name)
    return load_other_weights()


def load() -> sc.SmoothedClassifier:
    return sc.SmoothedClassifier(Slow(model(), 0.02), sigma=0.5)


def load_choosy() -> sc.SmoothedClassifier:
    return sc.SmoothedClassifier(Choosy(model()), sigma=0.5)


def load_that_rounds_otherwise() -> sc.SmoothedClassifier:
    torch.set_float32_matmul_precision("high")
    return load_choosy()


def loaded_in_turn(place: Path) -> sc.SmoothedClassifier:
    """Each process that asks gets another model; all but the first two the right one."""
    for turn in (load_another_version, load_missing):
        try:
            (place / turn.__name__).touch(exist_ok=False)
        except FileExistsError:
            continue
        return turn()
    return load()


def run(
    directory: Path,
    *,
    rule: str = "fixed",
    commit_seconds: float = 0.01,
    slow: float = 0.0,
    address: str | None = None,
    executor: Executor | RayCluster | str = "local",
    workers: int = 2,
    data: ArrayDataset | None = None,
    classifier: torch.nn.Module | None = None,
    **more: Any,
) -> Results:
    """The run that is disturbed: about half a second of work on one thread.

    ``address`` is of a cluster that evaluates it, ``"local"`` for one that it starts itself.
    """
    execute.COMMIT_SECONDS = commit_seconds
    if address is not None:
        executor = RayCluster(address=None if address == "local" else address)
    data = images() if data is None else data
    options = {"batch": 32, "workers": workers, "executor": executor, **RULES[rule], **more}
    if rule == "encode":
        parts = model()[:3]
        encoder = sc.SmoothedEncoder(Slow(parts, slow) if slow else parts, sigma=0.5)
        return sc.encode(encoder, data, directory, **options)
    whole = classifier or model()
    smoothed = sc.SmoothedClassifier(Slow(whole, slow) if slow else whole, sigma=0.5)
    return sc.certify(smoothed, data, directory, **options)
