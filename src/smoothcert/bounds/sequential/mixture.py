"""A confidence bound for all numbers of draws at once: a mixture of likelihood ratios (THEORY 5.6).

For a null probability p* = Phi(z*) the wealth after S successes in n draws is

    W = sum_j w_j (p_j / p*)^S ((1 - p_j) / (1 - p*))^(n - S)    with alternatives p_j = Phi(z* + d_j).

Under "at most p*" it is a nonnegative supermartingale that starts at 1, so by Ville's inequality it ever
reaches 1/alpha with probability at most alpha.
"""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np

from smoothcert.bounds.multiplicity import check_alpha
from smoothcert.errors import InvalidInput

_STEPS = np.geomspace(0.008, 4.0, 24)
_SLACK = 1e-6  # taken off the log wealth for rounding


def log_wealth(successes: int, n: int, p: float) -> float:
    """log W against "success probability at most p"; rounded down by more than its rounding error.

    The alternatives have equal weights. Source: Ville 1939; Robbins 1970; THEORY 5.6.
    """
    from scipy.special import log_ndtr, ndtri

    z = float(ndtri(p))
    gains = successes * (log_ndtr(z + _STEPS) - log_ndtr(z))
    gains += (n - successes) * (log_ndtr(-z - _STEPS) - log_ndtr(-z))
    top = float(gains.max())
    size = 4e-16 * n * (1.0 + abs(float(log_ndtr(z))) + abs(float(log_ndtr(-z - 4.0))))
    return top + math.log(float(np.exp(gains - top).mean())) - _SLACK - size


@lru_cache(maxsize=1 << 14)
def anytime_lower(successes: int, n: int, alpha: float) -> float:
    """With probability at least 1 - alpha, for every n at once, the success probability is >= the result.

    The smallest p that the wealth does not reject, rounded down; 0 where nothing is rejected. It may be read
    after any number of draws, chosen in any way, and drawing may go on afterwards.

    Raises:
        InvalidInput: counts or alpha out of range.
    """
    check_alpha(alpha)
    if not (isinstance(n, int) and isinstance(successes, int) and 0 <= successes <= n and n >= 1):
        raise InvalidInput(
            f"{successes!r} successes of {n!r}", "a count needs 0 <= successes <= n", "Pass whole numbers"
        )
    wanted = -math.log(alpha)
    # Phi is log-concave, so every term falls as p rises: the rejected p are an interval from 0. At the
    # observed share no alternative is likelier, so the wealth there is at most 1.
    low, high = 0.0, successes / n
    if high == 0.0:
        return 0.0
    for _ in range(64):
        middle = 0.5 * (low + high)
        if not low < middle < high:
            break
        low, high = (middle, high) if log_wealth(successes, n, middle) >= wanted else (low, middle)
    return low


def anytime_upper(successes: int, n: int, alpha: float) -> float:
    """With probability at least 1 - alpha, for every n at once, the success probability is <= the result."""
    low = anytime_lower(n - successes, n, alpha)
    upper = 1.0 - low
    return upper if 1.0 - upper == low else min(1.0, math.nextafter(upper, 2.0))
