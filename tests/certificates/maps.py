"""Feature maps of one Gaussian variable whose smoothed features are known exactly.

f is constant on the cells between ``edges`` of the real line, a row of ``values`` in each; x is a point of the
line, sigma is 1, so F(x) is a finite sum of normal probabilities and a shift by r is a ratio of r.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from scipy.special import ndtr

Array = npt.NDArray[np.float64]


@dataclass(frozen=True)
class StepMap:
    edges: Array
    values: Array

    @classmethod
    def random(cls, rng: np.random.Generator, cells: int, k: int, *, smooth: float = 0.0) -> StepMap:
        """Unit vectors; ``smooth`` in [0, 1) draws them towards a common one, so that m is large."""
        raw = rng.normal(size=(cells, k)) * (1.0 - smooth) + smooth * 3.0 * np.eye(k)[0]
        values = raw / np.linalg.norm(raw, axis=1, keepdims=True)
        return cls(np.sort(rng.normal(size=cells - 1) * 1.5), values)

    def masses(self, x: float) -> Array:
        return np.diff(np.concatenate([[0.0], ndtr(self.edges - x), [1.0]]))

    def mean(self, x: float) -> Array:
        return self.masses(x) @ self.values

    def spread(self, x: float) -> float:
        """The largest eigenvalue of the covariance."""
        mean = self.mean(x)
        second = (self.values * self.masses(x)[:, None]).T @ self.values
        return float(max(0.0, np.linalg.eigvalsh(second - np.outer(mean, mean))[-1]))

    def draw(self, rng: np.random.Generator, n: int, x: float = 0.0) -> Array:
        return self.values[np.searchsorted(self.edges, x + rng.normal(size=n))]


def cosine(a: Array, b: Array) -> float:
    return float(a @ b / math.sqrt(float((a @ a) * (b @ b))))
