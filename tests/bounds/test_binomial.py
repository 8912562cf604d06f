"""Clopper-Pearson bounds against exact arithmetic: the inequality that defines them, and their exact coverage."""

from __future__ import annotations

import math

import mpmath
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from statsmodels.stats.proportion import proportion_confint

from smoothcert.bounds import (
    binomial_test,
    clopper_pearson_lower,
    clopper_pearson_upper,
    split_alpha,
    tail_upper,
)
from smoothcert.errors import InvalidInput


def exact_tail(k: int, n: int, p: float) -> mpmath.mpf:
    """P(Bin(n, p) >= k) to 40 digits, summed away from the mode."""
    with mpmath.workdps(50):
        p_, q_ = mpmath.mpf(p), 1 - mpmath.mpf(p)
        if k == 0:
            return mpmath.mpf(1)
        if k <= n * p:
            return 1 - _sum_up(n - k + 1, n, q_, p_)
        return _sum_up(k, n, p_, q_)


def _sum_up(k: int, n: int, p: mpmath.mpf, q: mpmath.mpf) -> mpmath.mpf:
    if p == 0:
        return mpmath.mpf(0)
    log = mpmath.loggamma(n + 1) - mpmath.loggamma(k + 1) - mpmath.loggamma(n - k + 1)
    term = mpmath.exp(log + k * mpmath.log(p) + (n - k) * mpmath.log(q)) if k < n else p**n
    total = term
    for j in range(k, n):
        term *= mpmath.mpf(n - j) / (j + 1) * p / q
        total += term
        if term < total * mpmath.mpf(10) ** -40:
            break
    return total


counts = st.integers(1, 5000).flatmap(lambda n: st.tuples(st.integers(0, n), st.just(n)))
levels = st.floats(-12, -0.01).map(lambda e: 10.0**e)


@settings(max_examples=150, deadline=None)
@given(counts, levels)
def test_lower_bound_satisfies_its_inequality_and_is_tight(count: tuple[int, int], alpha: float) -> None:
    k, n = count
    p = clopper_pearson_lower(k, n, alpha)
    tail = exact_tail(k, n, p)
    assert tail <= alpha or k == 0
    if k:
        assert tail >= alpha * (1 - 1e-6), "valid but needlessly low"


@settings(max_examples=100, deadline=None)
@given(counts, levels)
def test_upper_bound_satisfies_its_inequality(count: tuple[int, int], alpha: float) -> None:
    k, n = count
    p = clopper_pearson_upper(k, n, alpha)
    with mpmath.workdps(50):
        below = 1 - exact_tail(k + 1, n, p) if k < n else mpmath.mpf(0)
    assert below <= alpha


@pytest.mark.parametrize("alpha", [1e-12, 1e-3, 0.5])
@pytest.mark.parametrize(
    ("k", "n"), [(1, 10**9), (10**9, 10**9), (10**9 - 1, 10**9), (500_200_000, 10**9), (10**6, 10**9), (1, 1)]
)
def test_extreme_counts(k: int, n: int, alpha: float) -> None:
    p = clopper_pearson_lower(k, n, alpha)
    assert 0.0 < p < 1.0
    with mpmath.workdps(30):
        if k == n:
            assert mpmath.mpf(p) ** n <= alpha
        elif k == 1:
            assert -mpmath.expm1(n * mpmath.log1p(-mpmath.mpf(p))) <= alpha
        else:
            assert mpmath.mpf(tail_upper(k, n, p)) <= alpha


def test_no_success_and_all_successes() -> None:
    assert clopper_pearson_lower(0, 100, 0.001) == 0.0
    assert clopper_pearson_upper(100, 100, 0.001) == 1.0
    assert clopper_pearson_lower(1000, 1000, 0.001) == pytest.approx(0.001 ** (1 / 1000), rel=1e-10)


@pytest.mark.parametrize(("n", "k"), [(100, 66), (1_000, 550), (10_000, 5_156), (100_000, 50_490)])
def test_smallest_count_that_certifies(n: int, k: int) -> None:
    assert clopper_pearson_lower(k, n, 0.001) > 0.5
    assert clopper_pearson_lower(k - 1, n, 0.001) <= 0.5


@pytest.mark.parametrize("alpha", [0.001, 0.05, 0.3])
@pytest.mark.parametrize("n", [1, 7, 60])
def test_exact_coverage_is_at_least_its_level(n: int, alpha: float) -> None:
    """P(bound > p) is a finite sum; it must not exceed alpha, and must nearly reach it somewhere."""
    bounds = [clopper_pearson_lower(k, n, alpha) for k in range(n + 1)]
    worst = 0.0
    for p in [*(j / 200 for j in range(1, 200)), *(b - 1e-12 for b in bounds[1:])]:
        masses = (math.comb(n, k) * p**k * (1 - p) ** (n - k) for k, b in enumerate(bounds) if b > p)
        worst = max(worst, sum(masses))
    assert worst <= alpha * (1 + 1e-9)
    assert worst >= 0.9 * alpha


@settings(max_examples=60, deadline=None)
@given(counts)
def test_agrees_with_statsmodels(count: tuple[int, int]) -> None:
    k, n = count
    low, high = proportion_confint(k, n, alpha=0.002, method="beta")
    assert clopper_pearson_lower(k, n, 0.001) == pytest.approx(low, rel=1e-7, abs=1e-12)
    assert clopper_pearson_upper(k, n, 0.001) == pytest.approx(high, rel=1e-7, abs=1e-12)


@settings(max_examples=200, deadline=None)
@given(counts, st.floats(1e-9, 1 - 1e-9))
def test_tail_is_an_upper_bound_and_close(count: tuple[int, int], p: float) -> None:
    k, n = count
    exact, bound = exact_tail(k, n, p), tail_upper(k, n, p)
    assert bound >= exact
    if exact > 1e-280:
        assert bound <= exact * (1 + mpmath.mpf(10) ** -9)


def test_two_sided_test_is_exact() -> None:
    assert binomial_test(0, 0) == 1.0
    assert binomial_test(5, 10) == 1.0
    assert binomial_test(3, 10) == pytest.approx(
        2 * sum(math.comb(10, j) for j in range(4)) / 2**10, rel=1e-9
    )
    assert binomial_test(7, 10) == binomial_test(3, 10)


def test_split_alpha_never_exceeds_the_whole() -> None:
    assert split_alpha(0.001, 1) == 0.001
    assert all(3 * split_alpha(a, 3) <= a for a in (0.001, 0.05, 1 / 3))


@pytest.mark.parametrize(
    ("k", "n", "alpha"), [(-1, 10, 0.1), (11, 10, 0.1), (1, 0, 0.1), (1, 10**9 + 1, 0.1)]
)
def test_impossible_counts_are_refused(k: int, n: int, alpha: float) -> None:
    with pytest.raises(InvalidInput, match="whole numbers"):
        clopper_pearson_lower(k, n, alpha)


@pytest.mark.parametrize("alpha", [0.0, 1.0, -0.1, math.nan])
def test_impossible_levels_are_refused(alpha: float) -> None:
    with pytest.raises(InvalidInput, match="strictly between 0 and 1"):
        clopper_pearson_lower(5, 10, alpha)
