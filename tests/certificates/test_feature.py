"""The certificate of a feature: its methods agree with the bounds, and with what served features do."""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from tests.certificates.maps import StepMap, cosine

from smoothcert.bounds import tail_upper
from smoothcert.certificates import FeatureCertificate
from smoothcert.certificates.cosine import (
    best,
    exact,
    gaussian_score_bound,
    norm_away,
    repaired,
    to_reference,
)
from smoothcert.certificates.served import deviation, served
from smoothcert.errors import InvalidInput

FALSE_ALARM = 1e-6
CERTIFICATE = FeatureCertificate(
    feature=None,
    m_lower=0.9,
    covariance_upper=0.02,
    score_lower=0.94,
    reference_lower=0.88,
    sigma=0.5,
    alpha=0.001,
    n0=100,
    n=10_000,
    served=1_000,
)


def test_radii_are_ratios_times_sigma() -> None:
    radii = np.array([0.05, 0.125, 0.25, 0.5])
    c = CERTIFICATE
    assert c.cosine_lower(radii) == pytest.approx(np.asarray(best(0.9, 0.02, radii / 0.5)), abs=1e-11)
    assert c.paper_cosine_lower(radii) == pytest.approx(np.asarray(gaussian_score_bound(0.94, radii / 0.5)))
    assert c.reference_cosine_lower(radii) == pytest.approx(
        np.asarray(to_reference(0.88, radii / 0.5)), abs=1e-9
    )
    assert isinstance(c.cosine_lower(0.25), float)
    assert isinstance(c.radius(0.9), float)
    assert c.cosine_lower(100.0) == 0.0


@pytest.mark.parametrize("noise_error", [0.0, 1e-7, 1e-3])
def test_radius_and_cosine_are_inverse(noise_error: float) -> None:
    c = replace(CERTIFICATE, noise_error=noise_error)
    for tau in (0.5, 0.9, 0.97):
        for radius, bound in ((c.radius(tau), c.cosine_lower), (c.served_radius(tau), c.served_cosine_lower)):
            if float(radius) > 0:
                assert bound(radius) >= tau
            assert bound(float(radius) + 2e-6) < tau
        assert c.served_radius(tau) < c.radius(tau)
    taus = np.array([[0.5, 0.9, 0.99]])
    assert np.asarray(c.radius(taus)).shape == np.asarray(c.served_radius(taus)).shape == (1, 3)


def test_the_drawn_noise_lowers_every_claim() -> None:
    drawn = replace(CERTIFICATE, noise_error=1e-4)
    for name in ("cosine_lower", "served_cosine_lower", "paper_cosine_lower", "reference_cosine_lower"):
        ideal, real = (np.asarray(getattr(c, name)([0.1, 0.2])) for c in (CERTIFICATE, drawn))
        assert (real < ideal).all()
        assert (real > ideal - 5e-3).all()
    value = float(gaussian_score_bound(0.94 - 1e-4, 0.4))  # also a lower bound on both lengths
    turned = math.cos(math.acos(value) + 2 * math.asin(2e-4 / value))
    assert drawn.paper_cosine_lower(0.2) == pytest.approx(turned, abs=1e-9)
    value, length = float(to_reference(0.88 - 2e-4, 0.4)), float(repaired(0.88 - 2e-4, 0.4))
    turned = math.cos(math.acos(value) + math.asin(2e-4 / length))
    assert drawn.reference_cosine_lower(0.2) == pytest.approx(turned, abs=1e-9)


@pytest.mark.parametrize("method", ["cosine_lower", "served_cosine_lower", "paper_cosine_lower"])
@pytest.mark.parametrize("radius", ["x", None, [[1.0], [1.0, 2.0]], True, -1.0, float("nan")])
def test_what_is_no_radius_is_refused_as_one(method: str, radius: object) -> None:
    with pytest.raises(InvalidInput, match="radius = "):
        getattr(CERTIFICATE, method)(radius)


@pytest.mark.parametrize("method", ["radius", "served_radius"])
def test_what_is_no_cosine_is_refused_as_one(method: str) -> None:
    with pytest.raises(InvalidInput, match="cosine = 'x'"):
        getattr(CERTIFICATE, method)("x")
    with pytest.raises(InvalidInput, match="a cosine outside"):
        getattr(CERTIFICATE, method)(2)


def test_no_served_feature_no_bound_on_it() -> None:
    with pytest.raises(InvalidInput, match="served=1000"):
        replace(CERTIFICATE, served=None).served_cosine_lower(0.1)


def test_the_served_figures() -> None:
    """THEORY 3.8: m = .9, r = .25, alpha = .001 for each mean, nothing known of the covariance."""
    ideal = exact(0.9, 0.25)
    figures = {16: 0.0, 100: 0.598, 1_000: 0.951, 10_000: 0.985, 100_000: 0.991}
    for n, figure in figures.items():
        assert served(ideal, 0.9, n, 0.001, 0.25) == pytest.approx(figure, abs=5.01e-4)
    known = [served(ideal, 0.9, n, 0.001, 0.25, lam=0.02) for n in figures]
    assert all(x > figures[n] + 1e-4 for n, x in zip(figures, known, strict=True) if n > 16)


def test_the_deviation_of_a_mean_by_hand() -> None:
    log = math.log(1000)
    plain = math.sqrt(0.19 / 400) + math.sqrt(2 * log / 400)
    assert deviation(0.19, 0.19, 400, 0.001) <= plain + 1e-12
    assert deviation(1.0, 1.0, 4, 0.001) == pytest.approx(0.5 + math.sqrt(2 * log / 4), abs=1e-12), (
        "McDiarmid"
    )
    mean = math.sqrt(0.19 / 10_000)
    sharp = mean + math.sqrt(2 * log * (0.01 + 4 * mean) / 10_000) + 2 * log / 30_000
    assert deviation(0.19, 0.01, 10_000, 0.001) == pytest.approx(sharp, abs=1e-12), "Bousquet"
    with pytest.raises(InvalidInput, match="at least one draw"):
        deviation(0.1, 0.1, 0, 0.001)


def test_the_served_bound_by_hand() -> None:
    """The ideal angle and two deviations, the one at x + delta with what a shift can make of the spread."""
    from scipy.special import ndtr, ndtri

    m, lam, r, n, alpha, e = 0.9, 0.02, 0.25, 5_000, 0.001, 1e-4
    ideal = best(m, lam, r)
    for error in (0.0, e):
        away = float(norm_away(m - 2 * error, lam + 4 * error, r)) - 2 * error
        spread = 4 * (float(ndtr(ndtri(lam / 4 + error) + r)) + error)
        turns = (
            math.asin(float(deviation(1 - m * m, lam, n, alpha)) / m),
            math.asin(float(deviation(1 - away**2, spread, n, alpha)) / away),
        )
        bound = served(ideal, m, n, alpha, r, lam=lam, noise_error=error)
        assert bound == pytest.approx(math.cos(math.acos(ideal) + sum(turns)), abs=1e-9)


@pytest.mark.parametrize("law", ["two points", "a spike", "a sphere"])
def test_means_stay_within_their_deviation(law: str) -> None:
    """At alpha = .2 and few draws, for laws that make the mean stray: one direction, rare jumps, all directions."""
    trials, n, alpha = 4_000, 40, 0.2
    rng = np.random.default_rng(5)
    if law == "two points":
        draws = np.where(rng.random((trials, n, 1)) < 0.5, 1.0, -1.0) * np.eye(2)[0]
        mean, trace, lam = np.zeros(2), 1.0, 1.0
    elif law == "a spike":
        draws = np.where(rng.random((trials, n, 1)) < 0.03, -1.0, 1.0) * np.eye(2)[0]
        mean, trace, lam = np.array([0.94, 0.0]), 1 - 0.94**2, 1 - 0.94**2
    else:
        draws = rng.normal(size=(trials, n, 20))
        draws /= np.linalg.norm(draws, axis=2, keepdims=True)
        mean, trace, lam = np.zeros(20), 1.0, 0.05
    off = np.linalg.norm(draws.mean(axis=1) - mean, axis=1)
    allowed = float(deviation(trace, lam, n, alpha))
    assert tail_upper(max(1, int((off > allowed).sum())), trials, alpha) > FALSE_ALARM
    assert np.quantile(off, 0.99) > 0.3 * allowed, "far too wide: this would not notice a lost term"


def test_served_features_keep_their_cosine() -> None:
    """Means of n draws at x and at x + delta, with exact m and covariance: too small a cosine at most 2 alpha."""
    rng = np.random.default_rng(7)
    trials, n, alpha, misses, claimed = 300, 300, 0.1, 0, 0
    for _ in range(trials):
        step = StepMap.random(rng, 12, 3, smooth=rng.uniform(0.5, 0.9))
        r = float(rng.uniform(0.05, 0.6))
        m, lam = float(np.linalg.norm(step.mean(0.0))), step.spread(0.0)
        bound = served(best(m, lam, r), m, n, alpha, r, lam=lam)
        means = [step.draw(rng, n, x).mean(axis=0) for x in (0.0, float(rng.choice([-r, r])))]
        misses += cosine(*means) < float(bound)
        claimed += float(bound) > 0
    assert claimed > 0.8 * trials
    assert tail_upper(max(1, misses), trials, 2 * alpha) > FALSE_ALARM


def test_spread_away_is_limited_by_spread_here() -> None:
    """With the covariance known to be small the served bound must use it at x + delta too, and stay true there."""
    rng = np.random.default_rng(8)
    from scipy.special import ndtr, ndtri

    for _ in range(300):
        step = StepMap.random(rng, int(rng.integers(2, 20)), 3, smooth=rng.uniform(0, 0.95))
        r = float(rng.uniform(-1, 1))
        limit = 4 * ndtr(ndtri(step.spread(0.0) / 4) + abs(r))
        assert step.spread(r) <= limit + 1e-12
        assert (
            np.linalg.norm(step.mean(r))
            >= norm_away(np.linalg.norm(step.mean(0.0)), step.spread(0.0), abs(r)) - 1e-9
        )
    assert norm_away(0.9, 1.0, 0.25) == repaired(0.9, 0.25)
