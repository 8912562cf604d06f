"""Bounds on a success probability from a count: Clopper and Pearson 1934, with directed rounding.

Notation: k successes in n draws, success probability p, q = 1 - p, Bin(n, p) the binomial law. The inverse
beta function only proposes a value; a value is returned after ``tail_upper``, which shares no code with it,
has confirmed the defining inequality with its own rounding errors counted against it.
"""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np

from smoothcert.bounds.multiplicity import check_alpha
from smoothcert.errors import InvalidInput

MAX_DRAWS = 10**9
_EPS = 2.0**-52
_FLOOR = 1e-290  # stands in for tails that underflow; any alpha a caller can mean is far above it


@lru_cache(maxsize=1 << 16)
def clopper_pearson_lower(k: int, n: int, alpha: float) -> float:
    """With probability at least 1 - alpha over the n draws, the success probability is >= the result.

    The result p satisfies P(Bin(n, p) >= k) <= alpha, checked with directed rounding; it lies below the exact
    bound by at most a few 1e-11 p(1-p). 0 for k = 0.

    Args:
        k: successes, 0 <= k <= n.
        n: draws, 1 <= n <= 10^9, fixed before drawing.
        alpha: error probability in (0, 1).

    Raises:
        InvalidInput: for arguments outside these ranges.

    Source: Clopper and Pearson 1934; THEORY 1 and 4.
    """
    _check_counts(k, n)
    check_alpha(alpha)
    if k == 0:
        return 0.0
    guess = _proposal(k, n, alpha)
    if not _is_tight(guess, k, n, alpha):
        guess = _bisect(k, n, alpha)
    return _step_down(guess, k, n, alpha)


def clopper_pearson_upper(k: int, n: int, alpha: float) -> float:
    """With probability at least 1 - alpha over the n draws, the success probability is <= the result.

    The result p satisfies P(Bin(n, p) <= k) <= alpha, as for the lower bound on failures. 1 for k = n.
    Arguments, errors and source as for ``clopper_pearson_lower``.
    """
    _check_counts(k, n)
    low = clopper_pearson_lower(n - k, n, alpha)
    upper = 1.0 - low
    return upper if 1.0 - upper == low else min(1.0, math.nextafter(upper, 2.0))


def binomial_test(k: int, n: int) -> float:
    """Two-sided exact p-value of k successes in n draws against p = 1/2, rounded up.

    Under p = 1/2 the result is <= a with probability at most a, for every a. 1 for n = 0.
    Source: Hung and Fithian 2019 as used by Cohen et al. 2019 (PREDICT).
    """
    if n == 0 and k == 0:
        return 1.0
    _check_counts(k, n)
    return min(1.0, 2.0 * tail_upper(max(k, n - k), n, 0.5))


def tail_upper(k: int, n: int, p: float) -> float:
    """An upper bound on P(Bin(n, p) >= k), above it by a relative 1e-12 to 1e-9 (growing with sqrt(n)).

    Summed term by term from the saddle-point form of the probability mass (Loader 2000); the bound on the
    rounding errors and on the terms left out is added.
    """
    _check_counts(k, n)
    if not 0.0 <= p <= 1.0:
        raise InvalidInput(f"p = {p!r}", "a probability lies in [0, 1]", "Pass a number between 0 and 1")
    if k == 0 or p == 1.0:
        return 1.0
    if p == 0.0:
        return 0.0
    q = 1.0 - p
    if k > n * p:
        total, relative = _tail_sum(k, n, p, q)
        return min(1.0, max(_FLOOR, total * (1.0 + relative)))
    total, relative = _tail_sum(n - k + 1, n, q, p)
    return min(1.0, 1.0 - total * (1.0 - relative) + _EPS)


def _check_counts(k: int, n: int) -> None:
    whole = all(isinstance(value, int | np.integer) and not isinstance(value, bool) for value in (k, n))
    if not (whole and 1 <= n <= MAX_DRAWS and 0 <= k <= n):
        raise InvalidInput(
            f"k = {k!r} of n = {n!r}",
            f"a count needs whole numbers with 0 <= k <= n and 1 <= n <= {MAX_DRAWS:,}",
            "Pass the number of successes and the number of draws",
        )


def _proposal(k: int, n: int, alpha: float) -> float:
    """A value just below the exact bound if the special functions are as good as measured (THEORY 4)."""
    from scipy import special

    exact = alpha ** (1.0 / n) if k == n else float(special.betaincinv(k, n - k + 1, alpha))
    return exact - 1e-11 * exact * (1.0 - exact) if 0.0 < exact < 1.0 else math.nan


def _is_tight(p: float, k: int, n: int, alpha: float) -> bool:
    """Whether the proposal is not lower than it need be: a little above it, the inequality must fail."""
    if math.isnan(p):
        return False
    above = p + max(1e-9 * p * (1.0 - p), 1e-8 * math.sqrt(p * (1.0 - p) / n))
    return above >= 1.0 or tail_upper(k, n, above) > alpha


def _bisect(k: int, n: int, alpha: float) -> float:
    low, high = 0.0, 1.0
    for _ in range(200):
        middle = 0.5 * (low + high)
        if not low < middle < high:
            break
        low, high = (middle, high) if tail_upper(k, n, middle) <= alpha else (low, middle)
    return low


def _step_down(p: float, k: int, n: int, alpha: float) -> float:
    """Lower p, in doubling steps, until the defining inequality is confirmed."""
    step = 1e-12 * p * (1.0 - p)
    while p > 0.0 and tail_upper(k, n, p) > alpha:
        p = min(p - step, math.nextafter(p, 0.0))
        step *= 2.0
    return max(p, 0.0)


def _tail_sum(k: int, n: int, p: float, q: float) -> tuple[float, float]:
    """Sum of the masses at k, k+1, ..., n for k > n p, and a bound on its relative error."""
    total, term, start, odds = 1.0, 1.0, k, p / q
    block = 256
    while start < n:
        j = np.arange(start, min(n, start + block), dtype=np.float64)
        terms = term * np.cumprod((n - j) / (j + 1.0) * odds)
        total += float(terms.sum())
        term, start = float(terms[-1]), start + len(j)
        ratio = (n - start) / (start + 1.0) * odds
        rest = term * ratio / (1.0 - ratio)  # the ratios fall, so a geometric series bounds what is left
        if rest <= 1e-17 * total:
            total += rest
            break
        block *= 2
    relative = 1e-13 + 16.0 * _EPS * (abs(k - n * p) + (start - k))
    return mass(k, n, p, q) * total, relative


def mass(k: int, n: int, p: float, q: float) -> float:
    """P(Bin(n, p) = k), Loader 2000, for p + q = 1."""
    if k == n:
        return math.exp(n * (math.log(p) if p < 0.5 else math.log1p(-q)))
    if k == 0:
        return mass(n, n, q, p)
    exponent = _stirling(n) - _stirling(k) - _stirling(n - k) - _deviance(k, n * p) - _deviance(n - k, n * q)
    return math.exp(exponent) * math.sqrt(n / (2.0 * math.pi * k * (n - k)))


def _stirling(n: int) -> float:
    """log(n!) minus Stirling's approximation of it."""
    if n < 16:
        return math.lgamma(n + 1.0) - ((n + 0.5) * math.log(n) - n + 0.5 * math.log(2.0 * math.pi))
    s = 1.0 / (n * n)
    return (1 / 12 - (1 / 360 - (1 / 1260 - (1 / 1680 - (1 / 1188) * s) * s) * s) * s) / n


def _deviance(x: float, mean: float) -> float:
    """x log(x / mean) + mean - x without cancellation."""
    if abs(x - mean) >= 0.1 * (x + mean):
        return x * math.log(x / mean) + mean - x
    v = (x - mean) / (x + mean)
    total, term = (x - mean) * v, 2.0 * x * v
    for j in range(1, 1000):
        term *= v * v
        grown = total + term / (2 * j + 1)
        if grown == total:
            break
        total = grown
    return total
