"""Levels of the stopping rules from end to end: exact where every course can be summed, simulated elsewhere.

Errors are counted as a reader would: an image has been wronged when its verdict claims another class than
the most probable one, or a radius that its probabilities do not grant. Simulations are judged by a binomial
test with a false-alarm rate of 1e-6.
"""

from __future__ import annotations

import math

import numpy as np
import pytest
from scipy.special import ndtr
from tests.validity.walks import Law, added, multinomial, probability, verdicts

from smoothcert.bounds import binomial_test, tail_upper
from smoothcert.bounds.sequential import crossing_probability
from smoothcert.certificates.anytime import Anytime, AnytimeCourse
from smoothcert.certificates.course import Design, Verdict
from smoothcert.certificates.designs import design
from smoothcert.certificates.gaussian import Bound, Certificate
from smoothcert.certificates.grouped import Grouped, Numbers
from smoothcert.certificates.rules import parse_stop
from smoothcert.certificates.staged import TwoStage
from smoothcert.tallies import Votes

FALSE_ALARM = 1e-6
SIGMA = 0.5
RADII = (0.0, 0.25, 0.5, 1.0)


def grouped(
    n: int, alpha: float, bound: Bound, *, gate: float = 0.2, futility: float = 0.0, aware: bool = False
) -> Grouped:
    return Grouped(Numbers(n, alpha, 1.2, gate, futility), RADII, bound, SIGMA, 0.0, aware)


def claims(label: int, radius: float, verdict: Verdict) -> bool:
    assert isinstance(verdict.proof, Certificate)
    return verdict.proof.label == label and verdict.proof.radius >= radius


def _z(p: float) -> float:
    from scipy.special import ndtri

    return float(ndtri(p))


def just_short(z: float, rivals: int) -> tuple[float, ...]:
    """p_A and ``rivals`` equal p_B that add up to 1, with z(p_A) - z(p_B) = z."""
    low, high = 1e-9, 1.0
    for _ in range(200):
        p_b = 0.5 * (low + high)
        low, high = (p_b, high) if float(ndtr(_z(p_b) + z)) + rivals * p_b < 1.0 else (low, p_b)
    return (1.0 - rivals * low, *[low] * rivals)


# group-sequential certificates, two classes, exact


@pytest.mark.parametrize(
    ("n", "null"), [(17, 0), (17, 1), *((100, j) for j in range(3)), *((300, j) for j in range(4))]
)
def test_one_keeps_its_level_at_every_threshold_whether_or_not_anybody_gives_up(n: int, null: int) -> None:
    """p_A just too small for radius ``null``: the sum over all courses of those that claim it, or class 1."""
    alpha, levels = 0.1, []
    for futility in (0.0, 0.05, 1.0):
        rule = grouped(n, alpha, "one", futility=futility)
        p = rule.boundaries[null].p
        found = verdicts(rule, (p, 1.0 - p))
        other = probability(found, lambda v: claims(1, 0.0, v))
        assert other <= 0.2 * alpha, "the gate's part"
        levels.append(other + probability(found, lambda v: claims(0, RADII[null], v)))
    ignored, obeyed, impatient = levels
    assert impatient <= obeyed <= ignored <= alpha
    if n == 300 and null in (1, 2):
        assert ignored >= 0.7 * alpha, "valid but needlessly strict"


@pytest.mark.parametrize("null", [1, 2, 3])
def test_pair_keeps_its_level_at_every_threshold(null: int) -> None:
    rule = grouped(100, 0.1, "pair")
    p = float(ndtr(RADII[null] / SIGMA))
    found = verdicts(rule, (p, 1.0 - p))
    other = probability(found, lambda v: claims(1, 0.0, v))
    assert other <= 0.2 * 0.1
    assert other + probability(found, lambda v: claims(0, RADII[null], v)) <= 0.1


def test_pair_keeps_the_level_of_its_parts_at_one_look() -> None:
    """One look: two tails of (1 - gate) alpha / 2 each, which two classes reach together. Exact."""
    rule = Grouped(Numbers(16, 0.2, 4.0, 0.5, 0.0), (0.25,), "pair", SIGMA, 0.0)
    assert rule.looks == (16,)
    p = float(ndtr(0.5))
    found = probability(verdicts(rule, (p, 1.0 - p)), lambda v: claims(0, 0.25, v))
    assert found <= 0.05


def carried(rule: Grouped, p: float, null: int) -> float:
    """P(wronged) at any N for two classes, from the stored facts alone: looks, gate levels, cuts."""
    facts = rule.facts()
    cuts, wrong = facts["boundaries"][null]["cuts"], 0.0
    unnamed, named, before = np.ones(1), np.zeros(1), 0
    for look, level, cut in zip(facts["looks"], facts["gate"], cuts, strict=True):
        step = look - before
        new = np.array([math.exp(v) for v in _log_binomial(step, p)])
        unnamed, named = np.convolve(unnamed, new), np.convolve(named, new)
        pass_at = _gate(look, level)
        wrong += float(unnamed[: max(0, look - pass_at + 1)].sum())  # class 1 is named
        passing = unnamed[pass_at:].copy()
        unnamed[: max(0, look - pass_at + 1)] = 0.0
        unnamed[pass_at:] = 0.0
        named[pass_at:] += passing
        wrong += float(named[cut:].sum())  # class 0 is named and the radius is proved
        named[cut:] = 0.0
        before = look
    return wrong


def _log_binomial(n: int, p: float) -> Law:
    k = np.arange(n + 1)
    ways = np.array([math.lgamma(n + 1) - math.lgamma(j + 1) - math.lgamma(n - j + 1) for j in range(n + 1)])
    return np.asarray(ways + k * math.log(p) + (n - k) * math.log1p(-p))


def _gate(n: int, level: float) -> int:
    """The smallest count whose two-sided test against the rest reaches ``level``; n + 1 where none does."""
    low, high = n // 2, n + 1
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if binomial_test(middle, n) <= level else (middle, high)
    return high


@pytest.mark.parametrize(("stop", "n"), [("table", 12_000), ("radius:0.5", 12_000)])
def test_the_usual_designs_keep_their_level(stop: str, n: int) -> None:
    _usual_levels(stop, n)


@pytest.mark.validity_long
def test_the_usual_designs_keep_their_level_at_the_usual_number_of_draws() -> None:
    _usual_levels("table", 40_000)


def _usual_levels(stop: str, n: int) -> None:
    rule = design(parse_stop(stop), n0=0, n=n, alpha=0.001, bound="one", sigma=SIGMA, noise_error=3e-12)
    assert isinstance(rule, Grouped)
    for null, found in enumerate(rule.boundaries):
        level = carried(rule, found.p, null)
        assert level <= 0.001
        if null or stop != "table":
            assert level >= 0.85 * 0.001, "nearly all of alpha should be used"


# three answers, one of them perhaps not finite, exact

EVEN = (1 / 3, 1 / 3, 1 / 3)


@pytest.mark.parametrize("bound", ["one", "pair"])
@pytest.mark.parametrize("nonfinite", [False, True])
@pytest.mark.parametrize("shares", [EVEN, (0.4, 0.4, 0.2), (0.42, 0.16, 0.42), (0.34, 0.33, 0.33)])
def test_the_gate_names_another_class_at_most_at_its_level(
    bound: Bound, nonfinite: bool, shares: tuple[float, float, float]
) -> None:
    """Ties are the worst case: class 0 is the right answer, and any other class named is wrong."""
    rule = Grouped(Numbers(48, 0.5, 1.5, 0.4, 0.0), (0.0,), bound, SIGMA, 0.0)
    found = verdicts(rule, shares, nonfinite=nonfinite)
    wrong = probability(found, lambda v: v.proof.label in (1, 2))
    assert wrong <= 0.4 * 0.5
    assert wrong > 0.001 or nonfinite, "the test sees the gate at work"


@pytest.mark.parametrize("nonfinite", [False, True])
@pytest.mark.parametrize(("null", "even"), [(1, True), (1, False), (2, True)])
def test_pair_keeps_its_level_with_three_answers(null: int, even: bool, nonfinite: bool) -> None:
    """p_A and p_B just too close for radius ``null``; a third answer takes the rest. Alpha is large, to see."""
    alpha, z = 0.5, RADII[null] / SIGMA
    shares = just_short(2 * z, 2)
    if not even:
        shares = (float(ndtr(z - 0.2)), float(ndtr(-z - 0.2)))
        shares = (*shares, 1.0 - sum(shares))
    rule = Grouped(Numbers(40, alpha, 1.5, 0.1, 0.0), RADII[: null + 1], "pair", SIGMA, 0.0)
    found = verdicts(rule, shares, nonfinite=nonfinite)
    wronged = probability(
        found, lambda v: v.proof.label not in (None, 0) or claims(0, RADII[null] + 1e-12, v)
    )
    assert 1e-3 < wronged <= alpha


# predictions, exact


@pytest.mark.parametrize("n", [5, 8, 13, 24])
def test_one_look_of_the_gate_at_every_level(n: int) -> None:
    """Hung and Fithian's test with three answers: P(another than class 0 is named) at every level it can have."""
    for shares in (EVEN, (0.4, 0.4, 0.2), (0.48, 0.48, 0.04), (0.5, 0.3, 0.2)):
        law = multinomial(n, shares)
        by_level: dict[float, float] = {}
        for counts in zip(*np.nonzero(law), strict=True):
            votes = [int(c) for c in counts] + [n - int(sum(counts))]
            first, second = sorted(votes, reverse=True)[:2]
            if first > second and votes[0] < first:
                p_value = binomial_test(first, first + second)
                by_level[p_value] = by_level.get(p_value, 0.0) + float(law[counts])
        wrong = 0.0
        for level in sorted(by_level):
            wrong += by_level[level]
            assert wrong <= level


@pytest.mark.parametrize("futility", [0.0, 0.05])
def test_a_sequential_prediction_is_wrong_at_most_at_its_level(futility: float) -> None:
    for n, shares in [(300, (0.5, 0.5)), (17, (0.5, 0.5)), (48, EVEN), (48, (0.4, 0.4, 0.2))]:
        rule = Grouped(Numbers(n, 0.1, 1.25, 1.0, futility), (), "one", SIGMA, 0.0)
        found = verdicts(rule, shares)
        wrong = probability(found, lambda v: v.proof.label not in (None, 0))
        assert wrong <= 0.1
        assert probability(found, lambda v: v.proof.label is not None) <= 0.15
        if n == 300 and not futility:
            assert probability(found, lambda v: v.proof.label is not None) >= 0.04, "needlessly strict"


# label-aware, exact


@pytest.mark.parametrize("bound", ["one", "pair"])
def test_label_aware_tests_the_true_class_and_no_other(bound: Bound) -> None:
    alpha, rule = 0.1, grouped(100, 0.1, bound, aware=True)
    p = float(ndtr(0.25 / SIGMA))
    found = verdicts(rule, (p, 1.0 - p), label=0)
    assert probability(found, lambda v: v.proof.label == 1) == 0.0
    level = probability(found, lambda v: claims(0, 0.25, v))
    assert level <= alpha
    if bound == "one":
        assert level >= 0.8 * alpha, "nothing is spent on naming"
    wrong = verdicts(rule, (p, 1.0 - p), label=1)
    assert probability(wrong, lambda v: v.proof.label is not None) <= 0.001
    assert probability(wrong, lambda v: v.proof.label == 0) == 0.0


def test_label_aware_keeps_its_level_at_a_fair_coin() -> None:
    found = verdicts(grouped(150, 0.1, "one", aware=True), (0.5, 0.5), label=0)
    assert 0.08 <= probability(found, lambda v: v.proof.label == 0) <= 0.1


def test_a_radius_is_proved_only_after_the_smaller_ones() -> None:
    """Cuts of two close radii cross each other, so that either cut alone would break the level. Exact."""
    rule = Grouped(Numbers(100, 0.05, 2.0, 0.05, 0.0), (0.96, 0.97), "one", 1.0, 0.0, True)
    first, second = rule.boundaries
    lower = [min(cuts) for cuts in zip(first.cuts, second.cuts, strict=True)]
    assert crossing_probability(first.p, rule.looks, lower) > 1.09 * 0.05
    found = verdicts(rule, (first.p, 1.0 - first.p), label=0)
    assert probability(found, lambda v: claims(0, 0.96, v)) <= 0.05


# a pilot that plans, exact


@pytest.mark.parametrize("bound", ["one", "pair"])
@pytest.mark.parametrize("p", [0.5, float(ndtr(0.5)), float(ndtr(1.0))])
def test_a_planned_second_stage_keeps_its_level(bound: Bound, p: float) -> None:
    """All pilots, all second stages. With fresh draws the pilot cannot change the level, only the power."""
    alpha, rule = 0.1, TwoStage(20, 600, 0.1, bound, SIGMA, 0.0, 0.1, 0.01)
    wronged, lengths = 0.0, set()
    for first, p_first in enumerate(multinomial(20, (p, 1.0 - p))):
        course = rule.begin().add(Votes.of({0: first, 1: 20 - first}))
        if course.need is None:
            continue
        n = course.need.end
        lengths.add(n)
        for second, p_second in enumerate(multinomial(n, (p, 1.0 - p))):
            if p_first * p_second > 1e-12:
                verdict = course.add(Votes.of({0: second, 1: n - second})).verdict()
                assert verdict is not None
                assert isinstance(verdict.proof, Certificate)
                wrong_class = verdict.proof.label == 1
                too_far = verdict.proof.label == 0 and verdict.proof.radius > SIGMA * _z(p)
                wronged += p_first * p_second * (wrong_class or too_far)
    assert wronged <= alpha
    assert len(lengths) > 1 or p == 0.5
    if bound == "one":
        assert wronged >= 0.5 * alpha


# whenever somebody stops, exact


@pytest.mark.parametrize("bound", ["one", "pair"])
@pytest.mark.parametrize("p", [0.5, float(ndtr(1.0))])
def test_an_adversary_who_stops_at_the_first_false_certificate(bound: Bound, p: float) -> None:
    """He looks at every chance, goes on past n by asking for more, and stops only when the claim is false."""
    alpha, n0 = 0.1, 5
    wronged = 0.0
    for first, p_first in enumerate(multinomial(n0, (p, 1.0 - p))):
        law, before = np.array([p_first]), 0
        rule = Anytime(n0, 250, alpha, bound, SIGMA, 0.0)
        begun = rule.begin().add(Votes.of({0: first, 1: n0 - first}))
        while before < 500:
            course: AnytimeCourse = _at(begun, before)
            if course.need is None:  # drawing goes on: the same votes under a larger n
                rule = Anytime(n0, 500, alpha, bound, SIGMA, 0.0)
                begun = rule.begin().add(Votes.of({0: first, 1: n0 - first}))
                continue
            look = course.need.end
            law = added(law, multinomial(look - before, (p, 1.0 - p)))
            for count in np.flatnonzero(law > 1e-12):
                verdict = AnytimeCourse(
                    rule, begun.pilot, Votes.of({0: int(count), 1: look - int(count)})
                ).verdict()
                assert verdict is not None
                assert isinstance(verdict.proof, Certificate)
                if verdict.proof.label == 1 or (
                    verdict.proof.label == 0 and verdict.proof.radius > SIGMA * _z(p)
                ):
                    wronged += float(law[count])
                    law[count] = 0.0
            before = look
    assert wronged <= alpha
    if bound == "one":
        assert wronged >= 0.05 * alpha


def _at(course: AnytimeCourse, drawn: int) -> AnytimeCourse:
    return AnytimeCourse(course.design, course.pilot, Votes.of({0: drawn}))


# ten classes, simulated


def wronged_share(rule: Design, shares: tuple[float, ...], radius: float, images: int, seed: int) -> int:
    """How many of the images are wronged: another class than 0, or class 0 within ``radius`` or more."""
    generator, wronged = np.random.default_rng(seed), 0
    for _ in range(images):
        course = rule.begin()
        while (need := course.need) is not None:
            counts = generator.multinomial(need.end - need.first, shares)
            course = course.add(Votes.of(dict(enumerate(counts.tolist()[:-1])), nonfinite=int(counts[-1])))
        verdict = course.verdict()
        assert verdict is not None
        assert isinstance(verdict.proof, Certificate)
        wronged += verdict.proof.label not in (None, 0) or claims(0, radius, verdict)
    return wronged


@pytest.mark.parametrize("stop", ["table:0,0.25", "radius:0.25", "curve:0.3", "anytime"])
def test_pair_keeps_its_level_with_ten_answers(stop: str) -> None:
    alpha, images = 0.05, 1_000
    n0 = 50 if stop.startswith(("curve", "anytime")) else 0
    rule = design(
        parse_stop(stop),
        n0=n0,
        n=600,
        alpha=alpha,
        bound="pair",
        sigma=SIGMA,
        noise_error=0.0,
        ratio=1.3,
        gate=0.1,
    )
    wronged = wronged_share(rule, just_short(1.0, 9), 0.25 + 1e-9, images, seed=7)
    assert not (wronged and tail_upper(wronged, images, alpha) < FALSE_ALARM)


@pytest.mark.validity_long
@pytest.mark.parametrize("bound", ["one", "pair"])
@pytest.mark.parametrize("stop", ["table:0,0.25,0.5", "radius:0.25", "curve:0.1", "anytime"])
def test_levels_with_ten_answers_over_many_images(stop: str, bound: Bound) -> None:
    alpha, images = 0.05, 20_000
    n0 = 50 if stop.startswith(("curve", "anytime")) else 0
    rule = design(
        parse_stop(stop),
        n0=n0,
        n=2_000,
        alpha=alpha,
        bound=bound,
        sigma=SIGMA,
        noise_error=0.0,
        ratio=1.3,
        gate=0.1,
    )
    p = float(ndtr(0.5))
    shares = just_short(1.0, 9) if bound == "pair" else (p, *[(1.0 - p) / 9] * 9)
    wronged = wronged_share(rule, shares, 0.25 + 1e-9, images, seed=8)
    assert not (wronged and tail_upper(wronged, images, alpha) < FALSE_ALARM)
