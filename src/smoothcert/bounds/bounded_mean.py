"""Lower bounds on the mean of draws in [0, 1]: soft scores and, mapped by (x + 1) / 2, cosines (THEORY 6).

Notation: x_1, ..., x_n independent draws of one law on [0, 1], mu its mean. ``betting_lower`` is by far the
sharpest where the draws vary little; the other two are what the field compares with. An upper bound is one
minus the lower bound of 1 - x.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
import numpy.typing as npt

from smoothcert.bounds.multiplicity import check_alpha
from smoothcert.errors import InvalidInput

_STAKES = np.geomspace(0.003, 0.98, 24)
_BLOCK = 1 << 16  # draws whose gains are held in memory at a time
_SLACK = 1e-9  # taken off the log wealth, beside a bound on its rounding


def hoeffding_lower(draws: npt.ArrayLike, alpha: float) -> float:
    """With probability at least 1 - alpha over n draws, n fixed beforehand, mu is >= the result.

    The mean less sqrt(ln(1/alpha) / 2n); 0 where that is negative. Source: Hoeffding 1963, Theorem 1.

    Raises:
        InvalidInput: no draws, a draw outside [0, 1] or not a number, alpha outside (0, 1).
    """
    values = _checked(draws, alpha)
    return _below(float(values.mean()) - math.sqrt(-math.log(alpha) / (2.0 * len(values))))


def empirical_bernstein_lower(draws: npt.ArrayLike, alpha: float) -> float:
    """With probability at least 1 - alpha over n >= 2 draws, n fixed beforehand, mu is >= the result.

    The mean less sqrt(2 V ln(2/alpha) / n) + 7 ln(2/alpha) / (3 (n - 1)), V the sample variance; 0 where that
    is negative or n = 1. Errors as for ``hoeffding_lower``. Source: Maurer and Pontil 2009, Theorem 4.
    """
    values = _checked(draws, alpha)
    n, log = len(values), math.log(2.0 / alpha)
    if n < 2:
        return 0.0
    spread = math.sqrt(2.0 * float(values.var(ddof=1)) * log / n) + 7.0 * log / (3.0 * (n - 1))
    return _below(float(values.mean()) - spread)


def betting_lower(draws: npt.ArrayLike, alpha: float, counts: npt.ArrayLike | None = None) -> float:
    """With probability at least 1 - alpha, for every number of draws at once, mu is >= the result.

    A gambler who stakes a share kappa against "mu <= m" has prod_i (1 + kappa (x_i / m - 1)) after n draws, a
    nonnegative supermartingale if mu <= m; so has the average over 24 shares from 0.003 to 0.98, and by
    Ville's inequality it ever reaches 1/alpha with probability at most alpha. The wealth falls as m rises:
    the bound is the smallest m that it does not reject, found to 1e-9 and rounded down; 0 where nothing is
    rejected. The order of the draws does not matter, so they may be looked at whenever one likes.

    Args:
        draws: in [0, 1], of any shape.
        counts: how often each value was drawn, where ``draws`` is a histogram. Parts of a draw are allowed: a
            draw shared between two values around it, in shares that keep its value, can only lower the bound,
            the log of the wealth being concave in x.

    Errors as for ``hoeffding_lower``. Source: Waudby-Smith and Ramdas 2024, section 4; THEORY 6.
    """
    values = _checked(draws, alpha)
    weights = np.ones(len(values)) if counts is None else _weights(counts, values)
    values, weights = values[weights > 0.0], weights[weights > 0.0]
    n, wanted = float(weights.sum()), -math.log(alpha)
    high = float(values @ weights) / n  # at the mean no stake has gained (Jensen): nothing is rejected
    spread = math.sqrt(float(((values - high) ** 2) @ weights)) / n

    def gain(m: float) -> float:
        return log_bet(values, m, weights) - wanted

    low, above, step = high, -wanted, 4.0 * spread + 4.0 * high / n + 1e-9
    while True:
        low, step = low - step, 2.0 * step
        if low <= 1e-12:
            low, below = 0.0, math.inf
            break
        below = gain(low)
        if below >= 0.0:
            break
        high, above = low, below
    return _illinois(gain, (low, below), (high, above))


def _illinois(gain: Callable[[float], float], left: tuple[float, float], right: tuple[float, float]) -> float:
    """A point just left of the root of a falling function, whose value there was seen not to be negative."""
    (low, below), (high, above) = left, right
    while high - low > 1e-9:
        slope = (below - above) / (high - low)
        middle = low + below / slope if math.isfinite(slope) else 0.5 * (low + high)
        middle = min(max(middle, low + 0.02 * (high - low)), high - 0.02 * (high - low))
        value = gain(middle)
        if value >= 0.0:
            low, below, above = middle, value, 0.5 * above
        else:
            high, above, below = middle, value, 0.5 * below
    return low


def log_bet(
    values: npt.NDArray[np.float64], m: float, weights: npt.NDArray[np.float64] | None = None
) -> float:
    """The log of the gambler's average wealth against "mu <= m", 0 < m < 1; rounded down."""
    gains = np.zeros(len(_STAKES))
    for start in range(0, len(values), _BLOCK):
        odds = values[start : start + _BLOCK] / m - 1.0
        each = np.log1p(_STAKES[:, None] * odds)
        gains += each.sum(axis=1) if weights is None else each @ weights[start : start + _BLOCK]
    n = len(values) if weights is None else float(weights.sum())
    top = float(gains.max())
    most = abs(math.log1p(-_STAKES[-1])) + abs(math.log(m))  # no single gain or loss is larger
    return top + math.log(float(np.exp(gains - top).mean())) - _SLACK - 1e-15 * n * most


def _weights(counts: npt.ArrayLike, values: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
    weights = np.asarray(counts, dtype=np.float64).reshape(-1)
    if weights.shape != values.shape or not (weights >= 0.0).all() or not 0.0 < weights.sum() < math.inf:
        raise InvalidInput(
            f"{weights.size} counts for {values.size} values",
            "a histogram has one count that is not negative for each value, and counts something",
            "Pass counts of the same shape as the values",
        )
    return weights


def _below(bound: float) -> float:
    return max(0.0, bound - 1e-12)


def _checked(draws: npt.ArrayLike, alpha: float) -> npt.NDArray[np.float64]:
    check_alpha(alpha)
    values = np.asarray(draws, dtype=np.float64).reshape(-1)
    if not values.size or not (np.isfinite(values).all() and values.min() >= 0.0 and values.max() <= 1.0):
        seen = f"from {values.min()} to {values.max()}" if values.size else "none"
        raise InvalidInput(
            f"{values.size} draws, {seen}",
            "a bounded mean needs at least one draw, and every draw in [0, 1]",
            "Map scores to [0, 1] first: (x + 1) / 2 for a cosine",
        )
    return values
