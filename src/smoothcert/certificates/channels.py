"""A scalar of every draw, summed up so that bounds on its mean lose nothing that matters.

A draw's value between two points of a grid is shared between them, in whole 2^-16 parts, so that its mean
stays. What the betting bound sums, log(1 + kappa (x / m - 1)), is concave in x, so sharing makes it smaller:
the bound that comes out is one for the draws themselves. The grid is fixed by pilot draws, fine where they
lie; it costs width to second order in its step, and memory does not grow with the draws (THEORY 6).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from smoothcert.bounds import betting_lower
from smoothcert.errors import InvalidInput
from smoothcert.tallies.packing import Integers

Values = npt.NDArray[np.float64]
PART = 1 << 16
_APART = 2.0  # between the beginnings of two channels' grids
_FINE, _BELOW, _ABOVE = 56, 8, 4
_REACH_BELOW, _REACH_ABOVE = 6.0, 4.0  # of the fine part, in standard deviations of the pilot


@dataclass(frozen=True, eq=False)
class Channel:
    """A grid on which a scalar of every draw is counted.

    Attributes:
        grid: ascending; the first and last are the least and greatest values the scalar can have.
        ends: of the whole and, between them, of its fine part; they fix the grid.
    """

    grid: Values
    ends: tuple[float, float, float, float]

    @classmethod
    def around(cls, pilot: Values, lowest: float, highest: float) -> Channel:
        """The grid for values like the pilot's, in ``[lowest, highest]``."""
        middle, spread = float(pilot.mean()), float(pilot.std())
        spread = max(spread, 1e-4 * (highest - lowest))
        low = max(lowest, middle - _REACH_BELOW * spread)
        high = min(highest, middle + _REACH_ABOVE * spread)
        return cls.between(lowest, low, high, highest)

    @classmethod
    def between(cls, lowest: float, low: float, high: float, highest: float) -> Channel:
        """The grid on ``[lowest, highest]`` that is fine on ``[low, high]``."""
        if not lowest <= low < high <= highest:
            raise InvalidInput(
                f"a grid from {lowest} to {highest}, fine from {low} to {high}",
                "its parts are not in order",
                "Restore the run file from a copy",
            )
        parts = [
            np.linspace(lowest, low, _BELOW, endpoint=False) if low > lowest else np.zeros(0),
            np.linspace(low, high, _FINE),
            np.linspace(highest, high, _ABOVE, endpoint=False)[::-1] if high < highest else np.zeros(0),
        ]
        return cls(np.concatenate(parts), (lowest, low, high, highest))

    def __len__(self) -> int:
        return len(self.grid)

    def counts(self, values: Values) -> Integers:
        """Parts of draws at each point of the grid; a value is moved down by less than 2^-16 of a step."""
        return Bank((self,)).counts(values[None])

    def mean(self, counts: Integers) -> float:
        """The mean of the draws."""
        return float((counts * self.grid).sum() / counts.sum())

    def lower(self, counts: Integers, alpha: float) -> float:
        """With probability at least 1 - alpha over the draws, the scalar's expectation is >= the result."""
        low, high = float(self.grid[0]), float(self.grid[-1])
        shares = (self.grid - low) / (high - low)
        found = betting_lower(shares.clip(0.0, 1.0), alpha, counts=counts / PART)
        return low + max(0.0, found - 1e-12) * (high - low)


class Bank:
    """Several channels that are counted together: their grids, each scaled to [0, 1], end to end."""

    def __init__(self, channels: Sequence[Channel]) -> None:
        self._low = np.array([[c.grid[0]] for c in channels])
        self._range = np.array([[c.grid[-1] - c.grid[0]] for c in channels])
        self._shift = _APART * np.arange(len(channels))[:, None]
        scaled = [(c.grid - c.grid[0]) / (c.grid[-1] - c.grid[0]) for c in channels]
        self._grid = np.concatenate([grid + _APART * k for k, grid in enumerate(scaled)])
        ends = np.cumsum([len(c) for c in channels])
        self._last = (ends - 2)[:, None]  # the last point with another above it
        self.size = int(ends[-1])

    def counts(self, values: Values) -> Integers:
        """Parts of draws at each point of each grid, from values ``(channels, draws)``, end to end."""
        inside = np.clip((values - self._low) / self._range, 0.0, 1.0) + self._shift
        found = np.searchsorted(self._grid, inside.ravel(), side="right").reshape(inside.shape) - 1
        below = np.minimum(found, self._last)
        start = self._grid[below]
        shares = (inside - start) / (self._grid[below + 1] - start)
        above = np.floor(shares * PART).clip(0, PART).ravel()
        below = below.ravel()
        # Whole numbers below 2^53, which floating-point addition keeps exact.
        counted = np.bincount(below, PART - above, self.size) + np.bincount(below + 1, above, self.size)
        return counted.astype(np.int64)
