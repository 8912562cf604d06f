"""Choosing a test function on pilot draws. Any choice is sound; a good one certifies far (THEORY 3.9).

Notation as in ``testfunction``; mu and tau the pilot's mean and standard deviation of s = <w, f>. A concave q
has slope L at s where the worst case puts likelihood ratio L: for s Gaussian the slope at s = mu - tau t is
exp(r t - r^2/2), which would certify r = mu / tau; a parabola has 1 + t sqrt(e^(r^2) - 1) (Cauchy-Schwarz).
Slopes are cut off at a steepest one: draws that were never seen could lie at s = -1, and what they may cost
grows with it. What n draws at level alpha leave of a mean is foreseen as for a bet (``_foreseen``).
"""

from __future__ import annotations

import math
from functools import lru_cache
from typing import Literal

import numpy as np
import numpy.typing as npt

from smoothcert.bounds.multiplicity import check_alpha
from smoothcert.certificates.cosine_search import minimiser
from smoothcert.certificates.testfunction import KINDS, Kind, TestFunction
from smoothcert.certificates.tilted import integral
from smoothcert.errors import InvalidInput

Array = npt.NDArray[np.float64]
Family = Literal["auto", "linear", "quadratic", "concave"]
_RATIOS, _FINER = np.geomspace(0.02, 5.0, 40), 16  # designs tried, and again between the two best
_STEEPEST = np.arange(0.5, 4.1, 0.5)  # t beyond which the slope stays
_T = np.linspace(5.0, -5.0, 41)  # knots at s = mu - tau t
_ANGLES = np.linspace(0.01, 0.5 * math.pi - 0.01, 40)  # of the linear family, from w's direction
_BET = 2.0  # what a bet on unknown stakes costs, in units of log(1 / alpha)
_LEAST_SPREAD = 1e-4


def choose(pilot: Array, direction: Array, *, n: int, alpha: float, family: Family = "auto") -> TestFunction:
    """The test function that should certify farthest with n draws at level alpha, by the pilot draws alone.

    Args:
        pilot: features ``(n0, k)``, independent of the n draws to come. direction: w, a unit vector ``(k,)``.
        family: one family, or ``"auto"`` for the one that is expected to reach farthest.

    Raises:
        InvalidInput: no pilot draws, shapes that do not fit, an unknown family.
    """
    check_alpha(alpha)
    features, w = np.asarray(pilot, dtype=np.float64), np.asarray(direction, dtype=np.float64)
    if features.ndim != 2 or len(features) < 2 or w.shape != features.shape[1:] or n < 1:
        raise InvalidInput(
            f"pilot features of shape {features.shape}, a direction of shape {w.shape}, n = {n!r}",
            "two or more pilot draws are needed, with a direction of their length",
            "Pass pilot (n0, k), direction (k,) and n >= 1",
        )
    scalar, log = features @ w, -math.log(alpha) + _BET
    kinds = KINDS if family == "auto" else (family,)
    if not set(kinds) <= set(KINDS):
        raise InvalidInput(
            f"family = {family!r}", "no such test functions", f"Write 'auto' or one of {', '.join(KINDS)}"
        )
    found = [
        _linear(features, scalar, w, n, log) if kind == "linear" else _curved(kind, scalar, w, n, log)
        for kind in kinds
    ]
    return max(found, key=lambda q: q.predicted)


def _foreseen(mean: Array, spread: Array, lowest: Array, n: int, log: float) -> Array:
    """About the betting bound of n draws with this mean and spread, bounded below by ``lowest``.

    A stake kappa gains n (kappa d / h - kappa^2 spread^2 / 2 h^2) against a mean d lower, h = mean - lowest:
    the best stake needs d = spread sqrt(2 log / n). Where that stake would exceed 1, all is staked.
    """
    height, usual = np.maximum(mean - lowest, 1e-12), spread * math.sqrt(2.0 * log / n)
    capped = height * log / n + spread**2 / (2.0 * height)
    return np.asarray(mean - np.where(usual <= spread**2 / height, usual, capped))


def _curved(kind: Kind, scalar: Array, w: Array, n: int, log: float) -> TestFunction:
    """The best slopes of one family: designs on a grid, then on a finer one around the best."""
    mu, tau = float(scalar.mean()), max(float(scalar.std(ddof=1)), _LEAST_SPREAD)
    inner = np.round(mu - tau * _T, 6)
    inner = np.unique(inner[(inner > -1.0 + 1e-6) & (inner < 1.0 - 1e-6)])
    knots = np.concatenate([[-1.0], inner, [1.0]])
    t, hats = (mu - 0.5 * (knots[1:] + knots[:-1])) / tau, _hats(np.clip(scalar, -1.0, 1.0), knots)
    ratios = _RATIOS
    for _ in range(2):
        slopes, edges = _slopes(kind, t, ratios)
        levels = np.cumsum(np.pad(slopes * np.diff(knots), ((0, 0), (0, 0), (1, 0))), axis=2)
        seen = levels @ hats
        lower = _foreseen(seen.mean(axis=2), seen.std(axis=2, ddof=1), levels[:, :, 0], n, log)
        reached = lower + _slack(edges, knots, levels, ratios) > 0.0
        best = np.unravel_index(int(np.argmax(reached * ratios[:, None])), reached.shape)
        last = int(best[0])
        ratios = np.linspace(ratios[last], ratios[min(last + 1, len(ratios) - 1)], _FINER)
    chosen = np.minimum.accumulate([float(f"{x:.6g}") for x in slopes[best]])
    values = tuple(np.cumsum(np.concatenate([[0.0], chosen * np.diff(knots)])).tolist())
    expected = round(float(ratios[0]), 6) if reached.any() else 0.0
    return TestFunction(kind, w, knots=tuple(knots.tolist()), levels=values, predicted=expected)


def _slopes(kind: Kind, t: Array, ratios: Array) -> tuple[Array, Array]:
    """Slopes ``(ratios, cuts, pieces)`` of the designs, and the t at which L equals each."""
    r = ratios[:, None, None]
    cut = np.minimum(t, _STEEPEST[None, :, None])
    if kind == "concave":
        cut = np.maximum(cut, -6.0)
        return np.exp(r * cut - 0.5 * r * r), np.broadcast_to(cut, (len(ratios), *cut.shape[1:]))
    slopes = np.maximum(1.0 + np.sqrt(np.expm1(r * r)) * cut, 1e-12)
    return slopes, np.log(slopes) / r + 0.5 * r


def _slack(edges: Array, knots: Array, levels: Array, ratios: Array) -> Array:
    """As ``TestFunction.slack``, of every design at its own ratio, without rounding down."""
    from scipy.special import ndtr

    ends = (0, 0), (0, 0), (1, 1)
    base, tilted = (
        -np.diff(np.pad(ndtr(x), ends, constant_values=((0, 0), (0, 0), (1, 0))), axis=2)
        for x in (edges, edges - ratios[:, None, None])
    )
    return np.asarray(tilted @ knots - (base * levels).sum(axis=2))


def _hats(scalar: Array, knots: Array) -> Array:
    """Weights ``(knots, draws)`` that interpolate linearly between the knots."""
    i = np.clip(np.searchsorted(knots, scalar, side="right") - 1, 0, len(knots) - 2)
    share = (scalar - knots[i]) / (knots[i + 1] - knots[i])
    out = np.zeros((len(knots), len(scalar)))
    draws = np.arange(len(scalar))
    out[i, draws], out[i + 1, draws] = 1.0 - share, share
    return out


def _linear(features: Array, scalar: Array, w: Array, n: int, log: float) -> TestFunction:
    """The best vector in the plane of w and the pilot's mean."""
    mean = features.mean(axis=0)
    across = mean - (mean @ w) * w
    length = math.sqrt(float(across @ across))
    side = across / length if length > 1e-12 else np.zeros_like(w)
    other = features @ side
    noise = float(((features - mean) ** 2).sum()) / (len(features) * (len(features) - 1))
    shrunk = max(0.0, 1.0 - noise / length**2) if length > 1e-12 else 0.0  # the side was fitted to the draws
    sine, cosine = np.cos(_ANGLES), np.sin(_ANGLES)  # _ANGLES are angles from w
    draws = cosine[:, None] * other + sine[:, None] * scalar
    means = sine * scalar.mean() + cosine * other.mean() * shrunk
    lower = _foreseen(means, draws.std(axis=1, ddof=1), np.full(len(_ANGLES), -1.0), n, log)
    ratios = np.array(
        [np.interp(low, row, _RATIOS, left=0.0) for low, row in zip(lower, _least(), strict=True)]
    )
    best = int(np.argmax(ratios))
    angle = round(0.5 * math.pi - float(_ANGLES[best]), 6)
    vector = math.sin(angle) * w + math.cos(angle) * side
    return TestFunction("linear", vector, angle=angle, predicted=float(ratios[best]))


@lru_cache(maxsize=1)
def _least() -> Array:
    """K of ``tilted``, ``(angles, ratios)``."""
    w, r = (x.ravel() for x in np.meshgrid(_ANGLES, _RATIOS, indexing="ij"))
    return integral(minimiser(w, r), w, r).value.reshape(len(_ANGLES), -1)
