"""Attacked images stay in the ball, in the box and on the grid, and nothing of the radius is given away."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest
import torch

from smoothcert.attacks.ball import Ball, on_grid
from smoothcert.errors import InvalidInput


def ball(count: int = 6, radius: float = 0.7, levels: int | None = 255, seed: int = 0) -> Ball:
    drawn = np.random.default_rng(seed).integers(0, 256, size=(count, 3, 5, 7)).astype(np.float32) / 255
    return Ball.around(torch.from_numpy(drawn), radius, levels)


def wild(around: Ball, scale: float, seed: int = 1) -> torch.Tensor:
    return around.centre + scale * torch.randn(
        around.centre.shape, generator=torch.Generator().manual_seed(seed)
    )


@pytest.mark.parametrize("scale", [0.001, 0.1, 3.0, 1e4])
def test_the_projection_is_in_ball_and_box_and_no_other_point_is_nearer(scale: float) -> None:
    around = ball()
    given = wild(around, scale)
    found = around.project(given)
    assert found.min() >= 0
    assert found.max() <= 1
    moved = (found - around.centre).flatten(1).double().norm(dim=1)
    assert (moved <= 0.7 * (1 + 1e-6)).all()
    away = (given - found).flatten(1).double()
    for seed in range(50):  # the variational inequality that only the nearest point of a convex set satisfies
        other = around.start(torch.randn((6, 107), generator=torch.Generator().manual_seed(seed)))
        slope = (away * (other - found).flatten(1).double()).sum(dim=1)
        assert (slope <= 1e-5 * away.norm(dim=1)).all()


def test_a_point_inside_is_left_alone() -> None:
    around = ball()
    inside = (around.centre + 0.01).clamp(0, 1)
    assert torch.equal(around.project(inside), inside)


@pytest.mark.parametrize("levels", [1, 16, 255])
@pytest.mark.parametrize("radius", [0.02, 0.3, 2.0])
def test_what_is_handed_out_is_an_image_of_the_grid_within_the_radius(levels: int, radius: float) -> None:
    drawn = np.random.default_rng(3).integers(0, levels + 1, size=(5, 3, 5, 7))
    clean = (drawn / levels).astype(np.float32)
    around = Ball.around(torch.from_numpy(clean), radius, levels)
    images, distances = around.handed_out(around.project(wild(around, 0.2)))
    back = np.rint(images.astype(np.float64) * levels).astype(np.int64)
    assert np.array_equal((back / levels).astype(np.float32), images)
    assert back.min() >= 0
    assert back.max() <= levels
    for one, other, distance in zip(back, drawn, distances, strict=True):
        square = int(((one - other) ** 2).sum())
        assert square <= math.floor((Fraction(radius) * levels) ** 2)
        assert Fraction(distance) ** 2 * levels**2 >= square
        assert distance <= radius


def test_rounding_to_the_grid_wastes_little_of_the_radius_and_keeps_the_direction() -> None:
    """Below half a level a pixel would round to nothing: the steps must go where they count most.

    At .03 the 58 steps of one level go to the 58 largest of 3,072 normal numbers, 2.6 on average, and their
    cosine with all of them is 2.6 sqrt(58 / 3072) = .357 at best.
    """
    rng = np.random.default_rng(0)
    clean = rng.integers(40, 216, size=(3, 32, 32)).astype(np.float64) / 255
    for radius, least in ((0.03, 0.345), (0.1, 0.73), (0.5, 0.985), (1.0, 0.995)):
        wanted = rng.normal(size=clean.shape)
        moved = clean + radius * wanted / np.linalg.norm(wanted)
        levels, distance = on_grid(clean.astype(np.float32), moved.astype(np.float32), radius, 255)
        step = levels / 255 - clean
        cosine = float((step * wanted).sum() / np.linalg.norm(step) / np.linalg.norm(wanted))
        assert distance > 0.99 * radius
        assert cosine > least


def test_equal_movements_below_half_a_level_still_move() -> None:
    clean = np.full((1, 8, 8), 0.5019608, dtype=np.float32)
    levels, distance = on_grid(clean, clean + np.float32(0.2 / 255), 1.6 / 255, 255)
    assert int(((levels - 128) ** 2).sum()) == 2  # floor(1.6^2) steps of one level
    assert distance == pytest.approx(math.sqrt(2) / 255)


def test_a_pixel_at_the_edge_is_not_pushed_over_it_by_lengthening() -> None:
    clean = np.full((1, 8, 8), 128 / 255, dtype=np.float32)
    clean[0, 0, 0] = 254 / 255
    moved = clean + np.float32(0.3 / 255)
    moved[0, 0, 0] = 1.0
    levels, _ = on_grid(clean, moved, 1.0, 255)
    assert levels.max() == 255
    assert int(((levels - np.rint(clean * 255)) ** 2).sum()) == 7  # 1 + 63 * .09, rounded


def test_a_radius_of_exactly_one_level_allows_one_level() -> None:
    clean = np.zeros((1, 2, 2), dtype=np.float32)
    target = clean.copy()
    target[0, 0, 0] = 1.0
    levels, distance = on_grid(clean, target, 1.0, 1)
    assert levels.sum() == 1
    assert distance == pytest.approx(1.0)
    short = math.nextafter(1.0, 0.0)
    assert on_grid(clean, target, short, 1)[0].sum() == 0


def test_an_attack_inside_the_ball_is_not_made_longer() -> None:
    clean = np.full((1, 8, 8), 0.5019608, dtype=np.float32)
    moved = clean.copy()
    moved[0, 0, :3] += np.float32(3 / 255)
    levels, distance = on_grid(clean, moved, 0.9, 255)
    assert np.array_equal(np.flatnonzero(levels - 128), [0, 1, 2])
    assert distance == pytest.approx(math.sqrt(27) / 255)


def test_float_images_stay_within_the_radius_to_the_last_digit() -> None:
    around = ball(levels=None, radius=0.31)
    images, distances = around.handed_out(wild(around, 1.0))
    exact = ((images.astype(np.float64) - around.centre.numpy()) ** 2).sum(axis=(1, 2, 3)) ** 0.5
    assert (exact <= 0.31).all()
    assert (distances >= exact).all()
    assert (exact > 0.3099).all()


def test_starts_fill_the_ball_and_not_its_surface_or_centre_alone() -> None:
    around = Ball.around(torch.full((400, 1, 1, 2), 0.5), 0.25, None)
    found = around.start(torch.randn((400, 4), generator=torch.Generator().manual_seed(0)))
    share = (((found - 0.5).flatten(1).norm(dim=1) / 0.25) ** 2).mean()  # of a disc: r^2 is even on [0, 1]
    assert float(share) == pytest.approx(0.5, abs=0.06)


def test_radii_may_differ_and_must_be_positive() -> None:
    around = Ball.around(torch.full((2, 1, 8, 8), 0.5), [0.1, 0.4], None)
    lengths = (around.project(wild(around, 5.0)) - 0.5).flatten(1).norm(dim=1)
    assert lengths.tolist() == pytest.approx([0.1, 0.4], rel=1e-5)
    for bad in (0.0, -1.0, math.nan, math.inf, [0.1], [0.1, 0.0]):
        with pytest.raises(InvalidInput, match="radius"):
            Ball.around(torch.full((2, 1, 8, 8), 0.5), bad, None)
