"""Sequential tests: cuts and levels against recursions that share no code with them, draw by draw.

The package carries the law of the count from look to look by convolution; here it is carried from draw to
draw, in rational numbers where N is small and in float64 (errors below 1e-11) where it is not.
"""

from __future__ import annotations

import itertools
import math
import random
from fractions import Fraction

import mpmath
import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from scipy.special import ndtr, ndtri

from smoothcert.bounds import clopper_pearson_lower, tail_upper
from smoothcert.bounds.sequential import (
    anytime_lower,
    anytime_upper,
    boundary,
    crossing_probability,
    geometric_looks,
    log_wealth,
    power_of_count,
    power_of_lead,
    power_of_pair,
    spent_by,
    unanimous,
)
from smoothcert.errors import InvalidInput


def in_fractions(p: float, looks: tuple[int, ...], alpha: float) -> tuple[list[int], Fraction]:
    """Smallest cuts that spend at most alpha n_k / N by each look, and what they spend, exactly."""
    up, down = Fraction(p), 1 - Fraction(p)
    law, spent, cuts = {0: Fraction(1)}, Fraction(0), []
    for draw in range(1, looks[-1] + 1):
        grown: dict[int, Fraction] = {}
        for count, mass in law.items():
            grown[count] = grown.get(count, Fraction(0)) + mass * down
            grown[count + 1] = grown.get(count + 1, Fraction(0)) + mass * up
        law = grown
        if draw in looks:
            left, cut = Fraction(alpha) * draw / looks[-1] - spent, draw + 1
            while cut > 0 and law.get(cut - 1, Fraction(0)) <= left:
                cut -= 1
                left -= law.pop(cut, Fraction(0))
            spent = Fraction(alpha) * draw / looks[-1] - left
            cuts.append(cut)
    return cuts, spent


def draw_by_draw(p: float, looks: tuple[int, ...], cuts: tuple[int, ...]) -> float:
    """P(the count reaches its cut at some look), in float64; masses below 1e-30 are left out."""
    at, crossed, low, law = dict(zip(looks, cuts, strict=True)), 0.0, 0, np.ones(1)
    for draw in range(1, looks[-1] + 1):
        grown = np.zeros(len(law) + 1)
        grown[:-1] = law * (1.0 - p)
        grown[1:] += law * p
        law = grown
        if draw in at:
            keep = max(0, at[draw] - low)
            crossed += float(law[keep:].sum())
            law = law[:keep]
        if draw % 64 == 0 and len(law):
            kept = np.flatnonzero(law > 1e-30)
            low, law = low + int(kept[0]), law[kept[0] : kept[-1] + 1]
    return crossed


LOOKS = st.lists(st.integers(1, 45), min_size=1, max_size=7, unique=True).map(
    lambda looks: tuple(sorted(looks))
)


@settings(max_examples=60, deadline=None)
@given(st.floats(0.02, 0.995), LOOKS, st.floats(-6, -0.1).map(lambda e: 10.0**e))
def test_cuts_and_level_are_those_of_exact_arithmetic(p: float, looks: tuple[int, ...], alpha: float) -> None:
    found = boundary(p, looks, alpha)
    cuts, level = in_fractions(p, looks, alpha)
    assert list(found.cuts) == cuts
    assert level <= Fraction(found.level) <= level * (1 + Fraction(1, 10**8)) + Fraction(1, 10**18)
    assert found.level <= alpha


@pytest.mark.parametrize("z", [0.0, 0.5, 1.0, 2.0, 3.0, 3.5])
@pytest.mark.parametrize(("last", "ratio", "alpha"), [(1_000, 1.5, 0.05), (12_000, 1.1, 0.001)])
def test_level_is_at_most_alpha_and_close_to_it(z: float, last: int, ratio: float, alpha: float) -> None:
    p = float(ndtr(z))
    looks = geometric_looks(unanimous(0.5, last, 0.05 * alpha), last, ratio)
    found = boundary(p, looks, alpha)
    exact = draw_by_draw(p, looks, found.cuts)
    assert exact <= found.level <= alpha
    assert found.level == pytest.approx(exact, rel=1.1e-9)
    if last * (1.0 - p) >= 20:  # enough failures for the steps of the law to be small
        assert exact >= 0.78 * alpha, "valid but needlessly strict"


@pytest.mark.parametrize(("z", "used"), [(0.0, 0.997), (2.0, 0.995), (3.5, 0.91)])
def test_level_at_the_usual_number_of_draws(z: float, used: float) -> None:
    """N = 110,000 by factors of 1.1: nearly all of alpha is used, and draw by draw it is the same number."""
    p = float(ndtr(z))
    looks = geometric_looks(20, 110_000, 1.1)
    found = boundary(p, looks, 0.00095)
    assert used * 0.00095 <= found.level <= 0.00095
    exact = draw_by_draw(p, looks, found.cuts)
    assert exact <= found.level
    assert found.level == pytest.approx(exact, rel=1.1e-9)


def test_level_is_that_of_the_whole_null_hypothesis() -> None:
    """P(cross) rises with p, so the level at the edge bounds it for every smaller probability."""
    looks = geometric_looks(20, 3_000, 1.3)
    for p in (0.5, 0.9, 0.99):
        found = boundary(p, looks, 0.01)
        below = [crossing_probability(q, looks, found.cuts) for q in np.linspace(0.7 * p, p, 12)]
        assert all(a <= b + 1e-18 for a, b in itertools.pairwise(below))  # 1e-18: the masses cut off
        assert below[-1] == pytest.approx(found.level, rel=1e-8)
        assert crossing_probability(0.5 * (1 + p), looks, found.cuts) > 0.6, "and the test has power"


@settings(max_examples=25, deadline=None)
@given(st.floats(0.02, 0.995), LOOKS, st.data())
def test_crossing_probability_of_any_cuts(p: float, looks: tuple[int, ...], data: st.DataObject) -> None:
    cuts = tuple(data.draw(st.integers(0, n + 2)) for n in looks)
    found, exact = crossing_probability(p, looks, cuts), draw_by_draw(p, looks, cuts)
    assert exact * (1 - 1e-12) <= found <= min(1.0, exact * (1 + 2e-9) + 1e-17)


@pytest.mark.parametrize(("n", "cut"), [(100, 66), (1_000, 550), (10_000, 5_156), (100_000, 50_490)])
def test_one_look_is_the_fixed_test(n: int, cut: int) -> None:
    """Cohen's smallest counts; and the level is the one binomial tail."""
    found = boundary(0.5, (n,), 0.001)
    assert found.cuts == (cut,)
    assert found.level == pytest.approx(tail_upper(cut, n, 0.5), rel=3e-9)


@pytest.mark.parametrize("n", [1, 17, 300, 4_000, 300_000, 2_000_000])
@pytest.mark.parametrize("p", [0.5, 0.9, 0.9999])
def test_one_look_rejects_exactly_when_clopper_pearson_does(n: int, p: float) -> None:
    found = boundary(p, (n,), 0.001)
    (cut,) = found.cuts
    if cut <= n:
        assert clopper_pearson_lower(cut, n, 0.001) >= p * (1 - 1e-9)
        assert found.level >= tail_upper(cut, n, p) * (1 - 1e-9)
    assert clopper_pearson_lower(min(cut - 1, n), n, 0.001) <= p


@pytest.mark.parametrize(("z", "fewest"), [(1, 40), (2, 301), (2.5, 1_109), (3, 5_114), (3.5, 29_691)])
def test_fewest_draws_that_can_prove_a_radius(z: float, fewest: int) -> None:
    p = float(ndtr(z))
    assert boundary(p, (fewest,), 0.001).cuts == (fewest,)
    assert boundary(p, (fewest - 1,), 0.001).cuts == (fewest,), "more than the draws made"
    assert unanimous(p, fewest, 0.001) == fewest
    assert unanimous(p, fewest - 1, 0.001) == fewest


@pytest.mark.parametrize("alpha", [1e-15, 1e-12, 0.999, 0.9999999])
@pytest.mark.parametrize("p", [1e-9, 0.5, 0.999999])
def test_extreme_levels(p: float, alpha: float) -> None:
    looks = (16, 100, 1_000, 5_000)
    found = boundary(p, looks, alpha)
    assert found.level <= alpha
    assert draw_by_draw(p, looks, found.cuts) <= found.level + 1e-12 * alpha


def test_masses_cut_off_are_counted_as_spent() -> None:
    """Looks far apart, so that the windows leave most counts out: what they lose is part of the level."""
    looks = (50_000, 100_000, 200_000)
    nothing = crossing_probability(0.5, looks, [n + 1 for n in looks])
    assert 0.0 < nothing < 1e-18


@settings(max_examples=80, deadline=None)
@given(st.integers(1, 3_000), st.integers(1, 200_000), st.floats(1.02, 8))
def test_looks_rise_by_about_the_ratio_to_the_last(first: int, last: int, ratio: float) -> None:
    looks = geometric_looks(first, last, ratio)
    assert looks[-1] == last
    assert all(a < b for a, b in itertools.pairwise(looks))
    assert all(look % 16 == 0 for look in looks[:-1])
    assert looks[0] >= min(first, last)
    assert all(b <= a * ratio + 32 or b == last for a, b in itertools.pairwise(looks))
    assert looks[-1] <= looks[-2] * ratio**1.5 + 48 if len(looks) > 1 else True


@settings(max_examples=80, deadline=None)
@given(LOOKS, st.floats(1e-12, 0.999))
def test_never_more_is_spent_than_the_share_of_the_draws(looks: tuple[int, ...], alpha: float) -> None:
    spent = spent_by(looks, alpha)
    for n, share in zip(looks, spent, strict=True):
        exact = Fraction(alpha) * n / looks[-1]
        assert exact * (1 - Fraction(1, 10**11)) <= Fraction(share) <= exact


@settings(max_examples=60, deadline=None)
@given(st.floats(0.05, 0.99), st.integers(1, 60), st.floats(1e-6, 0.9))
@example(p=0.05, last=16, alpha=1e-6)  # a tie
def test_unanimous_is_the_fewest(p: float, last: int, alpha: float) -> None:
    enough = [
        n
        for n in range(1, last + 1)
        if Fraction(p) ** n <= Fraction(alpha) * n / last * (1 + Fraction(1, 10**12))
    ]
    assert unanimous(p, last, alpha) == (enough[0] if enough else last + 1)


@pytest.mark.parametrize(
    ("p", "looks"),
    [(0.5, ()), (0.5, (0, 5)), (0.5, (5, 5)), (0.5, (9, 5)), (0.5, (3_000_000,)), (0.0, (5,)), (1.0, (5,))],
)
def test_impossible_designs_are_refused(p: float, looks: tuple[int, ...]) -> None:
    with pytest.raises(InvalidInput):
        boundary(p, looks, 0.05)


def test_other_refusals() -> None:
    with pytest.raises(InvalidInput, match="times"):
        boundary(0.5, range(1, 1_003), 0.05)
    with pytest.raises(InvalidInput, match="strictly between"):
        boundary(0.5, (10,), 0.0)
    with pytest.raises(InvalidInput, match="cuts"):
        crossing_probability(0.5, (10, 20), (9,))
    for k, n in [(-1, 5), (6, 5), (0, 0)]:
        with pytest.raises(InvalidInput):
            anytime_lower(k, n, 0.05)


# the confidence sequence


def first_rejected(p: float, most: int, alpha: float) -> list[int]:
    """For every n, the smallest count whose wealth against "at most p" reaches 1/alpha."""
    counts, count = [], 0
    for n in range(1, most + 1):
        while count <= n and log_wealth(count, n, p) < -math.log(alpha):
            count += 1
        counts.append(count)
    return counts


@pytest.mark.parametrize(("z", "alpha"), [(0.0, 0.05), (1.0, 0.05), (2.5, 0.05), (0.5, 0.001)])
def test_a_confidence_sequence_holds_at_all_numbers_of_draws(z: float, alpha: float) -> None:
    """P(the wealth ever reaches 1/alpha in 3,000 draws), looking after every single one, by recursion."""
    p, most = float(ndtr(z)), 3_000
    cuts = first_rejected(p, most, alpha)
    crossed = draw_by_draw(p, tuple(range(1, most + 1)), tuple(cuts))
    assert 0.3 * alpha <= crossed <= alpha
    assert draw_by_draw(0.97 * p, tuple(range(1, most + 1)), tuple(cuts)) <= crossed
    for n in (40, 200, 1_000, 3_000):
        cut = cuts[n - 1]
        assert anytime_lower(cut - 1, n, alpha) <= p
        assert cut > n or anytime_lower(cut, n, alpha) >= p


def exact_log_wealth(successes: int, n: int, p: float) -> mpmath.mpf:
    with mpmath.workdps(40):
        p_, z = mpmath.mpf(p), mpmath.mpf(float(ndtri(p)))
        for _ in range(4):  # Newton's steps
            z -= (mpmath.ncdf(z) - p_) / mpmath.npdf(z)
        steps = [mpmath.mpf("0.008") * mpmath.mpf(500) ** (mpmath.mpf(j) / 23) for j in range(24)]
        terms = [
            mpmath.exp(
                successes * mpmath.log(mpmath.ncdf(z + d) / p_)
                + (n - successes) * mpmath.log(mpmath.ncdf(-z - d) / (1 - p_))
            )
            for d in steps
        ]
        return mpmath.log(sum(terms) / 24)


def test_wealth_is_rounded_down_and_close() -> None:
    generator = random.Random(4)
    for _ in range(60):
        n = int(10 ** generator.uniform(0, 8))
        p = float(ndtr(generator.uniform(-3, 6)))
        spread = math.sqrt(n * p * (1 - p))
        count = min(n, max(0, int(n * p + generator.uniform(-8, 8) * spread)))
        found, exact = log_wealth(count, n, p), exact_log_wealth(count, n, p)
        assert found <= exact
        assert found >= exact - 1e-5 - 1e-13 * n


@settings(max_examples=40, deadline=None)
@given(
    st.integers(1, 20_000).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n))), st.floats(1e-4, 0.2)
)
def test_the_sequence_is_inside_the_fixed_interval_and_monotone(count: tuple[int, int], alpha: float) -> None:
    k, n = count
    low, high = anytime_lower(k, n, alpha), anytime_upper(k, n, alpha)
    assert 0.0 <= low <= k / n <= high <= 1.0
    assert low <= clopper_pearson_lower(k, n, alpha) + 1e-9
    assert high >= 1.0 - anytime_lower(n - k, n, alpha)
    if k < n:
        assert anytime_lower(k + 1, n, alpha) >= low
        assert anytime_upper(k + 1, n, alpha) >= high


# giving up


def test_power_of_a_count_is_about_the_predictive_power() -> None:
    """Against the exact binomial law of the draws to come, at the estimated probability and about it."""
    n, last, cut = 400, 4_000, 2_100
    generator = np.random.default_rng(1)
    for successes in (195, 205, 212, 220):
        share = (successes + 0.5) / (n + 1)
        spread = math.sqrt(share * (1 - share) / n)
        futures = generator.binomial(last - n, generator.normal(share, spread, size=20_000).clip(0, 1))
        assert power_of_count(successes, n, last, cut) == pytest.approx(
            (successes + futures >= cut).mean(), abs=0.03
        )


@settings(max_examples=150, deadline=None)
@given(st.integers(1, 5_000).flatmap(lambda n: st.tuples(st.just(n), st.integers(0, n), st.integers(0, n))))
def test_powers_are_probabilities_and_rise_with_the_votes(drawn: tuple[int, int, int]) -> None:
    n, top, rival = drawn
    rival = min(rival, n - top)
    powers = [
        (power_of_count(top, n, 10_000, 6_000), power_of_count(min(n, top + 1), n, 10_000, 6_000)),
        (power_of_lead(top, rival, n, 10_000, 1e-5), power_of_lead(top, max(0, rival - 1), n, 10_000, 1e-5)),
        (power_of_pair(top, rival, n, 10_000, 1e-5, 1.0), 1.0),
    ]
    for power, better in powers:
        assert 0.0 <= power <= better + 1e-12 <= 1.0 + 1e-12


def test_power_at_the_ends() -> None:
    assert power_of_count(90, 100, 100, 90) == 1.0
    assert power_of_count(89, 100, 100, 90) == 0.0
    assert power_of_lead(60, 40, 100, 100, 1e-3) == power_of_pair(60, 40, 100, 100, 1e-3, 0.0) == 0.0
    assert power_of_pair(950, 10, 1_000, 100_000, 1e-5, 3.0) > 0.99
    assert power_of_pair(950, 10, 1_000, 100_000, 1e-5, 5.0) < 0.01
    assert power_of_lead(600, 300, 1_000, 10_000, 1e-5) > 0.99
    assert power_of_lead(451, 450, 1_000, 10_000, 1e-5) < 0.2
