"""Angles between smoothed features, on flat arrays: what ``cosine`` evaluates. Rounded outward, each.

Notation as in ``cosine`` and ``tilted``. An angle is an upper bound in radians, infinite where none below
pi/2 was found.
"""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt

from smoothcert.certificates import cosine_search
from smoothcert.certificates.tilted import integral

Array = npt.NDArray[np.float64]
EPS = 4e-15  # rounding of a cosine, an arcsine and a few sums


def away(score: Array, r: Array) -> Array:
    """2 Phi(Phi^-1(score) - r) - 1, rounded down; 0 where negative."""
    from scipy.special import ndtr, ndtri

    low = 2.0 * ndtr(ndtri(np.clip(score, 0.0, 1.0)) - r) - 1.0
    return np.where(score >= 1.0, 1.0, np.clip(np.nan_to_num(low, nan=0.0) - 1e-13, 0.0, 1.0))


def exact_angle(m: Array, r: Array) -> Array:
    """An upper bound on the angle in radians, infinite where none below pi/2 was found."""
    from scipy.special import ndtr

    angle = np.where((m >= 1.0) | ((r == 0.0) & (m > 0.0)), 0.0, np.inf)
    near = np.maximum(r, cosine_search.SMALLEST)  # a bound at a larger ratio holds at a smaller one
    sought = (angle > 0.0) & (r <= cosine_search.LARGEST) & (m > 1.0 - 2.0 * ndtr(-near))
    if sought.any():
        level, near = m[sought], near[sought]
        at = cosine_search.for_mean(level, near)
        distance = integral(at.a, at.w, near).value
        with np.errstate(invalid="ignore"):
            found = np.arcsin(distance / level * (1.0 + EPS)) - at.w
        angle[sought] = np.where(np.isfinite(found), np.maximum(found, 0.0) + EPS, np.inf)
    return angle


def covariance_angle(m: Array, lam: Array, r: Array) -> Array:
    with np.errstate(over="ignore", invalid="ignore", divide="ignore"):
        step = _step(m, lam, r)
        found = np.where(step < m, np.arcsin(np.minimum(1.0, step / m)), np.inf)
    return np.where((m > 0.0) & np.isfinite(found), found + EPS, np.inf)


def _step(m: Array, lam: Array, r: Array) -> Array:
    """How far F can move: sqrt(lam (e^(r^2) - 1)), rounded up."""
    spread = np.minimum(lam, 1.0 - np.clip(m, 0.0, 1.0) ** 2)
    with np.errstate(over="ignore", invalid="ignore"):
        return np.asarray(np.where(spread > 0.0, np.sqrt(spread * np.expm1(r * r)) * (1.0 + EPS), 0.0))


def norm_away(m: Array, lam: Array, r: Array) -> Array:
    return np.maximum(away(0.5 * (1.0 + np.clip(m, -1.0, 1.0)), r), m - _step(m, lam, r) - EPS)


def reference_cosine(level: Array, r: Array) -> Array:
    from scipy.special import ndtr

    out = np.where((level >= 1.0) | (r == 0.0), np.clip(level, 0.0, 1.0), 0.0)
    near = np.maximum(r, cosine_search.SMALLEST)
    sought = (r > 0.0) & (level < 1.0) & (r <= cosine_search.LARGEST) & (level > 1.0 - 2.0 * ndtr(-near))
    if not sought.any():
        return out
    level, near = level[sought], near[sought]
    at = cosine_search.for_least(level, near)
    here = integral(at.a, at.w, near, derivatives=True)
    miss = (here.value - level) / np.maximum(here.w, 1e-300)
    w, proved = at.w, np.zeros(len(level), dtype=np.bool_)
    for margin in (1e-11, 1e-9, 1e-6, 1e-3):  # J rises with w: the smaller the angle, the safer
        w = np.where(proved, w, np.clip(at.w - miss - margin * near, 0.5 * at.w, 0.5 * math.pi))
        proved |= integral(at.a, w, near).value <= level
        if proved.all():
            break
    out[sought] = np.where(proved, np.maximum(np.sin(w) - EPS, 0.0), 0.0)
    return out


def turn(off: Array, norm: Array) -> Array:
    """arcsin(off / norm), rounded up; infinite unless off < norm."""
    with np.errstate(divide="ignore", invalid="ignore"):
        found = np.arcsin(np.minimum(1.0, off / norm)) * (1.0 + EPS)
    return np.where(off == 0.0, 0.0, np.where(norm > off, found, np.inf))


def cosine_of(angle: Array) -> Array:
    """cos(angle) rounded down, 0 from pi/2 on."""
    low = np.cos(np.minimum(angle, 0.5 * math.pi)) - EPS
    return np.where(angle == 0.0, 1.0, np.where(angle < 0.5 * math.pi, np.maximum(low, 0.0), 0.0))
