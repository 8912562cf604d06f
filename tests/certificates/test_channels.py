"""A scalar counted on a grid: its mean is kept, its bound never exceeds that of the draws, and holds."""

from __future__ import annotations

import numpy as np
import pytest

from smoothcert.bounds import betting_lower
from smoothcert.certificates.channels import PART, Channel


def law(name: str, rng: np.random.Generator, size: int) -> np.ndarray:
    if name == "narrow":
        return np.clip(0.9 + 0.02 * rng.normal(size=size), -1.0, 1.0)
    if name == "skewed":
        return 1.0 - np.minimum(2.0, 0.05 * rng.exponential(size=size))
    return np.where(rng.random(size) < 0.9, 0.95, -0.7)


LAWS = ("narrow", "skewed", "two-valued")


@pytest.mark.parametrize("name", LAWS)
def test_the_mean_is_kept_and_every_draw_counts_once(name: str) -> None:
    rng = np.random.default_rng(0)
    channel, values = Channel.around(law(name, rng, 100), -1.0, 1.0), law(name, rng, 5_000)
    counts = channel.counts(values)
    assert counts.sum() == 5_000 * PART
    assert (counts >= 0).all()
    assert abs(channel.mean(counts) - values.mean()) < 2.0**-16 * 0.2
    assert channel.mean(counts) <= values.mean() + 1e-12, "values are moved down, never up"
    pieces = sum(channel.counts(part) for part in np.split(values, [7, 1_900, 1_903]))
    assert (pieces == counts).all()


@pytest.mark.parametrize("name", LAWS)
def test_the_bound_is_just_below_that_of_the_draws_themselves(name: str) -> None:
    rng = np.random.default_rng(1)
    channel, values = Channel.around(law(name, rng, 100), -1.0, 1.0), law(name, rng, 3_000)
    found, direct = (
        channel.lower(channel.counts(values), 1e-3),
        2.0 * betting_lower((values + 1) / 2, 1e-3) - 1,
    )
    assert found <= direct + 1e-9
    assert direct - found < 0.02 * (values.mean() - direct) + 1e-4


def test_a_pilot_that_saw_something_else_costs_width_and_not_soundness() -> None:
    values = law("skewed", np.random.default_rng(2), 3_000)
    channel = Channel.around(np.full(100, -0.4), -1.0, 1.0)
    direct = 2.0 * betting_lower((values + 1) / 2, 1e-3) - 1
    assert channel.grid[0] == -1.0
    assert channel.grid[-1] == 1.0
    assert channel.lower(channel.counts(values), 1e-3) <= direct + 1e-9


def test_values_at_the_ends_stay_inside() -> None:
    channel = Channel.around(np.array([0.2, 0.3]), -1.0, 1.0)
    counts = channel.counts(np.array([-1.0, 1.0, 1.0 + 1e-12]))
    assert counts[0] == PART
    assert counts[-1] == 2 * PART


@pytest.mark.parametrize("name", LAWS)
def test_the_bound_holds_at_its_level(name: str) -> None:
    """At alpha = .05, 600 repetitions: a bound that fails more often than .05 + 4 sd is no bound."""
    rng, fails, mean = (
        np.random.default_rng(3),
        0,
        float(law(name, np.random.default_rng(9), 4_000_000).mean()),
    )
    for _ in range(600):
        channel = Channel.around(law(name, rng, 50), -1.0, 1.0)
        fails += channel.lower(channel.counts(law(name, rng, 200)), 0.05) > mean + 1e-3
    assert fails <= 600 * 0.05 + 4 * np.sqrt(600 * 0.05 * 0.95)
