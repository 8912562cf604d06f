"""Fixed numbers of draws as a course, and a pilot that plans the second stage."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from smoothcert.certificates import certify, predict
from smoothcert.certificates.course import Need
from smoothcert.certificates.gaussian import Bound, Certificate
from smoothcert.certificates.staged import Fixed, TwoStage
from smoothcert.errors import InvalidInput
from smoothcert.tallies import Votes


@pytest.mark.parametrize("bound", ["one", "pair"])
def test_fixed_is_certify_of_cohen(bound: Bound) -> None:
    pilot, votes = Votes.of({2: 80, 1: 20}), Votes.of({2: 850, 0: 100}, nonfinite=50)
    course = Fixed(100, 1_000, 0.001, bound, 0.5, 3e-12).begin()
    assert course.need == Need("selection", 0, 100)
    assert course.verdict() is None
    course = course.add(pilot)
    assert course.need == Need("estimation", 0, 1_000)
    assert course.verdict() is None
    course = course.add(votes)
    assert course.need is None
    verdict = course.verdict()
    assert verdict is not None
    assert (verdict.reason, verdict.draws) == ("all draws", 1_100)
    assert verdict.proof == certify(pilot, votes, sigma=0.5, alpha=0.001, bound=bound, noise_error=3e-12)


def test_fixed_without_selection_is_predict_of_cohen() -> None:
    course = Fixed(0, 200, 0.001, "one", 0.5, 0.0).begin()
    assert course.need == Need("prediction", 0, 200)
    votes = Votes.of({0: 150, 1: 50})
    verdict = course.add(votes).verdict()
    assert verdict is not None
    assert verdict.proof == predict(votes, sigma=0.5, alpha=0.001)


def planner(bound: Bound = "one", *, n: int = 100_000, tolerance: float = 0.02, n0: int = 1_000) -> TwoStage:
    return TwoStage(n0, n, 0.001, bound, 0.5, 3e-12, tolerance, 0.01)


def exact_counts(top: int, rival: int, pilot: int, n: int) -> Votes:
    """n draws with the frequencies of the pilot, and the rest another class; rounded against the radius."""
    first, second = top * n // pilot, -(-rival * n // pilot)
    return Votes.of({0: first, 1: min(second, n - first), 2: max(0, n - first - second)})


@pytest.mark.parametrize("bound", ["one", "pair"])
@pytest.mark.parametrize("top", [560, 700, 900, 990, 1_000])
def test_the_plan_loses_what_it_may_and_is_not_longer_than_needed(bound: Bound, top: int) -> None:
    rival = 1_000 - top
    design = planner(bound)
    planned = design.second(Votes.of({0: top, 1: rival}))
    assert 256 <= planned <= 100_000

    def radius(n: int) -> float:
        votes = exact_counts(top, rival, 1_000, n)
        return certify(Votes.of({0: 1}), votes, sigma=0.5, alpha=0.001, bound=bound).radius

    best = radius(100_000)
    assert radius(planned) >= best - 0.02 * 0.5 - 0.002  # .002: counts are whole
    if planned > 256:
        assert radius(int(planned / 1.2)) < best - 0.02 * 0.5 + 0.002


@settings(max_examples=150, deadline=None)
@given(st.integers(1, 50), st.integers(1, 5_000), st.data())
def test_any_pilot_has_a_plan_within_n(n0: int, n: int, data: st.DataObject) -> None:
    top = data.draw(st.integers(0, n0))
    rival = data.draw(st.integers(0, n0 - top))
    votes = Votes.of({0: top, 1: rival}, nonfinite=n0 - top - rival)
    for bound in ("one", "pair"):
        design = planner(bound, n=n, n0=n0)
        assert 0 <= design.second(votes) <= n
        course = design.begin().add(votes)
        verdict = course.verdict()
        if course.need is None:
            assert verdict is not None
            assert verdict.reason == "hopeless"
            assert verdict.proof.label is None
        else:
            assert verdict is None
            assert course.need == Need("estimation", 0, design.second(votes))


def test_pilot_draws_are_not_used_again() -> None:
    """The class comes from the pilot, the bound from fresh draws alone, whatever the pilot said of it."""
    design = planner(tolerance=0.3)
    pilot = Votes.of({1: 990, 0: 10})
    course = design.begin().add(pilot)
    assert course.need is not None
    n = course.need.end
    fresh = Votes.of({0: n})
    verdict = course.add(fresh).verdict()
    assert verdict is not None
    assert isinstance(verdict.proof, Certificate)
    assert verdict.proof == certify(pilot, fresh, sigma=0.5, alpha=0.001, noise_error=3e-12)
    assert verdict.proof.label is None
    assert verdict.proof.votes == fresh
    assert (verdict.draws, verdict.reason) == (1_000 + n, "decided")


def test_a_pilot_without_finite_answers_ends_it() -> None:
    verdict = planner().begin().add(Votes.of({}, nonfinite=1_000)).verdict()
    assert verdict is not None
    assert (verdict.reason, verdict.draws, verdict.proof.label) == ("hopeless", 1_000, None)


def test_votes_of_other_draws_are_refused() -> None:
    course = planner().begin()
    with pytest.raises(InvalidInput, match="exactly the draws"):
        course.add(Votes.of({0: 999}))
    course = course.add(Votes.of({0: 900, 1: 100}))
    with pytest.raises(InvalidInput, match="exactly the draws"):
        course.add(Votes.of({0: 1_000_000}))
