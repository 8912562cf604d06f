"""What is counted of an image's estimation draws: fixed by its clean feature and its pilot draws alone.

The pilot chooses: the direction on which m is bounded, the centre of the covariance, the class that a head
answers and, for every rival, the test function of the dual certificate. Any choice is sound, because fresh
draws bear the bounds; a good one makes them sharp.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt

from smoothcert.bounds import clopper_pearson_lower
from smoothcert.certificates import margin
from smoothcert.certificates.channels import Channel
from smoothcert.errors import InvalidInput
from smoothcert.tallies import Scores, Votes
from smoothcert.tallies.packing import Integers

Rows = npt.NDArray[np.float64]
SKETCH = 64  # dimensions up to which the covariance is kept whole, and onto which larger ones are projected
MOST_RIVALS = 127  # of heads whose margins are counted; beyond, votes alone
_BLOCK = 16  # draws whose products are taken together
FEATURE_STEP = 2.0**-20
SKETCH_STEP = 2.0**-18


@dataclass(frozen=True, eq=False)
class Numbers:
    """What the plans of all images of a run share.

    Attributes:
        n, alpha: estimation draws and error probability. prototypes: unit rows of a head, or ``None``.
        decision: ``"auto"``, ``"votes"``, ``"margin"`` or ``"dual"``.
    """

    n: int
    alpha: float
    prototypes: Rows | None
    decision: str

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Numbers) and self._key == other._key

    def __hash__(self) -> int:
        return hash(self._key)

    @property
    def _key(self) -> tuple[Any, ...]:
        rows = self.prototypes
        return (self.n, self.alpha, self.decision, None if rows is None else (rows.shape, rows.tobytes()))


@dataclass(frozen=True, eq=False)
class Plan:
    """The plan of one image. ``Plan.make`` makes it.

    Attributes:
        direction: unit pilot mean u. centre: of the covariance. clean: the clean feature.
        label: the class that margins are measured for, ``None`` without a head.
        rivals: unit differences (t_A - t_B) / ||t_A - t_B||, one row a rival.
        functions: the test functions, one a rival.
        channels: of <u, f>, of <clean, f>, then of the rivals' margins, then of their test functions.
        decision: which certificate of the answer counts.
        selection: the pilot's votes.
    """

    numbers: Numbers
    direction: Rows
    centre: Rows
    clean: Rows
    label: int | None
    rivals: Rows
    functions: tuple[margin.TestFunction, ...]
    channels: tuple[Channel, ...]
    decision: str | None
    selection: Votes
    places: tuple[tuple[int, int], ...] = field(init=False)

    def __post_init__(self) -> None:
        sketch = self.sketch
        classes = 0 if self.numbers.prototypes is None else len(self.numbers.prototypes)
        sizes = [self.dimension, sketch * (sketch + 1) // 2, classes, *(len(c) for c in self.channels)]
        ends = np.cumsum(sizes).tolist()
        places = tuple((end - size, end) for size, end in zip(sizes, ends, strict=True))
        object.__setattr__(self, "places", places)

    @property
    def dimension(self) -> int:
        """Numbers of a feature."""
        return len(self.centre)

    @property
    def sketch(self) -> int:
        """Numbers of which the covariance is kept."""
        return min(self.dimension, SKETCH)

    @classmethod
    def make(cls, clean: Rows, pilot: Rows, numbers: Numbers) -> Plan:
        """The plan that a clean feature ``(k,)`` and pilot features ``(n0, k)`` fix."""
        centre = pilot.mean(axis=0)
        direction = centre / (math.sqrt(float(centre @ centre)) or 1.0)
        channels = [Channel.around(pilot @ direction, -1.0, 1.0), Channel.around(pilot @ clean, -1.0, 1.0)]
        prototypes, rivals = numbers.prototypes, np.zeros((0, len(centre)))
        label, selection, decision = None, Votes(), None
        functions: tuple[margin.TestFunction, ...] = ()
        if prototypes is not None:
            selection = Votes.from_labels(labels_of(pilot, prototypes))
            label = int(np.argmax(prototypes @ centre))
            if numbers.decision != "votes" and len(prototypes) <= MOST_RIVALS + 1:
                rivals = margin.directions(prototypes, label)
                functions = tuple(margin.choose(pilot, w, n=numbers.n, alpha=numbers.alpha) for w in rivals)
            decision = _decision(numbers, selection, pilot, rivals, functions)
        channels += [Channel.around(pilot @ w, -1.0, 1.0) for w in rivals]
        channels += [Channel.around(q.values(pilot), q.lowest, q.highest) for q in functions]
        return cls(
            numbers=numbers,
            direction=direction,
            centre=centre,
            clean=clean,
            label=label,
            rivals=rivals,
            functions=functions,
            channels=tuple(channels),
            decision=decision,
            selection=selection,
        )

    def scores(self, features: Rows, basis: Rows | None, *, first: int = 0) -> Scores:
        """What estimation draws add up to: features ``(B, k)``, and the sketch's basis ``(k, 64)`` if any.

        ``first`` is the number of the first draw. Products are taken over blocks of 16 draws, each draw in
        its place, so that how the draws are cut into pieces changes no rounding.
        """
        lead = first % _BLOCK
        whole = np.zeros((-(-(lead + len(features)) // _BLOCK) * _BLOCK, features.shape[1]))
        whole[lead : lead + len(features)] = features
        counted = np.zeros(len(whole), dtype=bool)
        counted[lead : lead + len(features)] = True
        sums = np.zeros(self.places[-1][1], dtype=np.int64)
        for start in range(0, len(whole), _BLOCK):
            block = slice(start, start + _BLOCK)
            self._add(sums, whole[block], counted[block], basis)
        broken = int((features == 0.0).all(axis=1).sum())
        return Scores(len(features), sums, broken)

    def _add(
        self, sums: Integers, features: Rows, counted: npt.NDArray[np.bool_], basis: Rows | None
    ) -> None:
        """Add the counted draws of one block."""
        steps = np.rint(features / FEATURE_STEP)
        sums[slice(*self.places[0])] += steps.sum(axis=0).astype(np.int64)  # draws not counted are 0
        moved = features - self.centre
        seen = np.rint((moved if basis is None else moved @ basis) / SKETCH_STEP)[counted]
        # Whole numbers below 2^53 for up to 2^15 draws: the product is exact in any order of addition.
        second = seen.T @ seen
        sums[slice(*self.places[1])] += second[np.triu_indices(len(second))].astype(np.int64)
        for (start, end), channel, values in zip(
            self.places[3:], self.channels, self._values(features), strict=True
        ):
            sums[start:end] += channel.counts(values[counted])
        if self.numbers.prototypes is not None:
            answers = labels_of(features, self.numbers.prototypes)
            start, end = self.places[2]
            sums[start:end] += np.bincount(answers[answers >= 0], minlength=end - start)

    def check(self, scores: Scores) -> None:
        """Refuse sums that this plan did not make."""
        if len(scores.sums) != self.places[-1][1]:
            raise InvalidInput(
                f"sums of {len(scores.sums)} numbers where the plan counts {self.places[-1][1]}",
                "they were made by another plan",
                "Restore the run file from a copy",
            )

    def votes(self, scores: Scores) -> Votes:
        """The answers of the single draws."""
        counts = scores.sums[slice(*self.places[2])]
        return Votes.of(dict(enumerate(counts.tolist())), scores.nonfinite)

    def feature(self, scores: Scores) -> Rows:
        """The mean of the draws' unit features."""
        mean: Rows = scores.sums[slice(*self.places[0])] * FEATURE_STEP / scores.total
        return mean

    def second_moment(self, scores: Scores) -> Rows:
        """The mean of (f - centre)(f - centre)^T, or of its sketch."""
        size = self.sketch
        found = np.zeros((size, size))
        found[np.triu_indices(size)] = scores.sums[slice(*self.places[1])] / scores.total * SKETCH_STEP**2
        whole: Rows = found + np.triu(found, 1).T
        return whole

    def lower(self, number: int, scores: Scores, alpha: float) -> float:
        """A lower confidence bound on the expectation of one channel."""
        return self.channels[number].lower(self.counts(number, scores), alpha)

    def counts(self, number: int, scores: Scores) -> Integers:
        """The sums of one channel."""
        return scores.sums[slice(*self.places[3 + number])]

    def _values(self, features: Rows) -> Any:
        yield features @ self.direction
        yield features @ self.clean
        if len(self.rivals):
            yield from (features @ self.rivals.T).T
        for function in self.functions:
            yield function.values(features)


def labels_of(features: Rows, prototypes: Rows) -> npt.NDArray[np.int64]:
    """The class of each feature by itself: the nearest prototype; -1 for the feature 0."""
    answers = np.argmax(features @ prototypes.T, axis=1)
    return np.where((features == 0.0).all(axis=1), -1, answers)


def _decision(
    numbers: Numbers, selection: Votes, pilot: Rows, rivals: Rows, functions: tuple[margin.TestFunction, ...]
) -> str:
    """The certificate that counts: the one asked for, or the one the pilot expects to reach farthest."""
    if numbers.decision != "auto" or not len(rivals):
        return "votes" if numbers.decision == "auto" else numbers.decision
    n, n0 = numbers.n, len(pilot)
    top = selection.count(selection.top())
    p_lower = clopper_pearson_lower(round(top / (n0 + 1) * n), n, numbers.alpha)
    from scipy.special import ndtri

    found = {
        "dual": margin.dual_ratio(
            functions, [expected(q.values(pilot), n, numbers.alpha) for q in functions]
        ),
        "votes": float(ndtri(p_lower)),
        "margin": margin.baseline_ratio([expected(pilot @ w, n, numbers.alpha) for w in rivals]),
    }
    return max(found, key=lambda rule: found[rule])


def expected(values: Rows, n: int, alpha: float) -> float:
    """About the lower bound that n draws like these will give."""
    return float(values.mean() - values.std() * math.sqrt(-2.0 * math.log(alpha) / n))
