"""What is counted of an image's estimation draws: fixed by its clean feature and its pilot draws alone.

The pilot chooses: the direction on which m is bounded, the centre of the covariance, the class that a head
answers and, for every rival, the test function of the dual certificate. Any choice is sound, because fresh
draws bear the bounds; a good one makes them sharp.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property, lru_cache

import numpy as np
import numpy.typing as npt

from smoothcert.bounds import clopper_pearson_lower
from smoothcert.certificates import margin
from smoothcert.certificates.channels import Bank, Channel
from smoothcert.certificates.encoding_layout import FEATURE_STEP, RIVALS, SKETCH_STEP, Layout, length
from smoothcert.tallies import Scores, Votes

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
        if length(centre) > 1.0:  # rounded features of an encoder that hardly moves are a little too long
            centre = direction
        channels = [Channel.around(pilot @ direction, -1.0, 1.0), Channel.around(pilot @ clean, -1.0, 1.0)]
        prototypes, rivals = numbers.prototypes, np.zeros((0, len(centre)))
        label, selection, decision = None, Votes(), None
        functions: tuple[margin.TestFunction, ...] = ()
        if prototypes is not None:
            selection = Votes.from_labels(labels_of(pilot, pilot @ prototypes.T))
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
        lead, count = first % _BLOCK, len(features)
        whole = np.zeros((-(-(lead + count) // _BLOCK), _BLOCK, features.shape[1]))
        whole.reshape(-1, features.shape[1])[lead : lead + count] = features

        def products(blocks: Rows, matrix: Rows) -> Rows:
            rows = np.concatenate([block @ matrix for block in blocks])
            return rows[lead : lead + count]

        moved = whole - self.centre
        inside = np.zeros((*whole.shape[:2], 1))
        inside.reshape(-1, 1)[lead : lead + count] = 1.0
        seen = [np.rint((b if basis is None else b @ basis) / SKETCH_STEP) for b in moved] * inside
        # Whole numbers below 2^53 for up to 2^15 draws: sums and products are exact in any order of addition,
        # and a block's product is too small for the linear algebra library to start threads for it.
        second = sum(block.T @ block for block in seen)[_upper(self.layout.sketch)]
        total = np.rint(features / FEATURE_STEP).sum(axis=0)
        votes = np.zeros(0, dtype=np.int64)
        if self.numbers.prototypes is not None:
            answers = labels_of(features, products(whole, self.numbers.prototypes.T))
            counts = np.bincount(answers[answers >= 0], minlength=len(self.numbers.prototypes))
            votes = counts.astype(np.int64)
        counted = self.bank.counts(self._values(products(whole, self.vectors.T)))
        sums = np.concatenate(
            [total.astype(np.int64), second.astype(np.int64), votes.astype(np.int64), counted]
        )
        broken = int((features == 0.0).all(axis=1).sum())
        return Scores(count, sums, broken, self.text)

    @cached_property
    def bank(self) -> Bank:
        """All channels, counted together."""
        return Bank(self.layout.channels)

    @cached_property
    def vectors(self) -> Rows:
        """What features are multiplied by: u, the clean feature, the rivals, the linear test functions."""
        linear = [q.vector for q in self.layout.functions if q.kind == "linear" and q.vector is not None]
        return np.stack([self.direction, self.clean, *self.rivals, *linear])

    def _values(self, scalars: Rows) -> Rows:
        """The value of every channel ``(channels, draws)``, from the products with ``vectors``."""
        columns, margins = scalars.T, len(self.rivals)
        found, spare = list(columns[: RIVALS + margins]), iter(columns[RIVALS + margins :])
        for rival, q in enumerate(self.layout.functions):
            found.append(q.of_scalar(next(spare) if q.kind == "linear" else columns[RIVALS + rival]))
        return np.stack(found)


@lru_cache(maxsize=8)
def _upper(size: int) -> tuple[npt.NDArray[np.intp], npt.NDArray[np.intp]]:
    return np.triu_indices(size)


def labels_of(features: Rows, likeness: Rows) -> npt.NDArray[np.int64]:
    """The class of each feature by itself: of the largest product; -1 for the feature 0."""
    answers = np.argmax(likeness, axis=1)
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
        "dual": min(q.predicted for q in functions),
        "votes": float(ndtri(p_lower)),
        "margin": margin.baseline_ratio([expected(pilot @ w, n, numbers.alpha) for w in rivals]),
    }
    return max(found, key=lambda rule: found[rule])


def expected(values: Rows, n: int, alpha: float) -> float:
    """About the lower bound that n draws like these will give."""
    return float(values.mean() - values.std() * math.sqrt(-2.0 * math.log(alpha) / n))
