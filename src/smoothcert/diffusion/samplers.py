"""How often, and at which noise levels, a diffusion model is asked on the way from noisy to clean.

Symbols: z = x_t / sqrt(abar) = x0 + sigma n, a noisy image on the model's scale ([-1, 1]) without the
model's input scaling; D(z, sigma) the model's estimate of x0. Every sampler is a path of falling sigma; a
step from sigma to a lower sigma' keeps the estimate and shrinks the rest. Noise comes only from ``Draws``,
step k being the k-th step of the path.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import asdict, dataclass
from itertools import pairwise
from typing import Any, ClassVar, Protocol

import numpy as np
from torch import Tensor

from smoothcert.diffusion.betas import FloatArray
from smoothcert.diffusion.schedule import Schedule
from smoothcert.errors import InvalidInput, UnknownName
from smoothcert.protocols import Draws

Estimate = Callable[[Tensor, float], Tensor]
"""D(z, sigma) -> x0, on the model's scale."""


class Sampler(Protocol):
    """A way from z at ``sigma`` to a clean image. ``stochastic`` samplers need ``draws``."""

    name: ClassVar[str]
    stochastic: ClassVar[bool]

    def __call__(
        self, estimate: Estimate, schedule: Schedule, z: Tensor, sigma: float, draws: Draws | None = None
    ) -> Tensor:
        """``z`` is ``(B, C, H, W)`` and so is the result."""
        ...

    def evaluations(self, schedule: Schedule, sigma: float) -> int:
        """How many times the network is asked for one batch."""
        ...

    def describe(self) -> dict[str, Any]:
        """Plain data for a run's specification."""
        ...


@dataclass(frozen=True)
class OneShot:
    """Ask once and believe the answer (Carlini et al. 2023, the default there and here)."""

    name: ClassVar[str] = "one-shot"
    stochastic: ClassVar[bool] = False

    def __call__(
        self, estimate: Estimate, schedule: Schedule, z: Tensor, sigma: float, draws: Draws | None = None
    ) -> Tensor:
        return estimate(z, sigma)

    def evaluations(self, schedule: Schedule, sigma: float) -> int:
        return 1

    def describe(self) -> dict[str, Any]:
        return {"name": self.name}


@dataclass(frozen=True)
class Ancestral:
    """The full chain of Ho et al. 2020 from sigma through every integer index below it.

    Each step draws from the posterior of the next level given z and the estimate (their eqs. 6-7): in the
    coordinate z, mean x0 + r (z - x0) and variance sigma'^2 (1 - r), r = (sigma'/sigma)^2.
    """

    name: ClassVar[str] = "ancestral"
    stochastic: ClassVar[bool] = True

    def __call__(
        self, estimate: Estimate, schedule: Schedule, z: Tensor, sigma: float, draws: Draws | None = None
    ) -> Tensor:
        if draws is None:
            raise InvalidInput(
                "sampler 'ancestral' without draws",
                "it is stochastic and draws no noise itself",
                "Pass draws=",
            )
        path = self._path(schedule, sigma)
        for step, (here, there) in enumerate(pairwise(path)):
            kept = (there / here) ** 2
            noise = draws.normal(step).to(z)
            clean = estimate(z, here)
            z = clean + kept * (z - clean) + there * (1 - kept) ** 0.5 * noise
        return estimate(z, path[-1])

    def evaluations(self, schedule: Schedule, sigma: float) -> int:
        return len(self._path(schedule, sigma))

    def describe(self) -> dict[str, Any]:
        return {"name": self.name}

    def _path(self, schedule: Schedule, sigma: float) -> list[float]:
        # A level that equals sigma up to rounding is sigma itself, not one more step.
        below = schedule.levels[schedule.levels < sigma * (1 - 1e-9)]
        return [sigma, *below[::-1].tolist()]


@dataclass(frozen=True)
class Ddim:
    """DDIM without noise (Song et al. 2021, eta = 0): ``steps`` levels evenly spaced in time, then 0."""

    steps: int
    name: ClassVar[str] = "ddim"
    stochastic: ClassVar[bool] = False

    def __post_init__(self) -> None:
        _need_steps(self.name, self.steps, least=1)

    def __call__(
        self, estimate: Estimate, schedule: Schedule, z: Tensor, sigma: float, draws: Draws | None = None
    ) -> Tensor:
        path = schedule.descent(sigma, self.steps).tolist()
        for here, there in pairwise(path):
            clean = estimate(z, here)
            z = clean + there / here * (z - clean)
        return estimate(z, path[-1])

    def evaluations(self, schedule: Schedule, sigma: float) -> int:
        return self.steps

    def describe(self) -> dict[str, Any]:
        return {"name": self.name, **asdict(self)}


@dataclass(frozen=True)
class EdmHeun:
    """The deterministic second-order sampler of Karras et al. 2022 (Algorithm 1: 2N - 1 evaluations).

    Levels are evenly spaced in sigma^(1/rho) from ``sigma`` down to ``sigma_min``, then 0. A schedule whose
    least level is above ``sigma_min`` ends there instead, as the authors' sampler does: no network is asked
    about noise that it never saw. From that level or below there is one step, the same as one-shot.
    """

    steps: int = 18
    sigma_min: float = 0.002
    rho: float = 7.0
    name: ClassVar[str] = "edm"
    stochastic: ClassVar[bool] = False

    def __post_init__(self) -> None:
        _need_steps(self.name, self.steps, least=2)
        if not (0 < self.sigma_min < np.inf and 0 < self.rho < np.inf):
            raise InvalidInput(
                f"sigma_min={self.sigma_min}, rho={self.rho}",
                "both are positive and finite",
                "The published values are .002, 7",
            )

    def __call__(
        self, estimate: Estimate, schedule: Schedule, z: Tensor, sigma: float, draws: Draws | None = None
    ) -> Tensor:
        path = self.levels(schedule, sigma).tolist()
        for here, there in pairwise(path):
            slope = (z - estimate(z, here)) / here
            guess = z + (there - here) * slope
            end_slope = (guess - estimate(guess, there)) / there
            z = z + (there - here) * (slope + end_slope) / 2
        return estimate(z, path[-1])  # Euler's step to sigma = 0 is the estimate itself

    def levels(self, schedule: Schedule, sigma: float) -> FloatArray:
        """``(steps,)`` falling from ``sigma`` (eq. 5 of the paper), the final 0 left out."""
        last = max(self.sigma_min, schedule.sigma_min)
        if sigma <= last:
            return np.array([sigma])
        ends = sigma ** (1 / self.rho), last ** (1 / self.rho)
        levels = np.asarray(np.linspace(*ends, self.steps) ** self.rho)
        levels[0], levels[-1] = sigma, last  # powers and roots round; the range of the schedule does not
        return levels

    def evaluations(self, schedule: Schedule, sigma: float) -> int:
        return 2 * len(self.levels(schedule, sigma)) - 1

    def describe(self) -> dict[str, Any]:
        return {"name": self.name, **asdict(self)}


_MOST_STEPS = 10_000
SAMPLERS = ("one-shot", "ancestral", "ddim:STEPS", "edm:STEPS")


def sampler(name: str) -> Sampler:
    """The sampler called ``one-shot``, ``ancestral``, ``ddim:STEPS``, ``edm`` (18 steps) or ``edm:STEPS``.

    Raises:
        UnknownName: another name; the message lists those that exist.
        InvalidInput: a number of steps that is missing, no integer or too small.
    """
    kind, _, steps = name.partition(":")
    if name == OneShot.name:
        return OneShot()
    if name == Ancestral.name:
        return Ancestral()
    if name == EdmHeun.name:
        return EdmHeun()
    if kind == EdmHeun.name:
        return EdmHeun(_number(name, steps))
    if kind == Ddim.name:
        return Ddim(_number(name, steps))
    raise UnknownName.among("sampler", name, SAMPLERS)


def _number(name: str, steps: str) -> int:
    if not (steps.isascii() and steps.isdigit()):
        raise InvalidInput(
            f"sampler {name!r}", "its number of steps is not an integer", "Write for example 'ddim:20'"
        )
    return int(steps)


def _need_steps(name: str, steps: int, *, least: int) -> None:
    if steps > _MOST_STEPS:
        raise InvalidInput(
            f"{steps} steps for sampler {name!r}",
            f"more than {_MOST_STEPS} change nothing",
            f"Write '{name}:20'",
        )
    if steps < least:
        raise InvalidInput(
            f"{steps} steps for sampler {name!r}", f"it needs {least} or more", f"Write '{name}:20'"
        )
