"""Upper bounds on a covariance: levels summed exactly where the law is a coin, simulated elsewhere."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
import pytest
from scipy import stats

from smoothcert.bounds import (
    betting_lower,
    clopper_pearson_upper,
    pair_upper,
    tail_upper,
    top_eigenvalue_upper,
)
from smoothcert.bounds.covariance import mean_upper
from smoothcert.errors import InvalidInput

FALSE_ALARM = 1e-6


@pytest.mark.parametrize("n", [1, 7, 60, 1_000])
@pytest.mark.parametrize("alpha", [0.3, 0.05, 0.001])
def test_the_level_for_a_coin_is_kept_exactly(n: int, alpha: float) -> None:
    """P(bound < mu) = P(Bin <= k) for the largest k whose bound is below mu: a finite sum."""
    bounds = np.array([mean_upper(k / n, n, alpha) for k in range(n + 1)])
    assert (np.diff(bounds) >= 0).all()
    assert bounds[-1] == 1.0
    for mu in (0.001, 0.02, 0.3, 0.5, 0.9, 0.999):
        missed = float(stats.binom.cdf(np.flatnonzero(bounds < mu).max(initial=-1), n, mu))
        assert missed <= alpha


def test_the_level_for_three_values_is_kept_exactly() -> None:
    """Draws 0, .37 and 1: all counts are summed. Fractions of a success make Bentkus's bound round up."""
    n, alpha, p = 40, 0.05, (0.7, 0.2, 0.1)
    mu = 0.37 * p[1] + p[2]
    missed = total = 0.0
    for j in range(n + 1):
        for k in range(n + 1 - j):
            mass = float(stats.multinomial.pmf([n - j - k, j, k], n, p))
            total += mass
            missed += mass * (mean_upper((0.37 * j + k) / n, n, alpha) < mu)
    assert total == pytest.approx(1.0)
    assert 0 < missed <= alpha


def test_sharper_than_the_closed_form_and_both_parts_are_needed() -> None:
    """Against (1/n)(sqrt(l/2) + sqrt(n mean + l/2))^2, which solves a quadratic lower bound on the divergence."""
    for n in (100, 1_000, 100_000):
        for mean in (0.0, 0.001, 0.05, 0.5):
            log = math.log(1 / 0.001)
            closed = (math.sqrt(log / 2) + math.sqrt(n * mean + log / 2)) ** 2 / n
            assert mean_upper(mean, n, 0.001) <= min(1.0, closed)
    few, many = mean_upper(0.001, 100, 0.001), mean_upper(0.05, 10_000, 0.001)
    assert few < 0.6 * (math.sqrt(log / 2) + math.sqrt(0.1 + log / 2)) ** 2 / 100
    assert many == pytest.approx(0.0578, abs=2e-4), "Bentkus; Chernoff alone gives .0584"


def sphere(rng: np.random.Generator, n: int, k: int) -> npt.NDArray[np.float64]:
    """Unit features around e1 that spread most along e2, with a heavy tail."""
    raw = 0.05 * rng.normal(size=(n, k))
    raw[:, 0] += 1.0
    raw[:, 1] += 0.1 * rng.standard_t(3, n)
    return np.asarray(raw / np.linalg.norm(raw, axis=1, keepdims=True))


def truth(k: int) -> tuple[npt.NDArray[np.float64], float]:
    features = sphere(np.random.default_rng(99), 400_000, k)
    return features.mean(axis=0), float(np.linalg.eigvalsh(np.cov(features.T))[-1])


@pytest.mark.parametrize("form", ["whole", "near", "rounded"])
def test_the_top_eigenvalue_is_covered(form: str) -> None:
    """alpha = .2, few draws: a bound on the sample's own eigenvalue alone would miss about half the time."""
    trials, n, k, alpha = 300, 60, 5, 0.2
    mean, top = truth(k)
    centre = mean + 0.02
    norm, misses, bounds = float(np.linalg.norm(centre)), 0, []
    for seed in range(trials):
        moved = sphere(np.random.default_rng(seed), n, k) - centre
        settings: dict[str, float] = {}
        if form == "near":
            kept = np.linalg.norm(moved, axis=1) <= 0.4
            settings, moved = {"reach": 0.4, "beyond": int(n - kept.sum())}, moved * kept[:, None]
        if form == "rounded":
            moved = np.round(moved / 0.02) * 0.02
            settings = {"rounding": 0.01 * math.sqrt(k)}
        bounds.append(top_eigenvalue_upper(moved.T @ moved / n, n, norm, alpha, **settings))  # type: ignore[arg-type]
        misses += bounds[-1] < top
    assert tail_upper(misses, trials, alpha) > FALSE_ALARM
    assert np.median(bounds) < 1.0


def test_a_coin_along_one_direction_reaches_the_level() -> None:
    """f = +-e1 with probability 1/2 and c = e1: <e1, f - c>^2 is 0 or b, the worst law there is."""
    n, alpha, misses, trials = 60, 0.2, 0, 2_000
    rng = np.random.default_rng(0)
    for _ in range(trials):
        second = np.zeros((3, 3))
        second[0, 0] = 4.0 * rng.binomial(n, 0.5) / n
        misses += top_eigenvalue_upper(second, n, 1.0, alpha) < 2.0
    assert tail_upper(misses, trials, alpha) > FALSE_ALARM
    assert misses > 0.1 * alpha * trials, "far too wide: this would not notice a lost constant"


def test_leaving_far_draws_out_pays() -> None:
    second, n = np.diag([0.03, 0.01]), 10_000
    assert top_eigenvalue_upper(second, n, 0.9, 0.001, reach=0.7) < top_eigenvalue_upper(
        second, n, 0.9, 0.001
    )
    assert top_eigenvalue_upper(second, n, 0.9, 0.001, reach=0.7, beyond=500) > 3.6 * 0.05


def test_allowances_by_hand() -> None:
    """Rounding moves the root of the second moment; what lies beyond the reach counts as far as it can be."""
    second, n, alpha = np.diag([0.09, 0.01]), 10_000, 0.001
    for rounding in (0.0, 0.01):
        most = (1.5 + rounding) ** 2
        bound = most * mean_upper(0.09 / most, n, alpha)
        expected = (math.sqrt(bound) + rounding) ** 2
        assert top_eigenvalue_upper(second, n, 0.5, alpha, rounding=rounding) == pytest.approx(
            expected, rel=1e-9
        )
        assert top_eigenvalue_upper(second, n, 0.5, alpha, rounding=rounding) >= expected
    near = 0.64 * mean_upper(0.09 / 0.64, n, 0.75 * alpha)
    beyond = 2.25 * clopper_pearson_upper(30, n, 0.25 * alpha)
    found = top_eigenvalue_upper(second, n, 0.5, alpha, reach=0.8, beyond=30)
    assert found == pytest.approx(near + beyond, rel=1e-8)


def test_pairs_cover_the_trace_and_the_eigenvalue() -> None:
    trials, n, k, alpha = 300, 200, 5, 0.2
    mean, top = truth(k)
    features = sphere(np.random.default_rng(98), 400_000, k) - mean
    frobenius = float(np.linalg.norm(features.T @ features / len(features)))
    norm, misses = float(np.linalg.norm(mean)), 0
    for seed in range(trials):
        moved = sphere(np.random.default_rng(seed), n, k) - mean
        products = (moved[::2] * moved[1::2]).sum(axis=1) ** 2
        bound = pair_upper(products, None, norm, alpha)
        assert bound == pytest.approx(pair_upper(products, np.ones(n // 2), norm, alpha))
        misses += bound < frobenius
        assert frobenius >= top
    assert tail_upper(misses, trials, alpha) > FALSE_ALARM
    # f = +-e1 and c = e1: the products are 0 or 16, and tr M^2 is 4.
    hits = np.random.default_rng(1).binomial(n // 2, 0.25, 1_000)
    misses = sum(pair_upper([0.0, 16.0], [n // 2 - h, h], 1.0, alpha) < 2.0 for h in hits)
    assert tail_upper(misses, 1_000, alpha) > FALSE_ALARM
    products, counts = np.array([0.0, 1e-3, 2e-3]), np.array([5_000, 4_000, 1_000])
    assert pair_upper(products, counts, 0.5, 0.001) < 0.15


def test_a_histogram_is_its_draws() -> None:
    rng = np.random.default_rng(4)
    draws = np.round(rng.beta(80, 20, 3_000), 2)
    values, counts = np.unique(draws, return_counts=True)
    low = betting_lower(draws, 0.001)
    assert betting_lower(values, 0.001, counts) == pytest.approx(low, abs=2e-9)
    assert betting_lower(np.append(values, 0.0), 0.001, np.append(counts, 0)) == pytest.approx(low, abs=2e-9)
    fine = rng.beta(80, 20, 3_000)
    shared = np.zeros(101)
    share = fine * 100 - np.floor(fine * 100)
    np.add.at(shared, np.floor(fine * 100).astype(int), 1 - share)
    np.add.at(shared, np.floor(fine * 100).astype(int) + 1, share)
    coarse = betting_lower(np.linspace(0, 1, 101), 0.001, shared)
    assert coarse <= betting_lower(fine, 0.001) + 2e-9, "sharing a draw between two values can only lower it"
    assert coarse > betting_lower(fine, 0.001) - 1e-4


@pytest.mark.parametrize(
    "call",
    [
        lambda: betting_lower([0.5, 0.6], 0.01, [1]),
        lambda: betting_lower([0.5, 0.6], 0.01, [1, -1]),
        lambda: betting_lower([0.5, 0.6], 0.01, [0, 0]),
        lambda: mean_upper(1.2, 10, 0.01),
        lambda: mean_upper(0.2, 0, 0.01),
        lambda: top_eigenvalue_upper(np.eye(2) * 9.0, 100, 0.5, 0.01),
        lambda: top_eigenvalue_upper(np.ones(3), 100, 0.5, 0.01),
        lambda: top_eigenvalue_upper([[1.0, 0.5], [0.0, 1.0]], 100, 0.5, 0.01),
        lambda: top_eigenvalue_upper([[float("nan")]], 100, 0.5, 0.01),
    ],
)
def test_bad_input(call: object) -> None:
    with pytest.raises(InvalidInput):
        call()  # type: ignore[operator]
