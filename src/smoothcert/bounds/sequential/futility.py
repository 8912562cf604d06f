"""How likely a test still is to succeed by its last look, given what was drawn. Decides when to give up.

None of these numbers enters a guarantee: a boundary is calibrated as if nobody ever gave up, so giving up,
for these or any other reasons, only lowers the level (THEORY 5.2). They are normal approximations to the
predictive power: the share of futures, for the success probability as estimated, in which the test rejects.
"""

from __future__ import annotations

import math

_FEW_MISSES = 5  # gains .2 to .5 points at 3 sigma for about a tenth more draws (benchmarks/draws.py)


def power_of_count(successes: int, n: int, last: int, cut: int) -> float:
    """That the count reaches ``cut`` after ``last`` draws. Source: THEORY 5.2."""
    if n >= last:
        return float(successes >= cut)
    q = (successes + 0.5) / (n + 1)
    spread = math.sqrt(last * (last - n) / n * q * (1.0 - q))
    return _normal((last * q - cut) / spread)


def power_of_lead(top: int, rival: int, n: int, last: int, level: float) -> float:
    """That the sign test of the two most frequent answers reaches ``level`` after ``last`` draws."""
    if n >= last:
        return 0.0
    a, b = (top + 0.5) / (n + 1), (rival + 0.5) / (n + 1)
    needed = -_quantile(0.5 * level) * math.sqrt((a + b) / last)
    spread = math.sqrt((a + b - (a - b) ** 2) * (1.0 / n - 1.0 / last))
    return _normal((a - b - needed) / spread)


def power_of_pair(top: int, rival: int, n: int, last: int, level: float, shift: float) -> float:
    """That z(p_A) - z(p_B) >= ``shift`` is proved after ``last`` draws, with ``level`` for each bound.

    Delta method: the estimate of z(p) from n draws has variance p q / (n phi(z)^2), and the two counts of one
    multinomial sample have covariance -p_A p_B. With fewer than five misses the estimate of z(p_A) is mostly
    chance, and 1 is returned: nobody gives up on it.
    """
    if n >= last:
        return 0.0
    if n - top < _FEW_MISSES:
        return 1.0
    a, b = (top + 0.5) / (n + 1), (rival + 0.5) / (n + 1)
    z_a, z_b = _quantile(a), _quantile(b)
    s_a, s_b = math.sqrt(a * (1.0 - a)) / _density(z_a), math.sqrt(b * (1.0 - b)) / _density(z_b)
    variance = s_a**2 + s_b**2 + 2.0 * a * b / (_density(z_a) * _density(z_b))
    needed = shift - _quantile(level) * (s_a + s_b) / math.sqrt(last)
    return _normal((z_a - z_b - needed) / math.sqrt(variance * (1.0 / n - 1.0 / last)))


def _normal(z: float) -> float:
    return 0.5 * math.erfc(-z / math.sqrt(2.0))


def _density(z: float) -> float:
    return math.exp(-0.5 * z * z) / math.sqrt(2.0 * math.pi)


def _quantile(p: float) -> float:
    from scipy.special import ndtri

    return float(ndtri(p))
