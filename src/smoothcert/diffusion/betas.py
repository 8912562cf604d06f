"""The beta tables by which discrete diffusion models are published, under the names diffusers gives them.

beta_i is the share of variance replaced by noise in step i: abar_i = prod_{j <= i} (1 - beta_j).
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from smoothcert.errors import InvalidInput, UnknownName

FloatArray = npt.NDArray[np.float64]

COSINE_OFFSET = 0.008
"""s of Nichol & Dhariwal 2021, eq. (17)."""

LARGEST_COSINE_BETA = 0.999


def linear(timesteps: int, start: float, end: float) -> FloatArray:
    """Betas evenly spaced (Ho et al. 2020: 1e-4 to 0.02 in 1000 steps)."""
    return np.linspace(start, end, timesteps)


def scaled_linear(timesteps: int, start: float, end: float) -> FloatArray:
    """Square roots of the betas evenly spaced (latent diffusion)."""
    return np.asarray(np.linspace(math.sqrt(start), math.sqrt(end), timesteps) ** 2)


def sigmoid(timesteps: int, start: float, end: float) -> FloatArray:
    """Betas along a logistic curve over [-6, 6] (GeoDiff)."""
    return np.asarray(start + (end - start) / (1 + np.exp(-np.linspace(-6, 6, timesteps))))


def capped_cosine(timesteps: int, start: float, end: float) -> FloatArray:
    """Betas of the cosine schedule, none above 0.999 (Nichol & Dhariwal 2021); it has no ends to choose."""
    angle = (np.arange(timesteps + 1) / timesteps + COSINE_OFFSET) / (1 + COSINE_OFFSET) * np.pi / 2
    # 1 - cos^2 b / cos^2 a, written so that small betas keep their digits.
    before, after = angle[:-1], angle[1:]
    betas = np.sin(after - before) * np.sin(after + before) / np.cos(before) ** 2
    return np.asarray(np.minimum(betas, LARGEST_COSINE_BETA))


BETA_SCHEDULES: dict[str, Callable[[int, float, float], FloatArray]] = {
    "linear": linear,
    "scaled_linear": scaled_linear,
    "sigmoid": sigmoid,
    "squaredcos_cap_v2": capped_cosine,
}


def betas(name: str, timesteps: int, *, start: float = 1e-4, end: float = 0.02) -> FloatArray:
    """The beta table ``name`` with ``timesteps`` entries, float64.

    Raises:
        UnknownName: no such table; the message lists those that exist.
        InvalidInput: fewer than two steps, or ends that are not 0 < start, end < 1.
    """
    if name not in BETA_SCHEDULES:
        raise UnknownName.among("beta schedule", name, BETA_SCHEDULES)
    if timesteps < 2:
        raise InvalidInput(
            f"timesteps={timesteps}", "a schedule needs at least two steps", "Write timesteps >= 2"
        )
    if not (0 < start < 1 and 0 < end < 1):
        raise InvalidInput(
            f"beta_start={start}, beta_end={end}",
            "a beta is a share of variance",
            "Give two numbers inside (0, 1)",
        )
    return BETA_SCHEDULES[name](timesteps, start, end)
