"""Exact group-sequential binomial test: how many successes reject "at most p" at each look (THEORY 5.1).

The law of S_k on the paths that have not rejected yet is carried from look to look by convolution with the
binomial law of the new draws. Nothing is approximated but float64 rounding and masses cut off far out, and
both are counted against the test.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from smoothcert.bounds.binomial import mass
from smoothcert.bounds.multiplicity import check_alpha
from smoothcert.bounds.sequential.looks import MOST_DRAWS, MOST_LOOKS, spent_by
from smoothcert.errors import InvalidInput

# Relative, of every probability computed here. All terms are positive, so errors only add up: per look at
# most 2^-53 (terms of a dot product + 3 * terms of a running product), 4e-10 over the looks allowed.
_ROUNDING = 1e-9
_CUT = 1e-24  # masses below this at the edge of a window are left out and counted as spent
_Law = tuple[int, npt.NDArray[np.float64]]  # first value, masses of it and the following values
_Choose = Callable[[_Law, float], int]


@dataclass(frozen=True)
class Boundary:
    """Reject "success probability at most ``p``" at the first look with at least ``cuts[k]`` successes.

    Attributes:
        p: the null hypothesis.
        cuts: one a look; more than the draws made where no outcome rejects yet.
        level: the probability of ever rejecting when the success probability is ``p``, rounded up; it is
            smaller for smaller probabilities, and for any rule that stops early.
    """

    p: float
    cuts: tuple[int, ...]
    level: float


def boundary(p: float, looks: Sequence[int], alpha: float) -> Boundary:
    """A test at ``looks`` that wrongly rejects "at most p" with probability at most ``alpha`` in all.

    At each look the cut is the smallest count whose tail, among paths not yet rejecting, fits into what may
    be spent by then, alpha n_k / N. P(reject) rises with the success probability, so the level at
    p is the level of the whole null hypothesis. Stopping early for any reason only lowers it.

    Args:
        p: in (0, 1).
        looks: increasing numbers of draws, at most 2,000,000.
        alpha: error probability in (0, 1).

    Raises:
        InvalidInput: arguments outside these ranges.

    Source: Jennison and Turnbull 1999, chapter 12 (exact binomial designs) with alpha spending after Lan and
    DeMets 1983; THEORY 5.1.
    """
    check_alpha(alpha)
    _check(p, looks)
    allowed = iter(spent_by(looks, alpha))
    cuts: list[int] = []
    spent = 0.0

    def choose(law: _Law, lost: float) -> int:
        nonlocal spent
        cut, tail = _smallest_cut(law, next(allowed) - spent - lost)
        spent += tail
        cuts.append(cut)
        return cut

    lost = _march(p, looks, choose)
    return Boundary(p, tuple(cuts), spent + lost)


def crossing_probability(p: float, looks: Sequence[int], cuts: Sequence[int]) -> float:
    """The probability that the count reaches its cut at some look, when the success probability is ``p``.

    Rounded up by a relative 1e-9. The power of a ``Boundary`` at any p, and its level at its own.
    """
    _check(p, looks)
    if len(cuts) != len(looks):
        raise InvalidInput(f"{len(cuts)} cuts for {len(looks)} looks", "each look has one", "Pass one a look")
    reached = 0.0
    given = iter(cuts)

    def choose(law: _Law, lost: float) -> int:
        nonlocal reached
        cut = next(given)
        start, masses = law
        reached += float(masses[max(0, cut - start) :].sum()) * (1.0 + _ROUNDING)
        return cut

    lost = _march(p, looks, choose)
    return min(1.0, reached + lost)


def _march(p: float, looks: Sequence[int], choose: _Choose) -> float:
    """Carry the law of the count from look to look, absorbed where ``choose`` says. Returns the lost mass."""
    law: _Law = (0, np.ones(1))
    lost, before = 0.0, 0
    for look in looks:
        law, dropped = _trimmed(law)
        start, added = _binomial(look - before, p)
        law = (law[0] + start, np.convolve(law[1], added))
        lost += dropped + 1e-20  # the law of the new draws is cut at both ends, by the bound in _binomial
        cut = choose(law, lost)
        law, before = (law[0], law[1][: max(0, cut - law[0])]), look
    return lost


def _smallest_cut(law: _Law, allowed: float) -> tuple[int, float]:
    """The smallest count whose upper tail is at most ``allowed``, and that tail; both on the safe side."""
    start, masses = law
    tails = np.cumsum(masses[::-1])[::-1] * (1.0 + _ROUNDING)
    fitting = np.flatnonzero(tails <= allowed)
    if not len(fitting):
        return start + len(masses), 0.0
    return start + int(fitting[0]), float(tails[fitting[0]])


def _trimmed(law: _Law) -> tuple[_Law, float]:
    """Leave out negligible masses at both ends; what is left out counts as spent."""
    start, masses = law
    kept = np.flatnonzero(masses > _CUT)
    if not len(kept):
        return (start, np.zeros(1)), float(masses.sum())
    low, high = int(kept[0]), int(kept[-1]) + 1
    dropped = float(masses[:low].sum() + masses[high:].sum())
    return (start + low, masses[low:high]), dropped


def _binomial(n: int, p: float) -> _Law:
    """Masses of Bin(n, p) within 10.5 standard deviations and 60 of its mode; less than 1e-21 lies outside.

    By Bernstein's inequality the mass beyond a distance t is at most 2 exp(-t^2 / (2 n p q + 2 t / 3)); with
    t = 10.5 s + 59 that is largest in the limit of a large s, where it is 2 exp(-55.1) = 2.3e-24.
    """
    q = 1.0 - p
    mode = min(n, int((n + 1) * p))
    reach = int(10.5 * np.sqrt(n * p * q)) + 60
    low, high = max(0, mode - reach), min(n, mode + reach)
    up = np.arange(mode, high, dtype=np.float64)
    down = np.arange(mode, low, -1, dtype=np.float64)
    above = np.cumprod((n - up) / (up + 1.0) * (p / q))
    below = np.cumprod(down / (n - down + 1.0) * (q / p))
    middle = mass(mode, n, p, q)
    return low, middle * np.concatenate([below[::-1], [1.0], above])


def _check(p: float, looks: Sequence[int]) -> None:
    rising = all(a < b for a, b in itertools.pairwise(looks))
    if not (looks and rising and looks[0] >= 1 and looks[-1] <= MOST_DRAWS and len(looks) <= MOST_LOOKS):
        raise InvalidInput(
            f"{len(looks)} looks {tuple(looks)[:6]}",
            f"a sequential test looks at increasing numbers of draws, at most {MOST_DRAWS:,}, and at most "
            f"{MOST_LOOKS:,} times",
            "Write for example n=120000 and ratio=1.1",
        )
    if not 0.0 < p < 1.0:
        raise InvalidInput(f"p = {p!r}", "the null hypothesis is a probability", "Pass 0 < p < 1")
