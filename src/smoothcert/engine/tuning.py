"""Which backend runs each network fastest here, and what that changes: timed on real draws, side by side.

The draws come from a stream that no certificate uses, so choosing by them costs no confidence. What is chosen
is another base classifier, and its certificates are about that one.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from smoothcert import backends
from smoothcert.classifiers.labels import match
from smoothcert.errors import InvalidInput, SmoothcertError
from smoothcert.protocols import Dataset
from smoothcert.smoothing.calibration import calibration
from smoothcert.smoothing.network import Network, intra_op_threads
from smoothcert.smoothing.noise import NamedDraws, make_noise
from smoothcert.smoothing.streams import Segment

CPU = ("torch:f32+onednn", "torch:bf16", "openvino:f32", "openvino:bf16", "openvino:int8", "onnxruntime:int8")
ACCELERATOR = ("torch:bf16", "torch:f16")
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


@dataclass(frozen=True)
class Tuned:
    """The outcome: candidates one by one, those that cannot run here and why, and the pair confirmed."""

    candidates: tuple[Measured, ...]
    refused: Mapping[str, str]
    chosen: Measured
    denoiser_backend: str
    classifier_backend: str

    @property
    def denoised(self) -> bool:
        """Whether there is a denoiser."""
        return any(one.role == "denoiser" for one in self.candidates)


def tune(
    setting: Setting,
    names: Sequence[str],
    *,
    seconds: float,
    agreement: float,
    report: Callable[[str], None] = lambda text: None,
) -> Tuned:
    """Time candidates for each part, choose the fastest pair that votes alike, and confirm it end to end.

    Args:
        names: backends to try beside ``torch``.
        seconds: for all timing together; conversions come on top.
        agreement: least share of draws on which the choice must vote as the networks as they were loaded.
        report: hears what is being done.
    """
    if not 0 < agreement <= 1 or not seconds > 0:
        given = f"seconds={seconds:g}, agreement={agreement:g}"
        raise InvalidInput(given, "no such time or share", "Write for example --seconds 30 --agreement 0.99")
    for name in names:
        backends.parse(name)
    roles = ["denoiser", "classifier"] if setting.denoiser is not None else ["classifier"]
    refused: dict[str, str] = {}
    parts = {role: _converted(setting, role, names, refused, report) for role in roles}
    measured: list[Measured] = []
    with intra_op_threads(setting.threads), ThreadPoolExecutor(setting.workers) as pool:
        share = seconds / (len(roles) + 1)
        for role in roles:
            report(f"timing the {role}")
            measured += _compared(setting, pool, role, _pairs(setting, role, parts[role]), share)
        chosen, found = _confirmed(setting, pool, parts, measured, agreement, share, report)
    return Tuned(
        tuple(measured), refused, found, chosen.get("denoiser", backends.PLAIN), chosen["classifier"]
    )


def _converted(
    setting: Setting,
    role: str,
    names: Sequence[str],
    refused: dict[str, str],
    report: Callable[[str], None],
) -> dict[str, Any]:
    """The part in every backend that can run it here."""
    part: Any = setting.denoiser if role == "denoiser" else setting.classifier
    found = {backends.PLAIN: part}
    for name in names:
        if name == backends.PLAIN:
            continue
        report(f"converting the {role} to {name}")
        typical = calibration(
            setting.data,
            setting.sigma,
            noise=setting.noise,
            denoiser=setting.denoiser if role == "classifier" else None,
            batch=setting.batch,
            threads=setting.threads,
        )
        try:
            converted = backends.convert(
                part,
                name,
                sigma=setting.sigma if role == "denoiser" else None,
                shape=setting.data.shape,
                batch=setting.batch,
                calibration=typical,
            )
            _try(setting, role, converted)
            found[name] = converted
        except SmoothcertError as error:
            refused[f"{role} {name}"] = f"{error.why}. {error.instead}"
    return found


def _try(setting: Setting, role: str, part: Any) -> None:
    """One batch, for what only shows when it runs: numbers that the device lacks, a missing compiler."""
    pair = (setting.classifier, part) if role == "denoiser" else (part, None)
    noisy, named, _ = next(_draws(setting))
    asked = _Asked(setting, "both", *pair)
    try:
        with ThreadPoolExecutor(1) as pool:
            asked.answers(pool, noisy[: setting.batch], named[: setting.batch])
    except SmoothcertError:
        raise
    except Exception as error:  # whatever it is, the library raised it
        first = (str(error).strip().splitlines() or ["no message"])[0]
        why = f"it failed on a batch ({type(error).__name__}: {first[:160]})"
        raise InvalidInput(role, why, "Leave it out with --backends") from error


def _pairs(setting: Setting, role: str, parts: Mapping[str, Any]) -> dict[str, tuple[Any, Any | None]]:
    """Each candidate with the other part as it was loaded."""
    if role == "denoiser":
        return {name: (setting.classifier, part) for name, part in parts.items()}
    return {name: (part, setting.denoiser) for name, part in parts.items()}


def _compared(
    setting: Setting,
    pool: ThreadPoolExecutor,
    role: str,
    pairs: Mapping[str, tuple[Any, Any | None]],
    seconds: float,
) -> list[Measured]:
    """Every candidate on the same draws, round about; the first of ``pairs`` is the reference."""
    asked = {name: _Asked(setting, role, *pair) for name, pair in pairs.items()}
    answers: dict[str, list[_Answer]] = {name: [] for name in asked}
    labels: list[Array] = []
    draws, started = _draws(setting), 0.0
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


def _confirmed(
    setting: Setting,
    pool: ThreadPoolExecutor,
    parts: Mapping[str, Mapping[str, Any]],
    measured: Sequence[Measured],
    agreement: float,
    seconds: float,
    report: Callable[[str], None],
) -> tuple[dict[str, str], Measured]:
    """The fastest pair whose votes agree, timed as a whole; a pair that does not hold makes way."""
    for pair in _by_speed(measured, agreement):
        report("confirming " + ", ".join(f"{role} {name}" for role, name in pair.items()))
        classifier = parts["classifier"][pair["classifier"]]
        denoiser = parts["denoiser"][pair["denoiser"]] if "denoiser" in pair else None
        both = {
            backends.PLAIN: (setting.classifier, setting.denoiser),
            " + ".join(pair.values()): (classifier, denoiser),
        }
        if set(pair.values()) == {backends.PLAIN}:
            both = {backends.PLAIN: (setting.classifier, setting.denoiser)}
        found = _compared(setting, pool, "both", both, seconds)[-1]
        if found.votes >= agreement:
            break
    return pair, found


def _by_speed(measured: Sequence[Measured], agreement: float) -> list[dict[str, str]]:
    """Pairs of backends that may agree, the fastest first; the networks as they were loaded come last."""
    by_role: dict[str, list[Measured]] = {}
    for one in measured:
        by_role.setdefault(one.role, []).append(one)
    pairs: list[list[Measured]] = [[]]
    for ones in by_role.values():
        pairs = [[*pair, one] for pair in pairs for one in ones]
    alike = [pair for pair in pairs if sum(1 - one.votes for one in pair) <= 1 - agreement + 1e-12]
    alike.sort(key=lambda pair: sum(1 / one.draws_per_second for one in pair))
    names = [{one.role: one.backend for one in pair} for pair in alike]
    plain = dict.fromkeys(by_role, backends.PLAIN)
    return [*names[: names.index(plain)], plain]


@dataclass(frozen=True)
class _Answer:
    """What one round gave: seconds, denoised pixels where they are compared, and votes."""

    seconds: float
    pixels: Array | None
    votes: Array


class _Asked:
    """A pair of parts, of which ``role`` is timed; the other is needed for the votes."""

    def __init__(self, setting: Setting, role: str, classifier: Any, denoiser: Any | None) -> None:
        self.setting, self.role = setting, role
        self.network = Network(classifier, denoiser, setting.sigma, setting.device)
        self.labelling = Network(classifier, None, setting.sigma, setting.device)
        self.order = match(setting.classifier, setting.data.classes, setting.data.name)

    def answers(self, pool: ThreadPoolExecutor, shown: Array, named: Sequence[Segment]) -> _Answer:
        """Time the role on noisy images, or on denoised ones for a classifier."""
        started = time.perf_counter()
        if self.role == "denoiser":
            pixels = self.denoised(pool, shown, named)
            seconds = time.perf_counter() - started
            return _Answer(seconds, pixels, self._votes(pool, self.labelling, pixels, named))
        network = self.network if self.role == "both" else self.labelling
        votes = self._votes(pool, network, shown, named)
        return _Answer(time.perf_counter() - started, None, votes)

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


def _draws(setting: Setting) -> Iterator[tuple[Array, list[Segment], Array]]:
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
    role: str, name: str, found: Sequence[_Answer], base: Sequence[_Answer], truth: Array
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
