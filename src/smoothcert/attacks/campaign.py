"""Attacks on many certified images, several at once, each compared with its own certificate."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
import numpy.typing as npt
import torch

from smoothcert.attacks import aims
from smoothcert.attacks.evidence import ALPHA, VoteEvidence
from smoothcert.attacks.expectation import Aim
from smoothcert.attacks.judge import HeadJudge, judge_features, judge_votes
from smoothcert.attacks.perturb import Perturbed, attack_features, attack_votes
from smoothcert.attacks.record import FeatureRecord, VoteRecord, claimed_share
from smoothcert.attacks.search import Search
from smoothcert.errors import InvalidInput
from smoothcert.protocols import Example
from smoothcert.smoothing.classifier import SmoothedClassifier
from smoothcert.smoothing.encoder import SmoothedEncoder

GROUP = 8  # images attacked together


@dataclass(frozen=True)
class VoteClaim:
    """What a certificate says: the label, constant within the radius (``None`` and 0 for an abstention).

    ``alone`` tells whether the bound was on the label's probability alone, so that it bounds that too.
    """

    label: int | None
    radius: float
    alone: bool = True


class DecisionClaim(Protocol):
    """A certificate of a head's answer."""

    @property
    def rule(self) -> str: ...
    @property
    def label(self) -> int | None: ...
    @property
    def radius(self) -> float: ...


class FeatureClaim(Protocol):
    """What a certificate says about a feature: ``FeatureCertificate`` does."""

    @property
    def m_lower(self) -> float: ...
    @property
    def decisions(self) -> Sequence[DecisionClaim]: ...
    def cosine_lower(self, radius: float) -> Any: ...
    def paper_cosine_lower(self, radius: float) -> Any: ...


@dataclass(frozen=True)
class Judging:
    """Fresh draws for each attacked image: ``n``, and up to ``most`` where a claim looks false.

    ``batch`` is the fixed batch size of the run, ``seed`` names the streams.
    """

    n: int = 1_000
    most: int = 16_000
    seed: int = 0
    batch: int | None = None


def votes(
    smoothed: SmoothedClassifier,
    work: Sequence[tuple[Example, VoteClaim, float]],
    *,
    classes: int,
    search: Search,
    judging: Judging,
    target: int | None = None,
    surrogate: SmoothedClassifier | None = None,
) -> Iterator[VoteRecord]:
    """Attack images at their radii, away from the certified label (the true one where there is none).

    ``target`` names the class wanted instead; images that have it already are left out.
    """
    labels = {example.index: _attacked_label(example, claim) for example, claim, _ in work}
    chosen = [job for job in work if target is None or labels[job[0].index] != target]
    for group in _groups(chosen):
        found = attack_votes(
            smoothed,
            np.stack([example.image for example, _, _ in group]),
            [labels[example.index] for example, _, _ in group],
            radius=[radius for _, _, radius in group],
            search=search,
            targets=None if target is None else [target] * len(group),
            examples=[example.index for example, _, _ in group],
            surrogate=surrogate,
        )
        for (example, claim, radius), attacked in zip(group, found, strict=True):
            evidence = judge_votes(
                smoothed,
                attacked.image,
                labels[example.index],
                classes=classes,
                example=example.index,
                seed=judging.seed,
                n=judging.n,
                most=judging.most,
                batch=judging.batch,
            )
            error = smoothed.noise.error(example.image.size)
            yield _vote_record(example, claim, radius, attacked, evidence, smoothed.sigma, error)


def features(
    smoothed: SmoothedEncoder,
    work: Sequence[tuple[Example, FeatureClaim, float]],
    *,
    search: Search,
    judging: Judging,
    goal: str = "away",
    target: int | None = None,
    prototypes: npt.NDArray[np.float64] | None = None,
    surrogate: SmoothedEncoder | None = None,
) -> Iterator[FeatureRecord]:
    """Attack images at their radii and compare cosine and answers with what is certified at that distance.

    Args:
        goal: ``"away"`` from the clean feature, ``"label"``: across the margin of the head's answer, or
            ``"target"``: towards prototype ``target``.
        prototypes: unit rows ``(C, k)`` of the run's head, if it has one.

    Raises:
        InvalidInput: a goal that needs a head, without one.
    """
    if goal not in ("away", "label", "target"):
        raise InvalidInput(f"goal = {goal!r}", "no such goal", "Write away, label or target")
    if prototypes is None and goal != "away":
        raise InvalidInput(
            f"goal = {goal!r} without prototypes",
            "the run has no head whose answer could be another one",
            "Attack the feature itself: goal='away', or pass the prototypes of a head",
        )
    for group in _groups(work):
        attacked = attack_features(
            smoothed,
            np.stack([example.image for example, _, _ in group]),
            radius=[radius for _, _, radius in group],
            search=search,
            goal=_goal(goal, target, prototypes, group, smoothed.network.device),
            examples=[example.index for example, _, _ in group],
            surrogate=surrogate,
        )
        for (example, claim, radius), found in zip(group, attacked, strict=True):
            yield _feature_record(smoothed, example, claim, radius, found, judging, prototypes)


def _goal(
    goal: str,
    target: int | None,
    prototypes: npt.NDArray[np.float64] | None,
    group: Sequence[tuple[Example, FeatureClaim, float]],
    device: str,
) -> Aim | None:
    if goal == "away" or prototypes is None:
        return None
    rows = torch.from_numpy(np.asarray(prototypes, dtype=np.float32)).to(device)
    if goal == "target":
        if target is None or not 0 <= target < len(rows):
            raise InvalidInput(
                f"target = {target!r}", f"the head has the classes 0 to {len(rows) - 1}", "Name one of them"
            )
        return aims.towards(rows[[target] * len(group)])
    labels = [
        next((d.label for d in claim.decisions if d.label is not None), example.label)
        for example, claim, _ in group
    ]
    return aims.across(rows, torch.tensor(labels, device=device))


def _feature_record(
    smoothed: SmoothedEncoder,
    example: Example,
    claim: FeatureClaim,
    radius: float,
    attacked: Perturbed,
    judging: Judging,
    prototypes: npt.NDArray[np.float64] | None,
) -> FeatureRecord:
    certified = float(claim.cosine_lower(attacked.distance))
    head = None
    if prototypes is not None:
        head = HeadJudge(prototypes, smoothed.noise.error(example.image.size), keep=judging.n)
    found = judge_features(
        smoothed,
        example.image,
        attacked.image,
        example=example.index,
        seed=judging.seed,
        claimed=certified,
        head=head,
        n=judging.n,
        most=judging.most,
        batch=judging.batch,
    )
    return FeatureRecord(
        example=example.index,
        label=example.label,
        radius=radius,
        distance=attacked.distance,
        norm=found.norm,
        m_lower=float(claim.m_lower),
        cosine=found.estimate,
        lower=found.lower,
        upper=found.upper,
        upper_sure=found.upper_sure,
        certified=certified,
        paper=float(claim.paper_cosine_lower(attacked.distance)),
        answers=None if head is None else head.labels,
        claims=tuple(
            (made.rule, made.label, float(made.radius), _refuted(made, attacked.distance, head))
            for made in claim.decisions
        ),
        draws=found.draws,
    )


def _refuted(claim: DecisionClaim, distance: float, head: HeadJudge | None) -> bool:
    """Whether fresh draws prove another answer within the radius of a decision."""
    if head is None or claim.label is None or distance > claim.radius:
        return False
    if claim.rule == "votes":
        return head.votes(claim.label).p_value <= ALPHA
    return head.margin(claim.label) < 0.0


def _vote_record(
    example: Example,
    claim: VoteClaim,
    radius: float,
    attacked: Perturbed,
    evidence: VoteEvidence,
    sigma: float,
    error: float,
) -> VoteRecord:
    covered = claim.label is not None and attacked.distance <= claim.radius
    says = covered and claim.alone
    return VoteRecord(
        example=example.index,
        label=example.label,
        radius=radius,
        distance=attacked.distance,
        predicted=claim.label,
        certified=claim.radius,
        answer=evidence.votes.top(),
        share=evidence.share,
        share_upper=evidence.share_upper,
        share_claimed=claimed_share(claim.radius, attacked.distance, sigma, error) if says else None,
        p_value=evidence.p_value,
        draws=evidence.votes.total,
    )


def _attacked_label(example: Example, claim: VoteClaim) -> int:
    return example.label if claim.label is None else claim.label


def _groups(work: Sequence[Any]) -> Iterator[Sequence[Any]]:
    for first in range(0, len(work), GROUP):
        yield work[first : first + GROUP]
