"""Lower bounds on the cosine between a smoothed feature at an image and at any shift of it (THEORY 3).

Notation: f maps into the unit ball, F(x) = E f(x + eta) with eta ~ N(0, sigma^2 I); m a lower bound on
||F(x)||; ``ratio`` r = ||delta||_2 / sigma; lam an upper bound on the largest eigenvalue of Cov f(x + eta);
S the Gaussian robustness score E (1 + <f(x + eta), f(x)>) / 2. Every function takes numbers or arrays that
broadcast, returns values in [0, 1] rounded down, and 0.0 is an abstention, never a claim about angles.

A bound at one ratio holds at every smaller one: the pair of laws (N(0, 1), N(r', 1)) is what adding noise to
(r'/r) t makes of (N(0, 1), N(r, 1)), so whatever can happen at r' < r can happen at r.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt

from smoothcert.certificates import angles
from smoothcert.certificates.lattice import largest_ratio
from smoothcert.errors import InvalidInput

Array = npt.NDArray[np.float64]
Number = float | Array


def gaussian_score_bound(score: npt.ArrayLike, ratio: npt.ArrayLike) -> Number:
    """If the Gaussian robustness score S >= ``score``, cos(F(x + delta), F(x)) >= the result.

    FCSB = 2 Phi(Phi^-1(S) - r) - 1, and 0 where that is negative: a negative value is no bound (a step
    f = +-e1 with m = .5 has FCSB -.255 at r = 1 and true cosine -1). The baseline of the field.
    Source: arXiv 2601.16200; THEORY 3.1.
    """
    s, r, shape = _pairs(score, ratio)
    return _shaped(angles.away(s, r), shape)


def gaussian_score_ratio(score: npt.ArrayLike, cosine: npt.ArrayLike) -> Number:
    """The largest ratio at which ``gaussian_score_bound`` is at least ``cosine`` (> 0), rounded down.

    Phi^-1(S) - Phi^-1((1 + cosine) / 2); 0 where not positive. Source: arXiv 2601.16200; THEORY 3.1.
    """
    from scipy.special import ndtri

    s, tau, shape = _pairs(score, cosine)
    check_cosine(tau)
    with np.errstate(invalid="ignore"):
        ratio = ndtri(np.minimum(s, 1.0 - 1e-16)) - ndtri(0.5 * (1.0 + tau))
    return _shaped(np.where(ratio > 1e-12, ratio - 1e-12, 0.0), shape)


def repaired(m: npt.ArrayLike, ratio: npt.ArrayLike) -> Number:
    """cos(F(x + delta), F(x)) >= A = 2 Phi(Phi^-1((1 + m)/2) - r) - 1, or 0 where negative.

    Also a lower bound on ||F(x + delta)||. Never below the paper's bound, for m >= 2 S - 1, and it needs no
    clean feature. Source: THEORY 3.2.
    """
    level, r, shape = _pairs(m, ratio)
    return _shaped(angles.away(0.5 * (1.0 + np.clip(level, -1.0, 1.0)), r), shape)


def exact(m: npt.ArrayLike, ratio: npt.ArrayLike) -> Number:
    """cos(F(x + delta), F(x)) >= the result: the best bound that knows m alone (it is attained).

    For unit vectors e = F/||F|| and any w at angle psi' from its orthogonal complement, weak duality gives
    <w, F(x + delta)> >= <v, F(x)> - E ||L w - v|| for every v. With v of length 1/s at angle w from the
    direction, the largest angle of F(x + delta) to F(x) is at most arcsin(J(s, w) / m) - w (notation of
    ``tilted``): a bound for every s and w, evaluated where it is smallest. 0 from ratio Phi^-1((1+m)/2) on,
    where nothing can be said. Above the true optimum's value never, below it by about 1e-8.

    Source: THEORY 3.3 (vector Neyman-Pearson lemma).
    """
    level, r, shape = _pairs(m, ratio)
    return _shaped(angles.cosine_of(angles.exact_angle(level, r)), shape)


def covariance(m: npt.ArrayLike, lam: npt.ArrayLike, ratio: npt.ArrayLike) -> Number:
    """cos(F(x + delta), F(x)) >= sqrt(1 - lam (e^(r^2) - 1) / m^2), or 0 where that is not real.

    ||F(x + delta) - F(x)||^2 <= lam (e^(r^2) - 1) by Cauchy-Schwarz: F(x + delta) lies in a ball around F(x).
    lam is capped at 1 - m^2, which is always true. Source: THEORY 3.4.
    """
    level, spread, r = _triples(m, lam, ratio)
    flat = level.ravel(), spread.ravel(), r.ravel()
    return _shaped(angles.cosine_of(angles.covariance_angle(*flat)), level.shape)


def best(m: npt.ArrayLike, lam: npt.ArrayLike, ratio: npt.ArrayLike, *, noise_error: float = 0.0) -> Number:
    """The larger of ``exact`` and ``covariance``; both hold together, so no level is lost. THEORY 3.5.

    Args:
        noise_error: total variation distance e between the noise drawn and the exact law. m and lam may then
            be bounds for the drawn noise, and the result holds for the features of the drawn noise as well as
            of the exact one (each is off by at most 2 e in norm).
    """
    level, spread, r = _triples(m, lam, ratio)
    flat = (level - 2.0 * noise_error).ravel(), (spread + 4.0 * noise_error).ravel(), r.ravel()
    angle = np.fmin(angles.exact_angle(flat[0], flat[2]), angles.covariance_angle(*flat))
    if noise_error > 0.0:
        for norm in (flat[0], angles.norm_away(*flat)):
            angle = angle + angles.turn(np.asarray(2.0 * noise_error), norm)
    return _shaped(angles.cosine_of(angle), level.shape)


def turned(cosine: npt.ArrayLike, *moves: tuple[npt.ArrayLike, npt.ArrayLike]) -> Number:
    """A lower bound on the cosine of two vectors after moves by up to ``off`` of one of length ``norm``.

    ``cosine`` bounds the cosine before the moves (0 for no bound); a move (off, norm) turns by at most
    arcsin(off / norm). 0 where the angle may reach pi/2.
    """
    value = np.asarray(cosine, dtype=np.float64)
    angle = np.where(value > 0.0, np.arccos(np.clip(value, -1.0, 1.0)) * (1.0 + angles.EPS), np.inf)
    for off, norm in moves:
        angle = angle + angles.turn(np.asarray(off, dtype=np.float64), np.asarray(norm, dtype=np.float64))
    angle = np.asarray(angle)
    return _shaped(angles.cosine_of(angle), angle.shape)


def to_reference(level: npt.ArrayLike, ratio: npt.ArrayLike) -> Number:
    """If <u, F(x)> >= ``level`` for a unit vector u, cos(F(x + delta), u) >= the result.

    cos psi with K(pi/2 - psi) = level, K as in ``tilted``. u is fixed beforehand: the clean feature, a
    released direction. Source: THEORY 3.6.
    """
    value, r, shape = _pairs(level, ratio)
    return _shaped(angles.reference_cosine(value, r), shape)


def ratio_for(
    cosine: npt.ArrayLike, m: npt.ArrayLike, lam: npt.ArrayLike, *, noise_error: float = 0.0
) -> Number:
    """The largest ratio at which ``best`` is at least ``cosine`` in (0, 1), rounded down to 1e-6; 0 if none.

    The value returned has been checked: ``best(m, lam, ratio) >= cosine`` there.
    """
    tau, level, spread = np.broadcast_arrays(*(np.asarray(x, dtype=np.float64) for x in (cosine, m, lam)))
    check_cosine(tau)
    flat = tau.ravel(), level.ravel(), spread.ravel()

    def reached(r: Array) -> npt.NDArray[np.bool_]:
        return np.asarray(best(flat[1], flat[2], r, noise_error=noise_error) >= flat[0])

    return _shaped(largest_ratio(reached, len(flat[0])), tau.shape)


def norm_away(m: npt.ArrayLike, lam: npt.ArrayLike, ratio: npt.ArrayLike) -> Number:
    """||F(x + delta)|| >= max(A(m, r), m - sqrt(lam (e^(r^2) - 1))), or 0 where negative. THEORY 3.2, 3.4."""
    level, spread, r = _triples(m, lam, ratio)
    return _shaped(np.clip(angles.norm_away(level.ravel(), spread.ravel(), r.ravel()), 0.0, 1.0), level.shape)


def _pairs(value: npt.ArrayLike, ratio: npt.ArrayLike) -> tuple[Array, Array, tuple[int, ...]]:
    first, r = np.broadcast_arrays(np.asarray(value, dtype=np.float64), np.asarray(ratio, dtype=np.float64))
    _check(first, r)
    return first.ravel(), r.ravel(), first.shape


def _triples(m: npt.ArrayLike, lam: npt.ArrayLike, ratio: npt.ArrayLike) -> tuple[Array, Array, Array]:
    level, spread, r = np.broadcast_arrays(*(np.asarray(x, dtype=np.float64) for x in (m, lam, ratio)))
    _check(level, r)
    if not bool((spread >= 0.0).all()):
        raise InvalidInput(
            "a negative or undefined covariance bound",
            "the largest eigenvalue of a covariance is not negative",
            "Pass the result of smoothcert.bounds.covariance, or 1.0 where nothing is known",
        )
    return level, spread, r


def _check(value: Array, ratio: Array) -> None:
    if not bool((np.abs(value) <= 1.0).all()):
        raise InvalidInput(
            "a score or length outside [-1, 1]",
            "features lie in the unit ball",
            "Pass confidence bounds from smoothcert.bounds",
        )
    if not bool((ratio >= 0.0).all()):
        raise InvalidInput(
            "a ratio that is negative or NaN", "it is radius / sigma", "Pass radii that are not negative"
        )


def check_cosine(cosine: Array) -> None:
    if not bool(((cosine > 0.0) & (cosine < 1.0)).all()):
        raise InvalidInput(
            "a cosine outside (0, 1)",
            "a certificate speaks of positive cosines, and 1 is reached at radius 0 alone",
            "Ask for example for cosine=0.8",
        )


def _shaped(values: Array, shape: tuple[int, ...]) -> Number:
    return float(values.reshape(-1)[0]) if shape == () else values.reshape(shape)
