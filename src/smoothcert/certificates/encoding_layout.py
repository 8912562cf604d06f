"""What the sums of an image's estimation draws stand for: plain data, stored beside them in the run file.

So whoever reads a run needs neither the pilot's choices made again nor the same processor: the layout says
which function of a draw each number counted, and any layout that was fixed before the draws is sound.
"""

from __future__ import annotations

import json
import math
from dataclasses import dataclass, field
from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

from smoothcert.certificates.channels import Channel
from smoothcert.certificates.margin import TestFunction
from smoothcert.errors import InvalidInput
from smoothcert.tallies import Scores, Votes
from smoothcert.tallies.packing import Integers

Rows = npt.NDArray[np.float64]
SKETCH = 64  # dimensions up to which the covariance is kept whole, and onto which larger ones are projected
FEATURE_STEP = 2.0**-20
SKETCH_STEP = 2.0**-18
DIRECTION, CLEAN, RIVALS = 0, 1, 2  # the channels of <u, f>, of <clean, f>, and the first of the rivals'


@dataclass(frozen=True, eq=False)
class Layout:
    """The places of the sums: of the feature, the (sketched) covariance, the votes, then of each channel.

    Attributes:
        dimension: numbers of a feature. centre: norm of the centre of the covariance.
        classes: of the head, 0 without one. label: the class that margins are measured for.
        decision: which certificate of the answer counts. selection: the pilot's votes.
        functions: the test functions, one a rival.
        channels: of <u, f>, of <clean, f>, then of the rivals' margins, then of their test functions.
    """

    dimension: int
    centre: float
    classes: int
    label: int | None
    decision: str | None
    selection: Votes
    functions: tuple[TestFunction, ...]
    channels: tuple[Channel, ...]
    places: tuple[tuple[int, int], ...] = field(init=False)

    def __post_init__(self) -> None:
        ends = [(float(c.grid[0]), float(c.grid[-1])) for c in self.channels]
        own = [(q.lowest, q.highest) for q in self.functions]
        wanted = [(-1.0, 1.0)] * (RIVALS + len(own)) + own
        labelled = self.classes == 0 or self.label in range(self.classes)
        if ends != wanted or not labelled or not 0.0 <= self.centre <= 1.0 + 1e-9 or self.dimension < 1:
            raise InvalidInput(
                f"a layout of {len(self.channels)} channels for {len(own)} rivals of class {self.label}",
                "its channels do not span what they count",
                "Restore the run file from a copy",
            )
        sizes = [self.dimension, self.sketch * (self.sketch + 1) // 2, self.classes, *map(len, self.channels)]
        stops = np.cumsum(sizes).tolist()
        places = tuple((stop - size, stop) for size, stop in zip(sizes, stops, strict=True))
        object.__setattr__(self, "places", places)

    @property
    def sketch(self) -> int:
        """Numbers of which the covariance is kept."""
        return min(self.dimension, SKETCH)

    @property
    def size(self) -> int:
        """How many sums there are."""
        return self.places[-1][1]

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

    def to_json(self) -> str:
        """Canonical JSON."""
        plain = {
            "dimension": self.dimension,
            "centre": self.centre,
            "classes": self.classes,
            "label": self.label,
            "decision": self.decision,
            "selection": self.selection.to_json(),
            "functions": [q.facts() for q in self.functions],
            "channels": [channel.ends for channel in self.channels],
        }
        return json.dumps(plain, sort_keys=True, separators=(",", ":"), allow_nan=False)

    @classmethod
    def from_json(cls, text: str) -> Layout:
        """Read what ``to_json`` wrote; ``InvalidInput`` for anything else."""
        try:
            stored: dict[str, Any] = json.loads(text)
            stored["selection"] = Votes.from_json(stored["selection"])
            stored["functions"] = tuple(TestFunction.from_facts(facts) for facts in stored["functions"])
            stored["channels"] = tuple(Channel.between(*ends) for ends in stored["channels"])
            return cls(**stored)
        except (ValueError, TypeError, KeyError, AttributeError) as error:
            raise InvalidInput(
                f"the layout {text[:80]!r}", f"cannot be read ({error})", "Restore the run file from a copy"
            ) from error


@lru_cache(maxsize=1024)  # the rows of an image share theirs
def layout_of(text: str) -> Layout:
    """The layout that a tally names."""
    return Layout.from_json(text)


def length(vector: Rows) -> float:
    """Euclidean norm."""
    return math.sqrt(float(vector @ vector))
