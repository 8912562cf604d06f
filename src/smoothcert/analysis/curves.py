"""Certified accuracy as a function of the radius, exactly: a step function with its jumps."""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from dataclasses import dataclass, field
from itertools import accumulate

from smoothcert.analysis import settings
from smoothcert.analysis.proportion import CONFIDENCE, Proportion
from smoothcert.errors import InvalidInput
from smoothcert.runlog.results import Results


@dataclass(frozen=True)
class Curve:
    """Certified accuracy of one run at every radius, with pointwise intervals.

    The function is ``shares[0]`` (the clean accuracy) at radius 0 and up to ``radii[0]``, ``shares[i]`` on
    ``(radii[i - 1], radii[i]]``, and 0 beyond the last radius: an image counts up to and at its own radius.

    Attributes:
        run: where it comes from.
        radii: the jumps, ascending; L2 on pixels in [0, 1].
        shares: the share certified up to each jump.
        beyond: the share, 0 of all, after the last jump.
    """

    run: Results = field(repr=False)
    radii: tuple[float, ...]
    shares: tuple[Proportion, ...]
    beyond: Proportion

    def at(self, radius: float) -> Proportion:
        """The share of images certified at ``radius``."""
        if not radius >= 0.0:
            raise InvalidInput(f"radius {radius!r}", "a radius is not negative", "Pass a number >= 0")
        place = bisect_left(self.radii, radius)
        return self.shares[place] if place < len(self.radii) else self.beyond


def curve(results: Results, *, confidence: float = CONFIDENCE) -> Curve:
    """Certified accuracy of a run against the radius, nothing interpolated.

    Args:
        results: a run or an imported log with radii.
        confidence: of the Clopper-Pearson interval at each single radius (not of the whole band).

    Raises:
        InvalidInput: no finished image, or predictions without radii.
    """
    if not results.outcomes or not settings.certifies(results):
        raise InvalidInput(
            f"results of {results.name}",
            "have no certified radii to draw",
            "Pass a certification run with at least one finished image",
        )
    jumps = Counter(o.radius for o in results.outcomes if o.correct and o.radius is not None)
    radii = sorted(jumps)
    reached = list(accumulate(jumps[radius] for radius in reversed(radii)))[::-1]
    total = len(results.outcomes)
    shares = tuple(Proportion.of(count, total, confidence=confidence) for count in reached)
    return Curve(results, tuple(radii), shares, Proportion.of(0, total, confidence=confidence))
