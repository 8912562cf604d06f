"""Cosine certificates: the published figures, attainment, and no violation by any map we could find."""

from __future__ import annotations

import math
import time

import mpmath
import numpy as np
import pytest
from scipy import optimize
from tests.certificates.maps import StepMap, cosine

from smoothcert.certificates.cosine import (
    best,
    covariance,
    exact,
    gaussian_score_bound,
    gaussian_score_ratio,
    norm_away,
    ratio_for,
    repaired,
    to_reference,
    turned,
)
from smoothcert.errors import InvalidInput

# (m, r): the repaired bound, the exact one, the covariance bound with lam = 1 - m^2 and a tenth of it.
TABLE = {
    (0.5, 0.25): (0.3288, 0.9293, 0.8981, 0.9903),
    (0.7, 0.5): (0.4083, 0.8846, 0.8393, 0.9851),
    (0.9, 0.25): (0.8369, 0.9931, 0.9924, 0.9992),
    (0.9, 0.5): (0.7477, 0.9706, 0.9661, 0.9967),
    (0.9, 1.0): (0.4810, 0.8471, 0.7726, 0.9796),
    (0.95, 0.5): (0.8557, 0.9858, 0.9845, 0.9985),
    (0.95, 1.0): (0.6629, 0.9249, 0.9024, 0.9907),
    (0.7, 1.0): (0.0291, 0.2575, 0.0, 0.9062),
}


@pytest.mark.parametrize(("m", "r"), TABLE)
def test_the_table_to_its_last_digit(m: float, r: float) -> None:
    rest = 1 - m * m
    found = repaired(m, r), exact(m, r), covariance(m, rest, r), covariance(m, 0.1 * rest, r)
    assert found == pytest.approx(TABLE[m, r], abs=5.01e-5)
    assert best(m, 0.1 * rest, r) == max(found[1], found[3])


def test_the_other_references_figures() -> None:
    assert to_reference(0.9, [0.25, 0.5, 1.0]) == pytest.approx([0.893, 0.871, 0.752], abs=6e-4)


def extremal(angle: float, r: float) -> tuple[mpmath.mpf, mpmath.mpf]:
    """(||F(x)||, cosine to F(x + delta)) of f(t) = (v - L w) / |.|, in 20 digits and by other means.

    v has length 1/s at ``angle`` from w = (1, 0); s makes F(x + delta) orthogonal to w (found by its own root
    search), so that F(x + delta) lies on the edge of what the dual problem allows.
    """
    with mpmath.workdps(20):
        u = mpmath.cos(angle), mpmath.sin(angle)

        def mean(component: int, s: mpmath.mpf, shifted: bool) -> mpmath.mpf:
            bend = r / 2 - mpmath.log(s) / r

            def integrand(t: mpmath.mpf) -> mpmath.mpf:
                tilt = s * mpmath.exp(r * t - mpmath.mpf(r) ** 2 / 2)
                g = u[0] - tilt, u[1]
                return g[component] / mpmath.sqrt(g[0] ** 2 + g[1] ** 2) * mpmath.npdf(t - r * shifted)

            width = angle / r
            cuts = [-12, bend - 20 * width, bend - width, bend, bend + width, bend + 20 * width, 12 + r]
            return mpmath.quad(integrand, sorted({float(min(max(c, -12), 12 + r)) for c in cuts}))

        ends = -(r**2) / 2 - 1.0, 1.0  # log s, between which the sign changes
        s = mpmath.exp(mpmath.findroot(lambda a: mean(0, mpmath.exp(a), True), ends, solver="anderson"))
        at, away = ((mean(0, s, b), mean(1, s, b)) for b in (False, True))
        norm = mpmath.sqrt(at[0] ** 2 + at[1] ** 2)
        length = mpmath.sqrt(away[0] ** 2 + away[1] ** 2)
        return norm, (at[0] * away[0] + at[1] * away[1]) / norm / length


@pytest.mark.parametrize("r", [0.1, 0.5, 1.0, 2.0])
@pytest.mark.parametrize("angle", [0.1, 0.5, 1.0])
def test_the_extremal_map_attains_the_exact_bound(angle: float, r: float) -> None:
    norm, attained = extremal(angle, r)
    bound = exact(float(norm), r)
    assert mpmath.mpf(bound) <= attained + mpmath.mpf("1e-16") / (1 - norm), "m itself was rounded"
    assert bound == pytest.approx(float(attained), abs=2e-8)


def test_a_negative_value_of_the_published_bound_is_no_bound() -> None:
    """f is a step from -e1 to e1, x where F = e1 / 2: a shift by 1 turns F over, the formula says -.255."""
    step = StepMap(np.array([-0.6744897501960817]), np.array([[-1.0, 0.0], [1.0, 0.0]]))
    assert np.linalg.norm(step.mean(0.0)) == pytest.approx(0.5)
    from scipy.special import ndtr, ndtri

    assert 2 * ndtr(ndtri(0.75) - 1.0) - 1 == pytest.approx(-0.255, abs=5e-4)
    assert cosine(step.mean(0.0), step.mean(-1.0)) == pytest.approx(-1.0)
    assert gaussian_score_bound(0.75, 1.0) == 0.0
    assert gaussian_score_bound(0.75, 0.6) > 0.05
    assert exact(0.5, 1.0) == 0.0


def test_the_published_score_jumps_so_it_is_read_at_the_clean_image_only() -> None:
    """f = +1 on (0, 1), -1 elsewhere: S jumps from .659 to .341 at 0, and both readings stay true bounds."""
    step = StepMap(np.array([0.0, 1.0]), np.array([[-1.0], [1.0], [-1.0]]))
    mean = float(step.mean(0.0)[0])
    scores = [(1 + mean * f) / 2 for f in (-1.0, 1.0)]
    assert scores == pytest.approx([0.659, 0.341], abs=5e-4)
    for score in scores:
        for r in np.linspace(-1.5, 1.5, 61):
            assert gaussian_score_bound(score, abs(r)) <= cosine(step.mean(0.0), step.mean(float(r))) + 1e-12


@pytest.mark.parametrize("seed", range(4))
def test_no_random_map_violates_any_bound(seed: int) -> None:
    rng = np.random.default_rng(seed)
    tight = 0.0
    for _ in range(150):
        step = StepMap.random(
            rng, int(rng.integers(2, 30)), int(rng.integers(2, 6)), smooth=rng.uniform(0, 0.9)
        )
        at = step.mean(0.0)
        m, lam = float(np.linalg.norm(at)), step.spread(0.0)
        shifts = rng.uniform(-2, 2, 12)
        aways = [step.mean(float(x)) for x in shifts]
        true, r = np.array([cosine(at, away) for away in aways]), np.abs(shifts)
        lengths = np.array([np.linalg.norm(away) for away in aways])
        certified = np.asarray(best(m, lam, r))
        assert (certified <= np.maximum(true, 0.0) + 1e-9).all()
        assert (np.asarray(covariance(m, lam, r)) <= np.maximum(true, 0.0) + 1e-9).all()
        assert (np.asarray(exact(m, r)) >= np.asarray(repaired(m, r)) - 1e-9).all(), "better than the repair"
        assert (np.asarray(norm_away(m, lam, r)) <= lengths + 1e-9).all()
        u = step.values[0]
        to_u = np.array([cosine(u, away) for away in aways])
        level = float(u @ at)
        assert (np.asarray(to_reference(level, r)) <= np.maximum(to_u, 0.0) + 1e-9).all()
        score = (1 + level) / 2
        assert (np.asarray(gaussian_score_bound(score, r)) <= np.maximum(true, 0.0) + 1e-9).all()
        assert (np.asarray(repaired(m, r)) >= np.asarray(gaussian_score_bound(score, r)) - 1e-12).all()
        tight = max(tight, float((certified / np.maximum(true, 1e-9))[certified > 0].max(initial=0.0)))
    assert tight > 0.97, "bounds that far away would not notice a violation"


@pytest.mark.parametrize("seed", range(3))
def test_no_network_is_turned_farther_by_an_attack_on_the_shift(seed: int) -> None:
    """Two-layer networks of the plane; expectations on a fine grid; the direction of the shift by gradients."""
    rng = np.random.default_rng(seed)
    axis = np.linspace(-7, 7, 101)
    z = np.stack(np.meshgrid(axis, axis, indexing="ij"), axis=-1).reshape(-1, 2)

    def smoothed(f: np.ndarray, delta: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """F(delta) and its derivative (2, k), by Stein's identity."""
        mass = np.exp(-0.5 * ((z - delta) ** 2).sum(axis=1))
        mass /= mass.sum()
        return mass @ f, ((z - delta) * mass[:, None]).T @ f

    gaps = []
    for _ in range(10):
        hidden = np.tanh(z @ rng.normal(size=(2, 16)) * rng.uniform(0.3, 2) + rng.normal(size=16))
        f = hidden @ rng.normal(size=(16, 4)) + rng.uniform(0, 4) * np.eye(4)[0]
        f /= np.linalg.norm(f, axis=1, keepdims=True)
        at, _ = smoothed(f, np.zeros(2))
        mass = np.exp(-0.5 * (z**2).sum(axis=1))
        mass /= mass.sum()
        m = float(np.linalg.norm(at))
        lam = float(np.linalg.eigvalsh((f * mass[:, None]).T @ f - np.outer(at, at))[-1])
        for r in (0.2, 0.6, 1.2):
            worst = 1.0
            for angle in np.linspace(0, 2 * np.pi, 5)[:-1]:
                delta = r * np.array([np.cos(angle), np.sin(angle)])
                for _ in range(15):
                    away, slopes = smoothed(f, delta)
                    length = np.linalg.norm(away)
                    worst = min(worst, cosine(at, away))
                    downhill = -slopes @ (at / m / length - cosine(at, away) * away / length**2)
                    delta = delta + 0.3 * r * downhill / (np.linalg.norm(downhill) + 1e-12)
                    delta *= r / np.linalg.norm(delta)
            bound = float(best(m, lam, r))
            assert bound <= max(worst, 0.0) + 1e-6
            gaps.append((1 - worst) / (1 - bound))
    assert max(gaps) > 0.3, "an attack that does not come near the bound tests nothing"


def descend(r: float, start: np.ndarray, goal: float) -> tuple[float, float, float]:
    """A map on 81 cells, changed by gradients until its cosine is the least: (m, lam, cosine)."""
    t = np.concatenate([np.linspace(-4, 4 + r, 80)])
    from scipy.special import ndtr

    base = np.diff(np.concatenate([[0.0], ndtr(t), [1.0]]))
    tilted = np.diff(np.concatenate([[0.0], ndtr(t - r), [1.0]]))

    def measures(angles: np.ndarray) -> tuple[float, float, float]:
        f = np.stack([np.cos(angles), np.sin(angles)], axis=1)
        at, away = base @ f, tilted @ f
        second = (f * base[:, None]).T @ f - np.outer(at, at)
        return float(np.linalg.norm(at)), float(np.linalg.eigvalsh(second)[-1]), cosine(at, away)

    def loss(angles: np.ndarray) -> tuple[float, np.ndarray]:
        f = np.stack([np.cos(angles), np.sin(angles)], axis=1)
        turn = np.stack([-np.sin(angles), np.cos(angles)], axis=1)
        at, away = base @ f, tilted @ f
        m, length = np.linalg.norm(at), np.linalg.norm(away)
        value = float(at @ away / m / length)
        by_at = away / m / length - value * at / m**2 + 200 * (m - goal) * at / m
        by_away = at / m / length - value * away / length**2
        slope = (turn @ by_at) * base + (turn @ by_away) * tilted
        return value + 100 * (m - goal) ** 2, slope

    found = optimize.minimize(
        loss, start, jac=True, method="L-BFGS-B", options={"maxiter": 3_000, "maxfun": 6_000}
    )
    return measures(found.x)


@pytest.mark.parametrize(("goal", "r"), [(0.9, 0.5), (0.9, 1.0), (0.6, 0.3), (0.97, 1.5)])
def test_the_worst_map_found_by_gradients_stops_at_the_exact_bound(goal: float, r: float) -> None:
    rng = np.random.default_rng(3)
    gaps = []
    for _ in range(5):
        m, lam, worst = descend(r, rng.normal(size=81), goal)
        assert worst >= best(m, lam, r) - 1e-9
        gaps.append(worst - exact(m, r))
    assert -1e-9 <= min(gaps) < 2e-3, "an attack that does not come near the bound tests nothing"


def test_the_covariance_bound_at_its_true_spread_is_not_beaten_either() -> None:
    """f = a cos + b sin of a small multiple of t: the movement is close to what Cauchy-Schwarz allows."""
    t = np.linspace(-6, 6, 4_001)
    for size in (0.05, 0.2, 0.5):
        f = np.stack([np.cos(size * t), np.sin(size * t)], axis=1)
        step = StepMap((t[1:] + t[:-1]) / 2, f)
        for r in (0.1, 0.3, 0.6):
            m, lam = float(np.linalg.norm(step.mean(0.0))), step.spread(0.0)
            true = cosine(step.mean(0.0), step.mean(r))
            assert covariance(m, lam, r) <= true
            if r == 0.1:
                assert 1 - covariance(m, lam, r) < 1.05 * (1 - true)


def test_monotone_in_everything() -> None:
    m, r = np.linspace(0.02, 0.999, 120)[:, None], np.linspace(0.0, 3.0, 121)[None, :]
    for bound in (
        exact,
        repaired,
        to_reference,
        lambda m, r: covariance(m, 0.03, r),
        lambda m, r: best(m, 0.03, r),
    ):
        values = np.asarray(bound(m, r))
        assert (np.diff(values, axis=1) <= 1e-9).all()
        assert (np.diff(values, axis=0) >= -1e-9).all()
        assert (values >= 0).all()
        assert (values <= 1).all()
    lam = np.linspace(0, 1, 50)
    assert (np.diff(np.asarray(best(0.8, lam, 0.5))) <= 1e-12).all()
    assert (np.asarray(exact(m, 1e-9)) > 0.999).all()
    assert exact(0.9, 0.0) == 1.0
    assert exact(0.9, 50.0) == exact(0.0, 0.1) == exact(-0.5, 0.1) == best(0.0, 0.0, 0.1) == 0.0


def test_the_exact_bound_vanishes_where_nothing_can_be_said() -> None:
    from scipy.special import ndtri

    for m in (0.3, 0.6, 0.9, 0.99):
        last = float(ndtri((1 + m) / 2))
        assert exact(m, last * 1.000001) == 0.0
        assert exact(m, last * 0.98) > 0.0
    assert best(0.7, 0.005, 2.0) > 0.6, "a small spread certifies beyond"


def test_inverses() -> None:
    m = np.array([0.3, 0.6, 0.9, 0.97, 0.99])
    lam = 0.05 * (1 - m * m)
    for tau in (0.1, 0.5, 0.9, 0.99):
        r = np.asarray(ratio_for(tau, m, lam))
        assert (np.asarray(best(m, lam, r)) >= tau).all()
        assert (np.asarray(best(m, lam, r + 2e-6)) < tau).all()
        assert np.asarray(ratio_for(tau, m, lam, noise_error=1e-6)) == pytest.approx(r, rel=0.02)
    assert ratio_for(0.9, 0.0, 0.0) == 0.0
    for score in (0.6, 0.9, 0.999):
        r = gaussian_score_ratio(score, 0.1)
        assert gaussian_score_bound(score, r) == pytest.approx(0.1 if r else 0.0, abs=1e-9)
    assert gaussian_score_ratio(0.5, 0.3) == 0.0


def test_the_drawn_noise_costs_what_it_may_change() -> None:
    ideal = np.asarray(best(0.9, 0.02, [0.1, 0.5, 1.0]))
    drawn = np.asarray(best(0.9, 0.02, [0.1, 0.5, 1.0], noise_error=1e-3))
    assert (drawn < ideal).all()
    assert (drawn > ideal - 0.02).all()
    # Both features may move by 2 e, at right angles, and m by 2 e.
    r, e = 0.5, 1e-3
    angle = math.acos(best(0.9 - 2 * e, 0.02 + 4 * e, r)) + math.asin(2 * e / 0.9)
    assert best(0.9, 0.02, r, noise_error=e) < math.cos(angle)
    assert turned(0.9, (0.1, 0.5)) == pytest.approx(math.cos(math.acos(0.9) + math.asin(0.2)), abs=1e-12)
    assert turned(0.9, (0.6, 0.5)) == turned(0.0) == turned(0.01, (0.3, 1.0)) == 0.0


def test_a_curve_of_a_hundred_radii_for_a_thousand_images_takes_about_a_second() -> None:
    m, r = np.linspace(0.3, 0.995, 1_000)[:, None], np.linspace(0.01, 2, 100)
    best(m, 0.02, 0.5)
    start = time.process_time()
    best(m, 0.02, r)
    assert time.process_time() - start < 8.0, "about .5 s on an idle core; a scalar search would take minutes"


def test_shapes_and_numbers() -> None:
    assert isinstance(exact(0.9, 0.5), float)
    assert np.asarray(exact(np.full((3, 1), 0.9), np.ones((1, 4)))).shape == (3, 4)
    assert np.asarray(best(np.full(2, 0.9), 0.1, np.zeros((5, 1)))).shape == (5, 2)
    many = np.asarray(exact(np.linspace(0.5, 0.99, 50)[:, None], np.linspace(0.01, 2, 60)))
    assert many[10, 30] == pytest.approx(
        exact(float(np.linspace(0.5, 0.99, 50)[10]), float(np.linspace(0.01, 2, 60)[30])), abs=1e-11
    )


@pytest.mark.parametrize(
    "call",
    [
        lambda: exact(1.5, 0.1),
        lambda: exact(float("nan"), 0.1),
        lambda: exact(0.9, -0.1),
        lambda: best(0.9, -0.1, 0.1),
        lambda: best(0.9, float("nan"), 0.1),
        lambda: ratio_for(1.0, 0.9, 0.1),
        lambda: ratio_for(0.0, 0.9, 0.1),
        lambda: repaired(0.9, float("nan")),
        lambda: gaussian_score_ratio(0.9, -0.2),
    ],
)
def test_bad_input(call: object) -> None:
    with pytest.raises(InvalidInput):
        call()  # type: ignore[operator]


def test_a_bad_ratio_is_not_blamed_on_the_length() -> None:
    with pytest.raises(InvalidInput, match="a ratio that is negative or NaN: it is"):
        exact(0.9, -0.1)
