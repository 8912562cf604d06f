"""Certificates that hold whenever somebody stops, and may be continued: confidence sequences (THEORY 5.6)."""

from __future__ import annotations

import math
from dataclasses import dataclass, field, replace

from smoothcert.bounds import split_alpha
from smoothcert.bounds.sequential import anytime_lower, anytime_upper
from smoothcert.certificates.course import Need, Selecting, Verdict, of_need
from smoothcert.certificates.gaussian import Certificate, radius_from_lower, radius_from_pair
from smoothcert.tallies import Votes

_FIRST, _RATIO = 128, 1.5


@dataclass(frozen=True)
class Anytime(Selecting):
    """n0 selection draws name the class, then bounds that hold at every number of draws at once.

    ``n`` is how far to go now; it is no part of the guarantee and may be raised later.
    """

    def looks_at(self, draws: int) -> bool:
        return draws == _look_after(draws - 1)

    def begin(self, label: int | None = None) -> AnytimeCourse:
        return AnytimeCourse(self)


@dataclass(frozen=True)
class AnytimeCourse:
    """One image; it has a verdict as soon as one estimation draw is made."""

    design: Anytime
    pilot: Votes = field(default_factory=Votes)
    votes: Votes = field(default_factory=Votes)

    @property
    def need(self) -> Need | None:
        if not self.pilot.total:
            return Need("selection", 0, self.design.n0)
        drawn = self.votes.total
        if drawn >= self.design.n:
            return None
        return Need("estimation", drawn, min(_look_after(drawn), self.design.n))

    def add(self, votes: Votes) -> AnytimeCourse:
        of_need(votes, self.need)
        if not self.pilot.total:
            return replace(self, pilot=votes)
        return replace(self, votes=self.votes + votes)

    def verdict(self) -> Verdict | None:
        if not self.votes.total:
            return None
        label, design = self.pilot.top(), self.design
        p_lower, p_upper, radius = (0.0, 1.0, 0.0) if label is None else self._bounds(label)
        certificate = Certificate(
            label=label if radius > 0.0 else None,
            radius=radius,
            p_lower=p_lower,
            p_upper=p_upper,
            votes=self.votes,
            sigma=design.sigma,
            alpha=design.alpha,
            n0=self.pilot.total,
            n=self.votes.total,
        )
        return Verdict(certificate, "under way", self.pilot.total + self.votes.total)

    def _bounds(self, label: int) -> tuple[float, float, float]:
        """Bounds on p_A and its strongest rival, and the radius they prove."""
        design, n, top = self.design, self.votes.total, self.votes.count(label)
        if design.bound == "one":
            lower = anytime_lower(top, n, design.alpha)
            return lower, 1.0 - lower, radius_from_lower(lower, design.sigma, noise_error=design.noise_error)
        share = split_alpha(design.alpha, 2)
        lower = anytime_lower(top, n, share)
        upper = anytime_upper(self.votes.strongest_rival(label), n, share)
        radius = radius_from_pair(lower, upper, design.sigma, noise_error=design.noise_error)
        return lower, upper, radius


def _look_after(drawn: int) -> int:
    """The next number of draws at which a verdict is made, whatever n is now."""
    end = _FIRST
    while end <= drawn:
        end = math.ceil(end * _RATIO / 16) * 16
    return end
