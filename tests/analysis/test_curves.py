"""Curve, average radius and paired comparison: exact values on hand-made runs."""

from __future__ import annotations

import random
from dataclasses import replace
from math import comb

import pytest

from smoothcert.analysis import acr, certified_accuracy, compare, curve
from smoothcert.errors import InvalidInput
from smoothcert.runlog.results import Outcome, Results

RUN = Results(
    "run",
    (
        Outcome(0, 1, 1, 0.5),
        Outcome(1, 1, 1, 1.25),
        Outcome(2, 1, 1, 0.5),
        Outcome(3, 1, 2, 2.0),
        Outcome(4, 1, None, 0.0),
        Outcome(5, 1, 1, 0.0),
    ),
    0.5,
)
PREDICTIONS = Results("predictions", (Outcome(0, 1, 1, None), Outcome(1, 1, None, None)))


def test_curve_jumps_just_after_each_radius() -> None:
    steps = curve(RUN)
    assert steps.radii == (0.0, 0.5, 1.25)
    assert [share.count for share in steps.shares] == [4, 3, 1]
    seen = [steps.at(r).count for r in (0.0, 1e-9, 0.5, 0.5000001, 1.25, 1.2500001, 9.0)]
    assert seen == [4, 3, 3, 1, 1, 0, 0]
    assert {share.total for share in steps.shares} == {6}


def test_curve_and_table_agree_everywhere() -> None:
    draw = random.Random(1)
    outcomes = tuple(
        Outcome(i, 0, draw.choice([0, 0, 1, None]), round(draw.random() * 2, 2)) for i in range(200)
    )
    run = Results(
        "run", tuple(o if o.predicted is not None else replace(o, radius=0.0) for o in outcomes), 0.5
    )
    radii = [i / 100 for i in range(210)]
    steps = curve(run, confidence=0.9)
    assert [steps.at(r) for r in radii] == list(
        certified_accuracy([run], radii, confidence=0.9).rows[0].shares
    )


def test_curve_of_a_run_that_certifies_nothing_is_zero() -> None:
    steps = curve(Results("run", (Outcome(0, 1, None, 0.0),)))
    assert steps.radii == ()
    assert steps.at(0.0).count == 0


def test_average_certified_radius_counts_errors_as_zero() -> None:
    assert acr(RUN) == pytest.approx((0.5 + 1.25 + 0.5) / 6)


@pytest.mark.parametrize("run", [PREDICTIONS, Results("empty", ())])
def test_curve_and_average_need_radii(run: Results) -> None:
    with pytest.raises(InvalidInput, match="no certified radii"):
        curve(run)
    with pytest.raises(InvalidInput, match="no certified radii"):
        acr(run)


def test_negative_radius_is_refused() -> None:
    with pytest.raises(InvalidInput, match="not negative"):
        curve(RUN).at(-0.1)


def pair(both: int, only_a: int, only_b: int, neither: int) -> tuple[Results, Results]:
    kinds = [(1, 1)] * both + [(1, 0)] * only_a + [(0, 1)] * only_b + [(0, 0)] * neither
    a, b = (
        Results(name, tuple(Outcome(i, 1, kind[side], 0.5) for i, kind in enumerate(kinds)))
        for side, name in enumerate("ab")
    )
    return a, b


@pytest.mark.parametrize(("only_a", "only_b"), [(0, 0), (1, 0), (5, 5), (10, 2), (2, 10), (30, 8)])
def test_paired_p_value_is_the_exact_sign_test(only_a: int, only_b: int) -> None:
    result = compare(*pair(7, only_a, only_b, 3), 0.5)
    assert (result.both, result.only_a, result.only_b, result.neither) == (7, only_a, only_b, 3)
    n, k = only_a + only_b, max(only_a, only_b)
    exact = min(1.0, 2 * sum(comb(n, i) for i in range(k, n + 1)) / 2**n)
    assert result.p_value == pytest.approx(exact, rel=1e-8)
    assert result.difference == pytest.approx((only_a - only_b) / (n + 10))
    assert f"{n + 10} images" in str(result)


def test_comparison_looks_at_the_radius_asked_for() -> None:
    a, b = pair(4, 0, 0, 0)
    weak = replace(b, outcomes=tuple(replace(outcome, radius=0.25) for outcome in b.outcomes))
    assert compare(a, weak, 0.25).both == 4
    assert compare(a, weak, 0.5).only_a == 4


def test_comparison_matches_images_by_index_not_position() -> None:
    a, b = pair(2, 1, 0, 3)
    assert compare(a, replace(b, outcomes=b.outcomes[::-1]), 0.5) == compare(a, b, 0.5)


def test_comparison_needs_the_same_images() -> None:
    a, b = pair(3, 0, 0, 0)
    with pytest.raises(InvalidInput, match="image 2 is in one of them only"):
        compare(a, replace(b, outcomes=b.outcomes[:2]), 0.5)
    relabelled = (replace(b.outcomes[0], label=7), *b.outcomes[1:])
    with pytest.raises(InvalidInput, match="image 0 has two labels"):
        compare(a, replace(b, outcomes=relabelled), 0.5)
    with pytest.raises(InvalidInput, match="there are no images"):
        compare(Results("a", ()), Results("b", ()), 0.5)


def test_predictions_compare_at_radius_zero_only() -> None:
    assert compare(PREDICTIONS, PREDICTIONS, 0.0).both == 1
    with pytest.raises(InvalidInput, match="without radii"):
        compare(PREDICTIONS, PREDICTIONS, 0.25)
