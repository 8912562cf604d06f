"""Cohen et al. 2019: known answers, rounding direction, and what must abstain."""

from __future__ import annotations

import math

import mpmath
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from smoothcert.certificates import certify, predict, radius_from_lower, radius_from_pair
from smoothcert.errors import InvalidInput
from smoothcert.tallies import Votes

DIGITS_ERROR = 4.3e-16


def z(p: float) -> mpmath.mpf:
    with mpmath.workdps(30):
        return mpmath.sqrt(2) * mpmath.erfinv(2 * mpmath.mpf(p) - 1)


@pytest.mark.parametrize(("n", "radius"), [(100, 1.500), (1_000, 2.463), (10_000, 3.199), (100_000, 3.811)])
def test_largest_radius(n: int, radius: float) -> None:
    votes = Votes.of({4: n})
    found = certify(votes, votes, sigma=1.0, alpha=0.001)
    assert found.label == 4
    assert found.radius == pytest.approx(radius, abs=5e-4)


def test_smallest_count_that_certifies() -> None:
    top = Votes.of({0: 100})
    assert certify(top, Votes.of({0: 550, 1: 450}), sigma=1.0, alpha=0.001).label == 0
    assert certify(top, Votes.of({0: 549, 1: 451}), sigma=1.0, alpha=0.001).label is None


@settings(max_examples=300, deadline=None)
@given(st.floats(0.5001, 1 - 1e-6), st.floats(0.01, 4.0))
def test_radius_is_rounded_down_and_close(p: float, sigma: float) -> None:
    radius, exact = radius_from_lower(p, sigma), sigma * z(p)
    assert radius <= exact
    assert radius >= exact - 2e-6


@settings(max_examples=200, deadline=None)
@given(st.floats(0.05, 0.999), st.floats(0.001, 0.9), st.floats(0.05, 2.0))
def test_pair_radius_is_rounded_down_and_close(p: float, ratio: float, sigma: float) -> None:
    p_b = min(p, 1 - p) * ratio
    radius, exact = radius_from_pair(p, p_b, sigma), sigma / 2 * (z(p) - z(p_b))
    assert radius <= exact
    assert radius >= exact - 2e-6


@pytest.mark.parametrize("error", [3e-12, 1e-6, 1e-3])
def test_noise_error_only_shrinks(error: float) -> None:
    """At the claimed radius the class still wins when both ends of the argument are off by the error."""
    p, p_b = 0.9, 0.05
    one, pair = radius_from_lower(p, 1.0, noise_error=error), radius_from_pair(p, p_b, 1.0, noise_error=error)
    assert one <= radius_from_lower(p, 1.0)
    assert mpmath.ncdf(z(p - error) - one) - error >= 0.5
    assert mpmath.ncdf(z(p - error) - pair) - error >= mpmath.ncdf(z(p_b + error) + pair) + error


def test_pair_form_certifies_what_the_simple_form_cannot() -> None:
    votes = Votes.of({0: 4_000, **{c: 600 for c in range(1, 11)}})
    assert certify(votes, votes, sigma=0.5, alpha=0.001).label is None
    assert certify(votes, votes, sigma=0.5, alpha=0.001, bound="pair").label == 0


def test_pair_form_spends_half_of_alpha_on_each_side() -> None:
    votes = Votes.of({0: 900, 1: 100})
    pair = certify(votes, votes, sigma=1.0, alpha=0.002, bound="pair")
    assert pair.p_lower == certify(votes, votes, sigma=1.0, alpha=0.001).p_lower or math.isclose(
        pair.p_lower, certify(votes, votes, sigma=1.0, alpha=0.001).p_lower, rel_tol=1e-12
    )


def test_selection_decides_the_class_even_where_estimation_disagrees() -> None:
    assert certify(Votes.of({1: 10}), Votes.of({0: 1000}), sigma=1.0, alpha=0.001).label is None


@pytest.mark.parametrize("bound", ["one", "pair"])
def test_nonfinite_answers_never_win(bound: str) -> None:
    broken = Votes.of({}, nonfinite=1000)
    assert certify(broken, broken, sigma=1.0, alpha=0.001, bound=bound).label is None  # type: ignore[arg-type]
    mixed = Votes.of({0: 450}, nonfinite=550)
    assert certify(mixed, mixed, sigma=1.0, alpha=0.001, bound=bound).label is None  # type: ignore[arg-type]
    assert predict(mixed, sigma=1.0, alpha=0.5).label is None


def test_nonfinite_answers_count_in_n() -> None:
    clean = certify(Votes.of({0: 9}), Votes.of({0: 900}), sigma=1.0, alpha=0.001)
    broken = certify(Votes.of({0: 9}), Votes.of({0: 900}, nonfinite=100), sigma=1.0, alpha=0.001)
    assert broken.radius < clean.radius
    assert broken.n == 1000


def test_abstention_has_no_label_and_no_radius() -> None:
    found = certify(Votes.of({0: 5, 1: 5}), Votes.of({0: 500, 1: 500}), sigma=1.0, alpha=0.001)
    assert (found.label, found.radius) == (None, 0.0)


def test_predict() -> None:
    assert predict(Votes.of({2: 70, 1: 30}), sigma=1.0, alpha=0.001).label == 2
    assert predict(Votes.of({2: 60, 1: 40}), sigma=1.0, alpha=0.001).label is None
    assert predict(Votes.of({2: 60, 1: 40}), sigma=1.0, alpha=0.06).label == 2
    assert predict(Votes.of({2: 50, 1: 50}), sigma=1.0, alpha=0.999).label is None


@pytest.mark.parametrize("sigma", [0.0, -1.0, math.nan, math.inf])
def test_impossible_sigma_is_refused(sigma: float) -> None:
    with pytest.raises(InvalidInput, match="positive finite"):
        radius_from_lower(0.9, sigma)


def test_a_frequency_of_one_is_refused() -> None:
    with pytest.raises(InvalidInput, match="infinite radius"):
        radius_from_lower(1.0, 0.5)


def test_unknown_bound_and_empty_tally_are_refused() -> None:
    with pytest.raises(InvalidInput, match="'one' or 'pair'"):
        certify(Votes.of({0: 1}), Votes.of({0: 1}), sigma=1.0, alpha=0.1, bound="both")  # type: ignore[arg-type]
    with pytest.raises(InvalidInput, match="no draw"):
        certify(Votes.of({0: 1}), Votes(), sigma=1.0, alpha=0.1)
