"""Upper bounds on how far a feature spreads along any one direction (THEORY 3.4).

Notation: f_1, ..., f_n independent draws of one law on the unit ball, c a centre fixed before them (from
pilot draws), M = E (f - c)(f - c)^T, lam its largest eigenvalue, b = (1 + ||c||)^2. The largest eigenvalue of
Cov f is at most lam, since Cov f = M - (F - c)(F - c)^T.

Only the true top direction v has to be watched: the sample's top eigenvalue is at least the sample mean of
<v, f - c>^2, a scalar in [0, b] with mean lam. So an upper bound for a scalar mean, applied to the sample's
top eigenvalue, holds for lam, without a factor for the dimension.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from smoothcert.bounds.binomial import clopper_pearson_upper
from smoothcert.bounds.bounded_mean import betting_lower
from smoothcert.bounds.multiplicity import check_alpha
from smoothcert.errors import InvalidInput

_EPS = 1e-12  # relative, of an eigenvalue of a symmetric matrix and of a few sums


def mean_upper(mean: float, n: int, alpha: float) -> float:
    """With probability at least 1 - alpha over n draws in [0, 1] whose mean is ``mean``, mu is <= the result.

    For draws in [0, 1] the chance of a sample mean this small is at most exp(-n kl(mean, mu)) (Hoeffding
    1963, (2.1)) and at most e P(Bin(n, mu) <= ceil(n mean)) (Bentkus 2004, Theorem 1.2); the result is the
    smaller of the values of mu at which these fall to alpha. Both bound the same chance, so the smaller costs
    nothing.
    """
    check_alpha(alpha)
    if not (0.0 <= mean <= 1.0 and n >= 1):
        raise InvalidInput(
            f"mean {mean!r} of {n!r} draws", "draws in [0, 1] are needed, at least one", "Scale them first"
        )
    chernoff = _chernoff_upper(mean, n, alpha)
    if math.e * alpha >= 1.0:
        return chernoff
    whole = min(n, math.ceil(n * mean * (1.0 + _EPS)))
    return min(chernoff, clopper_pearson_upper(whole, n, alpha / math.e * (1.0 - _EPS)))


def top_eigenvalue_upper(
    second: npt.ArrayLike,
    n: int,
    centre_norm: float,
    alpha: float,
    *,
    rounding: float = 0.0,
    reach: float | None = None,
    beyond: int = 0,
) -> float:
    """With probability at least 1 - alpha over the n draws, the top eigenvalue of Cov f is <= the result.

    Args:
        second: the sample mean of (f - c)(f - c)^T, ``(k, k)``.
        n: draws it is the mean of, fixed beforehand. centre_norm: ||c||.
        rounding: the largest <v, x - x'> over unit v, where rounded values x' of x = f - c were summed; the
            root of the bound for x' is then short by at most that.
        reach: with it, draws with ||f - c|| > ``reach`` (fixed beforehand) were left out of the sum, though
            not of n, and ``beyond`` is how many. Draws that lie close to c are then bounded by reach^2
            instead of b; a quarter of alpha bounds what lies beyond, at most b times its probability.

    Raises:
        InvalidInput: not a symmetric finite matrix, or a trace that features in the unit ball cannot have.
    """
    matrix, farthest, outside = _checked(second), 1.0 + centre_norm, 0.0
    if reach is not None and reach < farthest:
        share = alpha / 4.0 * (1.0 - _EPS)
        outside = farthest * farthest * clopper_pearson_upper(beyond, n, share)
        farthest, alpha = reach, alpha - alpha / 4.0 * (1.0 + _EPS)
    most = (farthest + rounding) ** 2
    top = max(0.0, float(np.linalg.eigvalsh(matrix)[-1])) * (1.0 + _EPS)
    if not top <= most * (1.0 + 1e-6):
        raise InvalidInput(
            f"a mean square of {top:.6g} along one direction, with a centre of length {centre_norm:.6g}",
            "features lie in the unit ball",
            "Normalise the features, and pass the norm of the centre that was subtracted",
        )
    bound = most * mean_upper(min(1.0, top / most), n, alpha)
    return ((math.sqrt(bound * (1.0 + _EPS)) + rounding) ** 2 + outside) * (1.0 + _EPS)


def pair_upper(
    products: npt.ArrayLike, counts: npt.ArrayLike | None, centre_norm: float, alpha: float
) -> float:
    """With probability at least 1 - alpha, the top eigenvalue of Cov f is <= the result, without any matrix.

    E <f_1 - c, f_2 - c>^2 = tr M^2 >= lam^2 for independent draws; the root of an upper betting bound on
    it. Weaker than ``top_eigenvalue_upper`` (the other eigenvalues count too, and the products are bounded by
    b only), for features too long for a matrix.

    Args:
        products: values of <f_1 - c, f_2 - c>^2, each draw in one pair only. counts: how often each occurred.
    """
    most = (1.0 + centre_norm) ** 4
    shares = np.clip(1.0 - np.asarray(products, dtype=np.float64) / most, -1.0, 1.0)
    below = betting_lower(shares, alpha, counts)
    return math.sqrt(most * (1.0 - below) * (1.0 + _EPS)) * (1.0 + _EPS)


def _chernoff_upper(mean: float, n: int, alpha: float) -> float:
    wanted = -math.log(alpha) / n * (1.0 + _EPS) + 1e-15
    low, high = mean, 1.0
    for _ in range(200):
        middle = 0.5 * (low + high)
        if not low < middle < high or high - low <= 1e-12 * high:
            break
        low, high = (middle, high) if _divergence(mean, middle) <= wanted else (low, middle)
    return high


def _divergence(p: float, q: float) -> float:
    """kl(p, q) between two coins, rounded down by more than its rounding error."""
    first = p * math.log(p / q) if p > 0.0 else 0.0
    second = (1.0 - p) * math.log((1.0 - p) / (1.0 - q)) if p < 1.0 else 0.0
    return first + second - 4e-16 * (abs(first) + abs(second))


def _checked(second: npt.ArrayLike) -> npt.NDArray[np.float64]:
    matrix = np.asarray(second, dtype=np.float64)
    square = matrix.ndim == 2 and matrix.shape[0] == matrix.shape[1] and matrix.size > 0
    if not (square and np.isfinite(matrix).all() and np.allclose(matrix, matrix.T, rtol=1e-9, atol=1e-12)):
        raise InvalidInput(
            f"a second moment of shape {matrix.shape}",
            "a covariance is a finite symmetric matrix",
            "Pass the mean of the outer products of f - c",
        )
    return matrix
