"""From certificates of single images to a statement about a whole data set (THEORY 5.7).

Notation: R of N images were certified, for one radius (and as the right class, where that is asked); each
certificate is false with probability at most alpha, and the draws of different images are independent.
Both functions allow for two different things: ``true_count_lower`` for false certificates among these
images, ``population_lower`` for the choice of the images too.
"""

from __future__ import annotations

import math

import numpy as np

from smoothcert.bounds.binomial import clopper_pearson_lower, tail_upper
from smoothcert.bounds.multiplicity import check_alpha
from smoothcert.errors import InvalidInput


def true_count_lower(certified: int, images: int, alpha: float, delta: float) -> int:
    """With probability at least 1 - delta over the draws, at least this many of the certificates are true.

    So at least as many of the images are truly robust, whichever images they are: nothing is assumed of how
    they were chosen. The result is the smallest T with P(Bin(N - T, alpha) >= R - T) > delta.

    Proof: let T* images deserve a certificate. Each of the other N - T* gets one with probability at most
    alpha, independently, so the number F of false certificates is stochastically at most Bin(N - T*, alpha).
    Let q(M) be the least q with P(Bin(M, alpha) > q) <= delta. With probability at least 1 - delta,
    F <= q(N - T*), hence R - T* <= q(N - T*) and P(Bin(N - T*, alpha) >= R - T*) > delta. That tail rises
    with T (one image more that deserves it takes one off both sides), so T <= T*. For T - 1 the tail is at
    most delta, so q(N - T) <= q(N - T + 1) <= R - T, and the true ones are R - F >= R - q(N - T*) >= T.

    Args:
        certified: R, of the images for which the same radius was asked beforehand.
        images: N, abstentions included.
        alpha: error probability of each image.
        delta: error probability of the statement.

    Raises:
        InvalidInput: counts or probabilities out of range.
    """
    _check(certified, images, alpha, delta)
    low, high = -1, certified  # too few, and not too few
    while high - low > 1:
        middle = (low + high) // 2
        too_few = tail_upper(certified - middle, images - middle, alpha) <= delta
        low, high = (middle, high) if too_few else (low, middle)
    return high


def population_lower(certified: int, images: int, alpha: float, delta: float) -> float:
    """With probability at least 1 - delta over images and draws, this share of the population is robust.

    For images drawn independently from the population (one draw an image, N fixed beforehand). An image that
    is robust is certified with probability at most 1, another with at most alpha, so a share theta gives
    P(certified) <= theta + (1 - theta) alpha; the Clopper-Pearson bound of the left side, solved for theta.
    0 where nothing is proved. Arguments and errors as for ``true_count_lower``.
    """
    _check(certified, images, alpha, delta)
    share = clopper_pearson_lower(certified, images, delta)
    if share <= alpha:
        return 0.0
    return max(0.0, math.nextafter((share - alpha) / (1.0 - alpha) * (1.0 - 1e-15), 0.0))


def _check(certified: int, images: int, alpha: float, delta: float) -> None:
    check_alpha(alpha)
    check_alpha(delta)
    whole = all(isinstance(v, int | np.integer) and not isinstance(v, bool) for v in (certified, images))
    if not (whole and 0 <= certified <= images and images >= 1):
        raise InvalidInput(
            f"{certified!r} certified of {images!r} images",
            "a count needs whole numbers with 0 <= certified <= images and images >= 1",
            "Pass the number of certified images and of all images",
        )
