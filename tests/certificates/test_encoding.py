"""The course of an image whose feature is certified: plan from the pilot, sums of whole numbers, sound bounds."""

from __future__ import annotations

import itertools
import math

import numpy as np
import pytest

from smoothcert.certificates.encoding import Encoding, EncodingCourse
from smoothcert.certificates.encoding_layout import CLEAN
from smoothcert.certificates.feature import FeatureCertificate
from smoothcert.errors import InvalidInput
from smoothcert.smoothing.sketch import basis
from smoothcert.tallies import Features, Scores, Votes, merged


def drawn(rng: np.random.Generator, size: int, k: int, spread: float = 0.35) -> np.ndarray:
    """Unit features around the first axis; with k dimensions the spread is shared out unevenly."""
    scale = spread / np.sqrt(1.0 + np.arange(k))
    rows = np.eye(k)[0] + scale * rng.normal(size=(size, k))
    return np.asarray(rows / np.linalg.norm(rows, axis=1, keepdims=True))


def design(k: int, classes: int = 0, **settings: object) -> Encoding:
    prototypes = np.eye(k)[:classes] if classes else None
    usual = {"n0": 60, "n": 800, "alpha": 0.01, "sigma": 0.5, "noise_error": 0.0, "prototypes": prototypes}
    return Encoding(**(usual | settings))  # type: ignore[arg-type]


def begun(one: Encoding, k: int, seed: int) -> EncodingCourse:
    rng = np.random.default_rng(seed)
    course = one.begin().add(Features.of(0, np.eye(k)[:1]))
    return course.add(Features.of(0, drawn(rng, one.n0, k)))


def finished(one: Encoding, k: int, seed: int) -> tuple[FeatureCertificate, np.ndarray]:
    rng, course = np.random.default_rng(1_000 + seed), begun(one, k, seed)
    rows = drawn(rng, one.n, k)
    sketch = basis(seed, 7, k, course.plan.layout.sketch)
    verdict = course.add(course.plan.scores(rows, sketch)).verdict()
    assert verdict is not None
    assert isinstance(verdict.proof, FeatureCertificate)
    return verdict.proof, rows


def test_the_course_asks_for_clean_feature_pilot_and_draws_and_then_for_nothing() -> None:
    one, asked = design(8), []
    course: EncodingCourse = one.begin()
    for tally in (Features.of(0, np.eye(8)[:1]), Features.of(0, drawn(np.random.default_rng(0), 60, 8))):
        asked.append(course.need)
        assert course.verdict() is None
        course = course.add(tally)
    asked.append(course.need)
    assert [(need.stage, need.first, need.end) for need in asked if need] == [
        ("reference", 0, 1),
        ("selection", 0, 60),
        ("estimation", 0, 800),
    ]
    course = course.add(course.plan.scores(drawn(np.random.default_rng(1), 800, 8), None))
    assert course.need is None
    assert one.most == 861


@pytest.mark.parametrize("k", [8, 64, 200])
def test_sums_do_not_depend_on_how_the_draws_are_cut(k: int) -> None:
    one = design(k, classes=3)
    plan = begun(one, k, 0).plan
    rows, sketch = drawn(np.random.default_rng(5), 150, k), basis(0, 7, k, plan.layout.sketch)
    whole = plan.scores(rows, sketch)
    for cuts in ([16, 32, 96], [5, 11, 64, 149], [80]):
        edges = [0, *cuts, 150]
        parts = [plan.scores(rows[a:b], sketch, first=a) for a, b in itertools.pairwise(edges)]
        assert merged(reversed(parts)) == whole


@pytest.mark.parametrize("k", [8, 200])
def test_estimates_are_those_of_the_draws(k: int) -> None:
    one = design(k, classes=3)
    certificate, rows = finished(one, k, 1)
    plan = begun(one, k, 1).plan
    assert certificate.feature is not None
    assert np.abs(certificate.feature - rows.mean(axis=0)).max() < 1e-6
    scores = plan.scores(rows, basis(1, 7, k, plan.layout.sketch))
    moved = rows - plan.centre
    sketch = basis(1, 7, k, plan.layout.sketch)
    seen = moved if sketch is None else moved @ sketch
    assert np.abs(plan.layout.second_moment(scores) - seen.T @ seen / len(rows)).max() < 1e-5
    assert plan.layout.votes(scores) == Votes.from_labels(np.argmax(rows[:, :3], axis=1))


@pytest.mark.parametrize(("k", "repetitions"), [(8, 300), (200, 120)])
def test_every_bound_holds_at_its_level(k: int, repetitions: int) -> None:
    """At alpha = .2: m, the covariance, S and the clean feature; each may fail with its share of alpha."""
    one = design(k, n0=30, n=150, alpha=0.2)
    big = drawn(np.random.default_rng(99), 400_000, k)
    mean = big.mean(axis=0)
    m, top = float(np.linalg.norm(mean)), float(np.linalg.eigvalsh(np.cov(big[:100_000].T))[-1])
    fails = np.zeros(3)
    for seed in range(repetitions):
        found, _ = finished(one, k, seed)
        fails += [
            found.m_lower > m + 1e-3,
            found.covariance_upper < top * 0.98,
            found.reference_lower > mean[0] + 1e-3,
        ]
        assert found.covariance_upper <= 1.0
    allowed = repetitions * 0.2 + 4 * np.sqrt(repetitions * 0.2 * 0.8)
    assert (fails <= allowed).all(), fails


@pytest.mark.parametrize("k", [1, 16, 64, 512])
@pytest.mark.parametrize("seed", range(6))
def test_an_encoder_that_hardly_moves_is_certified(k: int, seed: int) -> None:
    """Stored in steps, one and the same feature is longer than 1 for about every second encoder."""
    rng = np.random.default_rng(seed)
    still = rng.normal(size=k)
    still /= np.linalg.norm(still)
    one = design(k, n=2_000)
    course = one.begin().add(Features.of(0, still[None])).add(Features.of(0, np.tile(still, (one.n0, 1))))
    assert course.plan is not None
    assert course.plan.layout.centre <= 1.0 + 1e-9
    scores = course.plan.scores(np.tile(still, (one.n, 1)), basis(0, 0, k, course.plan.layout.sketch))
    verdict = course.add(scores).verdict()
    assert verdict is not None
    found = verdict.proof
    assert isinstance(found, FeatureCertificate)
    assert found.m_lower > 0.99
    assert found.cosine_lower(0.25) > 0.9


@pytest.mark.parametrize("k", [16, 512])
def test_the_reference_bound_pays_for_how_the_clean_feature_is_stored(k: int) -> None:
    """Every coordinate is stored .4 steps too large, in the direction of the draws."""
    steps = 2.0**-15
    exact = (np.floor(2.0**15 / math.sqrt(k)) + 0.6) * steps * np.ones(k)
    stored = Features.of(0, exact[None]).rows()[0]
    drawn_ones = np.ones((800, k)) / math.sqrt(k)
    assert stored @ drawn_ones[0] - exact @ drawn_ones[0] > 0.39 * steps * math.sqrt(k)
    one = design(k)
    course = one.begin().add(Features.of(0, exact[None])).add(Features.of(0, drawn_ones[: one.n0]))
    assert course.plan is not None
    scores = course.plan.scores(drawn_ones, basis(0, 0, k, course.plan.layout.sketch))
    verdict = course.add(scores).verdict()
    assert verdict is not None
    counted = course.plan.layout.lower(CLEAN, scores, one.alpha)
    assert isinstance(found := verdict.proof, FeatureCertificate)
    assert counted - found.reference_lower > 0.39 * steps * math.sqrt(k)
    assert found.score_lower == 0.5 * (1.0 + found.reference_lower)


@pytest.mark.parametrize("k", [64, 200])
def test_the_covariance_bound_beats_the_trace(k: int) -> None:
    found, rows = finished(design(k, n=20_000), k, 3)
    assert found.covariance_upper < 0.8 * (1.0 - np.linalg.norm(rows.mean(axis=0)) ** 2)
    assert found.covariance_upper > float(np.linalg.eigvalsh(np.cov(rows.T))[-1])


def test_the_sketch_is_a_uniform_subspace_of_its_own_for_each_image() -> None:
    one, other = basis(0, 1, 200, 64), basis(0, 2, 200, 64)
    assert one is not None
    assert other is not None
    assert np.abs(one.T @ one - np.eye(64)).max() < 1e-12
    assert np.abs(one - other).max() > 0.01
    kept = [
        float((found**2).sum(axis=1)[0]) for e in range(400) if (found := basis(5, e, 200, 64)) is not None
    ]
    assert abs(np.mean(kept) - 64 / 200) < 4 * np.std(kept) / 20
    assert basis(0, 1, 64, 64) is None


def test_heads_are_decided_three_ways_and_the_chosen_one_comes_first() -> None:
    for decision in ("votes", "margin", "dual"):
        found, _ = finished(design(8, classes=3, decision=decision), 8, 4)
        assert found.decisions[0].rule == decision
        assert {d.rule for d in found.decisions} == (
            {"votes"} if decision == "votes" else {"votes", "margin", "dual"}
        )
        assert all(d.label == 0 and d.radius > 0.0 for d in found.decisions)
    radii = {d.rule: d.radius for d in found.decisions}
    assert radii["dual"] > radii["margin"]
    assert finished(design(8), 8, 4)[0].decisions == ()


def test_auto_chooses_on_the_pilot_alone() -> None:
    one, rng = design(8, classes=3), np.random.default_rng(0)
    course = begun(one, 8, 5)
    before = course.plan.layout.decision
    course = course.add(course.plan.scores(drawn(rng, 800, 8, spread=5.0), None))
    verdict = course.verdict()
    assert verdict is not None
    assert isinstance(verdict.proof, FeatureCertificate)
    assert verdict.proof.decisions[0].rule == before


def test_a_head_of_many_classes_is_decided_by_votes() -> None:
    assert design(200, classes=150).decisions == ("votes",)
    with pytest.raises(InvalidInput, match="at most 128 classes"):
        design(200, classes=150, decision="dual")
    with pytest.raises(InvalidInput, match="without a head"):
        design(8, decision="margin")


def test_a_head_of_another_encoder_is_refused() -> None:
    with pytest.raises(InvalidInput, match="its own encoder"):
        _ = begun(design(5, classes=3), 8, 0).plan


def test_tallies_of_the_wrong_stage_or_number_are_refused() -> None:
    course = design(8).begin()
    with pytest.raises(InvalidInput, match="1 are needed"):
        course.add(Features.of(0, np.eye(8)[:2]))
    with pytest.raises(InvalidInput, match="counts something else"):
        course.add(Scores(1, np.zeros(3, dtype=np.int64)))


def test_broken_draws_count_against_every_bound() -> None:
    one, rng = design(8, classes=3), np.random.default_rng(1)
    course, rows = begun(one, 8, 6), drawn(rng, 800, 8)
    spoiled = rows.copy()
    spoiled[::4] = 0.0
    found = [course.add(course.plan.scores(some, None)).verdict() for some in (rows, spoiled)]
    whole, broken = (verdict.proof for verdict in found if verdict)
    votes = course.plan.layout.votes(course.plan.scores(spoiled, None))
    assert (votes.total, votes.nonfinite) == (800, 200)
    assert isinstance(whole, FeatureCertificate)
    assert isinstance(broken, FeatureCertificate)
    assert broken.m_lower < 0.8 * whole.m_lower
    assert broken.decisions[0].radius < whole.decisions[0].radius
    assert broken.feature is not None
    assert np.allclose(broken.feature, spoiled.mean(axis=0), atol=1e-6)


def test_sums_under_a_layout_of_another_run_are_refused() -> None:
    rows = drawn(np.random.default_rng(1), 800, 8)
    without = begun(design(8), 8, 6).plan.scores(rows, None)
    with pytest.raises(InvalidInput, match="no layout of this run"):
        begun(design(8, classes=3), 8, 6).add(without)
