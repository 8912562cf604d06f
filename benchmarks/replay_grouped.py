"""Group-sequential designs for many images at once: ``GroupedCourse`` with arrays in place of one image."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
from published import RARE, Counts, Floats, Paths
from scipy.special import betainc, betaincinv, ndtr, ndtri

from smoothcert.certificates.grouped import Grouped

NOBODY = -1
Ints = npt.NDArray[np.int64]
_Mask = npt.NDArray[np.bool_]


@dataclass
class Outcomes:
    """One entry an image: draws made, class proved (-1: none), radius proved (-inf: none)."""

    draws: Ints
    label: Ints
    radius: Floats

    def accuracy(self, truth: Ints, radii: tuple[float, ...]) -> Floats:
        """Share of images proved to keep their true class within each radius."""
        right = self.label == truth
        return np.array([np.mean(right & (self.radius >= radius)) for radius in radii])


def grouped(design: Grouped, truth: Ints, paths: Paths) -> Outcomes:
    """Outcomes of a group-sequential design; ``truth`` is read by label-aware ones only."""
    state = _State(design, truth)
    for look, n in enumerate(design.looks):
        state.take(look, paths.at(n))
    return state.outcomes()


class _State:
    """All images on their way; ``left`` are those that still draw."""

    def __init__(self, design: Grouped, truth: Ints) -> None:
        images = len(truth)
        self.design, self.aware = design, design.label_aware
        self.truth = truth
        beforehand = self.aware and design.bound == "one"
        self.named = truth.copy() if beforehand else np.full(images, NOBODY)
        self.certified, self.proved = np.zeros(images, dtype=np.int64), np.zeros(images)
        self.draws, self.left = np.zeros(images, dtype=np.int64), np.arange(images)

    def take(self, look: int, counts: Counts) -> None:
        """One look: name, test, and let the finished go."""
        if not len(self.left):
            return
        now = counts[:, self.left]
        self._name(look, now)
        self._test(look, now)
        self.draws[self.left] = self.design.looks[look]
        self.left = self.left[~self._ended(look, now)]

    def outcomes(self) -> Outcomes:
        radii = np.array([-np.inf, *self.design.decidable])
        if not self.design.radii:
            return Outcomes(self.draws, self.named, np.where(self.named >= 0, 0.0, -np.inf))
        radius = radii[self.certified]
        radius = np.where(self.certified > 0, np.maximum(radius, self.proved), radius)
        return Outcomes(self.draws, np.where(self.certified > 0, self.named, NOBODY), radius)

    def _name(self, look: int, now: Counts) -> None:
        top = now[:3].argmax(axis=0)
        count, rival = now[top, np.arange(len(top))], rival_of(now, top)
        p_value = 2.0 * betainc(np.maximum(count, 1), rival + 1.0, 0.5)
        passed = (count > rival) & (p_value <= self.design.gate_levels[look])
        fresh = passed & (self.named[self.left] == NOBODY)
        self.named[self.left[fresh]] = top[fresh]

    def _test(self, look: int, now: Counts) -> None:
        named = self.named[self.left]
        tested = named >= 0
        if self.aware:
            tested &= named == self.truth[self.left]
        top = now[np.maximum(named, 0), np.arange(len(named))]
        if self.design.bound == "pair":
            self._test_pair(look, tested, top, rival_of(now, np.maximum(named, 0)))
            return
        for i, boundary in enumerate(self.design.boundaries):
            reached = tested & (self.certified[self.left] == i) & (top >= boundary.cuts[look])
            self.certified[self.left[reached]] = i + 1

    def _test_pair(self, look: int, tested: _Mask, top: Ints, rival: Ints) -> None:
        design, n = self.design, self.design.looks[look]
        if not design.decidable:
            return
        radii = np.array([*design.decidable, np.inf])
        with np.errstate(all="ignore"):
            estimate = 0.5 * design.sigma * (ndtri(top / n) - ndtri(rival / n))
        may = tested & ((rival == 0) | (top == n) | (estimate >= radii[self.certified[self.left]]))
        may &= self.certified[self.left] < len(design.decidable)
        lower, upper = bounds(top[may], rival[may], n, design.pair_levels[look])
        with np.errstate(all="ignore"):
            radius = 0.5 * design.sigma * (ndtri(lower) - ndtri(upper))
        reached = self.left[may]
        self.proved[reached] = np.maximum(self.proved[reached], np.where(lower > upper, radius, 0.0))
        here = self.left[tested]
        self.certified[here] = (radii[None, :-1] <= self.proved[here][:, None]).sum(axis=1)

    def _ended(self, look: int, now: Counts) -> _Mask:
        design, named = self.design, self.named[self.left]
        if look + 1 == len(design.looks):
            return np.ones(len(self.left), dtype=bool)
        finished = named >= 0
        if design.radii:
            finished &= self.certified[self.left] == len(design.decidable)
        if self.aware:
            finished |= (named >= 0) & (named != self.truth[self.left])
        return finished | (self._power(look, now) < design.numbers.futility)

    def _power(self, look: int, now: Counts) -> Floats:
        """As ``GroupedCourse._power``: that the next thing asked is proved by the last look."""
        design, named = self.design, self.named[self.left]
        counted = self.truth[self.left] if self.aware else np.where(named >= 0, named, now[:3].argmax(axis=0))
        top, rival = now[counted, np.arange(len(counted))], rival_of(now, counted)
        n, last, level = design.looks[look], design.most, design.gate_levels[-1]
        if not design.radii:
            return _power_of_lead(top, rival, n, last, level)
        wanted = np.array([*design.decidable, np.inf])[self.certified[self.left]]
        if design.bound == "pair":
            shift = 2.0 * wanted / design.sigma
            power = _power_of_pair(top, rival, n, last, design.pair_levels[-1], shift)
            return np.where(wanted == 0.0, _power_of_lead(top, rival, n, last, level), power)
        cuts = np.array([*(b.cuts[-1] for b in design.boundaries), 0])[self.certified[self.left]]
        q = (top + 0.5) / (n + 1)
        return ndtr((last * q - cuts) / np.sqrt(last * (last - n) / n * q * (1.0 - q)))


def rival_of(counts: Counts, named: Ints) -> Ints:
    """Votes of the strongest rival; the rare classes behind number 3 share its votes evenly."""
    others = counts.copy()
    others[3] = -(-others[3] // RARE)
    others[named, np.arange(len(named))] = -1
    strongest: Ints = others.max(axis=0)
    return strongest


def bounds(top: Ints, rival: Ints, n: int, level: float) -> tuple[Floats, Floats]:
    """Clopper-Pearson bounds, each at ``level``: lower for ``top`` of n, upper for ``rival``."""
    return _lower(top, n, level), 1.0 - _lower(n - rival, n, level)


def _lower(k: Ints, n: int, level: float) -> Floats:
    inside = betaincinv(np.maximum(k, 1), np.maximum(n - k, 0) + 1.0, level)
    return np.where(k > 0, inside, 0.0)


def _power_of_lead(top: Ints, rival: Ints, n: int, last: int, level: float) -> Floats:
    a, b = (top + 0.5) / (n + 1), (rival + 0.5) / (n + 1)
    needed = -ndtri(0.5 * level) * np.sqrt((a + b) / last)
    return ndtr((a - b - needed) / np.sqrt((a + b - (a - b) ** 2) * (1.0 / n - 1.0 / last)))


def _power_of_pair(top: Ints, rival: Ints, n: int, last: int, level: float, shift: Floats) -> Floats:
    a, b = (top + 0.5) / (n + 1), (rival + 0.5) / (n + 1)
    z_a, z_b = ndtri(a), ndtri(b)
    density_a, density_b = (np.exp(-0.5 * z * z) / np.sqrt(2.0 * np.pi) for z in (z_a, z_b))
    s_a, s_b = np.sqrt(a * (1.0 - a)) / density_a, np.sqrt(b * (1.0 - b)) / density_b
    variance = s_a**2 + s_b**2 + 2.0 * a * b / (density_a * density_b)
    needed = shift - ndtri(level) * (s_a + s_b) / np.sqrt(last)
    power: Floats = ndtr((z_a - z_b - needed) / np.sqrt(variance * (1.0 / n - 1.0 / last)))
    return np.where(n - top < 5, 1.0, power)
