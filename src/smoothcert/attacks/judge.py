"""What an attack achieved, by fresh draws of the model itself: the stages ``judge`` and ``judge_clean``."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from smoothcert.attacks.evidence import ALPHA, CosineEvidence, VoteEvidence, judge_cosine, vote_evidence
from smoothcert.smoothing.classifier import SmoothedClassifier
from smoothcert.smoothing.encoder import SmoothedEncoder
from smoothcert.smoothing.network import default_batch
from smoothcert.smoothing.streams import Segment
from smoothcert.tallies import Votes

Pixels = npt.NDArray[Any]


def judge_features(
    smoothed: SmoothedEncoder,
    clean: Pixels,
    attacked: Pixels,
    *,
    example: int = 0,
    seed: int = 0,
    claimed: float | None = None,
    n: int = 1_000,
    most: int = 16_000,
    alpha: float = ALPHA,
    batch: int | None = None,
) -> CosineEvidence:
    """What n fresh draws at each of two images ``(C, H, W)`` say about the cosine of their smoothed features.

    More are made, up to ``most``, while a ``claimed`` lower bound on it looks false and is not proved so.
    """
    prepared = {"judge_clean": smoothed.noise.prepare(clean), "judge": smoothed.noise.prepare(attacked)}
    size = batch or default_batch(clean.shape, smoothed.network.device)

    def draw(stage: str, first: int, count: int) -> npt.NDArray[np.float64]:
        parts = range(first, first + count, size)
        found = []
        for start in parts:
            segment = Segment(example, stage, start, min(size, first + count - start))
            found.append(smoothed.features([(prepared[stage], segment)], seed=seed, batch=size))
        return np.concatenate(found)

    error = smoothed.noise.error(clean.size)
    return judge_cosine(draw, claimed=claimed, n=n, most=max(n, most), alpha=alpha, noise_error=error)


def judge_votes(
    smoothed: SmoothedClassifier,
    attacked: Pixels,
    label: int,
    *,
    classes: int,
    example: int = 0,
    seed: int = 0,
    n: int = 1_000,
    most: int = 16_000,
    alpha: float = ALPHA,
    batch: int | None = None,
) -> VoteEvidence:
    """What n fresh votes at an attacked image say against the claim that its smoothed label is ``label``.

    Half of alpha is for them. Where another class is ahead and that proves nothing yet, ``most`` fresh votes
    are made and judged alone, at the other half.
    """
    prepared = smoothed.noise.prepare(attacked)
    size = batch or default_batch(attacked.shape, smoothed.network.device)

    def votes(first: int, count: int) -> Votes:
        found = Votes()
        for start in range(first, first + count, size):
            segment = Segment(example, "judge", start, min(size, first + count - start))
            found += Votes.from_labels(smoothed.labels([(prepared, segment)], seed=seed, batch=size))
        return found

    found = vote_evidence(label, votes(0, n), classes, alpha / 2)
    ahead = found.p_value < 0.5
    if not ahead or found.p_value <= alpha / 2 or most <= n:
        return found
    return vote_evidence(label, votes(n, most), classes, alpha / 2)
