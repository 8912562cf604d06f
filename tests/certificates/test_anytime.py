"""Certificates that hold whenever somebody stops."""

from __future__ import annotations

import itertools

import numpy as np
import pytest

from smoothcert.bounds.sequential import anytime_lower, anytime_upper
from smoothcert.certificates import certify, radius_from_lower, radius_from_pair
from smoothcert.certificates.anytime import Anytime, AnytimeCourse
from smoothcert.certificates.course import Need
from smoothcert.certificates.gaussian import Bound, Certificate
from smoothcert.errors import InvalidInput
from smoothcert.tallies import Votes


def begun(bound: Bound = "one", *, n: int = 10_000, pilot: Votes | None = None) -> AnytimeCourse:
    design = Anytime(100, n, 0.001, bound, 0.5, 3e-12)
    return design.begin().add(pilot or Votes.of({0: 90, 1: 10}))


def go_on(course: AnytimeCourse, shares: tuple[float, ...], seed: int) -> tuple[AnytimeCourse, list[Need]]:
    generator, needs = np.random.default_rng(seed), []
    while (need := course.need) is not None:
        needs.append(need)
        counts = generator.multinomial(need.end - need.first, shares)
        course = course.add(Votes.of(dict(enumerate(counts.tolist()))))
    return course, needs


def proof(course: AnytimeCourse) -> Certificate:
    verdict = course.verdict()
    assert verdict is not None
    assert verdict.reason == "under way"
    assert isinstance(verdict.proof, Certificate)
    return verdict.proof


def test_a_verdict_exists_from_the_first_estimation_draws_on() -> None:
    course = Anytime(100, 10_000, 0.001, "one", 0.5, 0.0).begin()
    assert course.need == Need("selection", 0, 100)
    assert course.verdict() is None
    course = course.add(Votes.of({0: 100}))
    assert course.verdict() is None
    assert course.need is not None
    assert course.need.first == 0
    course = course.add(Votes.of({0: course.need.end}))
    assert proof(course).label == 0


def test_the_bound_is_that_of_the_fresh_draws_and_the_class_of_the_pilot() -> None:
    course = begun()
    assert course.need is not None
    n = course.need.end
    top = n - 9
    found = proof(course.add(Votes.of({0: top, 3: 9})))
    lower = anytime_lower(top, n, 0.001)
    assert (found.label, found.p_lower) == (0, lower)
    assert found.radius == radius_from_lower(lower, 0.5, noise_error=3e-12) > 0
    pair = proof(begun("pair").add(Votes.of({0: top, 3: 9})))
    bounds = anytime_lower(top, n, np.nextafter(0.0005, 0)), anytime_upper(9, n, np.nextafter(0.0005, 0))
    assert (pair.p_lower, pair.p_upper) == bounds
    assert pair.radius == radius_from_pair(*bounds, 0.5, noise_error=3e-12)
    assert proof(begun(pilot=Votes.of({1: 100})).add(Votes.of({0: n}))).label is None


def test_non_finite_answers_count_against() -> None:
    course = begun("pair")
    assert course.need is not None
    n = course.need.end
    found = proof(course.add(Votes.of({0: n - 40}, nonfinite=40)))
    assert found.p_upper == anytime_upper(40, n, np.nextafter(0.0005, 0))
    assert proof(begun(pilot=Votes.of({}, nonfinite=100)).add(Votes.of({0: n}))).label is None


@pytest.mark.parametrize("n", [1, 100, 128, 129, 5_000])
def test_needs_are_contiguous_and_end_at_n(n: int) -> None:
    _, needs = go_on(begun(n=n), (0.9, 0.1), 1)
    assert needs[0].first == 0
    assert needs[-1].end == n
    assert all(a.end == b.first for a, b in itertools.pairwise(needs))


def test_raising_n_goes_on_where_it_stopped() -> None:
    short, _ = go_on(begun(n=700), (0.9, 0.1), 2)
    longer = AnytimeCourse(Anytime(100, 3_000, 0.001, "one", 0.5, 3e-12), short.pilot, short.votes)
    assert longer.need is not None
    assert longer.need.first == 700
    done, needs = go_on(longer, (0.9, 0.1), 3)
    assert needs[-1].end == 3_000
    assert proof(done).n == 3_000
    assert proof(done).radius > proof(short).radius


def test_the_price_of_stopping_at_will_is_small() -> None:
    """Against a bound for a fixed number of the same draws: never more radius, and most of it."""
    for seed, share in enumerate((0.6, 0.8, 0.95)):
        course, _ = go_on(begun(), (share, 1 - share), seed)
        fixed = certify(Votes.of({0: 1}), course.votes, sigma=0.5, alpha=0.001, noise_error=3e-12)
        assert 0.85 * fixed.radius < proof(course).radius < fixed.radius


def test_votes_of_other_draws_are_refused() -> None:
    with pytest.raises(InvalidInput, match="exactly the draws"):
        begun().add(Votes.of({0: 127}))
    ended, _ = go_on(begun(n=200), (0.9, 0.1), 4)
    with pytest.raises(InvalidInput, match="0 are needed"):
        ended.add(Votes.of({0: 1}))
