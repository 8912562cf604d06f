"""Certificates for heads: the dual test functions against brute force, known radii, and their level."""

from __future__ import annotations

import json
import math

import numpy as np
import numpy.typing as npt
import pytest
from scipy import integrate, optimize
from scipy.special import ndtr, ndtri
from tests.certificates.maps import StepMap

from smoothcert.bounds import betting_lower
from smoothcert.certificates.margin import TestFunction as Dual
from smoothcert.certificates.margin import baseline_ratio, choose, directions, dual_ratio
from smoothcert.errors import InvalidInput

Array = npt.NDArray[np.float64]
KINDS = ("linear", "quadratic", "concave")
E1 = np.eye(3)[0]


def pilot(seed: int, n: int = 100, k: int = 8, mean: float = 0.25, spread: float = 0.1) -> Array:
    rng = np.random.default_rng(seed)
    f = 0.05 * rng.normal(size=(n, k))
    f[:, 0], f[:, 1] = mean + spread * rng.normal(size=n), 0.8
    return np.asarray(f / np.linalg.norm(f, axis=1, keepdims=True))


def chosen(kind: str, seed: int = 0) -> Dual:
    return choose(pilot(seed), np.eye(8)[0], n=10_000, alpha=0.001, family=kind)  # type: ignore[arg-type]


def by_quadrature(q: Dual, r: float) -> float:
    """E_t of the minimum over the ball of L <w, f> - q(f), by a fine grid of t and of s or directions."""
    t = np.linspace(-9, 9 + r, 40_001)
    tilt = np.exp(r * t - r * r / 2)
    if q.kind == "linear":

        def loss(log_s: float) -> float:  # the best multiple of q
            s = math.exp(log_s)
            least = -np.hypot(s * tilt - math.sin(q.angle), math.cos(q.angle))
            return -float(integrate.trapezoid(least * np.exp(-t * t / 2) / math.sqrt(2 * math.pi), t))

        return -float(optimize.minimize_scalar(loss, bounds=(-12, 2), method="bounded").fun)
    knots = np.array(q.knots)
    least = np.min(tilt[:, None] * knots - np.array(q.levels), axis=1)
    return float(integrate.trapezoid(least * np.exp(-t * t / 2) / math.sqrt(2 * math.pi), t))


@pytest.mark.parametrize("kind", KINDS)
def test_slack_is_the_expected_minimum_rounded_down(kind: str) -> None:
    for seed in range(3):
        q = chosen(kind, seed)
        for r in (0.05, 0.4, 1.0, 1.7):
            assert q.slack(r) == pytest.approx(by_quadrature(q, r), abs=3e-6)
    ratios = np.linspace(0.01, 3, 50)
    many = np.asarray(q.slack(ratios))
    assert many.shape == (50,)
    assert many[20] == pytest.approx(q.slack(float(ratios[20])), abs=1e-11)
    if kind == "linear":
        assert (np.diff(many) <= 1e-9).all()


def test_slack_of_one_straight_piece_by_hand() -> None:
    """q = 2 s: min over [-1, 1] of (L - 2) s is -|L - 2|, and E |L - 2| is a matter of two normal tails."""
    q = Dual("concave", None, levels=(-2.0, 2.0))
    for r in (0.3, 1.0):
        edge = math.log(2) / r + r / 2
        true = -(2 * (2 * ndtr(edge) - 1) - (2 * ndtr(edge - r) - 1))
        assert q.slack(r) == pytest.approx(true, abs=1e-12)
        assert q.slack(r) <= true


def worst(q: Dual, r: float, level: float) -> float:
    """min E_r s over randomised scalars with E_0 q(s) >= level: a linear programme over cells of t and s.

    Cells are merged by their extreme likelihood ratios, so the programme's value is a little above or below.
    """
    edges = np.linspace(-5, 5 + r, 60)
    base = np.diff(np.concatenate([[0.0], ndtr(edges), [1.0]]))
    tilted = np.diff(np.concatenate([[0.0], ndtr(edges - r), [1.0]]))
    s = np.union1d(np.linspace(-1, 1, 60), np.array(q.knots))
    values = np.interp(s, q.knots, q.levels)
    found = optimize.linprog(
        np.outer(tilted, s).ravel(),
        A_ub=[-np.outer(base, values).ravel()],
        b_ub=[-level],
        A_eq=np.kron(np.eye(len(base)), np.ones(len(s))),
        b_eq=np.ones(len(base)),
    )
    return float(found.fun)


@pytest.mark.parametrize("kind", ["quadratic", "concave"])
def test_the_dual_never_exceeds_the_primal_by_brute_force(kind: str) -> None:
    q = chosen(kind)
    seen = float(q.values(pilot(5, 5_000)).mean())
    for r in (0.3, 0.8, 1.3):
        primal = worst(q, r, seen)
        assert seen + q.slack(r) <= primal + 1e-9
    # Of all multiples of q the best one leaves no gap: that is strong duality, for the same cells.
    r = 0.8
    best = max(
        seen * c + Dual("concave", None, knots=q.knots, levels=tuple(c * x for x in q.levels)).slack(r)
        for c in np.geomspace(0.2, 5, 200)
    )
    assert best == pytest.approx(worst(q, r, seen), abs=5e-3)


@pytest.mark.parametrize("kind", ["quadratic", "concave"])
def test_reading_takes_the_best_multiple(kind: str) -> None:
    """ratio(lower) is the largest r at which some multiple of q certifies, each by its own slack."""
    q = chosen(kind)
    for share in (0.997, 0.99, 0.9):
        level = share * float(q.values(pilot(5, 5_000)).mean())
        multiples = [
            largest_at_one(
                Dual("concave", None, knots=q.knots, levels=tuple(c * x for x in q.levels)), c * level
            )
            for c in np.geomspace(0.25, 4, 25)
        ]
        assert q.ratio(level) == pytest.approx(max(multiples), abs=0.02)
        assert q.ratio(level) > largest_at_one(q, level) - 1e-6
        if q.ratio(level) > 0.0:
            assert q.certifies(level, q.ratio(level))
            assert worst(q, q.ratio(level), level) > -0.02
        assert not q.certifies(level, q.ratio(level) * 1.05 + 0.05)


def largest_at_one(q: Dual, level: float) -> float:
    ratios = np.linspace(0.001, 4, 4_000)
    holds = level + np.asarray(q.slack(ratios)) > 0
    return float(ratios[holds].max(initial=0.0))


@pytest.mark.parametrize("kind", KINDS)
def test_the_worst_feature_attains_it(kind: str) -> None:
    """f(t), the minimiser at each t, has <w, F(x + delta)> = E_0 q + slack: no larger claim could be true."""
    q, r = chosen(kind), 0.9
    t = np.linspace(-10, 10 + r, 200_001)
    mass = np.exp(-t * t / 2) / math.sqrt(2 * math.pi)
    tilt = np.exp(r * t - r * r / 2)
    if kind == "linear":
        log_s = optimize.minimize_scalar(
            lambda a: integrate.trapezoid(
                np.hypot(math.exp(a) * tilt - math.sin(q.angle), math.cos(q.angle)) * mass, t
            ),
            bounds=(-12, 2),
            method="bounded",
        ).x
        g = np.stack([math.sin(q.angle) - math.exp(log_s) * tilt, np.full(len(t), math.cos(q.angle))])
        f = g / np.linalg.norm(g, axis=0)
        level = float(integrate.trapezoid((math.sin(q.angle) * f[0] + math.cos(q.angle) * f[1]) * mass, t))
        away = float(integrate.trapezoid(tilt * f[0] * mass, t))
        assert abs(away) < 1e-5, "the best multiple makes F(x + delta) orthogonal to w"
        assert level + q.slack(r) == pytest.approx(0.0, abs=1e-6)
    else:
        knots = np.array(q.knots)
        s = knots[np.argmin(tilt[:, None] * knots - np.array(q.levels), axis=1)]
        level = float(integrate.trapezoid(np.interp(s, q.knots, q.levels) * mass, t))
        assert level + q.slack(r) == pytest.approx(float(integrate.trapezoid(tilt * s * mass, t)), abs=1e-4)


def test_exact_for_a_two_valued_feature() -> None:
    """s = +-1: every concave q is a straight line there, and the radius is Phi^-1(p), as for a half-space."""
    for p in (0.6, 0.8, 0.99):
        straight = Dual("linear", E1, angle=math.pi / 2)
        assert straight.ratio(2 * p - 1) == pytest.approx(float(ndtri(p)), abs=2e-4)
        assert straight.ratio(2 * p - 1) <= float(ndtri(p))
        assert baseline_ratio([2 * p - 1]) == pytest.approx(float(ndtri(p)), abs=1e-9)
        found = 0.0
        for slope in np.geomspace(0.05, 60, 400):
            q = Dual("concave", E1, levels=(-slope, slope))
            found = max(found, q.ratio(slope * (2 * p - 1)))
        assert found == pytest.approx(float(ndtri(p)), abs=0.01)
        assert found <= float(ndtri(p))


def test_a_gaussian_scalar_is_certified_as_far_as_it_reaches() -> None:
    """s = mu + tau t moves by tau a unit of ratio: with many draws the concave family comes near mu / tau."""
    draws = np.stack([0.2 + 0.1 * ndtri((np.arange(4_000) + 0.5) / 4_000), np.zeros(4_000)], axis=1)
    reached = {}
    for kind in KINDS:
        q = choose(draws, np.array([1.0, 0.0]), n=10**7, alpha=0.001, family=kind)  # type: ignore[arg-type]
        reached[kind] = q.ratio(float(q.values(draws).mean()))
    assert 1.85 < reached["concave"] <= 2.0
    assert reached["quadratic"] == pytest.approx(math.sqrt(math.log(1 + 4.0)), abs=0.03)
    assert reached["linear"] == pytest.approx(float(ndtri(0.6)), abs=0.02)


@pytest.mark.parametrize("seed", range(3))
def test_no_random_map_is_claimed_too_far(seed: int) -> None:
    """Exact means in place of bounds, any test function: the answer is kept up to the ratio, in both directions."""
    rng = np.random.default_rng(seed)
    claims = 0
    for _ in range(60):
        step = StepMap.random(rng, int(rng.integers(2, 25)), 4, smooth=rng.uniform(0, 0.7))
        w = np.eye(4)[0]
        draws = step.draw(rng, 200)
        for kind in KINDS:
            q = choose(draws, w, n=100_000, alpha=0.001, family=kind)  # type: ignore[arg-type]
            level = float(step.masses(0.0) @ q.values(step.values))
            ratio = dual_ratio([q], [level])
            claims += ratio > 0.1
            for share in (0.1, 0.5, 0.9, 1.0) if ratio > 0.0 else ():
                for sign in (-1, 1):
                    assert float(step.mean(sign * share * ratio)[0]) > -1e-9
    assert claims > 60


def test_auto_takes_what_the_pilot_promises_and_the_pilot_alone_decides() -> None:
    kinds = {kind: chosen(kind) for kind in KINDS}
    auto = choose(pilot(0), np.eye(8)[0], n=10_000, alpha=0.001)
    assert auto.predicted == max(q.predicted for q in kinds.values())
    again = choose(pilot(0).copy(), np.eye(8)[0].copy(), n=10_000, alpha=0.001)
    assert (auto.knots, auto.levels, auto.angle) == (again.knots, again.levels, again.angle)
    assert kinds["concave"].predicted > kinds["quadratic"].predicted > kinds["linear"].predicted > 0
    fewer = choose(pilot(0), np.eye(8)[0], n=300, alpha=0.001)
    assert 0 < fewer.predicted < auto.predicted
    assert fewer.highest - fewer.lowest < auto.highest - auto.lowest, "few draws cannot bear steep slopes"


def lower(q: Dual, features: Array, alpha: float) -> float:
    share = (q.values(features) - q.lowest) / (q.highest - q.lowest)
    return q.lowest + (q.highest - q.lowest) * betting_lower(share.clip(0, 1), alpha)


def test_the_promise_is_about_what_comes_and_beats_the_baseline() -> None:
    for mean, spread in ((0.2, 0.08), (0.3, 0.2), (0.1, 0.03)):
        estimation, w = pilot(77, 10_000, mean=mean, spread=spread), np.eye(8)[0]
        q = choose(pilot(3, mean=mean, spread=spread), w, n=10_000, alpha=0.001)
        ratio = q.ratio(lower(q, estimation, 0.001))
        s = 2 * betting_lower(((estimation @ w) + 1) / 2, 0.001) - 1
        assert ratio == pytest.approx(q.predicted, rel=0.25)
        assert ratio > 1.3 * baseline_ratio([s])


def test_values_stay_in_the_range_promised() -> None:
    rng = np.random.default_rng(2)
    ball = rng.normal(size=(5_000, 8))
    ball /= np.maximum(1.0, np.linalg.norm(ball, axis=1))[:, None]
    ball[:8] = np.eye(8)
    ball[8:16] = -np.eye(8)
    for kind in KINDS:
        q = chosen(kind)
        values = q.values(ball)
        assert values.min() >= q.lowest
        assert values.max() <= q.highest
        assert q.values(np.zeros((1, 8))).shape == (1,)


@pytest.mark.parametrize("kind", KINDS)
def test_facts_evaluate_without_the_vector(kind: str) -> None:
    q = chosen(kind)
    back = Dual.from_facts(json.loads(json.dumps(q.facts())))
    assert back.vector is None
    assert back.kind == kind
    assert back.predicted == q.predicted
    ratios = np.linspace(0.1, 2, 7)
    np.testing.assert_array_equal(np.asarray(back.slack(ratios)), np.asarray(q.slack(ratios)))
    with pytest.raises(InvalidInput, match="no vector"):
        back.values(pilot(0))


def test_several_rivals_the_nearest_counts() -> None:
    qs = [chosen(kind) for kind in KINDS]
    lowers = [q.lowest * 0.0 + float(q.values(pilot(9, 4_000)).mean()) for q in qs]
    alone = [q.ratio(low) for q, low in zip(qs, lowers, strict=True)]
    assert dual_ratio(qs, lowers) == min(alone)
    assert dual_ratio(qs[::-1], lowers[::-1]) == min(alone)
    assert dual_ratio(qs, [lowers[0], -5.0, lowers[2]]) == 0.0
    worse = next(x for x in lowers[2] * np.linspace(1, 0.9, 101) if qs[2].ratio(float(x)) < 0.8 * min(alone))
    assert worse > lowers[0], "levels of different functions do not say which rival is nearest"
    assert dual_ratio(qs, [lowers[0], lowers[1], worse]) == qs[2].ratio(worse) > 0.0
    assert dual_ratio(qs, lowers, noise_error=1e-3) < min(alone)
    assert baseline_ratio([0.5, 0.2, 0.9]) == baseline_ratio([0.2])
    assert baseline_ratio([0.5, 0.0]) == 0.0
    e, s = 1e-3, 0.2
    assert baseline_ratio([s], noise_error=e) == pytest.approx(
        float(ndtri((1 + s - 2 * e) / 2) - ndtri(0.5 + e)), abs=1e-9
    )


def test_directions() -> None:
    w = directions(np.array([[1.0, 0.0], [0.0, 1.0], [3.0, 0.0]]), 0)
    np.testing.assert_allclose(w, [[math.sqrt(0.5), -math.sqrt(0.5)], [-1.0, 0.0]])


def steep() -> dict[str, object]:
    return {"kind": "concave", "knots": [-1.0, 0.0, 1.0], "levels": [0.0, 1.0, 3.0], "predicted": 0.0}


@pytest.mark.parametrize(
    "call",
    [
        lambda: directions(np.ones((2, 3)), 0),
        lambda: directions(np.ones((1, 3)), 0),
        lambda: directions(np.eye(3), 3),
        lambda: choose(np.ones((1, 3)), np.ones(3), n=10, alpha=0.1),
        lambda: choose(np.ones((5, 3)), np.ones(2), n=10, alpha=0.1),
        lambda: choose(np.ones((5, 3)), np.ones(3), n=10, alpha=0.1, family="cubic"),  # type: ignore[arg-type]
        lambda: dual_ratio([], []),
        lambda: dual_ratio([chosen("concave")], [0.1, 0.2]),
        lambda: baseline_ratio([float("nan")]),
        lambda: Dual.from_facts(steep()),
        lambda: Dual.from_facts({**steep(), "knots": [-1.0, 2.0, 1.0]}),
        lambda: Dual.from_facts({"kind": "linear"}),
        lambda: Dual.from_facts({"kind": "linear", "angle": 9.0, "predicted": 0.0}),
        lambda: Dual.from_facts({**steep(), "kind": "cubic"}),
    ],
)
def test_bad_input(call: object) -> None:
    with pytest.raises(InvalidInput):
        call()  # type: ignore[operator]
