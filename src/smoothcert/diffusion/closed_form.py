"""Noise schedules with a closed form: the ideal cosine, and EDM where sigma itself is the time."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from smoothcert.diffusion.betas import COSINE_OFFSET, FloatArray
from smoothcert.diffusion.schedule import Schedule
from smoothcert.errors import InvalidInput


@dataclass(frozen=True, eq=False)
class CosineSchedule(Schedule):
    """The cosine schedule in closed form, without the cap on its last betas.

    abar = (cos u / cos u0)^2 with u = (tau/T + s)/(1 + s) pi/2, tau = t + 1 steps and u0 = u(0) (Nichol &
    Dhariwal 2021, eq. 17). The last index has infinite noise, so the range of times ends one index earlier.
    """

    timesteps: int
    offset: float = COSINE_OFFSET
    name: str = "cosine"

    def __post_init__(self) -> None:
        if self.timesteps < 3 or not 0 < self.offset < 1:
            raise InvalidInput(
                f"timesteps={self.timesteps}, offset={self.offset}",
                "two finite noise levels need three steps, and the offset is a small positive share",
                "Write CosineSchedule(timesteps) with timesteps >= 3",
            )

    @property
    def time_range(self) -> tuple[float, float]:
        return 0.0, float(self.timesteps - 2)

    @property
    def _start(self) -> float:
        return self.offset / (1 + self.offset) * math.pi / 2

    def _sigma(self, t: FloatArray, /) -> FloatArray:
        # (1 - abar)/abar = sin(u - u0) sin(u + u0) / cos^2 u, and cos u = sin(pi/2 - u): no digits cancel.
        quarter = math.pi / 2 / (1 + self.offset) / self.timesteps
        gone, left = (t + 1) * quarter, (self.timesteps - 1 - t) * quarter
        with np.errstate(divide="ignore"):
            return np.asarray(np.sqrt(np.sin(gone) * np.sin(gone + 2 * self._start)) / np.sin(left))

    def _time(self, sigma: float, /) -> float:
        # tan u = sqrt(sin^2 u0 + sigma^2) / cos u0: eq. (5) of Carlini et al. 2023 without its arccosecant,
        # which loses digits at small sigma. Under much noise the angle still left, pi/2 - u, has more digits.
        opposite, adjacent = math.hypot(math.sin(self._start), sigma), math.cos(self._start)
        per_step = math.pi / 2 / (1 + self.offset) / self.timesteps
        if opposite > adjacent:
            return self.timesteps - 1 - math.atan2(adjacent, opposite) / per_step
        return (math.atan2(opposite, adjacent) - self._start) / per_step - 1

    def describe(self) -> dict[str, Any]:
        return {"kind": "cosine", "num_train_timesteps": self.timesteps, "offset": self.offset}


@dataclass(frozen=True, eq=False)
class EdmSchedule(Schedule):
    """Karras et al. 2022: sigma itself is the time; the network is conditioned on ln(sigma)/4.

    ``levels`` is their table of T noise levels evenly spaced in sigma^(1/rho) (eq. 5).
    """

    timesteps: int = 18
    least: float = 0.002
    most: float = 80.0
    rho: float = 7.0
    name: str = "edm"

    def __post_init__(self) -> None:
        if not (self.timesteps >= 2 and 0 < self.least < self.most < math.inf and 0 < self.rho < math.inf):
            raise InvalidInput(
                f"timesteps={self.timesteps}, least={self.least}, most={self.most}, rho={self.rho}",
                "needs two levels or more, 0 < least < most and rho > 0, all finite",
                "The published values are EdmSchedule(18, least=0.002, most=80, rho=7)",
            )

    @property
    def time_range(self) -> tuple[float, float]:
        return self.least, self.most

    @property
    def levels(self) -> FloatArray:
        return self._spaced(self.least, self.most, np.linspace(0, 1, self.timesteps))

    def descent(self, sigma: float, steps: int) -> FloatArray:
        return self._spaced(self.least, self.time_of(sigma), 1 - np.arange(steps) / steps)

    def condition(self, t: float) -> float:
        return math.log(t) / 4

    def time_conditioned_on(self, condition: float) -> float:
        # Rounding at an end of the range must not leave it.
        return min(max(math.exp(4 * condition), self.least), self.most)

    def _spaced(self, low: float, high: float, fractions: FloatArray) -> FloatArray:
        ends = low ** (1 / self.rho), high ** (1 / self.rho)
        levels = (ends[0] + fractions * (ends[1] - ends[0])) ** self.rho
        # Powers and roots round; the two ends do not.
        return np.asarray(np.where(fractions == 0, low, np.where(fractions == 1, high, levels)))

    def _sigma(self, t: FloatArray, /) -> FloatArray:
        return np.array(t, dtype=np.float64)

    def _time(self, sigma: float, /) -> float:
        return sigma

    def describe(self) -> dict[str, Any]:
        ends = {"least": self.least, "most": self.most, "rho": self.rho}
        return {"kind": "edm", "num_train_timesteps": self.timesteps, **ends}
