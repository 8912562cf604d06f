"""Bounds on the mean of draws in [0, 1]: exact coverage where it can be computed, known numbers of draws."""

from __future__ import annotations

import math

import numpy as np
import numpy.typing as npt
import pytest

from smoothcert.bounds import betting_lower, empirical_bernstein_lower, hoeffding_lower
from smoothcert.bounds.bounded_mean import log_bet
from smoothcert.errors import InvalidInput

BOUNDS = (hoeffding_lower, empirical_bernstein_lower, betting_lower)
STAKES = np.geomspace(0.003, 0.98, 24)


def sample(n: int, mean: float, sd: float, seed: int) -> npt.NDArray[np.float64]:
    """Beta draws with that mean and standard deviation."""
    size = mean * (1 - mean) / sd**2 - 1
    return np.random.default_rng(seed).beta(mean * size, (1 - mean) * size, n)


def ever_rejected(m: float, values: tuple[float, float], alpha: float, most: int) -> float:
    """P(the wealth against the true mean reaches 1/alpha within ``most`` draws), for draws of two values.

    Exact: the law of the number of larger draws is carried from draw to draw, and what has rejected leaves.
    """
    small, large = values
    p = (m - small) / (large - small)
    law, gone = np.ones(1), 0.0
    for n in range(1, most + 1):
        law = np.append(law * (1 - p), 0.0) + np.append(0.0, law * p)
        k = np.arange(n + 1)
        up, down = np.log1p(STAKES * (large / m - 1)), np.log1p(STAKES * (small / m - 1))
        gains = k[:, None] * up + (n - k)[:, None] * down
        wealth = np.exp(np.minimum(gains, 600.0)).mean(axis=1)
        out = wealth >= 1 / alpha
        gone += float(law[out].sum())
        law = np.where(out, 0.0, law)
    return gone


@pytest.mark.parametrize("alpha", [0.05, 0.001])
@pytest.mark.parametrize(
    ("m", "values"), [(0.5, (0.0, 1.0)), (0.1, (0.0, 1.0)), (0.95, (0.0, 1.0)), (0.8, (0.7, 0.95))]
)
def test_betting_holds_at_every_number_of_draws(m: float, values: tuple[float, float], alpha: float) -> None:
    reached = ever_rejected(m, values, alpha, 1_500)
    assert reached <= alpha
    assert reached >= 0.05 * alpha, "a test that never rejects proves nothing"


def test_the_bound_is_where_the_wealth_is_one_over_alpha() -> None:
    values = sample(400, 0.8, 0.09, 0)
    low = betting_lower(values, 0.001)
    assert log_bet(values, low) >= math.log(1000) - 1e-6
    assert log_bet(values, low + 1e-6) < math.log(1000)
    by_hand = math.log(np.mean([np.prod(1 + kappa * (values / 0.7 - 1)) for kappa in STAKES]))
    assert log_bet(values, 0.7) == pytest.approx(by_hand, abs=1e-6)
    assert log_bet(values, 0.7) <= by_hand
    assert betting_lower(values[::-1], 0.001) == pytest.approx(low, abs=2e-9), "the order does not matter"


def test_how_many_draws_a_gap_of_two_hundredths_takes() -> None:
    """At mean .8 and standard deviation .09, alpha .001 (THEORY 6): the figures of formula and simulation."""

    def needed(bound: object, most: int) -> float:
        counts = []
        for seed in range(5):
            values, low, high = sample(most, 0.8, 0.09, seed), 2, most
            while high - low > 1:
                middle = (low + high) // 2
                enough = bound(values[:middle], 0.001) >= 0.78  # type: ignore[operator]
                low, high = (low, middle) if enough else (middle, high)
            counts.append(high)
        return float(np.median(counts))

    assert needed(hoeffding_lower, 20_000) == pytest.approx(8_635, rel=0.15)
    assert needed(empirical_bernstein_lower, 4_000) == pytest.approx(1_607, rel=0.15)
    assert 300 < needed(betting_lower, 2_000) < 600


def test_every_bound_covers() -> None:
    """400 samples at alpha .05: more than 48 misses have a probability below 1e-7."""
    for bound in BOUNDS:
        misses = sum(bound(sample(60, 0.8, 0.2, seed), 0.05) > 0.8 for seed in range(400))
        assert misses <= 48, bound.__name__
        assert all(
            0.0 <= bound(sample(60, 0.8, 0.2, s), 0.05) < sample(60, 0.8, 0.2, s).mean() for s in range(9)
        )


@pytest.mark.parametrize("bound", BOUNDS)
def test_edges(bound: object) -> None:
    assert bound([0.0, 0.0, 0.0], 0.01) == 0.0  # type: ignore[operator]
    assert 0.0 <= bound([1.0], 0.01) < 1.0  # type: ignore[operator]
    assert bound(np.ones(5_000), 0.001) > 0.96  # type: ignore[operator]
    for bad in ([], [1.1], [-0.1, 0.5], [float("nan")]):
        with pytest.raises(InvalidInput, match="every draw in"):
            bound(bad, 0.01)  # type: ignore[operator]
    with pytest.raises(InvalidInput, match="alpha"):
        bound([0.5], 0.0)  # type: ignore[operator]
