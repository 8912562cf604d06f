"""Sums over draws of whole numbers: histograms, features, products. What each stands for, a plan says."""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import Any

import numpy as np

from smoothcert.errors import InvalidInput
from smoothcert.tallies.packing import Integers, packed, unpacked


@dataclass(frozen=True, eq=False)
class Scores:
    """What some draws added up to.

    Whole numbers, so that draws counted in any order, in any pieces and on any machine are the same sums to
    the last bit; their number is fixed by the plan, so memory does not grow with the draws.

    Attributes:
        total: number of draws.
        sums: int64, one number a place of the plan.
        nonfinite: draws whose feature was not finite or had no direction; they count as the feature 0.
        layout: canonical JSON that says what each sum stands for; only sums of one layout add up.
    """

    total: int
    sums: Integers
    nonfinite: int = 0
    layout: str = "{}"

    def __post_init__(self) -> None:
        if self.total < 0 or not 0 <= self.nonfinite <= self.total or self.sums.dtype != np.int64:
            raise InvalidInput(
                f"sums of {self.total} draws, {self.nonfinite} of them broken",
                "a tally counts draws from 0 up, broken ones among them",
                "Build it with a plan's scores(features)",
            )

    def __add__(self, other: object) -> Scores:
        if not isinstance(other, Scores):
            return NotImplemented
        if len(self.sums) != len(other.sums) or self.layout != other.layout:
            raise InvalidInput(
                f"sums of {len(self.sums)} and of {len(other.sums)} numbers",
                "they were made by different plans, or by versions that plan differently",
                "Add only tallies of one image and stage; repeat the run in another directory",
            )
        broken = self.nonfinite + other.nonfinite
        return Scores(self.total + other.total, self.sums + other.sums, broken, self.layout)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Scores) and self.to_json() == other.to_json()

    def __hash__(self) -> int:
        return hash((self.total, self.nonfinite))

    def to_json(self) -> str:
        """Canonical JSON, the form stored in a run file."""
        head = f'{{"draws":{self.total},"nonfinite":{self.nonfinite},"layout":{self.layout}'
        return f'{head},"scores":"{packed(self.sums)}"}}'

    @classmethod
    def from_plain(cls, stored: dict[str, Any]) -> Scores:
        """Read what ``to_json`` wrote."""
        layout = json.dumps(stored["layout"], sort_keys=True, separators=(",", ":"))
        return cls(int(stored["draws"]), unpacked(stored["scores"]), int(stored["nonfinite"]), layout)
