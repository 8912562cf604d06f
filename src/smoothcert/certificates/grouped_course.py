"""One image under a group-sequential design (``certificates.grouped``): what its votes prove at each look."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from smoothcert.bounds import sequential
from smoothcert.bounds.binomial import binomial_test
from smoothcert.certificates.course import Need, Reason, Verdict, of_need
from smoothcert.certificates.gaussian import Certificate, Prediction
from smoothcert.tallies import Votes

if TYPE_CHECKING:
    from smoothcert.certificates.grouped import Grouped


@dataclass(frozen=True)
class GroupedCourse:
    """One image under a group-sequential design.

    Attributes:
        look: looks taken. votes: all draws so far. named: the class the gate named.
        certified: how many of the design's radii are proved, smallest first.
        proved: in the form ``pair``, the largest radius proved at any look.
        reason: why the draws ended.
    """

    design: Grouped
    label: int | None = None
    named: int | None = None
    look: int = 0
    votes: Votes = field(default_factory=Votes)
    certified: int = 0
    proved: float = 0.0
    p_lower: float = 0.0
    p_upper: float = 1.0
    reason: Reason | None = None

    @property
    def need(self) -> Need | None:
        if self.reason is not None:
            return None
        stage = "estimation" if self.design.radii else "prediction"
        return Need(stage, self.votes.total, self.design.looks[self.look])

    def add(self, votes: Votes) -> GroupedCourse:
        grown = self._with(votes=self.votes + of_need(votes, self.need))._name()._test()
        return grown._with(reason=grown._ended(), look=self.look + 1)

    def verdict(self) -> Verdict | None:
        if self.reason is None:
            return None
        numbers, design = self.design.numbers, self.design
        if not design.radii:
            p_value = _lead_test(self.votes)
            prediction = Prediction(
                self.named, p_value, self.votes, design.sigma, numbers.alpha, self.votes.total
            )
            return Verdict(prediction, self.reason, self.votes.total)
        held = self.certified > 0
        radius = max(self.proved, design.decidable[self.certified - 1]) if held else 0.0
        certificate = Certificate(
            label=self.named if held else None,
            radius=radius,
            p_lower=self.p_lower,
            p_upper=self.p_upper,
            votes=self.votes,
            sigma=design.sigma,
            alpha=numbers.alpha,
            n0=0,
            n=self.votes.total,
        )
        return Verdict(certificate, self.reason, self.votes.total)

    def _with(self, **changes: object) -> GroupedCourse:
        """``dataclasses.replace``, ten times as fast: a run takes dozens of looks at every image."""
        grown = object.__new__(GroupedCourse)
        grown.__dict__.update(self.__dict__, **changes)
        return grown

    def _name(self) -> GroupedCourse:
        top = self.votes.top()
        if self.named is not None or top is None:
            return self
        passed = self.votes.count(top) > self.votes.strongest_rival(top)
        if passed and _lead_test(self.votes) <= self.design.gate_levels[self.look]:
            return self._with(named=top)
        return self

    def _test(self) -> GroupedCourse:
        """Prove as many radii as this look allows, in ascending order."""
        if self.named is None or (self.label is not None and self.named != self.label):
            return self
        return self._test_pair() if self.design.bound == "pair" else self._test_one()

    def _test_one(self) -> GroupedCourse:
        design, certified, p_lower = self.design, self.certified, self.p_lower
        top = self.votes.count(self.named)
        while certified < len(design.boundaries) and top >= design.boundaries[certified].cuts[self.look]:
            p_lower = design.boundaries[certified].p
            certified += 1
        if certified == self.certified:
            return self
        return self._with(certified=certified, p_lower=p_lower, p_upper=1.0 - p_lower)

    def _test_pair(self) -> GroupedCourse:
        best = (self.proved, self.p_lower, self.p_upper)
        top, rival = self._counts(self.named)
        if self._may_reach(top, rival):
            best = max(best, self.design.pair_bounds(self.look, top, rival))
        certified = sum(radius <= best[0] for radius in self.design.decidable)
        return self._with(certified=certified, proved=best[0], p_lower=best[1], p_upper=best[2])

    def _may_reach(self, top: int, rival: int) -> bool:
        """Whether the estimate itself reaches the next radius; its lower bound cannot otherwise."""
        if self.certified == len(self.design.decidable):
            return False
        wanted = self.design.decidable[self.certified] / self.design.sigma
        n = self.votes.total
        return rival == 0 or top == n or _z(top / n) - _z(rival / n) >= 2.0 * wanted

    def _ended(self) -> Reason | None:
        design, last = self.design, self.look + 1 == len(self.design.looks)
        finished = self.certified == len(design.decidable) if design.radii else self.named is not None
        if self.named is not None and finished:
            return "decided"
        if self.label is not None and self.named not in (None, self.label):
            return "other class"
        if last:
            return "exhausted"
        return "hopeless" if self._power() < design.numbers.futility else None

    def _power(self) -> float:
        """How likely the next thing asked is to be proved by the last look."""
        design, last = self.design, self.design.most
        top, rival = self._counts(self.named if self.label is None else self.label)
        if not design.radii or (design.bound == "pair" and design.decidable[self.certified] == 0.0):
            return sequential.power_of_lead(top, rival, self.votes.total, last, design.gate_levels[-1])
        if design.bound == "pair":
            shift = 2.0 * design.decidable[self.certified] / design.sigma
            return sequential.power_of_pair(top, rival, self.votes.total, last, design.pair_levels[-1], shift)
        cut = design.boundaries[self.certified].cuts[-1]
        return sequential.power_of_count(top, self.votes.total, last, cut)

    def _counts(self, label: int | None) -> tuple[int, int]:
        """Votes of a class (or of the top one) and of its strongest rival."""
        label = self.votes.top() if label is None else label
        return (
            (0, self.votes.total)
            if label is None
            else (
                self.votes.count(label),
                self.votes.strongest_rival(label),
            )
        )


def _lead_test(votes: Votes) -> float:
    """Two-sided p-value of the two most frequent answers against a fair coin."""
    top = votes.top()
    if top is None:
        return 1.0
    count = votes.count(top)
    return binomial_test(count, count + votes.strongest_rival(top))


def _z(p: float) -> float:
    from scipy.special import ndtri

    return float(ndtri(p))
