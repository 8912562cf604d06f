"""How far noise drawn on an integer grid is from exact rounded Gaussian noise (THEORY 4.3)."""

from __future__ import annotations

import math

BITS = 62  # of each uniform integer that picks a noise level
REACH = 9.5  # standard deviations on each side for which a threshold is kept


def half_width(sigma: float, levels: int) -> int:
    """K = ceil(9.5 L sigma): thresholds exist for noise levels -K..K."""
    return math.ceil(REACH * levels * sigma)


def grid_error(sigma: float, levels: int, pixels: int) -> float:
    """Total variation distance to exact rounded Gaussian noise on ``pixels`` numbers, at most the result.

    Per number: 2K + 2 probabilities each wrong by at most 2^-62, and the mass 2 Phi(-9.5) beyond the last
    thresholds; distances of independent coordinates add. Rounded up.
    """
    tail = math.erfc(REACH / math.sqrt(2.0))
    return pixels * ((2 * half_width(sigma, levels) + 2) * 2.0**-BITS + tail) * (1.0 + 1e-9)
