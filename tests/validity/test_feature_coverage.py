"""Levels of feature certificates from draws to claim, on maps whose smoothed features are known exactly.

A trial picks nothing from its estimation draws: the pilot fixes directions, centre and test functions. Misses
are judged by a binomial test against alpha with a false-alarm rate of 1e-6.
"""

from __future__ import annotations

import numpy as np
import numpy.typing as npt
import pytest
from scipy.special import ndtr
from tests.certificates.maps import StepMap

from smoothcert.bounds import betting_lower, tail_upper, top_eigenvalue_upper
from smoothcert.certificates.cosine import best
from smoothcert.certificates.feature import LAMBDA_SHARE
from smoothcert.certificates.margin import TestFunction as Dual
from smoothcert.certificates.margin import baseline_ratio, choose, directions, dual_ratio

FALSE_ALARM = 1e-6
Array = npt.NDArray[np.float64]


def map_for(seed: int) -> StepMap:
    """A map with a rare cell far from the others, which small samples miss."""
    rng = np.random.default_rng(seed)
    step = StepMap.random(rng, 8, 3, smooth=0.75)
    edges = np.append(step.edges, max(1.7, float(step.edges[-1]) + 0.1))
    return StepMap(edges, np.concatenate([step.values, -step.values[:1]]))


def lower(q: Dual, features: Array, alpha: float) -> float:
    share = ((q.values(features) - q.lowest) / (q.highest - q.lowest)).clip(0, 1)
    values, counts = np.unique(share, return_counts=True)
    return q.lowest + (q.highest - q.lowest) * betting_lower(values, alpha, counts)


def m_and_lam(step: StepMap, rng: np.random.Generator, n: int, alpha: float) -> tuple[float, float]:
    pilot, draws = step.draw(rng, 50), step.draw(rng, n)
    centre = pilot.mean(axis=0)
    u = centre / np.linalg.norm(centre)
    m = 2 * betting_lower((draws @ u + 1) / 2, alpha * (1 - LAMBDA_SHARE)) - 1
    moved = draws - centre
    norm = float(np.linalg.norm(centre))
    return m, top_eigenvalue_upper(moved.T @ moved / n, n, norm, alpha * LAMBDA_SHARE)


def misses_of_cosines(trials: int, n: int, alpha: float) -> tuple[int, int]:
    """A miss is a bound above the worst cosine over both directions of the line, for any of five ratios."""
    ratios, missed, claimed = np.array([0.05, 0.2, 0.4, 0.7, 1.0]), 0, 0
    for seed in range(trials):
        step, rng = map_for(seed % 20), np.random.default_rng([seed, 1])
        m, lam = m_and_lam(step, rng, n, alpha)
        bound = np.asarray(best(max(m, 0.0), lam, ratios))
        at = step.mean(0.0)
        away = np.array([[step.mean(s * r) for r in ratios] for s in (-1.0, 1.0)])
        true = (away @ at / np.linalg.norm(at) / np.linalg.norm(away, axis=2)).min(axis=0)
        missed += bool((bound > np.maximum(true, 0.0)).any())
        claimed += bool(bound[1] > 0)
        missed_m = m > np.linalg.norm(at)
        missed += bool(missed_m and not (bound > np.maximum(true, 0.0)).any())
    return missed, claimed


def true_ratio(step: StepMap, w: Array) -> float:
    """How far <w, F> stays positive in both directions, on a fine grid."""
    grid = np.linspace(0, 3, 1_501)
    masses = np.diff(
        np.concatenate(
            [
                np.zeros((3_002, 1)),
                ndtr(step.edges - np.concatenate([grid, -grid])[:, None]),
                np.ones((3_002, 1)),
            ],
            axis=1,
        ),
        axis=1,
    )
    positive = (masses @ (step.values @ w) > 0).reshape(2, -1).all(axis=0)
    return 3.0 if positive.all() else float(grid[np.argmin(positive)])


def misses_of_heads(trials: int, n: int, alpha: float) -> tuple[int, int, int]:
    """Three prototypes, so two rivals, each at the whole of alpha."""
    prototypes = np.array([[1.0, 0.1, 0.0], [0.4, 0.8, 0.0], [0.3, 0.0, 0.9]])
    by_dual = by_margin = claimed = 0
    for seed in range(trials):
        step, rng = map_for(seed % 20), np.random.default_rng([seed, 2])
        pilot, draws = step.draw(rng, 60), step.draw(rng, n)
        label = int(np.argmax(prototypes @ pilot.mean(axis=0)))
        rivals = directions(prototypes, label)
        truth = min(true_ratio(step, w) for w in rivals) + 2e-3
        functions = [choose(pilot, w, n=n, alpha=alpha) for w in rivals]
        found = dual_ratio(functions, [lower(q, draws, alpha) for q in functions])
        base = baseline_ratio([2 * betting_lower((draws @ w + 1) / 2, alpha) - 1 for w in rivals])
        by_dual += found > truth
        by_margin += base > truth
        claimed += found > 0.1
    return by_dual, by_margin, claimed


def test_cosines_keep_their_level() -> None:
    missed, claimed = misses_of_cosines(250, 150, 0.2)
    assert tail_upper(max(1, missed), 250, 0.2) > FALSE_ALARM
    assert claimed > 200


def test_heads_keep_their_level_without_a_share_for_each_rival() -> None:
    by_dual, by_margin, claimed = misses_of_heads(200, 150, 0.2)
    assert tail_upper(max(1, by_dual), 200, 0.2) > FALSE_ALARM
    assert tail_upper(max(1, by_margin), 200, 0.2) > FALSE_ALARM
    assert claimed > 60


def test_bets_on_a_histogram_of_cosines_keep_their_level() -> None:
    """A scalar with two values, one rare and low: what a bound from the sample's spread would miss."""
    trials, n, alpha, p = 2_000, 120, 0.1, 0.01
    rng, mean, missed = np.random.default_rng(3), 0.9 - 0.9 * p, 0
    for low in rng.binomial(n, p, trials):
        missed += betting_lower([0.0, 0.9], alpha, [low, n - low]) > mean
    assert tail_upper(max(1, missed), trials, alpha) > FALSE_ALARM


@pytest.mark.validity_long
def test_cosines_and_heads_keep_their_level_over_many_trials() -> None:
    missed, _ = misses_of_cosines(6_000, 200, 0.05)
    assert tail_upper(max(1, missed), 6_000, 0.05) > FALSE_ALARM
    by_dual, by_margin, _ = misses_of_heads(3_000, 200, 0.05)
    assert tail_upper(max(1, by_dual), 3_000, 0.05) > FALSE_ALARM
    assert tail_upper(max(1, by_margin), 3_000, 0.05) > FALSE_ALARM
