"""The integral behind the cosine bounds against 25-digit quadrature that shares no code with it."""

from __future__ import annotations

import math

import mpmath
import numpy as np
import pytest

from smoothcert.certificates import tilted
from smoothcert.certificates.cosine_search import minimiser


def by_hand(a: float, w: float, r: float) -> mpmath.mpf:
    """E sqrt(s^2 L^2 - 2 s L cos w + 1), split where the integrand bends."""
    with mpmath.workdps(25):
        bend, width = r / 2 - a / r, w / r
        cuts = {-14.0, -7.0, -3.0, 0.0, 3.0, 7.0, 14.0 + r} | {
            x for k in (0, 1, 5, 25, 125) for x in (bend - k * width, bend + k * width) if -14 < x < 14 + r
        }

        def integrand(t: mpmath.mpf) -> mpmath.mpf:
            tilt = mpmath.exp(a + r * t - mpmath.mpf(r) ** 2 / 2)
            return mpmath.sqrt((tilt - mpmath.cos(w)) ** 2 + mpmath.sin(w) ** 2) * mpmath.npdf(t)

        return mpmath.quad(integrand, sorted(cuts))


CASES = [
    (ratio, angle, kind)
    for ratio in (1e-3, 0.05, 0.25, 1.0, 2.5, 5.0)
    for angle in (1e-3, 0.05, 0.7, 1.5)
    for kind in ("best", "flat", "steep")
]


def multiplier(ratio: float, angle: float, kind: str) -> float:
    """log s: where certificates evaluate the integral, and on both sides of it."""
    best = float(minimiser(np.array([angle]), np.array([ratio]))[0])
    return best + {"best": 0.0, "flat": -0.3 * ratio, "steep": 0.3 * ratio}[kind]


@pytest.mark.parametrize(("ratio", "angle", "kind"), CASES)
def test_never_below_the_true_value_and_hardly_above(ratio: float, angle: float, kind: str) -> None:
    a = multiplier(ratio, angle, kind)
    found = float(tilted.integral(np.array([a]), np.array([angle]), np.array([ratio])).value[0])
    true = by_hand(a, angle, ratio)
    assert mpmath.mpf(found) >= true
    assert found - float(true) < (1e-11 if ratio < 5.0 else 1e-9)


def test_the_error_bound_is_honest_when_nodes_are_few(monkeypatch: pytest.MonkeyPatch) -> None:
    """With a step so coarse that the rule is visibly wrong, its proven error must still cover it."""
    cases = np.array([(r, w) for r in (0.3, 1.0, 3.0) for w in (0.01, 0.2, 1.0)])
    r, w = cases.T.copy()
    a = minimiser(w, r)
    true = np.array([float(by_hand(*x)) for x in zip(a, w, r, strict=True)])
    visible = 0
    for step in (0.3, 0.45, 0.6):
        monkeypatch.setattr(tilted, "_STEP", step)
        found = np.array(
            [
                tilted.integral(x, y, z).value[0]
                for x, y, z in zip(a[:, None], w[:, None], r[:, None], strict=True)
            ]
        )
        assert (found >= true).all()
        visible += int((found - true > 1e-6).sum())
    assert visible > 9


def test_many_at_once_are_the_same_as_one_by_one() -> None:
    rng = np.random.default_rng(1)
    r, w = rng.uniform(0.01, 3, 5_000), 10 ** rng.uniform(-3, 0.1, 5_000)
    a = -rng.uniform(0, 1, 5_000) * r
    together = tilted.integral(a, w, r).value
    alone = [tilted.integral(a[i : i + 1], w[i : i + 1], r[i : i + 1]).value[0] for i in range(0, 5_000, 500)]
    np.testing.assert_allclose(together[::500], alone, atol=1e-11, rtol=0)


def test_derivatives_are_those_of_the_integral() -> None:
    r, w = (x.ravel() for x in np.meshgrid([0.1, 1.0, 3.0], [0.05, 0.5, 1.4]))
    a, step = -0.4 * r, 1e-4
    here = tilted.integral(a, w, r, derivatives=True)
    for first, second, da, dw in (("a", ("aa", "aw"), step, 0.0), ("w", ("aw", "ww"), 0.0, step)):
        up = tilted.integral(a + da, w + dw, r, derivatives=True)
        down = tilted.integral(a - da, w - dw, r, derivatives=True)
        np.testing.assert_allclose((up.value - down.value) / (2 * step), getattr(here, first), rtol=1e-5)
        for name, which in zip(second, ("a", "w"), strict=True):
            slope = (getattr(up, which) - getattr(down, which)) / (2 * step)
            np.testing.assert_allclose(slope, getattr(here, name), rtol=1e-4, atol=1e-6)


def test_where_the_proof_does_not_hold_the_bound_is_infinite() -> None:
    """A kink far outside the Gaussians, and nearly on the real line: no error bound, so no value."""
    value = tilted.integral(np.array([-8.0]), np.array([1e-3]), np.array([0.5])).value[0]
    assert value == math.inf
