"""What an attack achieved, by fresh draws of the model itself: the stages ``judge`` and ``judge_clean``."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from smoothcert.attacks.evidence import (
    ALPHA,
    CosineEvidence,
    VoteEvidence,
    judge_cosine,
    margin_upper,
    vote_evidence,
)
from smoothcert.smoothing.classifier import SmoothedClassifier
from smoothcert.smoothing.encoder import SmoothedEncoder
from smoothcert.smoothing.network import default_batch
from smoothcert.smoothing.streams import Segment
from smoothcert.tallies import Votes

Pixels = npt.NDArray[Any]
Rows = npt.NDArray[np.float64]


@dataclass
class HeadJudge:
    """What a prototype head answers at the clean and the attacked image: scores of the judge's own draws.

    ``prototypes`` are unit rows ``(C, k)``. Votes and margins are of the first ``keep`` draws at the attacked
    image: how many more are made depends on what they said.
    """

    prototypes: Rows
    noise_error: float = 0.0
    keep: int = 1_000
    _clean: Rows | None = None
    _attacked: list[Rows] = field(default_factory=list)

    def see(self, stage: str, rows: Rows) -> None:
        """More draws of a stage."""
        scores = rows @ self.prototypes.T
        if stage == "judge_clean":
            total = scores.sum(axis=0)
            self._clean = total if self._clean is None else self._clean + total
        elif (left := self.keep - sum(len(kept) for kept in self._attacked)) > 0:
            self._attacked.append(np.where((rows == 0.0).all(axis=1, keepdims=True), np.nan, scores)[:left])

    @property
    def labels(self) -> tuple[int, int]:
        """The answers of the mean feature, clean and attacked (estimates)."""
        assert self._clean is not None, "nothing was drawn"
        return int(self._clean.argmax()), int(np.nan_to_num(self._scores).mean(axis=0).argmax())

    def votes(self, label: int, alpha: float = ALPHA) -> VoteEvidence:
        """Against the claim that ``label`` wins the votes of single draws at the attacked image."""
        found = np.where(np.isnan(self._scores[:, 0]), -1, np.nan_to_num(self._scores).argmax(axis=1))
        return vote_evidence(label, Votes.from_labels(found), len(self.prototypes), alpha)

    def margin(self, label: int, alpha: float = ALPHA) -> float:
        """Upper bound on the smallest margin of ``label`` to a rival; below 0 the answer is another.

        False with probability at most alpha: all rivals are looked at (Bonferroni).
        """
        apart = np.linalg.norm(self.prototypes[label] - self.prototypes, axis=1)
        scores = np.nan_to_num(self._scores)
        margins = (scores[:, [label]] - scores) / np.where(apart > 0.0, apart, 1.0)
        mean = margins.mean(axis=0)
        mean[label] = np.inf
        return margin_upper(
            [margins[:, int(mean.argmin())]], alpha / (len(self.prototypes) - 1), self.noise_error
        )

    @property
    def _scores(self) -> Rows:
        return np.concatenate(self._attacked)


def judge_features(
    smoothed: SmoothedEncoder,
    clean: Pixels,
    attacked: Pixels,
    *,
    example: int = 0,
    seed: int = 0,
    claimed: float | None = None,
    head: HeadJudge | None = None,
    n: int = 1_000,
    most: int = 16_000,
    alpha: float = ALPHA,
    batch: int | None = None,
) -> CosineEvidence:
    """What n fresh draws at each of two images ``(C, H, W)`` say about the cosine of their smoothed features.

    More are made, up to ``most``, while a ``claimed`` lower bound on it looks false and is not proved so. A
    ``head`` sees the draws too.
    """
    prepared = {"judge_clean": smoothed.noise.prepare(clean), "judge": smoothed.noise.prepare(attacked)}
    size = batch or default_batch(clean.shape, smoothed.network.device)

    def draw(stage: str, first: int, count: int) -> Rows:
        found = []
        for start in range(first, first + count, size):
            segment = Segment(example, stage, start, min(size, first + count - start))
            found.append(smoothed.features([(prepared[stage], segment)], seed=seed, batch=size))
        rows = np.concatenate(found)
        if head is not None:
            head.see(stage, rows)
        return rows

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

    Where another class is ahead and that proves nothing yet, ``most`` fresh votes are made and judged alone:
    two looks, each at half of alpha.
    """
    prepared = smoothed.noise.prepare(attacked)
    size = batch or default_batch(attacked.shape, smoothed.network.device)

    def votes(first: int, count: int) -> Votes:
        found = Votes()
        for start in range(first, first + count, size):
            segment = Segment(example, "judge", start, min(size, first + count - start))
            found += Votes.from_labels(smoothed.labels([(prepared, segment)], seed=seed, batch=size))
        return found

    found = vote_evidence(label, votes(0, n), classes, alpha, looks=2)
    ahead = found.rival is not None and found.votes.count(found.rival) > found.votes.count(label)
    if not ahead or found.p_value <= alpha or most <= n:
        return found
    return vote_evidence(label, votes(n, most), classes, alpha, looks=2)
