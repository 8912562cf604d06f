"""What fresh draws prove about an attacked image: how much its feature turned, and which class wins there.

A certificate says "cos(F(x + delta), F(x)) >= c", or "the label at x + delta is A". To call it broken needs
evidence as strong as a certificate's own, from draws that no attacker has seen. Notation: f unit or zero
features, F = E f, x' = x + delta, F' = F(x'), n draws at each of x and x', all independent.

**The cosine from above.** Pilot draws give unit directions u ~ F, v ~ F', t their angle, and in their plane
the directions in which u and v turn as the angle grows: w = (v - cos t u)/sin t, w' = (cos t v - u)/sin t.
Fresh draws bound a = <F, u> and a' = <F', v> from below, b = <F, w> from above, b' = <F', w'> from below, and
s = <PF, PF'> from above, P being the projection off the plane (a mean over pairs of draws). In the plane F
has the angle atan2(b, a) from u and F' the angle atan2(b', a') from v, so the angle between them is at least

    D = t + atan2(min(b', 0), a') - atan2(max(b, 0), a),   and   cos(F, F') <= max(cos D, 0) + max(s, 0)/aa',

since the norms of F and F' are at least those of their parts in the plane, a and a' at least. As |F| <= 1,
the angle in the plane is at most t + arccos a + arccos a'; where that runs past 2 pi - D, its cosine counts.
The norm of a mean's error (THEORY 3.8) adds up errors in all k directions; this, only in those that matter.

**From below.** <F, F'> >= s', |F|^2 <= q, |F'|^2 <= q' by means over pairs: cos >= s'/sqrt(q q') for s' > 0.

All bounds are by betting, which holds at every number of draws at once (Ville): more draws may be asked for
after looking.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from smoothcert.bounds import betting_lower, clopper_pearson_upper, tail_upper
from smoothcert.errors import InvalidInput
from smoothcert.tallies import Votes

Rows = npt.NDArray[np.float64]
Values = npt.NDArray[np.float64]
ALPHA = 1e-6  # error probability of "broken"
_INTERVAL = 0.05  # of the interval that is printed
_ROUNDING = 1e-9
_PARTS_ABOVE, _PARTS_BELOW = 5, 3  # bounds that must hold together


@dataclass(frozen=True)
class CosineEvidence:
    """What fresh draws say about cos(F(x + delta), F(x)).

    Attributes:
        estimate: the cosine of the means, their norms freed of the draws' own spread.
        lower, upper: a confidence interval at 95 %.
        upper_sure: upper bound that is false with probability at most ``alpha``: the one for "broken".
        norm, norm_attacked: estimates of |F(x)| and |F(x + delta)|.
        draws: at each of the two images.
    """

    estimate: float
    lower: float
    upper: float
    upper_sure: float
    alpha: float
    norm: float
    norm_attacked: float
    draws: int


@dataclass
class CosineJudge:
    """Collects draws at the clean and the attacked image, in constant memory for any feature length.

    Args:
        pilot, pilot_attacked: features ``(n, k)`` that choose the directions; they are used for nothing else.
        noise_error: total variation distance of the noise drawn to exact Gaussian noise.
    """

    pilot: Rows
    pilot_attacked: Rows
    noise_error: float = 0.0
    draws: int = 0
    _values: dict[str, list[Values]] = field(default_factory=dict)
    _sums: list[Rows] = field(default_factory=list)
    _squares: list[float] = field(default_factory=lambda: [0.0, 0.0])

    def __post_init__(self) -> None:
        self._u, self._v = _unit(self.pilot.mean(axis=0)), _unit(self.pilot_attacked.mean(axis=0))
        self._angle = angle(self._u, self._v)
        if self._known:
            cosine, sine = math.cos(self._angle), math.sin(self._angle)
            self._w = _unit((self._v - cosine * self._u) / sine)
            self._w_attacked = _unit((cosine * self._v - self._u) / sine)

    @property
    def _known(self) -> bool:
        """Whether the pilots span a plane."""
        return 1e-4 < self._angle < math.pi - 1e-4

    def add(self, clean: Rows, attacked: Rows) -> None:
        """Fresh draws ``(n, k)`` at both images, n even: neighbours make the pairs of one image."""
        if clean.shape != attacked.shape or len(clean) % 2:
            raise InvalidInput(
                f"draws of shapes {clean.shape} and {attacked.shape}",
                "draws at the two images are compared in pairs",
                "Make an even number of draws, as many at each image",
            )
        self.draws += len(clean)
        values = {"both": (clean * attacked).sum(axis=1)}
        for name, rows in (("norm", clean), ("norm'", attacked)):
            values[name] = (rows[::2] * rows[1::2]).sum(axis=1)
        if self._known:
            values |= {"a": clean @ self._u, "b": clean @ self._w}
            values |= {"a'": attacked @ self._v, "b'": attacked @ self._w_attacked}
            within = values["a"] * (attacked @ self._u) + values["b"] * (attacked @ self._w)
            values["off"] = values["both"] - within
        for name, found in values.items():
            self._values.setdefault(name, []).append(found)
        sums = [clean.sum(axis=0), attacked.sum(axis=0)]
        self._sums = [a + b for a, b in zip(self._sums, sums, strict=True)] if self._sums else sums
        for k, rows in enumerate((clean, attacked)):
            self._squares[k] += float((rows * rows).sum())

    def upper(self, alpha: float) -> float:
        """With probability at least 1 - alpha the cosine is at most this, at all numbers of draws at once."""
        if not self._known:
            return 1.0
        each = alpha / _PARTS_ABOVE
        a, a_attacked = self._lower("a", each), self._lower("a'", each)
        if a <= 0.0 or a_attacked <= 0.0:
            return 1.0
        turned = math.atan2(max(self._upper("b", each), 0.0), a)
        turned_attacked = math.atan2(min(self._lower("b'", each), 0.0), a_attacked)
        least = self._angle + turned_attacked - turned - _ROUNDING
        most = self._angle + math.acos(min(a, 1.0)) + math.acos(min(a_attacked, 1.0))
        plane = cosine_at_most(least, most)
        return min(1.0, max(plane, 0.0) + max(self._upper("off", each), 0.0) / (a * a_attacked) + _ROUNDING)

    def lower(self, alpha: float) -> float:
        """With probability at least 1 - alpha the cosine is at least this; -1 where little is known."""
        each = alpha / _PARTS_BELOW
        both = self._lower("both", each)
        product = self._upper("norm", each) * self._upper("norm'", each)
        return min(1.0, both / math.sqrt(product)) - _ROUNDING if both > 0.0 and product > 0.0 else -1.0

    def norms(self) -> tuple[float, float]:
        """Estimates of |F| and |F'|: |mean|^2 less what the spread of n draws adds to it."""
        found = []
        for total, squares in zip(self._sums, self._squares, strict=True):
            n = self.draws
            unbiased = (float(total @ total) - squares) / (n * (n - 1))
            found.append(math.sqrt(max(unbiased, 0.0)))
        return found[0], found[1]

    def evidence(self, alpha: float = ALPHA) -> CosineEvidence:
        """All of it, as it stands."""
        norm, norm_attacked = self.norms()
        inner = float(self._sums[0] @ self._sums[1]) / self.draws**2
        product = norm * norm_attacked
        estimate = min(1.0, max(-1.0, inner / product)) if product > 0.0 else 0.0
        half = _INTERVAL / 2
        lower, upper = self.lower(half), self.upper(half)
        sure = self.upper(alpha)
        return CosineEvidence(estimate, lower, upper, sure, alpha, norm, norm_attacked, self.draws)

    def _lower(self, name: str, alpha: float) -> float:
        """Lower bound on a mean of values in [-1, 1], under exact Gaussian noise."""
        values = np.clip((np.concatenate(self._values[name]) + 1.0) / 2.0, 0.0, 1.0)
        return 2.0 * betting_lower(values, alpha) - 1.0 - 4.0 * self.noise_error - _ROUNDING

    def _upper(self, name: str, alpha: float) -> float:
        values = np.clip((1.0 - np.concatenate(self._values[name])) / 2.0, 0.0, 1.0)
        return 1.0 - 2.0 * betting_lower(values, alpha) + 4.0 * self.noise_error + _ROUNDING


def judge_cosine(
    draw: Callable[[str, int, int], Rows],
    *,
    claimed: float | None = None,
    n: int = 1_000,
    pilot: int = 200,
    most: int = 16_000,
    alpha: float = ALPHA,
    noise_error: float = 0.0,
) -> CosineEvidence:
    """Evidence from fresh draws, and from more of them while a claim looks broken and is not proved so.

    Args:
        draw: (stage, first, n) -> unit features ``(n, k)``, stages ``judge_clean`` and ``judge``.
        claimed: the certified lower bound on the cosine; ``None`` asks for n draws and no more.
        n, pilot, most: draws at each image: usual, for the directions, and at most.
    """
    n += n % 2
    judge = CosineJudge(draw("judge_clean", 0, pilot), draw("judge", 0, pilot), noise_error)
    wanted = n
    while True:
        for first in range(judge.draws, wanted, 1_000):
            count = min(1_000, wanted - first)
            judge.add(draw("judge_clean", pilot + first, count), draw("judge", pilot + first, count))
        found = judge.evidence(alpha)
        settled = claimed is None or found.estimate >= claimed or found.upper_sure < claimed
        if settled or 2 * wanted > most:
            return found
        wanted *= 2


@dataclass(frozen=True)
class VoteEvidence:
    """What fresh votes at an attacked image say against the claim that the smoothed label is ``label``.

    Attributes:
        votes: of the draws that decided.
        rival: the strongest other class. p_value: of "no class beats the label", all rivals counted.
        share: of the label. share_upper: upper bound on its probability, false with probability <= alpha.
    """

    label: int
    votes: Votes
    rival: int | None
    p_value: float
    share: float
    share_upper: float
    alpha: float


def vote_evidence(
    label: int, votes: Votes, classes: int, alpha: float = ALPHA, *, looks: int = 1
) -> VoteEvidence:
    """Does another class beat ``label``? If none does, a p-value below q has probability at most q.

    For a rival with p_B <= p_A, n_B given n_A + n_B is at most Bin(., 1/2); all classes - 1 rivals are
    looked at (Bonferroni), and so are all ``looks`` that could have been the last.
    """
    rivals = [(count, other) for other, count in votes.counts if other != label]
    count, rival = max(rivals, default=(0, None), key=lambda pair: (pair[0], -(pair[1] or 0)))
    mine = votes.count(label)
    tail = tail_upper(count, count + mine, 0.5) if count > mine else 1.0
    return VoteEvidence(
        label,
        votes,
        rival,
        min(1.0, looks * max(1, classes - 1) * tail),
        mine / votes.total,
        clopper_pearson_upper(mine, votes.total, alpha / looks),
        alpha,
    )


def angle(one: Rows, other: Rows) -> float:
    """The angle of two unit vectors, accurate for small ones too (Kahan)."""
    return 2.0 * math.atan2(float(np.linalg.norm(one - other)), float(np.linalg.norm(one + other)))


def cosine_at_most(least: float, most: float) -> float:
    """The largest cosine of an angle known to lie between two numbers of radians."""
    if least <= 0.0 or most >= 2.0 * math.pi:
        return 1.0
    return max(math.cos(least), math.cos(most)) if most > math.pi else math.cos(least)


def margin_upper(values: Iterable[Values], alpha: float, noise_error: float = 0.0) -> float:
    """Upper bound on a mean margin <f, (t_A - t_B)/|t_A - t_B|>; below 0 the head does not answer A."""
    found = np.clip((1.0 - np.concatenate(list(values))) / 2.0, 0.0, 1.0)
    return 1.0 - 2.0 * betting_lower(found, alpha) + 4.0 * noise_error + _ROUNDING


def _unit(row: Rows) -> Rows:
    norm = float(np.linalg.norm(row))
    found: Rows = row / norm if norm > 0.0 else row
    return found
