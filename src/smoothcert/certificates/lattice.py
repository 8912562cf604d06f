"""The largest ratio radius / sigma at which a claim was checked, on multiples of 1e-6."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]

STEPS = 1_000_000  # a unit of ratio
MOST = 20  # ratios are not searched beyond; no number of draws reaches them


def largest_ratio(holds: Callable[[Array], npt.NDArray[np.bool_]], count: int) -> Array:
    """For each of ``count`` claims, a ratio (a multiple of 1e-6, 0 if none) at which ``holds`` said yes.

    It is the largest one where claims that hold at a ratio hold at every smaller one, as all claims about
    Gaussian shifts do; the answer given has been checked in any case. ``holds`` gets one ratio a claim.
    """
    low, high = np.zeros(count, dtype=np.int64), np.full(count, MOST * STEPS + 1, dtype=np.int64)
    while bool((high - low > 1).any()):
        middle = (low + high) // 2
        yes = np.asarray(holds(np.maximum(middle, 1) / STEPS)) & (middle > low)
        low, high = np.where(yes, middle, low), np.where(yes | (high - low <= 1), high, middle)
    return np.asarray(low / STEPS, dtype=np.float64)


def largest_in_one(holds: Callable[[Array], npt.NDArray[np.bool_]]) -> float:
    """``largest_ratio`` of one claim, asked at 32 ratios at a time."""
    low, high = 0, MOST * STEPS + 1
    while high - low > 1:
        asked = np.unique(np.linspace(low, high, 34)[1:-1].astype(np.int64))
        asked = asked[(asked > low) & (asked < high)]
        yes = np.asarray(holds(asked / STEPS))
        first_no = int(np.argmin(yes)) if not yes.all() else len(asked)
        low, high = (
            int(asked[first_no - 1]) if first_no else low,
            int(asked[first_no]) if first_no < len(asked) else high,
        )
    return low / STEPS
