"""Images whose vote probabilities are those of a published certification log, and sequences of their votes.

A log says one thing about an image: its radius. Everything else about the votes is assumed here, openly:

- p_A: the Clopper-Pearson bound inverted (radius/sigma -> p_lower -> k -> k/n), the radius spread evenly over
  what prints the same three digits. Unanimous logs say 1 - p_A < 1/n only; a tenth of that is taken.
- images that abstained: z(p_A) continues below the smallest certified radius at the density it has just above
  (``continued``), or p_A is even on [.2, .5] (``easy``), or p_A = .5 for all of them (``hardest``).
- the strongest rival: its share of 1 - p_A is that of an image with similar p_A in a real run
  (``measured``, see ``rival_shares``), or everything (``all``, the worst case).
"""

from __future__ import annotations

import functools
import json
import re
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import numpy.typing as npt
from scipy.special import betaincinv, ndtr, ndtri

from smoothcert.runlog.tsv import read_tsv

N = 100_000  # estimation draws of all these logs
SHARES = Path(__file__).with_name("rival_shares.json")
_JUST_ABOVE = 0.3  # in units of sigma: where the density is read that continues below
_NEIGHBOURS = 15
RARE = 7  # classes beside the first three, with even shares of what is left (CIFAR-10 has ten)
Floats = npt.NDArray[np.float64]
Counts = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Images:
    """Classes 0, 1, 2 are the most probable one, its strongest rival and the next; 3 stands for seven others.

    Attributes:
        p: probabilities ``(images, 4)``. label: the true class of each: 0, or 1 where the model is wrong.
    """

    name: str
    sigma: float
    p: Floats
    label: npt.NDArray[np.int64]

    def __len__(self) -> int:
        return len(self.p)


@dataclass(frozen=True)
class Paths:
    """The first draws of a long sequence of votes: how many of ``draws[t]`` answered class c, ``(4, t, images)``."""

    draws: tuple[int, ...]
    counts: Counts

    def at(self, draws: int) -> Counts:
        """Counts ``(4, images)`` of the first ``draws`` draws."""
        return self.counts[:, self.draws.index(draws)]


def images_of_log(
    path: Path,
    rng: np.random.Generator,
    *,
    most: int | None = None,
    abstained: str = "continued",
    rival: str = "measured",
) -> Images:
    """The images of a log, or ``most`` of them at even steps."""
    outcomes = read_tsv(path).outcomes
    outcomes = outcomes[:: max(1, len(outcomes) // most)] if most else outcomes
    sigma = float(re.findall(r"sigma_(\d+\.\d+)", path.name)[-1])
    certified = np.array([outcome.predicted is not None for outcome in outcomes])
    correct = np.array([outcome.correct for outcome in outcomes])
    radii = np.array([outcome.radius or 0.0 for outcome in outcomes])
    z = _spread(radii, rng) / sigma
    top, near = _p_top(z, alpha_of(z)), certified & (z < _JUST_ABOVE)
    lost = ~certified
    top[lost] = _p_abstained(abstained, int(lost.sum()), near.sum() / _JUST_ABOVE, rng)
    correct[lost] = rng.random(int(lost.sum())) < correct[near].mean()
    p = _probabilities(top, rival, rng)
    return Images("/".join(path.parts[-5:]), sigma, p, np.where(correct, 0, 1))


def alpha_of(z: Floats) -> float:
    """Cohen's logs fit alpha = .01 where a radius is larger than .001 and 100,000 draws allow."""
    return 0.01 if z.max() > ndtri(0.001 ** (1.0 / N)) + 0.03 else 0.001


def rival_shares() -> Floats:
    """Rows (p_A, share of the strongest rival in the rest, share of the next) of 500 real CIFAR-10 images.

    ResNet-20 behind the denoiser ``cifar10`` at sigma 0.25, 256 draws an image (``measured_draws.py shares``).
    """
    return np.array(json.loads(SHARES.read_text())["rows"])


def votes(images: Images, draws: tuple[int, ...], rng: np.random.Generator) -> Paths:
    """One sequence of votes for every image, read after each of ``draws`` (increasing)."""
    steps = np.diff(np.array((0, *draws)))[:, None]
    left, rest = np.broadcast_to(steps, (len(draws), len(images))).copy(), np.ones(len(images))
    counts = np.empty((4, len(draws), len(images)), dtype=np.int64)
    for c in range(3):
        odds = np.divide(images.p[:, c], rest, out=np.zeros_like(rest), where=rest > 0.0)
        counts[c] = rng.binomial(left, np.clip(odds, 0.0, 1.0))
        left -= counts[c]
        rest = rest - images.p[:, c]
    counts[3] = left
    return Paths(draws, counts.cumsum(axis=1))


def _spread(radii: Floats, rng: np.random.Generator) -> Floats:
    """Radii even over what prints the same with three significant digits."""
    step = 10.0 ** (np.floor(np.log10(np.maximum(radii, 1e-9))) - 2.0)
    return np.where(radii > 0.0, radii + step * (rng.random(len(radii)) - 0.5), 0.0)


def _p_top(z: Floats, alpha: float) -> Floats:
    known, shares = _inverse(alpha)
    p = np.interp(z, known, shares)
    return np.where(z > known[-1] - 0.02, 1.0 - 0.1 / N, p)


@functools.cache
def _inverse(alpha: float) -> tuple[Floats, Floats]:
    k = np.arange(N // 2, N)
    z = np.append(ndtri(betaincinv(k, N - k + 1.0, alpha)), ndtri(alpha ** (1.0 / N)))
    return z, np.append(k, N) / N


def _p_abstained(how: str, number: int, density: float, rng: np.random.Generator) -> Floats:
    even = rng.random(number)
    if how == "continued":  # the largest z that abstains is the quantile of the smallest count that does not
        highest = float(ndtri(_p_top(np.array([0.0]), 0.001))[0])
        return ndtr(highest - even * number / max(density, 1.0))
    return 0.2 + 0.3 * even if how == "easy" else np.full(number, 0.5)


def _probabilities(top: Floats, rival: str, rng: np.random.Generator) -> Floats:
    rest = 1.0 - top
    if rival == "all":
        second, third = np.ones(len(top)), np.zeros(len(top))
    else:
        rows = rival_shares()
        rows = rows[np.argsort(rows[:, 0])]
        place = np.searchsorted(rows[:, 0], top) + rng.integers(-_NEIGHBOURS, _NEIGHBOURS + 1, len(top))
        second, third = rows[np.clip(place, 0, len(rows) - 1), 1:].T
    b = np.minimum(second * rest, top)
    c = np.minimum(np.minimum(third * rest, b), rest - b)
    return np.stack([top, b, c, rest - b - c], axis=1)
