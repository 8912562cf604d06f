"""Where an attacker may go: the L2 ball around an image, inside [0, 1], and in the end on the grid of levels.

A certificate of images with levels 0..L speaks about images with levels 0..L (THEORY 4), so what an attack
hands out is such an image, its distance counted in whole levels. On the way it moves through all of the ball.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from smoothcert.errors import InvalidInput

Radius = float | Sequence[float]
_HALVINGS = 50  # of an interval: far below the resolution of float32
_FARTHEST = 8.0  # a movement is lengthened at most this many times before its levels are rounded


@dataclass(frozen=True)
class Ball:
    """The L2 balls around several images, cut off at [0, 1]. ``Ball.around`` makes it.

    Attributes:
        centre: ``(B, C, H, W)`` float32 in [0, 1], the images themselves.
        radii: ``(B,)``, L2 on pixels in [0, 1].
        levels: L where the images have levels 0..L, ``None`` for float images.
    """

    centre: Tensor
    radii: Tensor
    levels: int | None = None

    @classmethod
    def around(cls, centre: Tensor, radius: Radius, levels: int | None) -> Ball:
        """One radius for all images, or one each.

        Raises:
            InvalidInput: a radius that is not positive and finite, or another number of them than of images.
        """
        several = (
            [float(r) for r in radius] if isinstance(radius, Sequence) else [float(radius)] * len(centre)
        )
        if len(several) != len(centre) or not all(0.0 < r < math.inf for r in several):
            raise InvalidInput(
                f"radius = {radius!r} for {len(centre)} images",
                "an attack needs positive, finite L2 distances on pixels in [0, 1], one for all or each",
                "Write for example radius=0.25",
            )
        return cls(centre, torch.tensor(several, dtype=torch.float64, device=centre.device), levels)

    def project(self, images: Tensor) -> Tensor:
        """The nearest images of the ball (the exact Euclidean projection, to float32's resolution).

        It is clip(c + s (x - c), 0, 1) with the largest s <= 1 that stays within the radius: the ball's
        multiplier shortens the movement, the box cuts it off, and the length grows with s.
        """
        moved = images - self.centre
        low, high = torch.zeros_like(self.radii), torch.ones_like(self.radii)
        inside = lengths((self.centre + moved).clamp(0, 1) - self.centre) <= self.radii
        for _ in range(0 if bool(inside.all()) else _HALVINGS):
            middle = 0.5 * (low + high)
            fits = lengths(self._at(moved, middle) - self.centre) <= self.radii
            low, high = torch.where(fits, middle, low), torch.where(fits, high, middle)
        return self._at(moved, torch.where(inside, torch.ones_like(low), low))

    def start(self, normals: Tensor) -> Tensor:
        """Points spread evenly over the ball, then cut to [0, 1]; from normal numbers ``(B, d + 2)``.

        The first d of d + 2 coordinates of a random point of a sphere are an even spread over a ball.
        """
        flat = normals[:, :-2] / normals.norm(dim=1, keepdim=True)
        return self.project(self.centre + each(self.radii, self.centre) * flat.reshape(self.centre.shape))

    def handed_out(self, images: Tensor) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float64]]:
        """The attacked images and their distances, each distance rounded up and at most the radius.

        On the grid for images with levels; elsewhere what ``project`` gives, shrunk until it fits in float64.
        """
        clean, radii = self.centre.detach().cpu().numpy(), self.radii.tolist()
        found = self.project(images).detach().cpu().numpy()
        if self.levels is None:
            fitting = [_shrunk(*ball) for ball in zip(clean, found, radii, strict=True)]
            norms = [distance(one, two) for one, two in zip(clean, fitting, strict=True)]
            return np.stack(fitting), np.array(norms)
        pairs = [on_grid(*ball, self.levels) for ball in zip(clean, found, radii, strict=True)]
        image = np.stack([levels for levels, _ in pairs]).astype(np.float32) / np.float32(self.levels)
        return image, np.array([norm for _, norm in pairs])

    def _at(self, moved: Tensor, scale: Tensor) -> Tensor:
        found: Tensor = (self.centre + moved * each(scale, moved)).clamp(0, 1)
        return found


def lengths(moved: Tensor) -> Tensor:
    """``(B, ...)`` -> ``(B,)`` L2 norms in float64."""
    found: Tensor = torch.linalg.vector_norm(moved.detach().flatten(1).double(), dim=1)
    return found


def each(values: Tensor, images: Tensor) -> Tensor:
    """``(B,)`` -> ``(B, 1, 1, 1)`` of the images' type: one number for each image."""
    return values.to(images.dtype)[:, None, None, None]


def distance(clean: npt.NDArray[np.float32], attacked: npt.NDArray[np.float32]) -> float:
    """The L2 distance of two images, rounded up."""
    exact = math.sqrt(float(((clean.astype(np.float64) - attacked) ** 2).sum()))
    return exact * (1.0 + 1e-12)


def on_grid(
    clean: npt.NDArray[np.float32], attacked: npt.NDArray[np.float32], radius: float, levels: int
) -> tuple[npt.NDArray[np.int64], float]:
    """The image on the grid that goes farthest the attacked one's way within the ball, and its distance.

    Whole steps v maximise <v, d> for a given length where each next step of a pixel, worth |d_i| and costing
    2 |v_i| + 1, is taken while its worth is above one price: v = round(s d). The largest such s is found by
    bisection, then single steps are added, dearest first, while they fit. Length is counted in integers:
    sum of v^2 <= floor((L radius)^2), and no more than the attacked image's own square length, rounded.
    """
    from_levels = np.rint(clean.astype(np.float64) * levels)
    wanted = attacked.astype(np.float64) * levels - from_levels
    budget = min(_square(radius, levels), math.floor(float((wanted**2).sum()) + 0.5))
    low, high = -from_levels, levels - from_levels

    def steps(scale: float) -> npt.NDArray[np.float64]:
        return np.clip(np.rint(scale * wanted), low, high)

    short, far = 0.0, _FARTHEST
    for _ in range(_HALVINGS):
        middle = 0.5 * (short + far)
        short, far = (middle, far) if (steps(middle) ** 2).sum() <= budget else (short, middle)
    taken = _filled(steps(short), wanted, low, high, budget)
    square = int((taken**2).sum())
    assert square <= budget, "the levels stay within the ball"
    found: npt.NDArray[np.int64] = (from_levels + taken).astype(np.int64)
    return found, min(radius, math.sqrt(square) / levels * (1.0 + 1e-12))  # square <= (L radius)^2 exactly


def _filled(
    taken: npt.NDArray[np.float64],
    wanted: npt.NDArray[np.float64],
    low: npt.NDArray[np.float64],
    high: npt.NDArray[np.float64],
    budget: int,
) -> npt.NDArray[np.float64]:
    """One more step for the pixels to which it is worth most; then for cheaper ones, while any fits."""
    further = np.clip(taken + np.sign(wanted), low, high).reshape(-1)
    found, ahead = taken.copy().reshape(-1), np.abs(wanted).reshape(-1)
    cost = further**2 - found**2
    left = budget - (found**2).sum()
    order = np.argsort(-ahead / np.where(cost > 0, cost, np.inf), kind="stable")
    order = order[(cost > 0)[order]]
    while (order := order[cost[order] <= left]).size:
        fits = np.cumsum(cost[order]) <= left
        found[order[fits]] = further[order[fits]]
        left -= cost[order[fits]].sum()
        order = order[~fits]
    return found.reshape(taken.shape)


def _square(radius: float, levels: int) -> int:
    """floor((L radius)^2), exactly."""
    return math.floor((Fraction(radius) * levels) ** 2)


def _shrunk(
    clean: npt.NDArray[np.float32], attacked: npt.NDArray[np.float32], radius: float
) -> npt.NDArray[np.float32]:
    """The attacked image drawn towards the clean one until float64 agrees that it lies in the ball."""
    image, share = attacked, 1.0
    while distance(clean, image) > radius:
        share *= 1.0 - 1e-6
        image = np.clip(clean + np.float32(share) * (attacked - clean), 0.0, 1.0).astype(np.float32)
    return image
