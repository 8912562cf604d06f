"""Every course an image can take and its probability: exact levels of stopping rules, by the package's own code.

The state after a look is the counts and what a course remembers (its status). The law of the counts is kept
per status in an array and carried to the next look by the multinomial law of the new draws; every count is
then shown to a real course. Nothing of a rule is written down a second time.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from dataclasses import replace

import numpy as np
import numpy.typing as npt

from smoothcert.certificates.course import Verdict
from smoothcert.certificates.grouped import Grouped
from smoothcert.certificates.grouped_course import GroupedCourse
from smoothcert.tallies import Votes

Law = npt.NDArray[np.float64]


def multinomial(n: int, shares: Sequence[float]) -> Law:
    """Probability of every vector of counts; axes are all categories but the last."""
    law = np.zeros((n + 1,) * (len(shares) - 1))
    for counts in itertools.product(range(n + 1), repeat=len(shares) - 1):
        rest = n - sum(counts)
        if rest >= 0:
            whole = (*counts, rest)
            ways = math.factorial(n)
            for count in whole:
                ways //= math.factorial(count)
            law[counts] = ways * math.prod(share**count for share, count in zip(shares, whole, strict=True))
    return law


def added(law: Law, new: Law) -> Law:
    """The law of a sum of independent counts."""
    if law.ndim == 1:
        return np.convolve(law, new)
    grown = np.zeros(tuple(a + b - 1 for a, b in zip(law.shape, new.shape, strict=True)))
    for index in zip(*np.nonzero(new), strict=True):
        grown[tuple(slice(i, i + size) for i, size in zip(index, law.shape, strict=True))] += new[index] * law
    return grown


def tally(counts: Sequence[int], n: int, nonfinite: bool) -> Votes:
    """The votes of a state; the last category is a class too, or the draws without a finite answer."""
    rest = n - sum(counts)
    classes = dict(enumerate(counts))
    return Votes.of(classes, rest) if nonfinite else Votes.of(classes | {len(counts): rest})


def verdicts(
    design: Grouped, shares: Sequence[float], *, label: int | None = None, nonfinite: bool = False
) -> list[tuple[Verdict, float]]:
    """All verdicts of an image whose draws answer class c with probability ``shares[c]``.

    Counts with a probability below 1e-14 are left out; what is left out is missing in the sum of all.
    """
    under: dict[GroupedCourse, Law] = {design.begin(label): np.ones((1,) * (len(shares) - 1))}
    ended: list[tuple[Verdict, float]] = []
    before = 0
    for look in design.looks:
        new, following = multinomial(look - before, shares), {}
        for course, law in under.items():
            grown = added(law, new)
            for counts in zip(*np.nonzero(grown > 1e-14), strict=True):
                after = course.add(tally([int(c) for c in counts], look, nonfinite))
                if (verdict := after.verdict()) is not None:
                    ended.append((verdict, float(grown[counts])))
                else:
                    status = replace(after, votes=Votes())
                    following.setdefault(status, np.zeros_like(grown))[counts] += grown[counts]
        under, before = following, look
    assert not under
    assert math.fsum(mass for _, mass in ended) >= 1.0 - 1e-9
    return ended


def probability(found: list[tuple[Verdict, float]], of: Callable[[Verdict], bool]) -> float:
    """That the verdict is one of a kind; at least so much, and at most 1e-9 more."""
    return math.fsum(mass for verdict, mass in found if of(verdict))
