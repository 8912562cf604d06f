"""Candidates side by side on the same draws: seconds, denoised pixels and votes of each, round about."""

from __future__ import annotations

import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from smoothcert.classifiers.labels import match
from smoothcert.protocols import Dataset
from smoothcert.smoothing.network import Network
from smoothcert.smoothing.noise import NamedDraws, make_noise
from smoothcert.smoothing.streams import Segment

_FIRST_DRAW = 2 * 10**6  # of the stage "check": behind the model check's and the cost estimate's
_ROUNDS = 2  # at least, of every comparison
_SEED = 0

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Setting:
    """What is tuned and how its network calls are made; as for ``certify``."""

    classifier: Any
    denoiser: Any | None
    data: Dataset
    sigma: float
    noise: str
    device: str
    batch: int
    threads: int
    workers: int


@dataclass(frozen=True)
class Measured:
    """One candidate beside the network as it was loaded, on the same draws.

    Attributes:
        role: ``denoiser``, ``classifier`` or ``both``. backend: its name, or the two names.
        draws_per_second: of this part alone, all workers together. speed_up: over the part as loaded.
        rmse: root mean square difference of the denoised pixels, on [0, 1]; ``None`` for a classifier.
        votes: share of single draws that get the same label. accuracy: share that get the right one.
        draws: how many were compared.
    """

    role: str
    backend: str
    draws_per_second: float
    speed_up: float
    rmse: float | None
    votes: float
    accuracy: float
    draws: int


def compared(
    setting: Setting,
    pool: ThreadPoolExecutor,
    role: str,
    pairs: Mapping[str, tuple[Any, Any | None]],
    seconds: float,
) -> list[Measured]:
    """Every candidate on the same draws, round about; the first of ``pairs`` is the reference."""
    asked = {name: Asked(setting, role, *pair) for name, pair in pairs.items()}
    answers: dict[str, list[Answer]] = {name: [] for name in asked}
    labels: list[Array] = []
    draws, started = rounds(setting), 0.0
    for round_number, (noisy, named, right) in enumerate(draws):
        if round_number == 1:
            started = time.perf_counter()  # the round before has warmed everything up
        reference = next(iter(asked.values())).denoised(pool, noisy, named) if role == "classifier" else noisy
        for name, one in asked.items():
            answers[name].append(one.answers(pool, reference, named))
        labels.append(right)
        if round_number >= _ROUNDS and time.perf_counter() - started > seconds:
            break
    base = next(iter(answers.values()))
    truth = np.concatenate(labels)
    return [_measured(role, name, found, base, truth) for name, found in answers.items()]


@dataclass(frozen=True)
class Answer:
    """What one round gave: seconds, denoised pixels where they are compared, and votes."""

    seconds: float
    pixels: Array | None
    votes: Array


class Asked:
    """A pair of parts, of which ``role`` is timed; the other is needed for the votes."""

    def __init__(self, setting: Setting, role: str, classifier: Any, denoiser: Any | None) -> None:
        self.setting, self.role = setting, role
        self.network = Network(classifier, denoiser, setting.sigma, setting.device)
        self.labelling = Network(classifier, None, setting.sigma, setting.device)
        self.order = match(setting.classifier, setting.data.classes, setting.data.name)

    def answers(self, pool: ThreadPoolExecutor, shown: Array, named: Sequence[Segment]) -> Answer:
        """Time the role on noisy images, or on denoised ones for a classifier."""
        started = time.perf_counter()
        if self.role == "denoiser":
            pixels = self.denoised(pool, shown, named)
            seconds = time.perf_counter() - started
            return Answer(seconds, pixels, self._votes(pool, self.labelling, pixels, named))
        network = self.network if self.role == "both" else self.labelling
        votes = self._votes(pool, network, shown, named)
        return Answer(time.perf_counter() - started, None, votes)

    def denoised(self, pool: ThreadPoolExecutor, noisy: Array, named: Sequence[Segment]) -> Array:
        """The denoised images, a batch a worker."""

        def one(rows: slice) -> Array:
            images = torch.from_numpy(noisy[rows]).to(self.setting.device)
            with torch.inference_mode():
                clean = self.network.denoised(images, self._draws(noisy[rows], named[rows]))
            found: Array = clean.cpu().numpy()
            return found

        return np.concatenate(list(pool.map(one, self._batches(noisy))))

    def _votes(
        self, pool: ThreadPoolExecutor, network: Network, images: Array, named: Sequence[Segment]
    ) -> Array:
        def one(rows: slice) -> Array:
            draws = self._draws(images[rows], named[rows]) if network.denoiser is not None else None
            return network.labels(images[rows], draws)

        found = np.concatenate(list(pool.map(one, self._batches(images))))
        return found if self.order is None else np.where(found >= 0, np.argsort(self.order)[found], found)

    def _draws(self, images: Array, named: Sequence[Segment]) -> NamedDraws | None:
        if not self.network.stochastic:
            return None
        return NamedDraws(_SEED, named, images.shape[1:], len(images))

    def _batches(self, images: Array) -> list[slice]:
        size = self.setting.batch
        return [slice(first, first + size) for first in range(0, len(images), size)]


def rounds(setting: Setting) -> Iterator[tuple[Array, list[Segment], Array]]:
    """Rounds of noisy images, a batch a worker, with the names of their draws and their labels."""
    data, drawn = setting.data, make_noise(setting.noise, setting.sigma, setting.data.levels)
    count, step = setting.batch * setting.workers, 0
    while True:
        places = range(step * count, (step + 1) * count)
        examples = [data[place % len(data)] for place in places]
        named = [
            Segment(one.index, "check", _FIRST_DRAW + place // len(data), 1)
            for one, place in zip(examples, places, strict=True)
        ]
        noisy = [
            drawn.noisy(drawn.prepare(one.image), _SEED, name)
            for one, name in zip(examples, named, strict=True)
        ]
        yield np.concatenate(noisy), named, np.array([one.label for one in examples])
        step += 1


def _measured(
    role: str, name: str, found: Sequence[Answer], base: Sequence[Answer], truth: Array
) -> Measured:
    """The first round is left out of the times, not out of the answers."""
    seconds, usual = (float(np.median([one.seconds for one in rounds[1:]])) for rounds in (found, base))
    votes, wanted = (np.concatenate([one.votes for one in rounds]) for rounds in (found, base))
    squares = [
        float(((mine.pixels - theirs.pixels) ** 2).mean())
        for mine, theirs in zip(found, base, strict=True)
        if mine.pixels is not None and theirs.pixels is not None
    ]
    return Measured(
        role,
        name,
        draws_per_second=len(found[0].votes) / seconds,
        speed_up=usual / seconds,
        rmse=float(np.sqrt(np.mean(squares))) if squares else None,
        votes=float((votes == wanted).mean()),
        accuracy=float((votes == truth).mean()),
        draws=len(votes),
    )
