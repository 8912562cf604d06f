"""Two runs on the same images: which certifies more, and could that be chance?"""

from __future__ import annotations

from dataclasses import dataclass

from smoothcert.bounds import binomial_test
from smoothcert.errors import InvalidInput
from smoothcert.runlog.results import Results


@dataclass(frozen=True)
class PairedComparison:
    """Image by image counts of two runs at one radius.

    Attributes:
        radius: L2 on pixels in [0, 1].
        both, only_a, only_b, neither: images certified by both runs, by one, by none.
        p_value: exact two-sided sign test (McNemar) of only_a against only_b, rounded up; if the runs were
            equally good, a value <= p would come up with probability at most p.
    """

    radius: float
    both: int
    only_a: int
    only_b: int
    neither: int
    p_value: float

    @property
    def images(self) -> int:
        """How many images were compared."""
        return self.both + self.only_a + self.only_b + self.neither

    @property
    def difference(self) -> float:
        """Certified accuracy of a minus that of b, as a share."""
        return (self.only_a - self.only_b) / self.images

    def __str__(self) -> str:
        return (
            f"At radius {self.radius:g}, {self.images:,} images: both {self.both:,}, only the first "
            f"{self.only_a:,}, only the second {self.only_b:,}, neither {self.neither:,}; difference "
            f"{100 * self.difference:+.1f} points, exact paired p = {self.p_value:.2g}."
        )


def compare(a: Results, b: Results, radius: float) -> PairedComparison:
    """Compare two runs at one radius by the images on which they differ.

    Raises:
        InvalidInput: the runs do not cover the same images, or hold predictions without radii.

    Source: McNemar 1947, with the exact binomial law.
    """
    _check_same_images(a, b)
    for run in (a, b):
        if radius > 0.0 and any(outcome.radius is None for outcome in run.outcomes):
            why = "holds predictions without radii"
            raise InvalidInput(f"{run.name} at radius {radius:g}", why, "Compare at radius 0")
    pairs = list(zip(_certified(a, radius), _certified(b, radius), strict=True))
    only_a, only_b = pairs.count((True, False)), pairs.count((False, True))
    p_value = binomial_test(only_a, only_a + only_b)
    return PairedComparison(
        radius, pairs.count((True, True)), only_a, only_b, pairs.count((False, False)), p_value
    )


def _certified(run: Results, radius: float) -> list[bool]:
    ordered = sorted(run.outcomes, key=lambda outcome: outcome.index)
    return [outcome.certified_at(radius) if radius > 0.0 else outcome.correct for outcome in ordered]


def _check_same_images(a: Results, b: Results) -> None:
    first, second = ({outcome.index: outcome.label for outcome in run.outcomes} for run in (a, b))
    apart = sorted(first.keys() ^ second.keys())
    relabelled = sorted(i for i in first.keys() & second.keys() if _disagree(first[i], second[i]))
    if apart or relabelled or not first:
        odd = f"image {apart[0]} is in one of them only" if apart else ""
        odd = odd or (f"image {relabelled[0]} has two labels" if relabelled else "there are no images")
        raise InvalidInput(
            f"{a.name} ({len(first):,} images) and {b.name} ({len(second):,} images)",
            f"cannot be compared in pairs: {odd}",
            "Run both on the same images of the same data set",
        )


def _disagree(one: int | None, other: int | None) -> bool:
    return one is not None and other is not None and one != other
