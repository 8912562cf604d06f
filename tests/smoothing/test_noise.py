"""Streams and noise: the same name is the same noise, different names never meet, the law is exact."""

from __future__ import annotations

import hashlib

import mpmath
import numpy as np
import pytest

from smoothcert.bounds.discretisation import BITS, grid_error, half_width
from smoothcert.errors import InvalidInput
from smoothcert.smoothing import grid
from smoothcert.smoothing.noise import FloatNoise, GridNoise, NamedDraws, make_noise
from smoothcert.smoothing.streams import Segment, normals, words

IMAGE = np.arange(3 * 5 * 7, dtype=np.uint8).reshape(3, 5, 7)


@pytest.mark.parametrize("kind", ["grid", "float"])
def test_a_draw_is_the_same_however_it_is_asked_for(kind: str) -> None:
    noise = make_noise(kind, 0.5, 255)
    image = noise.prepare(IMAGE)
    whole = noise.noisy(image, 3, Segment(11, "estimation", 0, 40))
    for first, draws in [(0, 1), (1, 7), (8, 32), (39, 1)]:
        part = noise.noisy(image, 3, Segment(11, "estimation", first, draws))
        assert (part == whole[first : first + draws]).all()


def test_streams_with_different_names_differ() -> None:
    base = words(0, Segment(5, "estimation", 0, 4), 64)
    others = [
        words(1, Segment(5, "estimation", 0, 4), 64),
        words(0, Segment(6, "estimation", 0, 4), 64),
        words(0, Segment(5, "selection", 0, 4), 64),
        words(0, Segment(5, "estimation", 4, 4), 64),
        words(0, Segment(5, "estimation", 0, 4), 64, purpose="sampler"),
        words(0, Segment(5, "estimation", 0, 4), 64, step=1),
    ]
    assert all(not np.isin(other, base).any() for other in others)


def test_streams_are_the_ones_of_the_first_release() -> None:
    """A golden hash: another numpy or another machine must draw the very same noise."""
    drawn = words(7, Segment(3, "estimation", 1, 5), 10)
    assert hashlib.sha256(drawn.astype("<u8").tobytes()).hexdigest()[:32] == GOLDEN_WORDS
    noisy = GridNoise(0.25, 255).noisy(IMAGE.astype(np.int32), 7, Segment(3, "estimation", 1, 5))
    assert hashlib.sha256(np.rint(noisy * 255).astype("<i4").tobytes()).hexdigest()[:32] == GOLDEN_GRID


GOLDEN_WORDS = "ce0b4594cb5b0bfb6e185b5e5cafe60b"
GOLDEN_GRID = "53aff104f7a2f51bfeaf4ea77f79c4e9"


@pytest.mark.parametrize(("sigma", "levels"), [(0.25, 255), (1.0, 16), (0.01, 255), (2.0, 1)])
def test_thresholds_are_exact(sigma: float, levels: int) -> None:
    table, reach = grid.thresholds(sigma, levels), half_width(sigma, levels)
    assert len(table) == 2 * reach + 1
    with mpmath.workdps(60):
        for k in {-reach, -reach // 2, -1, 0, 1, reach // 3, reach}:
            exact = mpmath.ncdf((k + mpmath.mpf(0.5)) / (levels * mpmath.mpf(sigma))) * 2**BITS
            assert abs(int(table[k + reach]) - int(mpmath.floor(exact))) == 0


def test_the_fast_table_agrees_with_a_search() -> None:
    drawn = words(0, Segment(0, "check", 0, 200), 1000).reshape(-1)
    edges = grid.thresholds(0.25, 255).astype(np.uint64) << np.uint64(2)
    ends = np.array([0, 1, 2**63, 2**64 - 1], dtype=np.uint64)
    for words_ in (drawn, ends, edges, edges - np.uint64(1)):
        found = grid.rounded_gaussian(words_, 0.25, 255)
        table = grid.thresholds(0.25, 255)
        expected = (
            np.searchsorted(table, (words_ >> np.uint64(2)).astype(np.int64), side="right") - len(table) // 2
        )
        assert (found == expected).all()


def test_grid_noise_has_the_law_of_a_rounded_gaussian() -> None:
    """Chi-square over levels at 400,000 draws; false alarm 1e-6 (the quantile of 60 degrees is 137)."""
    drawn = words(2, Segment(1, "check", 0, 400), 1000).reshape(-1)
    noise = grid.rounded_gaussian(drawn, 0.5, 16)
    assert abs(noise).max() <= half_width(0.5, 16) + 1
    edges = np.array([float(mpmath.ncdf((k + 0.5) / 8)) for k in range(-31, 31)])
    expected = np.diff(edges) * len(noise)
    observed = np.array([(noise == k).sum() for k in range(-30, 31)])
    assert (((observed - expected) ** 2) / expected).sum() < 137


def test_grid_error_is_as_stated() -> None:
    assert grid_error(1.0, 255, 3 * 32 * 32) == pytest.approx(3e-12, rel=0.15)
    assert grid_error(1.0, 255, 3 * 224 * 224) == pytest.approx(2e-10, rel=0.25)


def test_noisy_grid_images_stay_on_the_grid() -> None:
    noisy = GridNoise(0.5, 255).noisy(IMAGE.astype(np.int32), 0, Segment(0, "estimation", 0, 10))
    assert (noisy == np.rint(noisy * 255).astype(np.float32) / np.float32(255)).all()


def test_rounding_commutes_with_the_grid() -> None:
    """Adding rounded noise to the image is rounding the noisy image: images and their noise never mix."""
    noise = GridNoise(0.5, 255)
    segment = Segment(0, "estimation", 0, 10)
    shift = noise.noisy(IMAGE.astype(np.int32), 0, segment) * 255 - IMAGE
    zero = noise.noisy(np.zeros_like(IMAGE, dtype=np.int32), 0, segment) * 255
    assert np.abs(shift - zero).max() < 1e-3


def test_float_noise_is_standard_normal() -> None:
    drawn = normals(0, Segment(0, "check", 0, 500), (1000,), purpose="smoothing").reshape(-1)
    assert abs(drawn.mean()) < 5 / np.sqrt(len(drawn))
    assert abs(drawn.var() - 1) < 5 * np.sqrt(2 / len(drawn))


def test_float_images_on_the_grid_are_accepted_and_others_refused() -> None:
    noise = GridNoise(0.5, 255)
    assert (noise.prepare((IMAGE / 255).astype(np.float32)) == IMAGE).all()
    with pytest.raises(InvalidInput, match="between grey levels"):
        noise.prepare(np.full((1, 2, 2), 0.3331, dtype=np.float32))


@pytest.mark.parametrize("noise", [GridNoise(0.5, 255), FloatNoise(0.5, 255)])
@pytest.mark.parametrize("value", [np.nan, np.inf, -0.2, 37.0])
def test_images_off_scale_are_refused(noise: GridNoise | FloatNoise, value: float) -> None:
    with pytest.raises(InvalidInput, match=r"\[0, 1\]"):
        noise.prepare(np.full((1, 2, 2), value, dtype=np.float32))


def test_levels_beyond_the_declared_ones_are_refused() -> None:
    with pytest.raises(InvalidInput, match=r"levels 0\.\.16"):
        GridNoise(0.5, 16).prepare(np.full((1, 2, 2), 17, dtype=np.uint8))


@pytest.mark.parametrize(
    ("kind", "sigma", "levels"),
    [("grid", 0.0, 255), ("grid", np.nan, 255), ("grid", 0.5, None), ("other", 0.5, 255), ("grid", 1e6, 255)],
)
def test_impossible_noise_is_refused(kind: str, sigma: float, levels: int | None) -> None:
    with pytest.raises(InvalidInput):
        make_noise(kind, sigma, levels)


def test_sampler_draws_follow_their_names() -> None:
    names = [Segment(4, "estimation", 10, 3), Segment(9, "estimation", 0, 2)]
    both = NamedDraws(0, names, (1, 8, 8), 8)
    alone = NamedDraws(0, [Segment(9, "estimation", 1, 1)], (1, 8, 8), 2)
    assert (both.normal(5)[4] == alone.normal(5)[0]).all()
    assert (both.normal(5) == both.normal(5)).all()
    assert not (both.normal(5)[0] == both.normal(6)[0]).any()
    assert (both.normal(5)[5:] == 0).all()
