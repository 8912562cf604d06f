"""Is the model a function of one draw? Asked once, on real inputs, before anything is counted.

A model whose answer for an image depends on the other images of its batch, on its place in the batch, or on
the moment, is not a base classifier in the sense of any theorem here, so it is refused.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from smoothcert.errors import ModelOutputError, SmoothcertError, UnsoundModel
from smoothcert.smoothing.network import Network
from smoothcert.smoothing.noise import NamedDraws, Noise, Prepared
from smoothcert.smoothing.streams import Segment

_PLACE_TOLERANCE = (
    1e-3  # of the scores' size: rounding differs between rows of a matrix product, answers do not
)


@dataclass(frozen=True)
class Trial:
    """One more call whose answers are known beforehand, if the model is a function of one draw.

    Attributes:
        noisy, names: the batch, and the draws its rows are.
        expected: answers to compare with, row by row.
        rows: which rows must agree.
        tolerance: of the scores' size; 0 asks for equality to the bit.
        problem: what it means if they do not.
    """

    noisy: npt.NDArray[np.float32]
    names: list[Segment]
    expected: Tensor
    rows: npt.NDArray[np.bool_]
    tolerance: float
    problem: UnsoundModel

    def passes(self, answers: Tensor) -> bool:
        """Whether the rows that must agree do."""
        rows = torch.from_numpy(self.rows).to(answers.device)
        found, expected = answers[rows], self.expected[rows]
        if self.tolerance == 0.0 or not expected.is_floating_point():
            return bool(((found == expected) | ((found != found) & (expected != expected))).all())
        size = float(torch.nan_to_num(expected.abs(), 0.0, 0.0, 0.0).max()) or 1.0
        return torch.allclose(found, expected, rtol=0.0, atol=self.tolerance * size, equal_nan=True)


def check_network(
    network: Network, noise: Noise, images: Sequence[Prepared], *, seed: int, batch: int, workers: int = 1
) -> None:
    """Refuse a network whose answer for a draw depends on anything but the draw.

    Args:
        network: what is to be certified.
        noise, images: real inputs, prepared; they are repeated with fresh draws to fill one batch.
        seed: of the run; the draws come from a stream of their own.
        batch: the fixed batch size of the run.
        workers: how many calls will be made at a time; the check makes as many.

    Raises:
        UnsoundModel: the answers change when the call is repeated, when batch mates are exchanged, when rows
            are moved, or when several threads call at once.
        ModelOutputError: the first call fails.
    """
    names = [Segment(k % len(images), "check", k // len(images), 1) for k in range(batch)]
    noisy = np.concatenate([noise.noisy(images[name.example], seed, name) for name in names])
    trials = _trials(noisy, names, _first_outputs(network, noisy, names, seed))

    def passes(trial: Trial) -> bool:
        return trial.passes(_outputs(network, trial.noisy, trial.names, seed))

    with ThreadPoolExecutor(workers) as pool:
        outcomes = list(pool.map(passes, trials))
    for trial, passed in zip(trials, outcomes, strict=True):
        if not passed:
            raise _CONFUSED if workers > 1 and passes(trial) else trial.problem


def _trials(noisy: npt.NDArray[np.float32], names: list[Segment], reference: Tensor) -> list[Trial]:
    """Ask again; exchange every other row for a brighter, mirrored one, twice; turn the batch round."""
    everything = np.ones(len(noisy), dtype=bool)
    order = np.arange(len(noisy))[::-1].copy()
    moved = reference[torch.from_numpy(order).to(reference.device)]
    turned = np.ascontiguousarray(noisy[order])
    trials = [Trial(noisy, names, reference, everything, 0.0, _FICKLE)]
    for kept in (0, 1):
        rows = np.arange(len(noisy)) % 2 == kept
        mates = noisy.copy()
        mates[~rows] = 1.0 - 0.5 * noisy[~rows][:, :, ::-1]
        trials.append(Trial(mates, names, reference, rows, 0.0, _SOCIABLE))
    return [*trials, Trial(turned, [names[k] for k in order], moved, everything, _PLACE_TOLERANCE, _PLACED)]


_FICKLE = UnsoundModel(
    "a model that answers the same input in two ways",
    "draws could not be repeated, so a run could neither be resumed nor verified",
    "Remove the randomness (dropout outside nn.Dropout, say), or take it from named draws",
)
_SOCIABLE = UnsoundModel(
    "a model whose answer for one image depends on the other images of its batch",
    "smoothing needs a function of one image; batch statistics (batch normalisation in training mode, "
    "normalisation over the batch) void every certificate",
    "Use running statistics, or normalise each image by itself",
)
_PLACED = UnsoundModel(
    "a model whose answer depends on an image's place in the batch",
    "smoothing needs a function of one image",
    "Make it treat every row alike",
)
_CONFUSED = UnsoundModel(
    "a model that answers differently when called from several threads",
    "its calls share state, so a draw's answer would depend on its neighbours",
    "Run it with workers=1 (--workers 1)",
)


def _first_outputs(
    network: Network, noisy: npt.NDArray[np.float32], names: list[Segment], seed: int
) -> Tensor:
    """The first call of all: what goes wrong here is a model that does not fit the images."""
    try:
        return _outputs(network, noisy, names, seed)
    except SmoothcertError:
        raise
    except Exception as error:  # whatever it is, the model raised it
        raise ModelOutputError(
            f"a model that failed on a batch of images {noisy.shape}",
            f"{type(error).__name__}: {str(error).splitlines()[0] if str(error) else 'no message'}",
            "Check that it takes float tensors (B, C, H, W) of this size",
        ) from error


def _outputs(network: Network, noisy: npt.NDArray[np.float32], names: list[Segment], seed: int) -> Tensor:
    draws = NamedDraws(seed, names, noisy.shape[1:], len(noisy)) if network.stochastic else None
    return network.outputs(noisy, draws)
