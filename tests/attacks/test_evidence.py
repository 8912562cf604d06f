"""Evidence that a certificate is broken must be false as rarely as it says, and come when it should."""

from __future__ import annotations

import itertools
import math
from typing import Any

import numpy as np
import numpy.typing as npt
import pytest
from scipy.stats import binom

from smoothcert.attacks.evidence import (
    CosineJudge,
    cosine_at_most,
    judge_cosine,
    margin_upper,
    vote_evidence,
)
from smoothcert.attacks.judge import HeadJudge
from smoothcert.errors import InvalidInput
from smoothcert.tallies import Votes

Rows = npt.NDArray[np.float64]


class Law:
    """A feature law with finitely many values, so that F is known."""

    def __init__(self, seed: int, size: int = 5, values: int = 6, spread: float = 0.8) -> None:
        rng = np.random.default_rng(seed)
        rows = np.eye(1, size)[0] + spread * rng.normal(size=(values, size))
        self.rows = rows / np.linalg.norm(rows, axis=1, keepdims=True)
        self.chances = rng.dirichlet(np.ones(values))
        self.mean: Rows = self.chances @ self.rows

    def draw(self, rng: np.random.Generator, n: int) -> Rows:
        return self.rows[rng.choice(len(self.rows), size=n, p=self.chances)]


def cosine(one: Law, other: Law) -> float:
    return float(one.mean @ other.mean / np.linalg.norm(one.mean) / np.linalg.norm(other.mean))


def judged(one: Law, other: Law, seed: int, *, pilot: int, n: int) -> CosineJudge:
    rng = np.random.default_rng(seed)
    judge = CosineJudge(one.draw(rng, pilot), other.draw(rng, pilot))
    judge.add(one.draw(rng, n), other.draw(rng, n))
    return judge


@pytest.mark.parametrize(("size", "pilot"), [(2, 3), (6, 2), (5, 40)])
def test_the_bounds_fail_no_more_often_than_their_level(size: int, pilot: int) -> None:
    """600 judgements of 60 pairs of laws at level .1, against the exact binomial law of failures.

    With few pilot draws the directions are poor, and only the corrections keep the level: for the angles in
    the plane with two dimensions, for what lies off the plane with six.
    """
    alpha, low, high, total = 0.1, 0, 0, 0
    for pair in range(60):
        one, other = Law(2 * pair, size), Law(2 * pair + 1, size)
        true = cosine(one, other)
        for repeat in range(10):
            judge = judged(one, other, 1000 * pair + repeat, pilot=pilot, n=400)
            high += judge.upper(alpha) < true
            low += judge.lower(alpha) > true
            total += 1
    limit = int(binom.ppf(1 - 1e-4, total, alpha))
    assert high <= limit
    assert low <= limit


def test_the_bounds_close_in_on_the_cosine() -> None:
    for seed in range(2):
        one, other = Law(seed, spread=0.4), Law(seed + 50, spread=0.4)
        judge = judged(one, other, seed, pilot=400, n=8_000)
        true = cosine(one, other)
        assert true <= judge.upper(1e-6) < true + 0.05
        assert true - 0.08 < judge.lower(1e-6) <= true
        found = judge.evidence()
        assert found.estimate == pytest.approx(true, abs=0.02)
        assert found.norm == pytest.approx(float(np.linalg.norm(one.mean)), abs=0.02)


def test_what_pilots_missed_counts() -> None:
    """Both features have a part off the pilots' plane in common: the angle in the plane is 90 degrees, not theirs."""
    clean, turned = np.tile([0.8, 0.0, 0.5], (2_000, 1)), np.tile([0.0, 0.8, 0.5], (2_000, 1))
    judge = CosineJudge(np.eye(3)[[0]], np.eye(3)[[1]])
    judge.add(clean, turned)
    assert 0.25 / 0.89 < judge.upper(0.01) < 0.45
    assert judge.lower(0.01) <= 0.25 / 0.89


def test_small_angles_are_told_apart_better_than_by_the_norm_of_the_errors() -> None:
    """Two means 15 degrees apart in 200 dimensions: e_N of THEORY 3.8 at both ends says nothing of the kind."""
    rng = np.random.default_rng(0)
    turn, size, n = math.radians(15), 200, 4_000
    axes = np.eye(size)

    def draw(mean: Rows, count: int) -> Rows:
        rows = mean + 0.04 * rng.normal(size=(count, size))
        return np.asarray(rows / np.linalg.norm(rows, axis=1, keepdims=True))

    turned = math.cos(turn) * axes[0] + math.sin(turn) * axes[1]
    judge = CosineJudge(draw(axes[0], 400), draw(turned, 400))
    judge.add(draw(axes[0], n), draw(turned, n))
    m = judge.norms()[0]
    error = math.sqrt((1 - m * m) / n) + math.sqrt(2 * math.log(2e6) / n)
    by_norms = math.cos(max(0.0, turn - 2 * math.asin(error / m)))
    assert math.cos(turn) < judge.upper(1e-6) < 0.982
    assert by_norms > 0.995


def test_opposite_and_equal_features() -> None:
    rows = np.tile([1.0, 0.0], (200, 1))
    same = CosineJudge(rows, rows)
    same.add(rows, rows)
    assert same.upper(0.5) == 1.0
    rng = np.random.default_rng(0)
    tilted = rows + 0.1 * rng.normal(size=rows.shape)
    tilted /= np.linalg.norm(tilted, axis=1, keepdims=True)
    across = CosineJudge(tilted[:90], -tilted[90:180])
    across.add(tilted, -tilted[::-1])
    assert across.evidence().estimate < -0.99
    assert across.upper(0.01) < 0.1  # never a negative bound: no certificate claims a negative cosine
    assert cosine_at_most(0.3, 6.1) == pytest.approx(math.cos(6.1))
    assert cosine_at_most(0.3, 3.0) == pytest.approx(math.cos(0.3))
    assert cosine_at_most(-0.1, 0.5) == cosine_at_most(0.1, 7.0) == 1.0


def test_noise_error_is_paid_for() -> None:
    pairs = [(Law(2 * k), Law(2 * k + 1)) for k in range(20)]
    one, other = min(pairs, key=lambda pair: abs(cosine(*pair) - 0.5))
    rng = np.random.default_rng(0)
    rows = [one.draw(rng, 50), other.draw(rng, 50), one.draw(rng, 4_000), other.draw(rng, 4_000)]
    bounds, parts = [], []
    for error in (0.0, 0.0005):
        judge = CosineJudge(rows[0], rows[1], error)
        judge.add(rows[2], rows[3])
        bounds.append(judge.upper(0.01))
        parts.append((judge._lower("a", 0.01), judge._upper("b", 0.01)))
    assert bounds[0] + 0.0005 < bounds[1] < 1.0
    assert parts[1] == pytest.approx((parts[0][0] - 0.002, parts[0][1] + 0.002))  # 4 e each
    values = [np.full(50, 0.1)]
    assert margin_upper(values, 0.1, 0.0005) == pytest.approx(margin_upper(values, 0.1) + 0.002)


def test_more_draws_are_made_only_while_a_claim_looks_false() -> None:
    one, other = Law(3, spread=0.3), Law(4, spread=0.3)
    true = cosine(one, other)
    asked: list[tuple[str, int, int]] = []

    def draw(stage: str, first: int, n: int) -> Rows:
        asked.append((stage, first, n))
        law = one if stage == "judge_clean" else other
        return law.draw(np.random.default_rng([first, len(stage)]), n)

    assert judge_cosine(draw, claimed=true - 0.05, n=500).draws == 500
    found = judge_cosine(draw, claimed=true + 0.02, n=500, most=64_000)
    assert found.draws > 500
    assert found.upper_sure < true + 0.02
    for stage in ("judge", "judge_clean"):  # no draw serves twice within one judgement
        seen = [(first, n) for name, first, n in asked[4:] if name == stage]
        assert len(seen) > 3
        assert all(a + b == c for (a, b), (c, _) in itertools.pairwise(seen))
    hardly = judge_cosine(draw, n=500).estimate + 1e-3
    assert judge_cosine(draw, claimed=hardly, n=500, most=1_000).draws == 1_000  # cannot be settled


def test_draws_come_in_pairs() -> None:
    judge = judged(Law(1), Law(2), 0, pilot=4, n=10)
    with pytest.raises(InvalidInput, match="pairs"):
        judge.add(np.zeros((3, 5)), np.zeros((3, 5)))


def chance_of_false_alarm(n: int, classes: int, alpha: float) -> float:
    """Exactly: A and one rival at 1/2 each, the worst case of two classes in which A still wins (a tie)."""
    return sum(
        float(binom.pmf(k, n, 0.5))
        for k in range(n + 1)
        if vote_evidence(0, Votes.of({0: n - k, 1: k}), classes, alpha).p_value <= alpha
    )


def test_vote_evidence_keeps_its_level_exactly() -> None:
    for n in (20, 101):
        assert chance_of_false_alarm(n, 2, 0.05) <= 0.05
    assert chance_of_false_alarm(101, 2, 0.05) > 0.02
    assert chance_of_false_alarm(101, 10, 0.05) <= 0.05 / 9


def test_vote_evidence_says_what_is_there() -> None:
    found = vote_evidence(3, Votes.of({3: 200, 5: 700, 7: 100}), 10)
    assert found.rival == 5
    assert found.p_value < 1e-6
    assert found.share == 0.2
    assert 0.2 < found.share_upper < 0.3
    kept = vote_evidence(3, Votes.of({3: 700, 5: 300}), 10)
    assert kept.p_value == 1.0
    broken = vote_evidence(3, Votes.of({3: 10}, nonfinite=90), 10)  # no class wins a broken draw
    assert broken.rival is None
    assert broken.p_value == 1.0
    assert broken.share == 0.1
    twice = vote_evidence(3, Votes.of({3: 200, 5: 260}), 10, looks=2)
    once = vote_evidence(3, Votes.of({3: 200, 5: 260}), 10)
    assert twice.p_value == pytest.approx(2 * once.p_value)


def test_margins_of_a_head() -> None:
    prototypes = np.eye(3)
    head = HeadJudge(prototypes, keep=500)
    rng = np.random.default_rng(0)
    rows = np.array([0.2, 0.7, 0.3]) + 0.05 * rng.normal(size=(900, 3))
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    head.see("judge_clean", np.eye(3)[[0] * 10])
    for start in range(0, 900, 300):
        head.see("judge", rows[start : start + 300])
    assert head.labels == (0, 1)
    assert head.votes(0).votes.total == 500
    assert head.votes(0).p_value < 1e-6
    assert head.votes(1).p_value == 1.0
    assert head.margin(0) < 0.0 < head.margin(1)
    silent = HeadJudge(prototypes)
    silent.see("judge", np.zeros((50, 3)))
    assert silent.votes(0).votes.nonfinite == 50


def test_the_margin_bound_keeps_its_level() -> None:
    failures, total = 0, 400
    for seed in range(total):
        values: Any = np.random.default_rng(seed).choice([-1.0, 0.25], p=[0.2, 0.8], size=60)  # mean 0
        failures += margin_upper([values], 0.1) < 0.0
    assert failures <= int(binom.ppf(1 - 1e-4, total, 0.1))
    assert margin_upper([np.full(200, -0.3)], 1e-6) < 0.0
