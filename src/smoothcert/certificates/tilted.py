"""The one integral behind every feature certificate, never below its true value.

Notation: t ~ N(0, 1); L(t) = exp(r t - r^2/2), the likelihood ratio of a shift by r = radius / sigma;
J(s, w) = E sqrt(s^2 L^2 - 2 s L cos w + 1), the mean distance of (s L, 0) from the point at angle w on the
unit circle; K(w) = min_s J(s, w). With a = log s and z = a + r t - r^2/2 the integrand is
h = sqrt((e^z - 1)^2 + 4 e^z sin^2(w/2)).

The quadrature is the trapezoid rule in x, t = c + g sinh x. h is analytic off its branch points t0 +- i w/r,
t0 = r/2 - a/r. Where these lie outside the image of the strip |Im x| < v, the rule with step H is wrong by at
most 2 N / (e^(2 pi v / H) - 1) with N = int |h phi dt/dx| on the strip's edge. |h| <= 1 + |e^z| and
|phi(t)| = phi(Re t) e^((Im t)^2 / 2) make N a sum of two Gaussian integrals in closed form (``_excess``).
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[np.float64]

_STRIP = 0.55  # v, at most; below pi/4, where the Gaussian still decays along the strip's edge
_STEP = 0.105  # H: e^(-2 pi v / H) = 5e-15
_REACH = 8.6  # standard deviations on each side of both Gaussians; what is beyond has mass below 1e-17
_FAR = 8.0  # the centre stays this near to the Gaussians, so that what is left out falls off
_BLOCK = 2_048  # integrals at a time
_ROUNDING = 2e-14  # relative, of a sum of positive terms with rounding errors of a few units each


class Integral(NamedTuple):
    """J (rounded up), and, where asked for, its derivatives in a = log s and in w."""

    value: Array
    a: Array
    w: Array
    aa: Array
    aw: Array
    ww: Array


def integral(a: Array, w: Array, r: Array, *, derivatives: bool = False) -> Integral:
    """J(e^a, w) for one-dimensional arrays of equal length, r > 0, 0 < w <= pi/2; never below the true value.

    The excess is the quadrature's proven error (below 1e-12 wherever a certificate looks) and the rounding.
    Derivatives carry no bound: they only steer a search.
    """
    centre, width, strip = _substitution(a, w, r)
    finest = _STEP / _STRIP * strip
    low, high = np.arcsinh((-_REACH - centre) / width), np.arcsinh((r + _REACH - centre) / width)
    out = np.zeros((6, len(a)))
    need = (high - low) / finest
    order = np.argsort(need, kind="stable")  # a block has as many nodes as its neediest member
    for start in range(0, len(a), _BLOCK):
        part = order[start : start + _BLOCK]
        nodes = math.ceil(float(need[part[-1]])) + 1
        step = (high - low)[part] / (nodes - 1)
        x = low[part, None] + step[:, None] * np.arange(nodes)
        t = centre[part, None] + width[part, None] * np.sinh(x)
        z = (a - 0.5 * r * r)[part, None] + r[part, None] * t
        weights = np.exp(-0.5 * t * t) * np.cosh(x)
        scale = step * width[part] / math.sqrt(2.0 * math.pi)
        sums = _sums(z, weights, w[part], derivatives)
        out[: len(sums), part] = scale * sums
    out[0] = out[0] * (1.0 + _ROUNDING) + _excess(a, w, r, centre, width, strip, need)
    return Integral(*out)


def _sums(z: Array, weights: Array, w: Array, derivatives: bool) -> Array:
    less = np.expm1(z)
    tilt = less + 1.0
    versine = 2.0 * np.sin(0.5 * w) ** 2
    h = np.sqrt(less * less + (2.0 * versine)[:, None] * tilt)
    value: Array = np.einsum("ij,ij->i", h, weights)
    if not derivatives:
        return value[None]
    share = weights * tilt / np.maximum(h, 1e-300)
    sine, cosine = np.sin(w), 1.0 - versine
    over = less + versine[:, None]  # e^z - cos w
    slope_a, slope_w = tilt * over / np.maximum(h, 1e-300), tilt * sine[:, None] / np.maximum(h, 1e-300)
    curve = weights / np.maximum(h, 1e-300)
    total = share.sum(axis=1)
    return np.stack(
        [
            value,
            np.einsum("ij,ij->i", share, over),
            sine * total,
            np.einsum("ij,ij->i", share, over + tilt) - np.einsum("ij,ij,ij->i", curve, slope_a, slope_a),
            sine * total - np.einsum("ij,ij,ij->i", curve, slope_a, slope_w),
            cosine * total - np.einsum("ij,ij,ij->i", curve, slope_w, slope_w),
        ]
    )


def _substitution(a: Array, w: Array, r: Array) -> tuple[Array, Array, Array]:
    """Centre c, width g and strip v of t = c + g sinh x, with the branch points outside the strip's image.

    The image is |Im t|^2 / sin^2 v - (Re t - c)^2 / cos^2 v < g^2. With c = t0 any g <= w/r does; a far t0
    would waste nodes, so c is kept where the Gaussians are if that leaves room, in a narrower strip if
    need be.
    """
    branch, height = 0.5 * r - a / r, w / r
    near = np.clip(branch, -1.0, r + 1.0)
    narrow = np.minimum(_STRIP, 0.8 * np.arctan2(height, np.abs(branch - near)))
    room = (height / np.sin(narrow)) ** 2 - ((branch - near) / np.cos(narrow)) ** 2
    fits = (narrow > 0.25) & (room > 0.36 * np.minimum(1.0, height * height))
    centre = np.where(fits, near, np.clip(branch, -_FAR, r + _FAR))
    inside = np.where(fits, room, height * height)
    return centre, np.minimum(0.6, 0.99 * np.sqrt(inside)), np.where(fits, narrow, _STRIP)


def _excess(a: Array, w: Array, r: Array, centre: Array, width: Array, strip: Array, need: Array) -> Array:
    """The quadrature's error and the mass it leaves out, at most; infinite where the proof does not hold."""
    sin2, cos2 = np.sin(strip) ** 2, np.cos(strip) ** 2
    away = 0.5 * r - a / r - centre
    outside = (w / r) ** 2 / sin2 - away * away / cos2 > width * width
    left = 1.0 - sin2 / cos2
    power = 0.5 * sin2 / cos2 / left
    s = np.exp(a)
    edge = np.exp(np.minimum(600.0, power * centre**2))
    edge += s * np.exp(np.minimum(600.0, power * (centre - r) ** 2))
    edge *= np.exp(0.5 * sin2 * width**2) / np.sqrt(cos2 * left)
    step = _STEP / _STRIP * strip * need / np.ceil(need)  # at most: a block has at least these nodes
    return np.where(outside, 2.0 * edge / np.expm1(2.0 * math.pi * strip / step) + 1e-16 * (1.0 + s), np.inf)
