"""When a sequential test looks, and how much of alpha it may have spent by then."""

from __future__ import annotations

import math
from collections.abc import Sequence

STEP = 16  # looks are multiples of this, so that whole blocks of a batch belong to one look
MOST_DRAWS = 2_000_000  # beyond it the exact boundaries take minutes
MOST_LOOKS = 1_000  # beyond it rounding errors could add up to more than is allowed for


def geometric_looks(first: int, last: int, ratio: float) -> tuple[int, ...]:
    """Numbers of draws after which to look: from about ``first`` by factors of ``ratio`` up to ``last``.

    All but the last are multiples of 16; ``first >= 1``, ``ratio > 1``.
    """
    looks: list[int] = []
    wanted = float(first)
    while True:
        look = max(math.ceil(wanted / STEP) * STEP, looks[-1] + STEP if looks else 0)
        if look * math.sqrt(ratio) >= last:  # the step to the last look is not much shorter than the others
            return (*looks, last)
        looks.append(look)
        wanted = look * ratio


def spent_by(looks: Sequence[int], alpha: float) -> tuple[float, ...]:
    """How much of ``alpha`` may be spent by each look: alpha n_k / N, rounded down."""
    return tuple(alpha * (n / looks[-1]) * (1.0 - 1e-12) for n in looks)


def unanimous(p: float, last: int, alpha: float) -> int:
    """The fewest draws after which unanimous successes reject "at most p" within the alpha spent by then.

    More than ``last`` where no number of draws up to ``last`` does. Solves p^n <= alpha n / last, whose two
    sides cross once; a tie counts as enough, however the logarithms round (the boundaries decide exactly).
    """
    low, high = 0, last + 1
    while high - low > 1:
        middle = (low + high) // 2
        enough = middle > 0 and middle * math.log(p) <= math.log(alpha * middle / last) + 1e-12
        low, high = (low, middle) if enough else (middle, high)
    return high
