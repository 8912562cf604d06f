"""Certificates of a classifier smoothed by Gaussian noise: Cohen, Rosenfeld and Kolter 2019.

Notation: g(x) = argmax_c P(f(x + eta) = c) with eta ~ N(0, sigma^2 I); p_A the probability of the class
claimed, p_B the largest probability of another one; z the standard normal quantile. ``noise_error`` is an
upper bound on the total variation distance between the noise drawn and the exact law (THEORY 4.3).
Radii are L2 on pixels in [0, 1].
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from smoothcert.bounds import binomial_test, clopper_pearson_lower, clopper_pearson_upper, split_alpha
from smoothcert.bounds.multiplicity import check_alpha
from smoothcert.errors import InvalidInput
from smoothcert.tallies import Votes

Bound = Literal["one", "pair"]
RADIUS_STEP = 1e-6
_QUANTILE_ERROR = 1e-12  # scipy's ndtri against 40 digits: below 1e-14 relative


@dataclass(frozen=True)
class Certificate:
    """With probability at least 1 - alpha over the draws: g equals ``label`` within ``radius`` of the image.

    Attributes:
        label: the certified class, ``None`` for an abstention.
        radius: L2 on pixels in [0, 1], rounded down to 1e-6; 0 for an abstention.
        p_lower: lower confidence bound on the probability of the selected class.
        p_upper: upper confidence bound on the strongest rival's (1 - p_lower when only p_A was bounded).
        votes: the estimation draws the bounds come from.
    """

    label: int | None
    radius: float
    p_lower: float
    p_upper: float
    votes: Votes
    sigma: float
    alpha: float
    n0: int
    n: int


@dataclass(frozen=True)
class Prediction:
    """With probability at least 1 - alpha: ``label`` is g's answer, or ``None`` (an abstention).

    ``p_value`` is the two-sided exact test of the two most frequent answers against a fair coin.
    """

    label: int | None
    p_value: float
    votes: Votes
    sigma: float
    alpha: float
    n: int


def radius_from_lower(p_lower: float, sigma: float, *, noise_error: float = 0.0) -> float:
    """If p_A >= p_lower, g is constant within the returned radius. Conservative by at most 2e-6.

    R = sigma (z(p_lower - e) - z(1/2 + e)) with e = ``noise_error``: the first e carries the bound to exact
    Gaussian noise, the second makes the claim hold for the noise that is really drawn too. 0 where this is
    not positive.

    Source: Cohen et al. 2019, Theorem 1 with p_B = 1 - p_A; THEORY 1 and 4.3.
    """
    _check(sigma, noise_error, p_lower)
    if p_lower - noise_error <= 0.5 + noise_error:
        return 0.0
    if p_lower >= 1.0:
        return _unbounded(p_lower)
    return round_down(sigma * (_z(p_lower - noise_error) - _z(0.5 + noise_error)))


def probability_for(radius: float, sigma: float, *, noise_error: float = 0.0) -> float:
    """If p_A exceeds the result, g is constant within ``radius``: the inverse of ``radius_from_lower``.

    p* = Phi(radius / sigma + z(1/2 + e)) + e with e = ``noise_error``, rounded up; 1 where no probability
    suffices. Source: Cohen et al. 2019, Theorem 1; THEORY 4.3 and 5.
    """
    _check(sigma, noise_error)
    if not 0.0 <= radius < math.inf:
        raise InvalidInput(f"radius = {radius!r}", "a radius is finite and not negative", "Write radius=0.5")
    from scipy.special import ndtr

    z = radius / sigma + _z(0.5 + noise_error)
    below = float(ndtr(-z * (1.0 + _QUANTILE_ERROR) - _QUANTILE_ERROR))
    return min(1.0, math.nextafter(1.0 - below + noise_error, 2.0))


def radius_from_pair(p_lower: float, p_upper: float, sigma: float, *, noise_error: float = 0.0) -> float:
    """If p_A >= p_lower and every p_B <= p_upper, g is constant within the returned radius.

    R = sigma/2 (z(p_lower - e) - z(p_upper + e)) - sigma s. The shift s pays for the noise that is really
    drawn away from the image: at the ideal radius both classes have probability Phi(m), m the mean of the
    two quantiles, and a step s back separates them by at least 2 s phi(|m| + s) >= 2 e.

    Source: Cohen et al. 2019, Theorem 1; THEORY 1 and 4.3.
    """
    _check(sigma, noise_error, p_lower, p_upper)
    p_lower, p_upper = p_lower - noise_error, p_upper + noise_error
    if p_lower <= p_upper or p_lower <= 0.0:
        return 0.0
    if p_lower >= 1.0 or p_upper <= 0.0:
        return _unbounded(p_lower)
    z_a, z_b = _z(p_lower), _z(p_upper)
    shift = noise_error * math.sqrt(2.0 * math.pi) * math.exp(0.5 * (0.5 * abs(z_a + z_b) + 0.01) ** 2)
    return 0.0 if shift > 0.01 else round_down(sigma * (0.5 * (z_a - z_b) - shift))


def certify(
    selection: Votes,
    estimation: Votes,
    *,
    sigma: float,
    alpha: float,
    bound: Bound = "one",
    noise_error: float = 0.0,
) -> Certificate:
    """CERTIFY of Cohen et al. 2019: the selection draws name a class, fresh draws bound its probability.

    With probability at least 1 - alpha over the estimation draws, either the result abstains or g is
    constantly ``label`` within ``radius``. ``bound="one"`` spends alpha on p_A; ``"pair"`` spends alpha/2 on
    p_A and alpha/2 on the strongest rival (non-finite answers are a rival), a union over rivals that needs
    no further correction (THEORY 5.4). Choose before drawing.

    Raises:
        InvalidInput: sigma or alpha out of range, no draws, or an unknown bound.
    """
    if bound not in ("one", "pair"):
        raise InvalidInput(f"bound = {bound!r}", "no such form of the certificate", "Write 'one' or 'pair'")
    check_alpha(alpha)
    label, n = selection.top(), _draws(estimation)
    p_lower, p_upper, radius = 0.0, 1.0, 0.0
    if label is not None:
        p_lower, p_upper = _bounds(estimation, label, alpha, bound)
        radius = (
            radius_from_lower(p_lower, sigma, noise_error=noise_error)
            if bound == "one"
            else radius_from_pair(p_lower, p_upper, sigma, noise_error=noise_error)
        )
    return Certificate(
        label=label if radius > 0.0 else None,
        radius=radius,
        p_lower=p_lower,
        p_upper=p_upper,
        votes=estimation,
        sigma=sigma,
        alpha=alpha,
        n0=selection.total,
        n=n,
    )


def predict(votes: Votes, *, sigma: float, alpha: float) -> Prediction:
    """PREDICT of Cohen et al. 2019: g's answer, or an abstention; wrong with probability at most alpha.

    Abstains unless the exact two-sided binomial test of the two most frequent answers (non-finite ones are
    an answer like any other) rejects a fair coin at level alpha. Source: their Proposition 1.
    """
    check_alpha(alpha)
    n, label = _draws(votes), votes.top()
    rival = votes.strongest_rival(label) if label is not None else n
    p_value = binomial_test(votes.count(label), votes.count(label) + rival)
    decided = label is not None and votes.count(label) > rival and p_value <= alpha
    return Prediction(label if decided else None, p_value, votes, sigma, alpha, n)


def _bounds(votes: Votes, label: int, alpha: float, bound: Bound) -> tuple[float, float]:
    n = votes.total
    if bound == "one":
        p_lower = clopper_pearson_lower(votes.count(label), n, alpha)
        return p_lower, 1.0 - p_lower
    share = split_alpha(alpha, 2)
    return (
        clopper_pearson_lower(votes.count(label), n, share),
        clopper_pearson_upper(votes.strongest_rival(label), n, share),
    )


def _draws(votes: Votes) -> int:
    if votes.total == 0:
        raise InvalidInput(
            "an empty tally", "no draw was made, so nothing is known", "Draw at least once: n >= 1"
        )
    return votes.total


def _check(sigma: float, noise_error: float, *probabilities: float) -> None:
    if not (0.0 < sigma < math.inf):
        raise InvalidInput(
            f"sigma = {sigma!r}",
            "the noise of a smoothed classifier has a positive finite standard deviation",
            "Write for example sigma=0.25, in units of pixels in [0, 1]",
        )
    if not (0.0 <= noise_error < 0.5 and all(0.0 <= p <= 1.0 for p in probabilities)):
        raise InvalidInput(
            f"probabilities {probabilities!r}, noise_error {noise_error!r}",
            "probabilities lie in [0, 1] and the error of the noise in [0, 1/2)",
            "Pass bounds from smoothcert.bounds",
        )


def _unbounded(p_lower: float) -> float:
    raise InvalidInput(
        f"p_lower = {p_lower!r}",
        "a probability of exactly 1 (or a rival of exactly 0) would give an infinite radius, which no finite "
        "number of draws can prove",
        "Pass a confidence bound from smoothcert.bounds, not a frequency",
    )


def _z(p: float) -> float:
    from scipy.special import ndtri

    return float(ndtri(p))


def round_down(radius: float) -> float:
    """Floor to RADIUS_STEP after paying for the error of the quantiles; never negative."""
    steps = math.floor((radius - _QUANTILE_ERROR * (1.0 + abs(radius))) / RADIUS_STEP)
    rounded = steps / round(1.0 / RADIUS_STEP)
    return max(0.0, rounded if rounded <= radius else math.nextafter(rounded, 0.0))
