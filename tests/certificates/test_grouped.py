"""Group-sequential courses: accounting of alpha, what ends them, and agreement with a fixed number of draws."""

from __future__ import annotations

import itertools
import os
import subprocess
import sys
from dataclasses import replace
from fractions import Fraction

import mpmath
import numpy as np
import numpy.typing as npt
import pytest
from scipy.special import ndtr
from scipy.stats import binomtest

from smoothcert.bounds import clopper_pearson_lower, clopper_pearson_upper
from smoothcert.certificates import certify, radius_from_lower, radius_from_pair
from smoothcert.certificates.course import Need, Verdict
from smoothcert.certificates.gaussian import Bound, Certificate, Prediction, probability_for
from smoothcert.certificates.grouped import Grouped, Numbers
from smoothcert.errors import InvalidInput
from smoothcert.tallies import Votes

RADII = (0.0, 0.25, 0.5)


def rule(
    bound: Bound = "one",
    *,
    n: int = 4_000,
    radii: tuple[float, ...] = RADII,
    futility: float = 0.01,
    gate: float = 0.05,
    alpha: float = 0.001,
    aware: bool = False,
) -> Grouped:
    return Grouped(Numbers(n, alpha, 1.1, gate, futility), radii, bound, 0.5, 3e-12, aware)


def played(
    design: Grouped, labels: npt.NDArray[np.int64], label: int | None = None
) -> tuple[Verdict, list[Need]]:
    """The verdict on a long sequence of answers (-1: not finite), and what was asked on the way."""
    course, needs = design.begin(label), []
    while (need := course.need) is not None:
        needs.append(need)
        course = course.add(Votes.from_labels(labels[need.first : need.end]))
    verdict = course.verdict()
    assert verdict is not None
    return verdict, needs


def proof(verdict: Verdict) -> Certificate:
    assert isinstance(verdict.proof, Certificate)
    return verdict.proof


# accounting


@pytest.mark.parametrize("alpha", [1e-9, 0.001, 0.05, 0.7])
@pytest.mark.parametrize("gate", [0.01, 0.05, 1 / 3, 0.9])
@pytest.mark.parametrize("n", [17, 1_000, 110_000])
def test_the_parts_of_alpha_add_up_to_at_most_alpha(alpha: float, gate: float, n: int) -> None:
    """In rational numbers: all looks of the gate, plus both bounds of all looks or the level of any boundary."""
    design = rule("pair", alpha=alpha, gate=gate, n=n)
    naming, pair = sum(map(Fraction, design.gate_levels)), 2 * sum(map(Fraction, design.pair_levels))
    assert Fraction(alpha) * (1 - Fraction(1, 10**9)) <= naming + pair <= Fraction(alpha)
    assert naming == pytest.approx(gate * alpha, rel=1e-9)
    if n <= 1_000:
        boundaries = rule("one", alpha=alpha, gate=gate, n=n).boundaries
        assert all(naming + Fraction(found.level) <= alpha for found in boundaries)


def test_every_look_has_its_share() -> None:
    design = rule("pair")
    assert len(design.gate_levels) == len(design.pair_levels) == len(design.looks)
    before = 0
    for look, naming, pair in zip(design.looks, design.gate_levels, design.pair_levels, strict=True):
        assert naming == pytest.approx(0.05 * 0.001 * (look - before) / 4_000, rel=1e-9)
        assert pair == pytest.approx(0.5 * 0.95 * 0.001 * (look - before) / 4_000, rel=1e-9)
        before = look


def test_boundaries_test_the_probability_that_the_radius_needs() -> None:
    design = rule()
    for radius, found in zip(RADII, design.boundaries, strict=True):
        assert found.p == probability_for(radius, 0.5, noise_error=3e-12) >= float(ndtr(radius / 0.5))
    facts = design.facts()["boundaries"]
    assert [fact["cuts"] for fact in facts] == [list(b.cuts) for b in design.boundaries]
    assert [fact["level"] for fact in facts] == pytest.approx([b.level for b in design.boundaries], rel=1e-8)
    assert [fact["p"] for fact in facts] == pytest.approx([b.p for b in design.boundaries], rel=1e-11)


def test_facts_are_the_same_on_another_processor() -> None:
    """Sums in another order (other BLAS kernels) change the last bits of a level, and nothing that is stored."""
    code = (
        "import json\nfrom smoothcert.certificates.designs import design\n"
        "from smoothcert.certificates.rules import parse_stop\n"
        "print(json.dumps(design(parse_stop('table'), n0=0, n=30_000, alpha=0.001, bound='one', sigma=0.5, "
        "noise_error=3e-12).facts()))"
    )
    stored = set()
    for kernel in ("HASWELL", "SANDYBRIDGE"):
        done = subprocess.run(
            [sys.executable, "-c", code],
            env=os.environ | {"OPENBLAS_CORETYPE": kernel},
            capture_output=True,
            text=True,
            check=True,
        )
        stored.add(done.stdout)
    assert len(stored) == 1


@pytest.mark.parametrize("error", [0.0, 3e-12, 1e-4])
def test_the_probability_a_radius_needs_is_rounded_up_and_close(error: float) -> None:
    """Against 40 digits."""
    for z in (0.0, 1e-9, 0.1, 0.5, 1.0, 2.0, 3.5, 6.0, 8.0):
        found = probability_for(0.5 * z, 0.5, noise_error=error)
        with mpmath.workdps(40):
            middle = mpmath.sqrt(2) * mpmath.erfinv(2 * mpmath.mpf(error))
            exact = mpmath.ncdf(mpmath.mpf(0.5 * z) / mpmath.mpf(0.5) + middle) + mpmath.mpf(error)
        if exact < 1:
            assert exact <= found <= exact + 1e-12 * (1 + z)
        if z < 5:  # and a probability a little above it is worth the radius, less what is rounded down
            assert radius_from_lower(found + 1e-9, 0.5, noise_error=error) >= 0.5 * z - 2e-6


def test_label_aware_spends_all_of_alpha_on_the_test() -> None:
    design = rule(aware=True)
    assert "gate" not in design.facts()
    assert all(0.00095 < found.level <= 0.001 for found in design.boundaries)
    pair = rule("pair", aware=True)
    assert sum(pair.gate_levels) + 2 * sum(pair.pair_levels) <= 0.001


# known answers


def test_unanimous_votes_end_at_the_first_look_that_can_tell() -> None:
    labels = np.full(4_000, 3)
    verdict, needs = played(rule(), labels)
    cuts = rule().boundaries[-1].cuts
    enough = next(look for look, cut in zip(rule().looks, cuts, strict=True) if look >= cut)
    assert verdict.draws == needs[-1].end == enough
    assert verdict.reason == "decided"
    assert (proof(verdict).label, proof(verdict).radius, proof(verdict).n) == (3, 0.5, enough)
    assert proof(verdict).p_lower == rule().boundaries[-1].p


@pytest.mark.parametrize("look", [0, 3, 20])
def test_the_cut_is_the_smallest_count_that_proves(look: int) -> None:
    design = rule(aware=True, futility=0.0)
    n = design.looks[look]
    before = replace(design.begin(4), look=look, votes=Votes.of({4: 1}))  # as if nothing was proved so far
    for proved, found in enumerate(design.boundaries, start=1):
        cut = found.cuts[look]
        if cut <= n and (proved == len(RADII) or cut < design.boundaries[proved].cuts[look]):
            assert before.add(Votes.of({4: cut - 1, 0: n - cut})).certified == proved
        assert before.add(Votes.of({4: min(cut, n) - 2, 0: n - min(cut, n) + 1})).certified < proved


@pytest.mark.parametrize("futility", [0.0, 0.01])
def test_the_gate_is_the_two_sided_test_at_its_share(futility: float) -> None:
    """Against scipy's binomtest: which counts of the first looks name the class."""
    design = rule("pair", alpha=0.05, gate=0.5, n=500, futility=futility)
    for look in (0, 1, 2):
        n, level = design.looks[look], design.gate_levels[look]
        before = replace(design.begin(), look=look, votes=Votes.of({0: 1}))
        for top in range(n // 2, n + 1):
            others = n - top
            rival = others - others // 4  # the rest is a third answer
            named = before.add(Votes.of({0: top - 1, 1: rival, 2: others - rival})).named
            passed = top > rival and binomtest(top, top + rival).pvalue <= level
            assert named == (0 if passed else None)


@pytest.mark.parametrize("bound", ["one", "pair"])
def test_a_fair_coin_is_given_up_or_exhausted(bound: Bound) -> None:
    coin = np.arange(4_000) % 2
    assert played(rule(bound), coin)[0].reason == "hopeless"
    verdict, needs = played(rule(bound, futility=0.0), coin)
    assert (verdict.reason, verdict.draws) == ("exhausted", 4_000)
    assert len(needs) == len(rule().looks)
    verdict, needs = played(rule(bound, futility=1.0), coin)
    assert (verdict.reason, len(needs)) == ("hopeless", 1)
    assert proof(verdict).label is None
    assert (proof(verdict).radius, proof(verdict).p_lower, proof(verdict).p_upper) == (0.0, 0.0, 1.0)


@pytest.mark.parametrize("bound", ["one", "pair"])
@pytest.mark.parametrize("futility", [0.0, 0.01])
def test_answers_that_are_not_finite_never_win(bound: Bound, futility: float) -> None:
    verdict, _ = played(rule(bound, futility=futility, n=500), np.full(500, -1))
    assert proof(verdict).label is None
    half = np.where(
        np.arange(4_000) % 5 < 3, -1, 2
    )  # class 2 is the most frequent class, with 40 % of the draws
    verdict, _ = played(rule(bound, futility=0.0), half)
    assert proof(verdict).label is None


def test_a_prediction_names_the_class_and_stops() -> None:
    design = Grouped(Numbers(2_000, 0.001, 1.25, 1.0, 0.01), (), "one", 0.5, 0.0)
    verdict, needs = played(design, np.where(np.arange(2_000) % 3 < 2, 5, 1))
    assert isinstance(verdict.proof, Prediction)
    assert verdict.proof.label == 5
    assert verdict.reason == "decided"
    assert verdict.draws < 400
    assert {need.stage for need in needs} == {"prediction"}
    verdict, _ = played(design, np.arange(2_000) % 2)
    assert verdict.proof.label is None


def test_only_radii_of_the_grid_are_claimed_by_one_and_any_by_pair() -> None:
    generator = np.random.default_rng(0)
    labels = (generator.random(4_000) > 0.8).astype(np.int64)
    one, pair = played(rule(futility=0.0), labels)[0], played(rule("pair", futility=0.0), labels)[0]
    assert proof(one).radius in RADII
    assert proof(pair).radius > 0.25
    assert proof(pair).radius not in RADII


def test_the_pair_radius_is_the_best_of_all_looks() -> None:
    """Good news first: what an early look proved is not lost when later draws are worse."""
    design = rule("pair", futility=0.0, radii=(0.0, 0.25, 1.2))
    labels = np.concatenate([np.zeros(600, dtype=np.int64), np.arange(3_400) % 2])
    verdict, _ = played(design, labels)
    best, at = 0.0, 0
    for look, level in zip(design.looks, design.pair_levels, strict=True):
        top = int((labels[:look] == 0).sum())
        lower, upper = clopper_pearson_lower(top, look, level), clopper_pearson_upper(look - top, look, level)
        radius = radius_from_pair(lower, upper, 0.5, noise_error=3e-12)
        best, at = max((best, at), (radius, look))
    assert at < 700
    assert best < design.decidable[-1] == 1.2
    assert proof(verdict).radius == pytest.approx(best, abs=1e-9)
    assert proof(verdict).label == 0


def test_pair_certifies_what_one_cannot() -> None:
    """45 % against nine rivals of 6 %: below one half, and far ahead."""
    generator = np.random.default_rng(1)
    labels = generator.choice(10, p=[0.46, *[0.06] * 9], size=4_000)
    assert proof(played(rule("pair"), labels)[0]).radius >= 0.25
    assert proof(played(rule("one"), labels)[0]).label is None


# label-aware


def test_label_aware_drops_an_image_of_another_class() -> None:
    zeros = np.zeros(4_000, dtype=np.int64)
    for bound, reason in [("one", "hopeless"), ("pair", "other class")]:
        verdict, needs = played(rule(bound, aware=True), zeros, label=1)  # type: ignore[arg-type]
        assert verdict.reason == reason
        assert proof(verdict).label is None
        assert proof(verdict).radius == 0.0
        assert len(needs) <= 2
        assert proof(played(rule(bound, aware=True), zeros, label=0)[0]).radius >= 0.5  # type: ignore[arg-type]


def test_a_label_is_not_looked_at_otherwise() -> None:
    zeros = np.zeros(4_000, dtype=np.int64)
    assert played(rule(), zeros, label=1) == played(rule(), zeros)


def test_label_aware_without_a_label_is_refused() -> None:
    for bound in ("one", "pair"):
        with pytest.raises(InvalidInput, match="true class"):
            rule(bound, aware=True).begin(None)  # type: ignore[arg-type]


# courses are pure, contiguous and bounded


@pytest.mark.parametrize("bound", ["one", "pair"])
@pytest.mark.parametrize("n", [1, 2, 16, 17, 100, 3_000])
def test_needs_are_contiguous_and_bounded(bound: Bound, n: int) -> None:
    generator = np.random.default_rng(n)
    design = rule(bound, n=n, alpha=0.9, gate=0.5, radii=(0.0, 0.1), futility=0.0)
    assert bool(design.decidable) == (n > 2), "one or two draws cannot name a class"
    for p in (0.5, 0.6, 0.9, 1.0) if design.decidable else ():
        labels = (generator.random(n) > p).astype(np.int64)
        verdict, needs = played(design, labels)
        assert needs[0].first == 0
        assert all(a.end == b.first for a, b in itertools.pairwise(needs))
        assert [need.end for need in needs] == list(design.looks[: len(needs)])
        assert verdict.draws == needs[-1].end <= n == design.most
        assert verdict.proof.votes == Votes.from_labels(labels[: verdict.draws])


def test_a_course_is_a_value() -> None:
    """Adding draws changes no earlier course, and a replay from any of them gives the same verdict."""
    labels = (np.random.default_rng(3).random(4_000) > 0.75).astype(np.int64)
    courses = [rule().begin()]
    while (need := courses[-1].need) is not None:
        courses.append(courses[-1].add(Votes.from_labels(labels[need.first : need.end])))
    for course in courses:
        replayed = course
        while (need := replayed.need) is not None:
            replayed = replayed.add(Votes.from_labels(labels[need.first : need.end]))
        assert replayed == courses[-1]
        assert (course.verdict() is None) == (course is not courses[-1])


def test_votes_of_other_draws_are_refused() -> None:
    course = rule().begin()
    assert course.need is not None
    wanted = course.need.end
    for votes in (Votes(), Votes.of({0: wanted - 1}), Votes.of({0: wanted + 1})):
        with pytest.raises(InvalidInput, match="exactly the draws"):
            course.add(votes)
    ended = rule(futility=1.0).begin().add(Votes.of({0: wanted // 2, 1: wanted - wanted // 2}))
    assert ended.need is None
    with pytest.raises(InvalidInput, match="0 are needed"):
        ended.add(Votes.of({0: 1}))


@pytest.mark.parametrize("gate", [0.0, 1.0, -0.1, 1.5, float("nan")])
def test_a_gate_without_its_part_or_with_all_of_alpha_is_refused(gate: float) -> None:
    with pytest.raises(InvalidInput, match="gate"):
        rule(gate=gate)
    with pytest.raises(InvalidInput, match="alpha"):
        rule(alpha=0.0)


# agreement with fixed n


@pytest.mark.parametrize("bound", ["one", "pair"])
def test_decisions_are_those_of_a_fixed_number_of_draws(bound: Bound) -> None:
    """The same answers shown to both. They may differ where p_A is within a few errors of a threshold."""
    n, images = 4_000, 400
    generator, design = np.random.default_rng(6), rule(bound, n=n)
    both = different = 0
    draws = []
    for _ in range(images):
        p = float(ndtr(generator.uniform(-0.3, 2.5)))
        labels = (generator.random(n) > p).astype(np.int64)
        verdict, _ = played(design, labels)
        draws.append(verdict.draws)
        whole = Votes.from_labels(labels)
        fixed = certify(Votes.of({whole.top() or 0: 1}), whole, sigma=0.5, alpha=0.001, bound=bound)
        for radius in RADII:
            ours = proof(verdict).label is not None and proof(verdict).radius >= radius
            theirs = fixed.label is not None and fixed.radius >= radius
            assert not (ours and theirs) or proof(verdict).label == fixed.label
            both += ours and theirs
            different += ours != theirs
    assert both > 400
    assert different <= 0.03 * 3 * images, "at most 3 % of the decisions"
    assert np.mean(draws) < 0.5 * n
