"""A share of images with its confidence interval, and how shares are printed."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from typing import final

from smoothcert.bounds import clopper_pearson_lower, clopper_pearson_upper
from smoothcert.errors import InvalidInput

CONFIDENCE = 0.95


@final
@dataclass(frozen=True)
class Proportion:
    """``count`` of ``total`` images, with an interval that holds the true share with ``confidence``.

    The interval regards the images as drawn at random from the data's distribution; it is pointwise (one
    radius at a time) and says nothing about the certificates' own error probability alpha.

    Attributes:
        count, total: numbers of images.
        confidence: of the two-sided Clopper-Pearson interval, (1 - confidence) / 2 on each side.
        lower, upper: the interval's ends, as shares.
    """

    count: int
    total: int
    confidence: float
    lower: float
    upper: float

    @classmethod
    def of(cls, count: int, total: int, *, confidence: float = CONFIDENCE) -> Proportion:
        """Compute the interval; ``InvalidInput`` for a confidence outside (0, 1) or no images.

        Source: Clopper and Pearson 1934.
        """
        if not 0.0 < confidence < 1.0:
            raise InvalidInput(f"confidence {confidence!r}", "a level lies between 0 and 1", "Write 0.95")
        side = (1.0 - confidence) / 2.0
        lower = clopper_pearson_lower(count, total, side)
        return cls(count, total, confidence, lower, clopper_pearson_upper(count, total, side))

    @property
    def value(self) -> float:
        """The share itself."""
        return self.count / self.total

    @property
    def exact(self) -> Fraction:
        """The share without rounding, for comparisons."""
        return Fraction(self.count, self.total)

    def percent(self) -> str:
        """In per cent with one decimal, ties upward, from the exact fraction."""
        tenths = (2000 * self.count + self.total) // (2 * self.total)
        return f"{tenths // 10}.{tenths % 10}"

    def interval(self) -> str:
        """The interval in per cent, both ends rounded outward."""
        low, high = int(Fraction(self.lower) * 1000), -int(-Fraction(self.upper) * 1000 // 1)
        return f"[{low // 10}.{low % 10}, {high // 10}.{high % 10}]"
