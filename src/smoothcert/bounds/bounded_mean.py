"""Lower bounds on the mean of draws in [0, 1]: soft scores and, mapped by (x + 1) / 2, cosines (THEORY 6).

Notation: x_1, ..., x_n independent draws of one law on [0, 1], mu its mean. ``betting_lower`` is by far the
sharpest where the draws vary little; the other two are what the field compares with. An upper bound is one
minus the lower bound of 1 - x.
"""

from __future__ import annotations

import math

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


def betting_lower(draws: npt.ArrayLike, alpha: float) -> float:
    """With probability at least 1 - alpha, for every number of draws at once, mu is >= the result.

    A gambler who stakes a share kappa against "mu <= m" has prod_i (1 + kappa (x_i / m - 1)) after n draws, a
    nonnegative supermartingale if mu <= m; so has the average over 24 shares from 0.003 to 0.98, and by
    Ville's inequality it ever reaches 1/alpha with probability at most alpha. The wealth falls as m rises:
    the bound is the smallest m that it does not reject, found by bisection and rounded down; 0 where nothing
    is rejected. The order of the draws does not matter, so they may be looked at whenever one likes.

    Errors as for ``hoeffding_lower``. Source: Waudby-Smith and Ramdas 2024, section 4; THEORY 6.
    """
    values = _checked(draws, alpha)
    wanted = -math.log(alpha)
    low, high = 0.0, float(values.mean())  # at the mean no stake has gained (Jensen): nothing is rejected
    while high - low > 1e-9:
        middle = 0.5 * (low + high)
        low, high = (middle, high) if log_bet(values, middle) >= wanted else (low, middle)
    return low


def log_bet(values: npt.NDArray[np.float64], m: float) -> float:
    """The log of the gambler's average wealth against "mu <= m", 0 < m < 1; rounded down."""
    gains = np.zeros(len(_STAKES))
    for start in range(0, len(values), _BLOCK):
        odds = values[start : start + _BLOCK] / m - 1.0
        gains += np.log1p(_STAKES[:, None] * odds).sum(axis=1)
    top = float(gains.max())
    most = abs(math.log1p(-_STAKES[-1])) + abs(math.log(m))  # no single gain or loss is larger
    return top + math.log(float(np.exp(gains - top).mean())) - _SLACK - 1e-15 * len(values) * most


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
