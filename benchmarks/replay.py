"""What a stopping rule decides for many images at once, from sequences of votes drawn beforehand.

The same decisions as the courses of ``smoothcert.certificates`` image by image (tests/test_benchmarks.py
compares them), a hundred times faster: all rules read the same votes, so their differences are not noise.
"""

from __future__ import annotations

import functools

import numpy as np
from published import Counts, Floats, Paths
from replay_grouped import NOBODY, Ints, Outcomes, bounds, grouped, rival_of
from scipy.special import betainc, ndtri

from smoothcert.bounds.sequential.mixture import log_wealth
from smoothcert.certificates.anytime import Anytime
from smoothcert.certificates.course import Design
from smoothcert.certificates.gaussian import probability_for
from smoothcert.certificates.grouped import Grouped
from smoothcert.certificates.staged import Fixed, TwoStage
from smoothcert.tallies import Votes


def draws_read(design: Design, pilot: Paths) -> tuple[int, ...]:
    """After which draws a design looks at the votes; a planned second stage depends on the pilot's."""
    if isinstance(design, Grouped):
        return design.looks
    if isinstance(design, TwoStage):
        return tuple(int(n) for n in np.unique(_seconds(design, pilot.at(design.n0))) if n)
    assert isinstance(design, (Fixed, Anytime))
    return (design.n,)


def replay(
    design: Design, truth: Ints, pilot: Paths, paths: Paths, radii: tuple[float, ...] = ()
) -> Outcomes:
    """Outcomes of a design; ``pilot`` holds selection draws, where a rule sets some aside.

    ``radii``: of an anytime design, the radii asked; the largest that is proved is its outcome.
    """
    if isinstance(design, Grouped):
        return grouped(design, truth, paths)
    if isinstance(design, Anytime):
        return _anytime(design, pilot, paths, radii)
    assert isinstance(design, Fixed)
    return _staged(design, pilot, paths) if design.n0 else _predicted(design, paths)


def _staged(design: Fixed, pilot: Paths, paths: Paths) -> Outcomes:
    """CERTIFY with a fixed or a planned second stage, which bears all of alpha."""
    first = pilot.at(design.n0)
    named = first[:3].argmax(axis=0)
    second = _seconds(design, first) if isinstance(design, TwoStage) else np.full(len(named), design.n)
    radius = np.full(len(named), -np.inf)
    for n in np.unique(second[second > 0]):
        here = np.flatnonzero(second == n)
        radius[here] = _radii(design, paths.at(int(n))[:, here], named[here])
    radius[radius <= 0.0] = -np.inf
    return Outcomes(design.n0 + second, np.where(radius > 0.0, named, NOBODY), radius)


def _radii(design: Fixed, counts: Counts, named: Ints) -> Floats:
    n, top = int(counts[:, 0].sum()), counts[named, np.arange(len(named))]
    if design.bound == "pair":
        lower, upper = bounds(top, rival_of(counts, named), n, design.alpha / 2.0)
        return 0.5 * design.sigma * (ndtri(lower) - ndtri(upper))
    lower, _ = bounds(top, top, n, design.alpha)
    return design.sigma * ndtri(lower)


def _seconds(design: TwoStage, first: Counts) -> Ints:
    named = first[:3].argmax(axis=0)
    top = first[named, np.arange(len(named))]
    pairs = zip(top.tolist(), rival_of(first, named).tolist(), strict=True)
    return np.array([_second(design, k, r) for k, r in pairs])


@functools.lru_cache(maxsize=1 << 16)
def _second(design: TwoStage, top: int, rival: int) -> int:
    left, tally = design.n0 - top - rival, {0: top, 1: rival}
    while left > 0:
        tally[len(tally)] = min(left, max(rival, 1))
        left -= max(rival, 1)
    return design.second(Votes.of(tally))


def _predicted(design: Fixed, paths: Paths) -> Outcomes:
    counts = paths.at(design.n)
    named = counts[:3].argmax(axis=0)
    top, rival = counts[named, np.arange(len(named))], rival_of(counts, named)
    sure = (top > rival) & (2.0 * betainc(np.maximum(top, 1), rival + 1.0, 0.5) <= design.alpha)
    proved = np.where(sure, 0.0, -np.inf)
    return Outcomes(np.full(len(named), design.n), np.where(sure, named, NOBODY), proved)


def _anytime(design: Anytime, pilot: Paths, paths: Paths, radii: tuple[float, ...]) -> Outcomes:
    """What is proved when somebody stops after n draws (form ``one``)."""
    assert design.bound == "one"
    named = pilot.at(design.n0)[:3].argmax(axis=0)
    top = paths.at(design.n)[named, np.arange(len(named))]
    radius = np.full(len(named), -np.inf)
    for asked in radii:
        radius[top >= _anytime_cut(design, asked)] = asked
    return Outcomes(np.full(len(named), design.n0 + design.n), np.where(radius >= 0.0, named, NOBODY), radius)


def _anytime_cut(design: Anytime, radius: float) -> int:
    p = probability_for(radius, design.sigma, noise_error=design.noise_error)
    low, high = 0, design.n + 1
    while high - low > 1:
        middle = (low + high) // 2
        proved = middle > design.n * p and log_wealth(middle, design.n, p) >= -np.log(design.alpha)
        low, high = (low, middle) if proved else (middle, high)
    return high
