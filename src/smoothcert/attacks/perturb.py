"""Attacks on smoothed models: from images and a wish to attacked images on the grid, within a radius.

The attacker sees noise of the stages ``attack`` and ``attack_start`` only. What he achieved is measured
elsewhere (``judge``), with draws he has never seen.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from smoothcert.attacks import aims
from smoothcert.attacks.ball import Ball, Radius
from smoothcert.attacks.expectation import Aim, Expectation, Rows
from smoothcert.attacks.search import Search, climb
from smoothcert.errors import InvalidInput
from smoothcert.protocols import Draws
from smoothcert.smoothing.classifier import SmoothedClassifier
from smoothcert.smoothing.encoder import SmoothedEncoder
from smoothcert.smoothing.streams import Segment, normals

Images = Tensor | npt.NDArray[Any]
Smoothed = SmoothedClassifier | SmoothedEncoder
_CHOOSING, _REFERENCE = 2**20, 2**21  # first draws, far beyond those of the steps
_REFERENCE_DRAWS = 256


@dataclass(frozen=True)
class Perturbed:
    """One attacked image.

    Attributes:
        example: names its streams.
        image: ``(C, H, W)``, of the type that was given; on the grid where the noise is.
        distance: L2 on pixels in [0, 1], rounded up, at most the radius of the attack.
        value: what the attacker got, by draws with which he chose among his starts.
    """

    example: int
    image: npt.NDArray[Any]
    distance: float
    value: float


def attack_features(
    smoothed: SmoothedEncoder,
    images: Images,
    *,
    radius: Radius,
    search: Search | None = None,
    goal: Aim | None = None,
    soft: Rows | None = None,
    examples: Sequence[int] | None = None,
    surrogate: SmoothedEncoder | None = None,
) -> tuple[Perturbed, ...]:
    """Turn the smoothed features F(x + delta) of several images away from F(x), or where ``goal`` wants them.

    Args:
        smoothed: what is attacked.
        images: ``(B, C, H, W)`` as for ``certify``.
        radius: L2 on pixels in [0, 1], one for all images or one each.
        search: the effort.
        goal: what the attacker wants of F(x + delta), see ``aims``; ``None`` is away from F(x).
        soft: maps unit features to other rows, whose mean ``goal`` is then about (``soft_votes``).
        examples: names of the noise streams, by default 0, 1, ...
        surrogate: where gradients come from, if not from ``smoothed`` itself: the same encoder in torch.

    Raises:
        InvalidInput: a radius that is not positive, a bad image, or a model without gradients.
    """
    network = (surrogate or smoothed).network

    def rows(noisy: Tensor, draws: Draws | None) -> Tensor:
        found = network.differentiable(noisy, draws)
        return soft(found, None) if soft is not None else found

    return _attacked(smoothed, network, rows, goal, images, radius, search or Search(), examples)


def attack_votes(
    smoothed: SmoothedClassifier,
    images: Images,
    labels: Sequence[int],
    *,
    radius: Radius,
    search: Search | None = None,
    targets: Sequence[int] | None = None,
    examples: Sequence[int] | None = None,
    surrogate: SmoothedClassifier | None = None,
) -> tuple[Perturbed, ...]:
    """Make the smoothed classifier answer something else than ``labels`` (or answer ``targets``).

    Gradients of the mean class probabilities over noise (EoT-PGD; Salman et al. 2019); other arguments and
    errors as for ``attack_features``.
    """
    network = (surrogate or smoothed).network

    def rows(noisy: Tensor, draws: Draws | None) -> Tensor:
        scores = network.classifier(network.denoised(noisy, draws))
        if not isinstance(scores, Tensor) or scores.ndim != 2:
            raise InvalidInput(
                "an attack on a classifier that answers labels",
                "labels have no slope to follow",
                "Give a classifier that returns scores (B, classes)",
            )
        return torch.softmax(scores.float(), dim=1)

    numbers = [None if found is None else torch.as_tensor(list(found)) for found in (labels, targets)]
    on_device = [None if found is None else found.to(network.device) for found in numbers]
    assert on_device[0] is not None, "labels are needed"
    goal = aims.unlikely(on_device[0], on_device[1])
    return _attacked(smoothed, network, rows, goal, images, radius, search or Search(), examples)


def soft_votes(prototypes: Tensor, temperature: float = 0.05) -> Rows:
    """Unit features to class probabilities of a prototype head, for ``attack_features(soft=...)``."""
    unit = torch.nn.functional.normalize(prototypes.float(), dim=1)

    def rows(features: Tensor, draws: Draws | None) -> Tensor:
        return torch.softmax(features @ unit.T.to(features.device) / temperature, dim=1)

    return rows


def _attacked(
    smoothed: Smoothed,
    network: Any,
    rows: Rows,
    goal: Aim | None,
    images: Images,
    radius: Radius,
    search: Search,
    examples: Sequence[int] | None,
) -> tuple[Perturbed, ...]:
    given = images.detach().cpu().numpy() if isinstance(images, Tensor) else np.asarray(images)
    if given.ndim != 4 or 0 in given.shape:
        raise InvalidInput(f"images of shape {given.shape}", "an attack takes (B, C, H, W)", "Reshape them")
    names = list(range(len(given))) if examples is None else [int(name) for name in examples]
    prepared = [smoothed.noise.prepare(image) for image in given]
    network.settle()
    levels: int | None = getattr(smoothed.noise, "levels", None) if smoothed.noise.kind == "grid" else None
    clean = np.stack(prepared).astype(np.float32) / np.float32(levels or 1)
    ball = Ball.around(torch.from_numpy(clean).to(network.device), radius, levels)

    def expectation(aim: Aim) -> Expectation:
        return Expectation(
            rows, smoothed.noise, aim, names, search, stochastic=network.stochastic, device=network.device
        )

    from_clean = goal is not None  # at the image itself the cosine with its own feature is flat
    if goal is None:
        draws = -(-max(_REFERENCE_DRAWS, search.eot) // search.eot) * search.eot
        goal = aims.away(expectation(aims.away(torch.zeros(1))).means(ball.centre, _REFERENCE, draws))
    objective = expectation(goal)
    found, distances, values = _best(objective, goal, ball, names, search, from_clean=from_clean)
    return tuple(
        Perturbed(name, _as_given(image, given.dtype, levels), float(norm), float(value))
        for name, image, norm, value in zip(names, found, distances, values, strict=True)
    )


def _best(
    objective: Expectation, goal: Aim, ball: Ball, names: list[int], search: Search, *, from_clean: bool
) -> tuple[npt.NDArray[np.float32], npt.NDArray[np.float64], npt.NDArray[np.float64]]:
    """The best of all starts, image by image, told by draws that no step used, after rounding to the grid.

    A cosine with the feature of the image itself falls on both sides of it: every second search of such a one
    begins opposite of where the one before ended.
    """
    best: tuple[npt.NDArray[np.float32], npt.NDArray[np.float64], npt.NDArray[np.float64]] | None = None
    draws, point = max(128, search.eot), ball.centre
    for restart in range(search.restarts):
        if restart % 2 and not from_clean:
            begin = ball.project(2.0 * ball.centre - point)
        elif restart or not from_clean:
            begin = _start(ball, names, search.seed, restart)
        else:
            begin = ball.centre
        point = climb(search, objective, ball, begin)
        image, norms = ball.handed_out(point)
        tried = torch.from_numpy(image).to(ball.centre.device)
        values = goal(objective.means(tried, _CHOOSING, draws)).cpu().double().numpy()
        if best is None:
            best = image, norms, values
            continue
        wins = values > best[2]
        best = (
            np.where(wins[:, None, None, None], image, best[0]),
            np.where(wins, norms, best[1]),
            np.where(wins, values, best[2]),
        )
    assert best is not None, "at least one start"
    return best


def _start(ball: Ball, names: list[int], seed: int, restart: int) -> Tensor:
    size = int(np.prod(ball.centre.shape[1:])) + 2
    drawn = [
        normals(seed, Segment(name, "attack_start", restart, 1), (size,), purpose="smoothing")
        for name in names
    ]
    return ball.start(torch.from_numpy(np.concatenate(drawn)).float().to(ball.centre.device))


def _as_given(image: npt.NDArray[np.float32], kind: Any, levels: int | None) -> npt.NDArray[Any]:
    if np.issubdtype(kind, np.integer) and levels is not None:
        return np.rint(image.astype(np.float64) * levels).astype(kind)
    return image.astype(np.float32)
