"""What was attacked, what had been certified there, and whether that survived: one row an attack."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

from smoothcert.attacks.evidence import ALPHA
from smoothcert.bounds import tail_upper


@dataclass(frozen=True)
class VoteRecord:
    """An attack on one image of a smoothed classifier.

    Attributes:
        example, label: the image and its true class.
        radius: allowed to the attacker. distance: used, rounded up.
        predicted, certified: the certificate, ``None`` and 0 for an abstention.
        answer: the most frequent class at the attacked image, by fresh draws.
        share, share_upper: of the class under attack; the upper bound is false with probability <= 1e-6.
        share_claimed: what the certificate says its probability is at least, ``None`` where it says nothing.
        p_value: of "no class beats the certified one there".
        draws: fresh ones.
    """

    example: int
    label: int
    radius: float
    distance: float
    predicted: int | None
    certified: float
    answer: int | None
    share: float
    share_upper: float
    share_claimed: float | None
    p_value: float
    draws: int

    @property
    def correct(self) -> bool:
        """Whether the clean image was answered rightly."""
        return self.predicted == self.label

    @property
    def robust(self) -> bool:
        """Whether it still was after the attack, as far as its fresh draws tell."""
        return self.correct and self.answer == self.label

    @property
    def covered(self) -> bool:
        """Whether the certificate speaks about the attacked image."""
        return self.predicted is not None and self.distance <= self.certified

    @property
    def broken(self) -> tuple[str, ...]:
        """The claims that fresh draws refute, each false with probability at most 1e-6."""
        if not self.covered:
            return ()
        found = ("label",) if self.p_value <= ALPHA else ()
        wrong = self.share_claimed is not None and self.share_upper < self.share_claimed
        return (*found, "probability") if wrong else found


@dataclass(frozen=True)
class FeatureRecord:
    """An attack on one image of a smoothed encoder.

    Attributes:
        example, label, radius, distance: as for ``VoteRecord``.
        norm: estimate of m = |F(x)|. m_lower: the certificate's bound on it.
        cosine, lower, upper: of F(x + delta) and F(x), with its 95 % interval. upper_sure: false with
            probability at most 1e-6.
        certified, paper: lower bounds at that distance; 0 is an abstention. paper is the baseline's.
        answers: of the head by the mean feature, clean and attacked; ``None`` without a head.
        claims: (rule, label, radius, refuted) for each certificate of the head's answer.
        draws: fresh ones at each image.
    """

    example: int
    label: int
    radius: float
    distance: float
    norm: float
    m_lower: float
    cosine: float
    lower: float
    upper: float
    upper_sure: float
    certified: float
    paper: float
    answers: tuple[int, int] | None
    claims: tuple[tuple[str, int | None, float, bool], ...]
    draws: int

    @property
    def broken(self) -> tuple[str, ...]:
        """The claims that fresh draws refute, each false with probability at most 1e-6."""
        found = ["cosine"] if self.upper_sure < self.certified else []
        found += [rule for rule, _, _, refuted in self.claims if refuted]
        return tuple(found)

    @property
    def paper_broken(self) -> bool:
        """Whether the baseline's bound is refuted."""
        return self.upper_sure < self.paper


Record = VoteRecord | FeatureRecord


def plain(record: Record) -> dict[str, Any]:
    """A row for JSON, with what was refuted."""
    return {**asdict(record), "broken": list(record.broken)}


def by_chance(records: Sequence[Record], alpha: float) -> float:
    """How likely at least as many broken images are if each claim is false with probability alpha, as it may.

    One image can have several claims (cosine, answers by several rules): their alphas add up.
    """
    images = {record.example for record in records}
    broken = {record.example for record in records if record.broken}
    claims = max((1 + len(getattr(record, "claims", ())) for record in records), default=1)
    return tail_upper(len(broken), len(images), min(1.0, claims * alpha)) if broken else 1.0


def claimed_share(certified: float, distance: float, sigma: float, noise_error: float) -> float:
    """If a bound on p_A alone gave the radius, p_A(x + delta) >= Phi((certified - |delta|) / sigma).

    Of the drawn noise, so less its distance to exact Gaussian noise on both sides. Source: Cohen et al. 2019,
    the proof of Theorem 1.
    """
    return 0.5 * math.erfc(-(certified - distance) / sigma / math.sqrt(2.0)) - 2.0 * noise_error - 1e-9
