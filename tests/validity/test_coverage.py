"""Guarantees of the whole pipeline - noise, model, tallies, bounds, run file - against exact levels.

Every simulation is judged by a binomial test against the exact probability of the event, with a false-alarm
rate of 1e-6 a test, so a red test means a broken guarantee.
"""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
import torch

import smoothcert as sc
from smoothcert.bounds import clopper_pearson_lower, tail_upper
from smoothcert.datasets import ArrayDataset
from smoothcert.runlog.reading import merge
from smoothcert.runlog.results import Results

FALSE_ALARM = 1e-6


def identical(count: int, level: int = 100) -> ArrayDataset:
    images = np.full((count, 1, 4, 4), level, dtype=np.uint8)
    return ArrayDataset(
        images, np.zeros(count, dtype=np.int64), levels=255, name="identical", classes=("a", "b")
    )


def coin(images: torch.Tensor) -> torch.Tensor:
    """The parity of one noisy pixel: a fair coin to within 1e-70 at sigma = .25, fresh for every draw."""
    return torch.round(images[:, 0, 0, 0] * 255).long() % 2


def run_coins(out: Path, trials: int, n: int, alpha: float, bound: str) -> Results:
    smoothed = sc.SmoothedClassifier(coin, sigma=0.25)
    return sc.certify(smoothed, identical(trials), out, n0=n, n=n, alpha=alpha, bound=bound)


def exact_level(n: int, alpha: float) -> float:
    """P(a fair coin is certified) for the simple form: one binomial tail, whichever side was selected."""
    smallest = min(k for k in range(n + 1) if clopper_pearson_lower(k, n, alpha) > 0.5)
    return sum(math.comb(n, k) for k in range(smallest, n + 1)) / 2**n


def too_many(hits: int, trials: int, level: float) -> bool:
    return hits > 0 and tail_upper(hits, trials, level) < FALSE_ALARM


def too_few(hits: int, trials: int, level: float) -> bool:
    return tail_upper(trials - hits, trials, 1.0 - level) < FALSE_ALARM


@pytest.mark.parametrize("n", [60, 101])
def test_a_fair_coin_is_certified_exactly_as_often_as_the_level_says(tmp_path: Path, n: int) -> None:
    """Also red when selection draws are used again: with n0 = n that would nearly double the level."""
    trials, alpha = 6_000, 0.1
    found = run_coins(tmp_path / "coins", trials, n, alpha, "one")
    hits, level = sum(o.predicted is not None for o in found.outcomes), exact_level(n, alpha)
    assert level <= alpha
    assert not too_many(hits, trials, level)
    assert not too_few(hits, trials, level)


def test_the_pair_form_keeps_its_level_on_a_fair_coin(tmp_path: Path) -> None:
    trials, alpha = 6_000, 0.1
    found = run_coins(tmp_path / "coins", trials, 101, alpha, "pair")
    hits = sum(o.predicted is not None for o in found.outcomes)
    assert not too_many(hits, trials, alpha)


def test_identical_images_get_different_draws(tmp_path: Path) -> None:
    """Streams of different images are distinct: counts spread like independent binomials, not at one value."""
    trials, n = 400, 101
    run_coins(tmp_path / "coins", trials, n, 0.1, "one")
    merged = merge(row for row, _ in sc.open_run(tmp_path / "coins").tallies())
    heads = np.array([image.tallies["estimation"].count(1) for image in merged.values()])
    picked = np.array([image.tallies["selection"].count(1) for image in merged.values()])
    assert 0.6 * n / 4 < heads.var() < 1.5 * n / 4
    assert abs(np.corrcoef(heads, picked)[0, 1]) < 5 / math.sqrt(trials), (
        "selection and estimation must not share draws"
    )


def test_a_linear_classifier_gets_its_exact_radius(tmp_path: Path) -> None:
    """f(x) = [w.x + b > 0] has radius |w.x + b| / ||w||; claims exceed it at most at the level, and come close."""
    rng = np.random.default_rng(5)
    weight, sigma, alpha, trials = torch.from_numpy(rng.normal(size=48)), 0.25, 0.05, 1_500
    images = rng.integers(90, 165, size=(trials, 3, 4, 4)).astype(np.uint8)
    offset = -0.5 * float(weight.sum())
    flat = torch.from_numpy(images.reshape(trials, -1) / 255.0)
    scores = (flat @ weight + offset).numpy()
    true_radius = np.abs(scores) / float(weight.norm())

    def linear(noisy: torch.Tensor) -> torch.Tensor:
        score = noisy.flatten(1).double() @ weight + offset
        return torch.stack([-score, score], dim=1)

    data = ArrayDataset(images, (scores > 0).astype(np.int64), levels=255, name="linear", classes=("-", "+"))
    found = sc.certify(
        sc.SmoothedClassifier(linear, sigma=sigma), data, tmp_path / "run", n0=50, n=2_000, alpha=alpha
    )
    radius = np.array([o.radius for o in found.outcomes])
    answered = np.array([o.predicted is not None for o in found.outcomes])
    # rounding to the grid widens the noise: f o round is linear up to 1 part in 10^4 at this sigma
    overclaims = int((radius > true_radius * (1 + 2e-4)).sum())
    wrong = sum(o.predicted is not None and not o.correct for o in found.outcomes)
    assert not too_many(overclaims, trials, alpha)
    assert not too_few(overclaims, trials, 0.5 * alpha), (
        "needlessly conservative: claims should reach the level"
    )
    assert not too_many(wrong, trials, alpha)
    assert answered.mean() > 0.7
    assert np.median((true_radius - radius)[answered]) < 0.03 * sigma * 4


def test_predict_is_wrong_at_most_at_its_level(tmp_path: Path) -> None:
    """PREDICT on a fair coin must abstain except with its exact two-sided level."""
    trials, n, alpha = 6_000, 101, 0.1
    found = sc.predict(
        sc.SmoothedClassifier(coin, sigma=0.25), identical(trials), tmp_path / "run", n=n, alpha=alpha
    )
    hits = sum(o.predicted is not None for o in found.outcomes)
    smallest = min(
        k for k in range(51, n + 1) if 2 * sum(math.comb(n, j) for j in range(k, n + 1)) / 2**n <= alpha
    )
    level = 2 * sum(math.comb(n, k) for k in range(smallest, n + 1)) / 2**n
    assert not too_many(hits, trials, level)
    assert not too_few(hits, trials, level)
