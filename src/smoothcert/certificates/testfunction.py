"""Test functions of the dual certificate: what the mean of one scalar at x says about <w, F(x + delta)>.

Notation: w a unit vector, r = ||delta|| / sigma, L the likelihood ratio of the shift, t ~ N(0, 1), as in
``tilted``. For every function q on the unit ball,

    <w, F(x + delta)> = E_0 [L <w, f>] >= E_0 q(f) + slack(r),  slack(r) = E_t min_f (L <w, f> - q(f)),

E_0 the expectation at x. So one lower confidence bound on the mean of the scalar q(f) proves that
<w, F(x + delta)> > 0 wherever lower + slack(r) > 0 (THEORY 3.9). If that holds at r it holds at every smaller
r': a shift by r' is a randomisation of a shift by r (add noise to (r'/r) t), so features with mean q at least
``lower`` and <w, F(x + delta)> <= 0 at r' would give features with both at r.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from smoothcert.certificates.cosine_search import LARGEST, SMALLEST, minimiser
from smoothcert.certificates.lattice import STEPS, largest_in_one
from smoothcert.certificates.tilted import integral
from smoothcert.errors import InvalidInput

Array = npt.NDArray[np.float64]
Kind = Literal["linear", "quadratic", "concave"]
KINDS: tuple[Kind, ...] = ("linear", "quadratic", "concave")
_SCALES = np.geomspace(0.25, 4.0, 25)  # multiples of q tried when a bound is read, 1 among them
_COARSE, _FINE, _ROUNDS = np.geomspace(0.01, 10.0, 48), 24, 5  # ratios tried: the last step is below 1e-6
_STRAIGHT = 1e-9  # how much a slope may rise from one piece to the next by rounding alone, relative


@dataclass(frozen=True, eq=False)
class TestFunction:
    """A concave function q of one linear scalar s = <vector, f> in [-1, 1].

    ``"linear"``: q = s, the vector at ``angle`` from the complement of w; q stands for all its positive
    multiples, and ``slack`` is that of the best of them. ``"quadratic"`` and ``"concave"``: the vector is w
    and q is linear between ``knots``, following a parabola or an exponential.

    Attributes:
        vector: unit vector ``(k,)``, ``None`` when read back from ``facts``.
        angle: pi/2 less the angle between w and the vector (``"linear"`` alone).
        knots, levels: ascending s from -1 to 1, and q there.
        predicted: the ratio that the pilot draws led to expect.
    """

    kind: Kind
    vector: Array | None
    angle: float = 0.0
    knots: tuple[float, ...] = (-1.0, 1.0)
    levels: tuple[float, ...] = (-1.0, 1.0)
    predicted: float = 0.0

    def __post_init__(self) -> None:
        knots, levels = np.array(self.knots), np.array(self.levels)
        sound = (
            self.kind in KINDS
            and knots.shape == levels.shape
            and knots.shape >= (2,)
            and knots[0] == -1.0
            and knots[-1] == 1.0
            and bool((np.diff(knots) > 0.0).all() and np.isfinite(levels).all())
            and -0.5 * math.pi <= self.angle <= 0.5 * math.pi
        )
        if sound:
            slopes = np.diff(levels) / np.diff(knots)
            sound = bool((np.diff(slopes) <= _STRAIGHT * np.abs(slopes).max()).all())
        if not sound:
            raise InvalidInput(
                f"a {self.kind!r} test function with {len(self.knots)} knots",
                "it must be concave and given from -1 to 1",
                "Make it with smoothcert.certificates.margin.choose",
            )

    @property
    def lowest(self) -> float:
        """q on the unit ball is at least this."""
        return min(self.levels[0], self.levels[-1])

    @property
    def highest(self) -> float:
        """q on the unit ball is at most this."""
        return max(self.levels)

    def values(self, features: Array) -> Array:
        """q of each feature, ``(B, k)`` -> ``(B,)``."""
        if self.vector is None:
            raise InvalidInput(
                "a test function read from its facts",
                "the facts hold no vector, so it cannot be evaluated on features",
                "Make it again from the pilot draws",
            )
        return self.of_scalar(features @ self.vector)

    def of_scalar(self, scalar: Array) -> Array:
        """q where <vector, f> is known."""
        scalar = np.clip(scalar, -1.0, 1.0)
        return scalar if self.kind == "linear" else np.interp(scalar, self.knots, self.levels)

    def slack(self, ratio: npt.ArrayLike) -> float | Array:
        """A lower bound on E_t min_f (L <w, f> - q(f)), for each ratio; rounded down."""
        r = np.asarray(ratio, dtype=np.float64)
        flat = np.maximum(r.ravel(), SMALLEST)  # what a larger shift cannot do, a smaller one cannot
        found = self._linear_slack(flat) if self.kind == "linear" else self._concave_slack(flat, np.ones(1))
        return float(found[0]) if r.shape == () else found.reshape(r.shape)

    def ratio(self, lower: float) -> float:
        """The largest ratio (a multiple of 1e-6) found at which ``certifies`` holds; 0 if none.

        What n draws gave is not quite what the pilot led to expect, so a multiple of q may reach
        farther than q.
        """
        if self.kind == "linear":
            return largest_in_one(lambda r: lower + np.asarray(self.slack(r)) > 0.0)
        asked, reached = _COARSE, 0.0
        for _ in range(_ROUNDS):
            r, scale = (x.ravel() for x in np.meshgrid(asked, _SCALES, indexing="ij"))
            gains = (scale * lower + self._concave_slack(r, scale)).reshape(len(asked), -1)
            reaching = np.flatnonzero((gains > 0.0).any(axis=1))
            if not reaching.size:
                break
            last = int(reaching[-1])
            reached = float(asked[last])
            asked = np.linspace(reached, asked[min(last + 1, len(asked) - 1)], _FINE)
        return math.floor(reached * STEPS) / STEPS

    def certifies(self, lower: float, ratio: float) -> bool:
        """Whether E_0 q >= ``lower`` proves <w, F(x + delta)> > 0 at this ratio, by some multiple of q."""
        if self.kind == "linear":
            return bool(lower + float(self.slack(ratio)) > 0.0)
        return bool((self._gains(lower, ratio) > 0.0).any())

    def _gains(self, lower: float, ratio: float) -> Array:
        """c ``lower`` + the slack of c q, for every multiple c tried."""
        r = np.full(len(_SCALES), max(ratio, SMALLEST))
        return np.asarray(_SCALES * lower + self._concave_slack(r, _SCALES))

    def facts(self) -> dict[str, Any]:
        """Plain settings from which ``slack`` and ``ratio`` can be evaluated again."""
        if self.kind == "linear":
            return {"kind": self.kind, "angle": self.angle, "predicted": self.predicted}
        return {
            "kind": self.kind,
            "knots": list(self.knots),
            "levels": list(self.levels),
            "predicted": self.predicted,
        }

    @classmethod
    def from_facts(cls, facts: dict[str, Any]) -> TestFunction:
        """What ``facts`` described, without its vector. Anything else raises ``InvalidInput``."""
        try:
            kind, predicted = facts["kind"], float(facts["predicted"])
            if kind == "linear":
                return cls(kind, None, angle=float(facts["angle"]), predicted=predicted)
            knots, levels = (tuple(float(x) for x in facts[key]) for key in ("knots", "levels"))
            return cls(kind, None, knots=knots, levels=levels, predicted=predicted)
        except (KeyError, TypeError, ValueError) as error:
            if isinstance(error, InvalidInput):
                raise
            raise InvalidInput(
                f"facts {str(facts)[:80]!r}", f"describe no test function ({error})", "Pass what facts() gave"
            ) from error

    def _linear_slack(self, r: Array) -> Array:
        """-K at the vector's angle: E min over the ball of <L w - v, f> is -E ||L w - v||, v = vector / s."""
        w = max(0.5 * math.pi - self.angle, 1e-6)
        out = np.full(len(r), -1.0)  # s = 0: nothing is learnt
        near = r <= LARGEST
        if w < 0.5 * math.pi and near.any():
            angles = np.full(int(near.sum()), min(w, 0.5 * math.pi - 1e-6))
            out[near] = -np.minimum(1.0, integral(minimiser(angles, r[near]), angles, r[near]).value)
        return out - 4e-6 * (w >= 0.5 * math.pi - 1e-6) - 2e-12

    def _concave_slack(self, r: Array, scale: Array) -> Array:
        """The slack of scale * q. Exact: the minimum over s is at the knot between whose slopes L lies.

        On the ball <w, f> = s takes every value in [-1, 1], so the ball's only constraint is the range of s.
        """
        from scipy.special import ndtr

        knots, levels = np.array(self.knots), np.array(self.levels)
        slopes = np.minimum.accumulate(np.diff(levels) / np.diff(knots))
        with np.errstate(divide="ignore", invalid="ignore"):
            heights = np.where(slopes > 0.0, np.log(slopes), -np.inf) + np.log(scale)[:, None]
            edge = heights / r[:, None] + 0.5 * r[:, None]
        base, tilted = (
            -np.diff(np.pad(ndtr(x), ((0, 0), (1, 1)), constant_values=((0, 0), (1, 0))), axis=1)
            for x in (edge, edge - r[:, None])
        )
        exact = tilted @ knots - scale * (base @ levels)
        return np.asarray(exact - 2e-15 * len(knots) * (2.0 + scale * np.abs(levels).max()))
