"""What certified images prove about a data set: exact coverage by summing over all outcomes, and known answers."""

from __future__ import annotations

import math
from fractions import Fraction

import pytest

from smoothcert.bounds import clopper_pearson_lower, population_lower, true_count_lower
from smoothcert.errors import InvalidInput


def masses(n: int, p: float) -> list[float]:
    return [math.comb(n, k) * p**k * (1.0 - p) ** (n - k) for k in range(n + 1)]


def by_the_definition(certified: int, images: int, alpha: Fraction, delta: Fraction) -> int:
    """min{T : R - T <= q(Bin(N - T, alpha))}, in rational numbers, by trying every T."""
    for count in range(certified + 1):
        left, needed = images - count, certified - count
        tail = sum(math.comb(left, k) * alpha**k * (1 - alpha) ** (left - k) for k in range(needed, left + 1))
        if tail > delta:
            return count
    return certified


@pytest.mark.parametrize("alpha", [Fraction(1, 1000), Fraction(1, 20), Fraction(2, 5)])
@pytest.mark.parametrize("delta", [Fraction(1, 1001), Fraction(1, 21), Fraction(1, 3)])
def test_the_count_is_the_one_of_the_definition(alpha: Fraction, delta: Fraction) -> None:
    for images in (1, 2, 13, 30):
        for certified in range(images + 1):
            found = true_count_lower(certified, images, float(alpha), float(delta))
            assert found == by_the_definition(
                certified, images, Fraction(float(alpha)), Fraction(float(delta))
            )


@pytest.mark.parametrize(("alpha", "delta"), [(0.001, 0.05), (0.05, 0.05), (0.3, 0.1)])
@pytest.mark.parametrize("images", [1, 10, 25])
def test_the_count_holds_with_its_confidence(images: int, alpha: float, delta: float) -> None:
    """T* images deserve a certificate and each gets it with probability ``power``; summed over all outcomes."""
    worst = 0.0
    claims = [true_count_lower(r, images, alpha, delta) for r in range(images + 1)]
    for deserving in range(images + 1):
        false = masses(images - deserving, alpha)
        for power in (0.0, 0.5, 0.9, 1.0):
            true = masses(deserving, power)
            wrong_share = wrong_total = 0.0
            for t, p_true in enumerate(true):
                for f, p_false in enumerate(false):
                    claimed = claims[t + f]
                    wrong_share += p_true * p_false * (claimed > t)  # fewer true certificates than claimed
                    wrong_total += p_true * p_false * (claimed > deserving)  # fewer robust images
            worst = max(worst, wrong_share)
            assert wrong_total <= wrong_share + 1e-12
    assert worst <= delta
    if alpha == 0.3 and images > 1:
        assert worst > 0.5 * delta, "valid but needlessly low"


def test_known_counts() -> None:
    assert true_count_lower(0, 500, 0.001, 0.05) == 0
    assert true_count_lower(400, 500, 0.001, 0.05) == 399  # P(Bin(100, .001) >= 1) = .095 > .05
    assert true_count_lower(500, 500, 0.001, 0.05) == 500
    assert true_count_lower(500, 500, 0.001, 1e-6) == 500 - 2
    assert true_count_lower(7_000, 10_000, 0.001, 0.001) == 7_000 - 10
    assert true_count_lower(10, 10_000, 0.001, 0.05) == 0, "ten of 10,000 may all be false"


def test_the_population_bound_holds_with_its_confidence() -> None:
    """A share theta is robust and always certified, the others with probability alpha: the least favourable."""
    alpha, delta, images = 0.05, 0.05, 60
    bounds = [population_lower(r, images, alpha, delta) for r in range(images + 1)]
    assert bounds == sorted(bounds)
    worst = 0.0
    for theta in [*(j / 100 for j in range(100)), *(b - 1e-9 for b in bounds if b > 0)]:
        law = masses(images, theta + (1 - theta) * alpha)
        worst = max(worst, sum(mass for mass, bound in zip(law, bounds, strict=True) if bound > theta))
    assert 0.9 * delta < worst <= delta * (1 + 1e-9)


def test_the_population_bound_is_rounded_down() -> None:
    for certified, images, alpha in [(400, 500, 0.001), (499, 500, 0.3), (3, 3, 0.9), (9_999, 10_000, 0.001)]:
        found = population_lower(certified, images, alpha, 0.05)
        share = Fraction(clopper_pearson_lower(certified, images, 0.05))
        exact = max(Fraction(0), (share - Fraction(alpha)) / (1 - Fraction(alpha)))
        assert exact * (1 - Fraction(1, 10**14)) <= Fraction(found) <= exact
    assert population_lower(0, 500, 0.001, 0.05) == population_lower(1, 500, 0.01, 0.05) == 0.0


@pytest.mark.parametrize("bound", [true_count_lower, population_lower])
def test_impossible_counts_and_levels_are_refused(bound: object) -> None:
    assert callable(bound)
    for certified, images, alpha, delta in [
        (-1, 5, 0.1, 0.1),
        (6, 5, 0.1, 0.1),
        (0, 0, 0.1, 0.1),
        (2.0, 5, 0.1, 0.1),
        (2, 5, 0.0, 0.1),
        (2, 5, 0.1, 1.0),
    ]:
        with pytest.raises(InvalidInput):
            bound(certified, images, alpha, delta)
