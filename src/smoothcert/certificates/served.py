"""The served feature: a Monte-Carlo mean of fresh draws stands in for F (THEORY 3.8).

Notation as in ``cosine``; b bounds ||f - F||: 2 where nothing better is known. With l = ln(1/alpha) the mean
of n draws is off by at most

    e_n = sqrt(T / n) + min( sqrt(2 l / n),  sqrt(2 l (lam + 2 b sqrt(T / n)) / n) + b l / (3 n) ),

T >= E ||f - F||^2 and lam >= the largest variance of f along a line. The first term bounds the mean of the
deviation; the two ways past it are McDiarmid's and Bousquet's inequalities (the deviation is the supremum
over unit v of the sum of <v, f_i - F>, whose terms are at most b).
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from smoothcert.bounds.multiplicity import check_alpha
from smoothcert.certificates.cosine import norm_away, turned
from smoothcert.errors import InvalidInput

Array = npt.NDArray[np.float64]
_WIDTH = 2.0  # b
_EPS = 1e-13


def deviation(trace: npt.ArrayLike, lam: npt.ArrayLike, n: int, alpha: float) -> Array:
    """With probability at least 1 - alpha, the mean of n draws of f is within the result of F, in norm.

    Args:
        trace: an upper bound on E ||f - F||^2, for example 1 - m^2.
        lam: an upper bound on the largest variance along a line (``trace`` where nothing is known).
        n: draws of the served mean, fixed beforehand.

    Source: McDiarmid 1989; Bousquet 2002, Theorem 2.3; THEORY 3.8.
    """
    check_alpha(alpha)
    if not n >= 1:
        raise InvalidInput(f"n = {n!r}", "a mean needs at least one draw", "Serve the mean of n >= 1 draws")
    total, along = np.broadcast_arrays(np.asarray(trace, np.float64), np.asarray(lam, np.float64))
    log, mean = -math.log(alpha), np.sqrt(np.maximum(total, 0.0) / n)
    along = np.minimum(along, total)
    plain = math.sqrt(2.0 * log / n)
    sharp = np.sqrt(2.0 * log * (along + 2.0 * _WIDTH * mean) / n) + _WIDTH * log / (3.0 * n)
    return np.asarray(mean + np.minimum(plain, sharp) + _EPS)


def served(
    cosine: npt.ArrayLike,
    m: npt.ArrayLike,
    n: int,
    alpha: float,
    ratio: npt.ArrayLike,
    *,
    lam: npt.ArrayLike = 1.0,
    noise_error: float = 0.0,
) -> float | Array:
    """A lower bound on the cosine of two served features, from one on the cosine of F(x) and F(x + delta).

    Each of the two means of n fresh draws misses its allowance e or e' with probability at most alpha; where
    neither does, their angle exceeds that of the ideal features by at most arcsin(e / m) + arcsin(e' / m'),
    m' the lower bound ``norm_away`` on ||F(x + delta)||. A variable in [0, 4] of mean u at x has mean at most
    4 Phi(Phi^-1(u / 4) + ratio) at x + delta, which limits the spread there by the spread at x.

    Args:
        cosine: a lower bound for the ideal features of the drawn noise, 0 for none.
        m: a lower bound on ||F(x)||. lam: an upper bound on the largest eigenvalue of the covariance at x.
        noise_error: total variation distance of the drawn noise, for which m and lam hold, to the exact law.

    Source: THEORY 3.8; its figures (m = .9, r = .25, alpha = .001 for each mean, lam unknown).
    """
    from scipy.special import ndtr, ndtri

    value, near, spread, r = np.broadcast_arrays(
        *(np.asarray(x, dtype=np.float64) for x in (cosine, m, lam, ratio))
    )
    off = 2.0 * noise_error
    away = np.asarray(norm_away(np.maximum(near - off, -1.0), spread + 2.0 * off, r)) - off
    share = np.clip(0.25 * np.minimum(spread, 1.0 - near**2) + noise_error, 0.0, 1.0)
    spread_away = 4.0 * (ndtr(ndtri(share) + r) + noise_error) + _EPS
    return turned(
        value,
        (deviation(1.0 - near**2, spread, n, alpha), near),
        (deviation(1.0 - np.maximum(away, 0.0) ** 2, spread_away, n, alpha), away),
    )
