"""What is counted of an image's estimation draws: fixed by its clean feature and its pilot draws alone.

The pilot chooses: the direction on which m is bounded, the centre of the covariance, the class that a head
answers and, for every rival, the test function of the dual certificate. Any choice is sound, because fresh
draws bear the bounds; a good one makes them sharp.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from smoothcert.bounds import clopper_pearson_lower
from smoothcert.certificates import margin
from smoothcert.certificates.channels import Channel
from smoothcert.certificates.encoding_layout import FEATURE_STEP, SKETCH_STEP, Layout, length
from smoothcert.tallies import Scores, Votes
from smoothcert.tallies.packing import Integers

Rows = npt.NDArray[np.float64]
MOST_RIVALS = 127  # of heads whose margins are counted; beyond, votes alone
_BLOCK = 16  # draws whose products are taken together


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
    """How the estimation draws of one image are counted. ``Plan.make`` makes it.

    Attributes:
        numbers: shared by the run. layout: what the sums stand for.
        direction: unit pilot mean u. centre: of the covariance. clean: the clean feature.
        rivals: unit differences (t_A - t_B) / ||t_A - t_B||, one row a rival.
        text: the layout as it is stored beside the sums.
    """

    numbers: Numbers
    layout: Layout
    direction: Rows
    centre: Rows
    clean: Rows
    rivals: Rows
    text: str

    @classmethod
    def make(cls, clean: Rows, pilot: Rows, numbers: Numbers) -> Plan:
        """The plan that a clean feature ``(k,)`` and pilot features ``(n0, k)`` fix."""
        centre = pilot.mean(axis=0)
        direction = centre / (length(centre) or 1.0)
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
        layout = Layout(
            dimension=len(centre),
            centre=length(centre),
            classes=0 if prototypes is None else len(prototypes),
            label=label,
            decision=decision,
            selection=selection,
            functions=functions,
            channels=tuple(channels),
        )
        return cls(numbers, layout, direction, centre, clean, rivals, layout.to_json())

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
        sums = np.zeros(self.layout.size, dtype=np.int64)
        for start in range(0, len(whole), _BLOCK):
            block = slice(start, start + _BLOCK)
            self._add(sums, whole[block], counted[block], basis)
        broken = int((features == 0.0).all(axis=1).sum())
        return Scores(len(features), sums, broken, self.text)

    def _add(
        self, sums: Integers, features: Rows, counted: npt.NDArray[np.bool_], basis: Rows | None
    ) -> None:
        """Add the counted draws of one block."""
        places = self.layout.places
        steps = np.rint(features / FEATURE_STEP)
        sums[slice(*places[0])] += steps.sum(axis=0).astype(np.int64)  # draws not counted are 0
        moved = features - self.centre
        seen = np.rint((moved if basis is None else moved @ basis) / SKETCH_STEP)[counted]
        # Whole numbers below 2^53 for up to 2^15 draws: the product is exact in any order of addition.
        second = seen.T @ seen
        sums[slice(*places[1])] += second[np.triu_indices(len(second))].astype(np.int64)
        for (start, end), channel, values in zip(
            places[3:], self.layout.channels, self._values(features), strict=True
        ):
            sums[start:end] += channel.counts(values[counted])
        if self.numbers.prototypes is not None:
            answers = labels_of(features, self.numbers.prototypes)
            start, end = places[2]
            sums[start:end] += np.bincount(answers[answers >= 0], minlength=end - start)

    def _values(self, features: Rows) -> Any:
        yield features @ self.direction
        yield features @ self.clean
        if len(self.rivals):
            yield from (features @ self.rivals.T).T
        for function in self.layout.functions:
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
