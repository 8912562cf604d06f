"""Models whose best attack is known, for the tests of attackers."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from scipy.optimize import brentq, minimize
from torch import Tensor

SHAPE = (1, 8, 8)
SIGMA = 0.25
GREY = np.full(SHAPE, 128, dtype=np.uint8)
NODES, WEIGHTS = np.polynomial.hermite_e.hermegauss(160)
WEIGHTS = WEIGHTS / WEIGHTS.sum()


def direction(seed: int = 0) -> npt.NDArray[np.float64]:
    """A unit direction of images, in which these models change and in no other."""
    d = np.random.default_rng(seed).normal(size=SHAPE)
    return d / np.linalg.norm(d)


@dataclass(frozen=True)
class Extremal:
    """The feature map that attains the exact cosine bound of THEORY 3.3 for given m and ratio r.

    f(t) = ((a, b) - w L(t)) / |.|, t the position along one direction in units of sigma, L the likelihood
    ratio of a shift by r, w = (sin psi, cos psi). Then F = (m, 0), and a shift by r turns it by psi.
    """

    m: float
    ratio: float

    @cached_property
    def solution(self) -> tuple[float, float, float]:
        """psi, a, b by quadrature and a root search."""
        psi = float(brentq(lambda angle: self._game(angle)[0], 1e-3, 1.55))
        a, b = self._game(psi)[1]
        return psi, float(a), float(b)

    def _game(self, psi: float) -> tuple[float, Any]:
        ratio = np.exp(self.ratio * NODES - self.ratio**2 / 2)

        def negative(point: Any) -> float:
            away = np.hypot(ratio * np.sin(psi) - point[0], ratio * np.cos(psi) - point[1])
            return float(WEIGHTS @ away - point[0] * self.m)

        tight = {"xatol": 1e-10, "fatol": 1e-13, "maxiter": 4000}
        found = minimize(negative, np.array([1.0, 0.5]), method="Nelder-Mead", options=tight)
        return -float(found.fun), found.x

    def feature(self, shift: float) -> npt.NDArray[np.float64]:
        """F at a shift along the direction, in units of sigma; exact by quadrature."""
        psi, a, b = self.solution
        ratio = np.exp(self.ratio * (NODES + shift) - self.ratio**2 / 2)
        rows = np.stack([a - np.sin(psi) * ratio, b - np.cos(psi) * ratio], axis=1)
        return np.asarray(WEIGHTS @ (rows / np.linalg.norm(rows, axis=1, keepdims=True)))

    def cosine(self, shift: float) -> float:
        """cos(F(shift), F(0))."""
        one, other = self.feature(shift), self.feature(0.0)
        return float(one @ other / np.linalg.norm(one) / np.linalg.norm(other))

    def encoder(self) -> Any:
        """As an encoder of images around grey, changing along ``direction()``."""
        psi, a, b = self.solution
        along = torch.from_numpy(direction()).float()

        def extremal(images: Tensor) -> Tensor:
            t = ((images - 128 / 255) * along).flatten(1).sum(dim=1) / SIGMA
            ratio = torch.exp(self.ratio * t - self.ratio**2 / 2)
            return torch.stack([a - np.sin(psi) * ratio, b - np.cos(psi) * ratio], dim=1)

        return extremal


class Wavy(torch.nn.Module):
    """A small smooth random network: images of any kind to ``outputs`` numbers."""

    def __init__(self, outputs: int, seed: int = 0, scale: float = 1.0) -> None:
        super().__init__()
        state = torch.random.get_rng_state()
        torch.manual_seed(seed)
        self.layers = torch.nn.Sequential(
            torch.nn.Flatten(), torch.nn.Linear(64, 48), torch.nn.Tanh(), torch.nn.Linear(48, outputs)
        )
        torch.random.set_rng_state(state)
        with torch.no_grad():
            for parameter in self.parameters():
                parameter.mul_(2.0 * scale)

    def forward(self, images: Tensor) -> Tensor:
        found: Tensor = self.layers(images)
        return found


def pictures(count: int, seed: int = 0) -> npt.NDArray[np.uint8]:
    """Random 8-bit images ``(count, 1, 8, 8)``, black and white pixels among them."""
    drawn = np.random.default_rng(seed).normal(128, 90, size=(count, *SHAPE))
    return np.clip(np.rint(drawn), 0, 255).astype(np.uint8)


class Jitter:
    """A stochastic denoiser that takes its randomness from named draws, as samplers do."""

    stochastic = True

    def __call__(self, noisy: Tensor, sigma: float, *, draws: Any) -> Tensor:
        return (0.8 * noisy + 0.2 * torch.sin(3 * noisy) + 0.3 * sigma * draws.normal(0)).clamp(-1, 2)
