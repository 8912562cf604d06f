"""Group-sequential certificates: look at the votes while they are made, stop when every radius is decided.

Notation: looks n_1 < ... < n_K = N; A the class named by the gate; alpha = gate alpha + (1 - gate) alpha.

The gate names A at the first look where the two-sided sign test of the two most frequent answers reaches its
share of the first part of alpha (a union over looks, Hung and Fithian 2019 at each), so that it ever names
another class than g(x) with probability at most the first part. No draws are set aside for selection, and
the tests of A use all of them (THEORY 5.5).

- ``one``: for every radius an exact boundary on the votes of A at the second part (THEORY 5.1). Radii are
  proved in ascending order; a radius is certified only after all smaller ones, so the null hypotheses are a
  fixed sequence and each test has all of the second part (THEORY 5.3).
- ``pair``: at every look p_A and the strongest rival are bounded, each at half of that look's share of the
  second part. All bounds hold together, and the radius they give covers every radius at once (THEORY 5.4).
  The radius 0 needs the gate alone; like a prediction it speaks of the noise that is really drawn.

Giving up (``hopeless``) is never counted on: all levels hold for a reader who ignores it.
"""

from __future__ import annotations

import itertools
import math
from dataclasses import dataclass
from functools import cached_property
from typing import Any

from smoothcert.bounds import clopper_pearson_lower, clopper_pearson_upper, sequential
from smoothcert.bounds.binomial import binomial_test
from smoothcert.bounds.multiplicity import check_alpha
from smoothcert.certificates.gaussian import Bound, probability_for, radius_from_pair
from smoothcert.certificates.grouped_course import GroupedCourse
from smoothcert.errors import InvalidInput


@dataclass(frozen=True)
class Numbers:
    """What fixes a group-sequential design beside its radii.

    Attributes:
        n: the most draws of an image. alpha: error probability of each image.
        ratio: between neighbouring looks.
        gate: the share of alpha that names the class; 1 for a prediction, which asks nothing else.
        futility: give up on a radius whose predictive power falls below this.
    """

    n: int
    alpha: float
    ratio: float
    gate: float
    futility: float


@dataclass(frozen=True)
class Grouped:
    """A group-sequential design for the classifier smoothed with ``sigma``.

    ``radii`` empty asks for the answer alone. With ``label_aware`` the class tested is the image's true
    class, known before the draws, so in the form ``one`` nothing needs naming and all of alpha tests it.
    """

    numbers: Numbers
    radii: tuple[float, ...]
    bound: Bound
    sigma: float
    noise_error: float
    label_aware: bool = False

    def __post_init__(self) -> None:
        gate, naming_alone = self.numbers.gate, not self.radii
        check_alpha(self.numbers.alpha)
        if not (0.0 < gate < 1.0 or (naming_alone and gate == 1.0)):
            raise InvalidInput(
                f"gate = {gate!r}",
                "naming the class and testing it each need a part of alpha, and a prediction only names it",
                "Write gate=0.05 to certify and gate=1 to predict",
            )

    @property
    def most(self) -> int:
        return self.numbers.n

    @cached_property
    def looks(self) -> tuple[int, ...]:
        """Numbers of draws after which the votes are looked at."""
        first = sequential.unanimous(0.5, self.numbers.n, 0.5 * self._naming)
        return sequential.geometric_looks(first, self.numbers.n, self.numbers.ratio)

    def looks_at(self, draws: int) -> bool:
        return draws in self.looks

    @cached_property
    def gate_levels(self) -> tuple[float, ...]:
        """Level of the sign test at each look; they add up to the gate's part of alpha."""
        return self._increments(self._naming)

    @cached_property
    def pair_levels(self) -> tuple[float, ...]:
        """Level of each of the two bounds at each look; twice their sum is the second part of alpha."""
        return tuple(0.5 * share for share in self._increments(self._testing))

    @cached_property
    def boundaries(self) -> tuple[sequential.Boundary, ...]:
        """One a radius, for the form ``one``; radii that no outcome can prove are left out at the end."""
        found: list[sequential.Boundary] = []
        for radius in self.radii if self._nameable else ():
            p = probability_for(radius, self.sigma, noise_error=self.noise_error)
            if p >= 1.0 or sequential.unanimous(p, self.most, self._testing) > self.most:
                break
            found.append(sequential.boundary(p, self.looks, self._testing))
        return tuple(found)

    @cached_property
    def decidable(self) -> tuple[float, ...]:
        """The radii that unanimous votes would prove; the others are out of reach of N draws."""
        if self.bound == "one":
            return self.radii[: len(self.boundaries)]
        reach, _, _ = self.pair_bounds(len(self.looks) - 1, self.most, 0)
        return tuple(radius for radius in self.radii if self._nameable and radius <= reach)

    def pair_bounds(self, look: int, top: int, rival: int) -> tuple[float, float, float]:
        """What the counts prove at a look in the form ``pair``: radius, lower bound on p_A, upper on p_B."""
        n, level = self.looks[look], self.pair_levels[look]
        lower = clopper_pearson_lower(top, n, level)
        upper = clopper_pearson_upper(rival, n, level)
        return radius_from_pair(lower, upper, self.sigma, noise_error=self.noise_error), lower, upper

    def begin(self, label: int | None = None) -> GroupedCourse:
        """Raises ``InvalidInput`` where a label-aware design is told no label: alpha would be spent twice."""
        if not self.label_aware:
            return GroupedCourse(self)
        if label is None:
            raise InvalidInput(
                "label = None", "a label-aware design tests the true class", "Pass the label of the image"
            )
        named = label if self._named_beforehand else None
        return GroupedCourse(self, label=label, named=named)

    def facts(self) -> dict[str, Any]:
        stored: dict[str, Any] = {"looks": list(self.looks)}
        if not self._named_beforehand:
            stored["gate"] = list(self.gate_levels)
        if self.radii and self.bound == "pair":
            stored["pair"] = list(self.pair_levels)
            stored["radii"] = list(self.decidable)
        elif self.radii:
            stored["boundaries"] = [
                {"radius": radius, "p": _digits(b.p, 12), "cuts": list(b.cuts), "level": _digits(b.level, 9)}
                for radius, b in zip(self.decidable, self.boundaries, strict=True)
            ]
        return stored

    @property
    def _named_beforehand(self) -> bool:
        return self.label_aware and self.bound == "one"

    @cached_property
    def _nameable(self) -> bool:
        """Whether unanimous votes would name the class."""
        reached = (
            binomial_test(n, n) <= level for n, level in zip(self.looks, self.gate_levels, strict=True)
        )
        return self._named_beforehand or any(reached)

    @property
    def _naming(self) -> float:
        """The part of alpha that names the class."""
        if self._named_beforehand:
            return self.numbers.alpha  # spent on the test; used here only to place the first look
        return self.numbers.alpha * self.numbers.gate

    @property
    def _testing(self) -> float:
        """The part of alpha that tests it."""
        if self._named_beforehand:
            return self.numbers.alpha
        return math.nextafter(self.numbers.alpha * (1.0 - self.numbers.gate), 0.0)

    def _increments(self, alpha: float) -> tuple[float, ...]:
        spent = (0.0, *sequential.spent_by(self.looks, alpha))
        return tuple(math.nextafter(b - a, 0.0) for a, b in itertools.pairwise(spent))


def _digits(value: float, count: int) -> float:
    """To ``count`` digits: the last bits of a sum or of a special function differ between processors."""
    return float(f"{value:.{count}g}")
