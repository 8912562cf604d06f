"""The course of one image: which draws are needed next, and what is proved once they are made.

A ``Design`` is fixed before the first draw. It begins a ``Course`` for every image; a course names the draws
it needs, is told their votes, and becomes the next course, until it needs nothing and has its verdict. All
is a pure function of the votes, so a run can be resumed, distributed and verified by replaying it.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal, NamedTuple, Protocol, TypeVar

from smoothcert.certificates.gaussian import Bound, Certificate, Prediction
from smoothcert.errors import InvalidInput
from smoothcert.tallies import Tally, Votes

if TYPE_CHECKING:
    from smoothcert.certificates.feature import FeatureCertificate

Reason = Literal["all draws", "decided", "hopeless", "exhausted", "other class", "under way"]
REASONS: dict[Reason, str] = {
    "all draws": "the fixed number of draws was made",
    "decided": "everything asked was proved",
    "hopeless": "the rest was too unlikely to be proved; given up",
    "exhausted": "the draws ran out before the rest was decided",
    "other class": "the answer is not the true class (label-aware)",
    "under way": "valid now, and may be continued",
}


class Need(NamedTuple):
    """Draws ``first .. end - 1`` of a stage."""

    stage: str
    first: int
    end: int


@dataclass(frozen=True)
class Verdict:
    """What the draws of one image prove, why they ended, and how many they were."""

    proof: Certificate | Prediction | FeatureCertificate
    reason: Reason
    draws: int


Counted = TypeVar("Counted", Votes, Tally)


def of_need(tally: Counted, need: Need | None) -> Counted:
    """``tally``, if of as many draws as are needed: a bound is valid at its own number of draws and no other.

    Raises:
        InvalidInput: more or fewer draws, or nothing is needed.
    """
    wanted = need.end - need.first if need else 0
    if need is None or tally.total != wanted:
        raise InvalidInput(
            f"{tally.total} votes where {wanted} are needed",
            "the level of a test is that of the numbers of draws it was planned for",
            "Add the votes of exactly the draws named by course.need",
        )
    return tally


class Course(Protocol):
    """One image on its way."""

    @property
    def need(self) -> Need | None:
        """The draws to make next; ``None`` when the verdict is final."""
        ...

    def add(self, tally: Any, /) -> Course:
        """The course after the needed draws answered this, counted as the design counts."""
        ...

    def verdict(self) -> Verdict | None:
        """What is proved; ``None`` while the course is on its way (an anytime course always has one)."""
        ...


@dataclass(frozen=True)
class Selecting:
    """What designs share whose first n0 draws name the class, so that fresh ones bear the certificate.

    Attributes:
        n0: selection draws; 0 for a prediction. n: the most draws after them. alpha: error probability.
        bound: the form, ``one`` or ``pair``. sigma, noise_error: of the noise.
    """

    n0: int
    n: int
    alpha: float
    bound: Bound
    sigma: float
    noise_error: float

    @property
    def most(self) -> int:
        """The largest number of draws an image can take."""
        return self.n0 + self.n

    def facts(self) -> dict[str, Any]:
        """Nothing to store: the numbers say it all."""
        return {}


class Design(Protocol):
    """A rule with all its numbers, fixed before the first draw."""

    @property
    def most(self) -> int:
        """The largest number of draws an image can take."""
        ...

    def looks_at(self, draws: int) -> bool:
        """Whether the votes of the first ``draws`` draws of a stage matter by themselves."""
        ...

    def begin(self, label: int | None = None) -> Course:
        """The course of an image; ``label`` is its true class, used by label-aware designs only."""
        ...

    def facts(self) -> dict[str, Any]:
        """Looks and boundaries as plain data, to be stored and derived again by whoever verifies."""
        ...
