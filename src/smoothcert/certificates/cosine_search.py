"""Where to evaluate the integral of ``tilted``: near-optimal multipliers for the exact cosine bounds.

Any multipliers give a valid bound, so nothing here can make a certificate unsound; a poor search makes it
weak. A table over (ratio, angle), made once, is resampled by the quantity asked for and gives starting points
good to a few per mille; Newton's method does the rest. Notation as in ``tilted``.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import lru_cache
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

from smoothcert.certificates.tilted import Integral, integral

Array = npt.NDArray[np.float64]
Columns = tuple[Array, Array]
Equation = tuple[Array, Array, Array]  # what should be 0, and its derivatives in a and w

SMALLEST, LARGEST = 1e-4, 6.0  # ratios in the table; 2 Phi(6) - 1 is 1 - 2e-9
_ROWS, _ANGLES, _LEVELS = 64, 97, 97
_NARROWEST, _WIDEST = 1e-4, 0.5 * math.pi - 1e-6  # w / r from, w up to
_STEPS = 12
_DEPTH = 14.0  # levels are tabulated up to 1 - e^-14 of the way from vacuous to 1


class Start(NamedTuple):
    """Multipliers: a = log s and the angle w, one-dimensional."""

    a: Array
    w: Array


def for_mean(m: Array, r: Array) -> Start:
    """Multipliers of THEORY 3.3: stationary in a, and |(J, J_w)| = m."""

    def equation(i: Integral, level: Array) -> Equation:
        norm = np.hypot(i.value, i.w)
        return norm - level, (i.value * i.a + i.w * i.aw) / norm, (i.value * i.w + i.w * i.ww) / norm

    m = np.minimum(m, 1.0 - math.exp(-_DEPTH) * _room(r))
    return _solve(_lookup(m, r, _table()), m, r, equation, 0.005)


def for_least(level: Array, r: Array) -> Start:
    """Multipliers of THEORY 3.6: stationary in a, and J = level."""

    def equation(i: Integral, wanted: Array) -> Equation:
        return i.value - wanted, i.a, i.w

    level = np.minimum(level, 1.0 - math.exp(-_DEPTH) * _room(r))
    vacuous = 1.0 - _room(r)
    w = np.arcsin(np.sqrt(np.clip((level**2 - vacuous**2) / (1.0 - vacuous**2), 1e-12, 1.0 - 1e-9)))
    return _solve(Start(minimiser(w, r, 2), w), level, r, equation, 1e-3)


def _solve(
    start: Start, level: Array, r: Array, equation: Callable[[Integral, Array], Equation], settled: float
) -> Start:
    """Newton's method on (J_a, equation) = 0 in a and log w; members that have settled are left alone.

    ``settled`` is the relative size of a last step; Newton's method leaves about the square of it.
    """
    a, w = start.a.copy(), start.w.copy()
    moving = np.arange(len(a))
    for _ in range(_STEPS):
        i = integral(a[moving], w[moving], r[moving], derivatives=True)
        with np.errstate(all="ignore"):
            by_a, by_w = _newton(i, w[moving], *equation(i, level[moving]))
        scale = r[moving] + 0.2 * w[moving]
        by_a = np.clip(by_a, -2.0 * scale, 2.0 * scale)
        widest = 0.5 * (w[moving] + _WIDEST)  # towards a right angle the slopes vanish: at most half the way
        a[moving] -= by_a
        w[moving] = np.clip(w[moving] * np.exp(-np.clip(by_w, -1.0, 1.0)), _NARROWEST * r[moving], widest)
        moving = moving[(np.abs(by_a) > settled * scale) | (np.abs(by_w) > settled)]
        if not moving.size:
            break
    return Start(a, w)


def _newton(i: Integral, w: Array, miss: Array, slope_a: Array, slope_w: Array) -> tuple[Array, Array]:
    """Steps in a and log w; 0 where the equations are singular."""
    determinant = i.aa * slope_w - i.aw * slope_a
    by_a = (slope_w * i.a - i.aw * miss) / determinant
    by_w = (i.aa * miss - slope_a * i.a) / determinant / w
    fine = np.isfinite(by_a) & np.isfinite(by_w)
    return np.where(fine, by_a, 0.0), np.where(fine, by_w, 0.0)


def minimiser(w: Array, r: Array, steps: int = 6) -> Array:
    """log s that minimises J(s, w), by Newton's method on a convex function of s."""
    a = _first_guess(w, r)
    for _ in range(steps):
        i = integral(a, w, r, derivatives=True)
        a = _step_in_a(a, i)
    return a


def _first_guess(w: Array, r: Array) -> Array:
    """Exact at w = 0 (median of the shifted law) and for small ratios (the foot of the perpendicular)."""
    return np.log(np.cos(np.minimum(w, _WIDEST))) - 0.5 * r * r * np.exp(-w / np.maximum(r, 1e-9))


def _step_in_a(a: Array, i: Integral) -> Array:
    """In log s the curvature adds the slope: J_ss s^2 = J_aa - J_a."""
    convex = np.maximum(i.aa, np.abs(i.aa - i.a))
    return np.asarray(a - np.clip(i.a / np.maximum(convex, 1e-300), -1.0, 1.0))


def _lookup(value: Array, r: Array, columns: Columns) -> Start:
    """Bilinear in (log ratio, depth), depth = -log of the share of the way to 1 that is left."""
    depth = -np.log(np.maximum((1.0 - value) / _room(r), 1e-300))
    i, u = _place(np.log(r / SMALLEST) / math.log(LARGEST / SMALLEST), _ROWS)
    j, v = _place(depth / _DEPTH, _LEVELS)
    log_w, a = (
        (1 - u) * ((1 - v) * c[i, j] + v * c[i, j + 1]) + u * ((1 - v) * c[i + 1, j] + v * c[i + 1, j + 1])
        for c in columns
    )
    return Start(a * r, np.minimum(np.exp(log_w) * r, _WIDEST))


def _place(share: Array, points: int) -> tuple[npt.NDArray[np.int64], Array]:
    along = np.clip(share, 0.0, 1.0) * (points - 1)
    cell = np.minimum(along.astype(np.int64), points - 2)
    return cell, along - cell


def _room(r: Array) -> Array:
    """1 - (2 Phi(r) - 1): what lies between a vacuous level and 1."""
    from scipy.special import ndtr

    return np.asarray(2.0 * ndtr(-r), dtype=np.float64)


@lru_cache(maxsize=1)
def _table() -> Columns:
    """log(w / r) and a / r for every ratio and depth of m."""
    ratios = np.geomspace(SMALLEST, LARGEST, _ROWS)
    r = np.repeat(ratios, _ANGLES)
    steepness = np.geomspace(np.full(_ROWS, 1e-3), 1e4 / ratios, _ANGLES, axis=1).ravel()
    w = np.arctan(r * steepness)
    a = minimiser(w, r)
    i = integral(a, w, r, derivatives=True)
    depth = -np.log(np.maximum((1.0 - np.hypot(i.value, i.w)) / _room(r), 1e-9)).reshape(_ROWS, -1)
    wanted = np.linspace(0.0, _DEPTH, _LEVELS)

    def resampled(column: Array) -> Array:
        rows = zip(depth, column.reshape(_ROWS, -1), strict=True)
        return np.array([np.interp(wanted, *row) for row in rows])

    return resampled(np.log(w / r)), resampled(a / r)
