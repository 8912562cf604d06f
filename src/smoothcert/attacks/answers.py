"""Attacks on whole models by any differentiable loss: a vision-language model's answer, a classifier's.

The loss may hide anything: a plain model, a smoothed tower inside a language model that draws its own noise,
a booster. What is attacked is told only by ``loss(images (B, C, H, W)) -> (B,)``, which the attacker raises,
for example the negative log-likelihood of the right answer.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from smoothcert.attacks.ball import Ball, Radius
from smoothcert.attacks.expectation import from_loss
from smoothcert.attacks.search import Search, climb
from smoothcert.errors import InvalidInput

Loss = Callable[[Tensor], Tensor]


@dataclass(frozen=True)
class AnswerAttack:
    """Attacked images and what they cost the model.

    Attributes:
        images: ``(B, C, H, W)`` float32 in [0, 1], whole levels where the data has levels.
        distances: L2 on pixels in [0, 1], rounded up ``(B,)``.
        before, after: the loss at the clean and the attacked images ``(B,)``.
    """

    images: Tensor
    distances: npt.NDArray[np.float64]
    before: npt.NDArray[np.float64]
    after: npt.NDArray[np.float64]


def attack_answers(
    loss: Loss,
    images: Tensor,
    *,
    radius: Radius,
    search: Search | None = None,
    levels: int | None = 255,
) -> AnswerAttack:
    """Raise ``loss`` within an L2 radius of each image, all images at once.

    Args:
        loss: ``(B, C, H, W)`` in [0, 1] -> ``(B,)``, differentiable; one row must not depend on another's
            image. Average over the noise of a smoothed model inside of it.
        images: ``(B, C, H, W)`` float in [0, 1].
        radius: L2 on pixels in [0, 1], one for all images or one each.
        search: the effort; ``eot``, ``fresh`` and ``batch`` are the loss's own matter. Starts at the images
            themselves, then anywhere in the ball.
        levels: L of images with levels 0..L, ``None`` for float images that may become anything.

    Raises:
        InvalidInput: a radius that is not positive, images outside [0, 1], a loss without gradients or of
            another shape.
    """
    search, centre = search or Search(), _checked(images)
    ball, objective = Ball.around(centre, radius, levels), from_loss(loss)
    with torch.no_grad():
        before = loss(centre).double().cpu().numpy()
    found: Any = None
    random = torch.Generator().manual_seed(search.seed)
    for restart in range(search.restarts):
        start = centre
        if restart:
            drawn = torch.randn((len(centre), centre[0].numel() + 2), generator=random)
            start = ball.start(drawn.to(centre.device))
        attacked, distances = ball.handed_out(climb(search, objective, ball, start))
        tried = torch.from_numpy(attacked).to(centre.device)
        with torch.no_grad():
            after = loss(tried).double().cpu().numpy()
        if found is None:
            found = tried, distances, after
            continue
        wins = after > found[2]
        chosen = torch.from_numpy(wins).to(centre.device)[:, None, None, None]
        found = (
            torch.where(chosen, tried, found[0]),
            np.where(wins, distances, found[1]),
            np.where(wins, after, found[2]),
        )
    return AnswerAttack(found[0], found[1], before, found[2])


def success_rate(before: Sequence[Any], after: Sequence[Any], right: Sequence[Any]) -> tuple[int, int]:
    """How many of the answers that were right before the attack are another one after it, and how many were.

    The field's attack success rate is the first number divided by the second.
    """
    if not len(before) == len(after) == len(right):
        raise InvalidInput(
            f"{len(before)} answers before, {len(after)} after, {len(right)} right ones",
            "they are compared one by one",
            "Pass one of each for every image",
        )
    correct = [(a, b) for a, b, truth in zip(before, after, right, strict=True) if a == truth]
    return sum(b != a for a, b in correct), len(correct)


def _checked(images: Tensor) -> Tensor:
    centre = images.detach().float()
    if centre.ndim != 4 or not bool(torch.isfinite(centre).all()) or centre.min() < 0 or centre.max() > 1:
        raise InvalidInput(
            f"images of shape {tuple(images.shape)}, values from {float(images.min()):g} to "
            f"{float(images.max()):g}",
            "an attack takes float images (B, C, H, W) in [0, 1]",
            "Rescale them, and put the model's own normalisation into the loss",
        )
    return centre
