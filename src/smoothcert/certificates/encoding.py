"""The design of a run that certifies features: clean feature, pilot, plan, then n draws that bear the bounds.

Source: THEORY 3. Each claim about an image - its cosines, its answer - holds with probability at least
1 - alpha by itself.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import numpy as np

from smoothcert.bounds.covariance import top_eigenvalue_upper
from smoothcert.certificates import margin
from smoothcert.certificates.course import Need, Verdict, of_need
from smoothcert.certificates.encoding_layout import (
    CLEAN,
    DIRECTION,
    RIVALS,
    SKETCH,
    SKETCH_STEP,
    Layout,
    layout_of,
)
from smoothcert.certificates.encoding_plan import MOST_RIVALS, Numbers, Plan, Rows
from smoothcert.certificates.feature import LAMBDA_SHARE, FeatureCertificate
from smoothcert.certificates.gaussian import certify, round_down
from smoothcert.certificates.margin import Decision
from smoothcert.errors import InvalidInput
from smoothcert.tallies import Features, Scores, Tally
from smoothcert.tallies.features import HALF_STEP

Rule = Literal["votes", "margin", "dual"]


@dataclass(frozen=True, eq=False)
class Encoding:
    """n0 pilot draws fix an image's plan, n fresh draws bear every bound.

    Attributes:
        n0, n: pilot and estimation draws. alpha: error probability of each claim.
        sigma, noise_error: of the noise. served: draws of the feature that is served, or ``None``.
        prototypes: unit rows ``(C, k)`` of a head, or ``None``. decision: how its answer is certified.
        planned_for: the alpha for which plans are made, where the bounds are read at another one.
    """

    n0: int
    n: int
    alpha: float
    sigma: float
    noise_error: float
    prototypes: Rows | None = None
    decision: str = "auto"
    served: int | None = None
    planned_for: float | None = None

    @property
    def most(self) -> int:
        """Draws of an image; its clean feature is one."""
        return 1 + self.n0 + self.n

    @property
    def decisions(self) -> tuple[str, ...]:
        """The certificates of a head's answer that are counted."""
        if self.prototypes is None:
            return ()
        alone = self.decision == "votes" or len(self.prototypes) > MOST_RIVALS + 1
        return ("votes",) if alone else ("votes", "margin", "dual")

    @property
    def numbers(self) -> Numbers:
        """What plans need to know."""
        return Numbers(self.n, self.planned_for or self.alpha, self.prototypes, self.decision)

    def check_dimension(self, dimension: int) -> None:
        """Refuse a head for features of another length."""
        if self.prototypes is not None and self.prototypes.shape[1] != dimension:
            raise InvalidInput(
                f"a head for features of {self.prototypes.shape[1]} numbers on features of {dimension}",
                "a prototype is compared with features of its own encoder",
                "Make the head with the encoder of this run",
            )

    def looks_at(self, draws: int) -> bool:
        return False  # a stage is read whole

    def __post_init__(self) -> None:
        if self.decision in ("margin", "dual") and self.decision not in self.decisions:
            raise InvalidInput(
                f"decision = {self.decision!r} without a head of at most {MOST_RIVALS + 1} classes",
                "a margin is counted for every rival class",
                "Write decision='votes', which needs one count",
            )

    def begin(self, label: int | None = None) -> EncodingCourse:
        return EncodingCourse(self)

    def facts(self) -> dict[str, Any]:
        """Nothing to store: the numbers and the pilot's features say it all."""
        return {}


@dataclass(frozen=True, eq=False)
class EncodingCourse:
    """One image: its clean feature, its pilot, its estimation draws, its verdict."""

    design: Encoding
    clean: Features | None = None
    pilot: Features | None = None
    scores: Scores | None = None
    made: dict[str, Plan] = field(default_factory=dict)  # the plan, once; carried on by `replace`

    @property
    def need(self) -> Need | None:
        if self.clean is None:
            return Need("reference", 0, 1)
        if self.pilot is None:
            return Need("selection", 0, self.design.n0)
        return Need("estimation", 0, self.design.n) if self.scores is None else None

    @property
    def plan(self) -> Plan | None:
        """What is counted of the estimation draws; ``None`` until the pilot is complete."""
        if self.clean is None or self.pilot is None:
            return None
        if "plan" not in self.made:
            self.made["plan"] = Plan.make(self.clean.rows()[0], self.pilot.rows(), self.design.numbers)
        return self.made["plan"]

    def add(self, tally: Tally, /) -> EncodingCourse:
        of_need(tally, self.need)
        if self.pilot is not None:
            if not isinstance(tally, Scores):
                raise _foreign(tally)
            self._check_layout(tally)
            return replace(self, scores=tally)
        if not isinstance(tally, Features):
            raise _foreign(tally)
        self.design.check_dimension(tally.rows().shape[1])
        return replace(self, clean=tally) if self.clean is None else replace(self, pilot=tally, made={})

    def verdict(self) -> Verdict | None:
        if self.scores is None:
            return None
        return Verdict(self._proof(self.scores), "all draws", self.design.most)

    def _check_layout(self, scores: Scores) -> None:
        """Refuse sums whose layout is not one that this design and this image's pilot could have."""
        layout, design, classes = layout_of(scores.layout), self.design, 0
        if design.prototypes is not None:
            classes = len(design.prototypes)
        chosen = design.decisions if design.decision == "auto" else (design.decision,)
        fits = (
            layout.size == len(scores.sums)
            and self.clean is not None
            and layout.dimension == self.clean.rows().shape[1]
            and layout.classes == classes
            and layout.decision in (chosen if classes else (None,))
            and len(layout.functions) == (classes - 1 if len(design.decisions) > 1 else 0)
        )
        if not fits:
            raise InvalidInput(
                f"{len(scores.sums)} sums under a layout of {layout.size}",
                "that is no layout of this run",
                "Restore the run file from a copy",
            )

    def _proof(self, scores: Scores) -> FeatureCertificate:
        design, plan = self.design, layout_of(scores.layout)
        for_lambda = math.nextafter(design.alpha * LAMBDA_SHARE, 0.0)
        rounding = math.sqrt(plan.dimension) * HALF_STEP  # the clean feature's, as it is stored
        reference = max(-1.0, plan.lower(CLEAN, scores, design.alpha) - rounding)
        return FeatureCertificate(
            feature=plan.feature(scores),
            m_lower=max(0.0, plan.lower(DIRECTION, scores, math.nextafter(design.alpha - for_lambda, 0.0))),
            covariance_upper=covariance_upper(plan, scores, for_lambda),
            score_lower=0.5 * (1.0 + reference),
            reference_lower=reference,
            sigma=design.sigma,
            alpha=design.alpha,
            n0=design.n0,
            n=scores.total,
            served=design.served,
            noise_error=design.noise_error,
            decisions=tuple(_decisions(design, plan, scores)),
        )


def covariance_upper(plan: Layout, scores: Scores, alpha: float) -> float:
    """With probability at least 1 - alpha over the draws, the largest eigenvalue of Cov f is <= the result.

    Where the feature has more than 64 dimensions its draws were projected onto a random subspace that is
    independent of them. For the sample's top eigenvector v, fixed by the draws, ||P v||^2 has the law
    Beta(32, (k - 64)/2), so half of alpha there turns the sketch's top eigenvalue into a bound on the
    sample's (THEORY 3.4 for the step from the sample to the law).
    """
    size, norm = plan.sketch, plan.centre
    rounding = 0.5 * math.sqrt(size) * SKETCH_STEP
    second = plan.second_moment(scores)
    if plan.dimension <= SKETCH:
        return top_eigenvalue_upper(second, scores.total, norm, alpha, rounding=rounding)
    from scipy.special import betaincinv

    share = math.nextafter(alpha / 2.0, 0.0)
    kept = float(betaincinv(0.5 * size, 0.5 * (plan.dimension - size), share)) * (1.0 - 1e-9)
    seen = (math.sqrt(max(0.0, float(np.linalg.eigvalsh(second)[-1]) * (1.0 + 1e-12))) + rounding) ** 2
    return top_eigenvalue_upper(np.array([[seen / kept]]), scores.total, norm, share)


def _decisions(design: Encoding, plan: Layout, scores: Scores) -> Any:
    """Every certificate of the head's answer that was counted, the one that counts first.

    A bound for each rival at the whole of alpha suffices: the certified radius, the smallest over the rivals,
    is wrong only if that of the one rival with the smallest true radius is.
    """
    if plan.decision is None:
        return
    makers = {"votes": _by_votes}
    if plan.functions:
        makers |= {"margin": _by_margin, "dual": _by_dual}
    for rule in sorted(makers, key=lambda rule: rule != plan.decision):
        yield makers[rule](design, plan, scores)


def _by_votes(design: Encoding, plan: Layout, scores: Scores) -> Decision:
    found = certify(
        plan.selection,
        plan.votes(scores),
        sigma=design.sigma,
        alpha=design.alpha,
        noise_error=design.noise_error,
    )
    return Decision("votes", found.label, found.radius, {"p_lower": found.p_lower})


def _by_margin(design: Encoding, plan: Layout, scores: Scores) -> Decision:
    lowers = [plan.lower(RIVALS + rival, scores, design.alpha) for rival in range(len(plan.functions))]
    ratio = margin.baseline_ratio(lowers, noise_error=design.noise_error)
    return _decided("margin", plan, design, ratio, {"lower": min(lowers)})


def _by_dual(design: Encoding, plan: Layout, scores: Scores) -> Decision:
    first = RIVALS + len(plan.functions)
    lowers = [plan.lower(first + number, scores, design.alpha) for number in range(len(plan.functions))]
    ratio = margin.dual_ratio(plan.functions, lowers, noise_error=design.noise_error)
    return _decided("dual", plan, design, ratio, {"families": sorted({q.kind for q in plan.functions})})


def _decided(rule: Rule, plan: Layout, design: Encoding, ratio: float, facts: dict[str, Any]) -> Decision:
    radius = round_down(design.sigma * ratio) if ratio > 0.0 else 0.0
    return Decision(rule, plan.label if radius > 0.0 else None, radius, facts)


def _foreign(tally: Tally) -> InvalidInput:
    return InvalidInput(
        f"a tally of type {type(tally).__name__}", "this stage counts something else", "Report this as a bug"
    )
