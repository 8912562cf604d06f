"""Certificates after stages of draws: Cohen's fixed numbers, and a pilot that plans the second number.

In both, fresh draws of the last stage bear the whole error probability; what came before only chose the
class and, in the second, how many they are (THEORY 5.7).
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace
from functools import lru_cache

from smoothcert.bounds.sequential import geometric_looks
from smoothcert.certificates.course import Need, Reason, Selecting, Verdict, of_need
from smoothcert.certificates.gaussian import Certificate, Prediction, certify, predict
from smoothcert.tallies import Votes

_PLAN_FROM, _PLAN_RATIO = 256, 1.1


@dataclass(frozen=True)
class Fixed(Selecting):
    """CERTIFY and PREDICT of Cohen et al. 2019: n0 selection draws, then n that decide (n0 = 0: predict)."""

    def second(self, pilot: Votes) -> int:
        """Draws of the last stage."""
        return self.n

    @property
    def certain(self) -> tuple[Need, ...]:
        """All draws of an image: they do not depend on what is answered, so they come in any order."""
        if self.n0 == 0:
            return (Need("prediction", 0, self.n),)
        return (Need("selection", 0, self.n0), Need("estimation", 0, self.n))

    def looks_at(self, draws: int) -> bool:
        return False  # a stage is read whole

    def begin(self, label: int | None = None) -> StagedCourse:
        return StagedCourse(self)


@dataclass(frozen=True)
class TwoStage(Fixed):
    """The radius itself with fewer draws: the pilot's votes say how many the second stage needs.

    The second stage is the smallest that loses at most ``tolerance`` sigma of radius against ``n`` draws if
    the pilot's frequencies were exact, and none where a certificate is too unlikely (``futility``).
    """

    tolerance: float = 0.02
    futility: float = 0.01

    @property
    def certain(self) -> tuple[Need, ...]:
        return (Need("selection", 0, self.n0),)  # the others are planned by their votes

    def second(self, pilot: Votes) -> int:
        label = pilot.top()
        if label is None:
            return 0
        top, rival = pilot.count(label), pilot.strongest_rival(label)
        return _planned(self, top, rival if self.bound == "pair" else pilot.total - top, pilot.total)


@dataclass(frozen=True)
class StagedCourse:
    """One image: its first stage, its second, its verdict."""

    design: Fixed
    pilot: Votes = field(default_factory=Votes)
    votes: Votes = field(default_factory=Votes)
    planned: int | None = None

    @property
    def need(self) -> Need | None:
        first = self.design.n0 > 0
        if first and self.planned is None:
            return Need("selection", 0, self.design.n0)
        wanted = self.design.n if self.planned is None else self.planned
        if self.votes.total == wanted:
            return None
        return Need("estimation" if first else "prediction", 0, wanted)

    def add(self, votes: Votes) -> StagedCourse:
        of_need(votes, self.need)
        if self.design.n0 > 0 and self.planned is None:
            return replace(self, pilot=votes, planned=self.design.second(votes))
        return replace(self, votes=votes)

    def verdict(self) -> Verdict | None:
        if self.need is not None:
            return None
        design, drawn = self.design, self.pilot.total + self.votes.total
        reason: Reason = (
            "all draws" if type(design) is Fixed else "decided" if self.votes.total else "hopeless"
        )
        return Verdict(self._proof(), reason, drawn)

    def _proof(self) -> Certificate | Prediction:
        design = self.design
        if design.n0 == 0:
            return predict(self.votes, sigma=design.sigma, alpha=design.alpha)
        if not self.votes.total:
            return Certificate(None, 0.0, 0.0, 1.0, Votes(), design.sigma, design.alpha, design.n0, 0)
        return certify(
            self.pilot,
            self.votes,
            sigma=design.sigma,
            alpha=design.alpha,
            bound=design.bound,
            noise_error=design.noise_error,
        )


@lru_cache(maxsize=1 << 14)
def _planned(design: TwoStage, top: int, rival: int, pilot: int) -> int:
    """Draws of the second stage, from the counts of the class named and of its rivals in the pilot."""
    from scipy.special import ndtri

    most = _radius(design, top / pilot, rival / pilot, design.n)
    lead, spread = (top - rival) / pilot, math.sqrt((top + rival) / pilot * (1.0 / pilot + 1.0 / design.n))
    needed = -float(ndtri(design.alpha)) * math.sqrt((top + rival) / pilot / design.n)
    if 0.5 * math.erfc((needed - lead) / spread / math.sqrt(2.0)) < design.futility:
        return 0
    for n in geometric_looks(_PLAN_FROM, design.n, _PLAN_RATIO):
        if _radius(design, top / pilot, rival / pilot, n) >= most - design.tolerance:
            return n
    return design.n


def _radius(design: TwoStage, p_top: float, p_rival: float, n: int) -> float:
    """About the radius, in units of sigma, that n draws with these frequencies prove."""
    from scipy.special import betaincinv, ndtri

    pair = design.bound == "pair"
    level = design.alpha / 2.0 if pair else design.alpha
    lower = float(betaincinv(p_top * n, (1.0 - p_top) * n + 1.0, level)) if p_top > 0.0 else 0.0
    if not pair:
        return float(ndtri(lower)) if lower > 0.0 else -math.inf
    upper = 1.0 - float(betaincinv((1.0 - p_rival) * n, p_rival * n + 1.0, level)) if p_rival < 1.0 else 1.0
    return 0.5 * float(ndtri(lower) - ndtri(upper)) if lower > 0.0 and upper < 1.0 else -math.inf
