"""From a rule in words and its numbers to the design of a run."""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache

from smoothcert.certificates.anytime import Anytime
from smoothcert.certificates.course import Design
from smoothcert.certificates.gaussian import Bound
from smoothcert.certificates.grouped import Grouped, Numbers
from smoothcert.certificates.rules import Kind, StopRule
from smoothcert.certificates.staged import Fixed, TwoStage
from smoothcert.errors import InvalidInput


@dataclass(frozen=True)
class Usual:
    """What a rule takes where nothing else is said, chosen on published logs (docs/how-many-samples.md).

    Attributes:
        n0, n: selection draws and the most others, of an image.
        ratio: between neighbouring looks. gate: share of alpha that names the class.
        futility: give up below this predictive power.
    """

    n0: int
    n: int
    ratio: float | None = None
    gate: float | None = None
    futility: float | None = None


_USUAL: dict[Kind, Usual] = {
    "fixed": Usual(100, 100_000),
    "table": Usual(0, 120_000, 1.1, 0.05, 0.01),
    "radius": Usual(0, 120_000, 1.1, 0.05, 0.01),
    "predict": Usual(0, 12_000, 1.25, 1.0, 0.01),
    "curve": Usual(1_000, 100_000, futility=0.01),
    "anytime": Usual(100, 100_000),
}


_USUAL_OF_TASK: dict[tuple[Kind, str], Usual] = {
    ("fixed", "predict"): Usual(0, 1_000),
    ("fixed", "encode"): Usual(100, 10_000),
}


def usual(rule: StopRule, task: str = "certify") -> Usual:
    """The numbers a rule takes where nothing else is said, for a task."""
    return _USUAL_OF_TASK.get((rule.kind, task), _USUAL[rule.kind])


@lru_cache(maxsize=64)  # a design never changes, and its boundaries are computed once
def design(
    rule: StopRule,
    *,
    n0: int,
    n: int,
    alpha: float,
    bound: Bound,
    sigma: float,
    noise_error: float,
    ratio: float | None = None,
    gate: float | None = None,
    futility: float | None = None,
    label_aware: bool = False,
) -> Design:
    """The design that a rule and its numbers fix; numbers left out are the usual ones.

    Raises:
        InvalidInput: no radius of the rule can be proved with n draws at this sigma and alpha.
    """
    usually = usual(rule)
    if rule.kind == "fixed":
        return Fixed(n0, n, alpha, bound, sigma, noise_error)
    if rule.kind == "curve":
        give_up = futility if futility is not None else usually.futility or 0.0
        tolerance = rule.tolerance or 0.0
        return TwoStage(n0, n, alpha, bound, sigma, noise_error, tolerance, give_up)
    if rule.kind == "anytime":
        return Anytime(n0, n, alpha, bound, sigma, noise_error)
    numbers = Numbers(
        n=n,
        alpha=alpha,
        ratio=ratio if ratio is not None else usually.ratio or 2.0,
        gate=gate if gate is not None else usually.gate or 0.0,
        futility=futility if futility is not None else usually.futility or 0.0,
    )
    found = Grouped(numbers, rule.radii, bound, sigma, noise_error, label_aware)
    if rule.radii and not found.decidable:
        smallest = rule.radii[0]
        raise InvalidInput(
            f"stop = '{rule}' with n = {n:,} at sigma = {sigma:g} and alpha = {alpha:g}",
            f"even unanimous votes would not prove the radius {smallest:g} ({smallest / sigma:.3g} sigma)",
            "Raise n or sigma, or ask for a smaller radius",
        )
    return found
