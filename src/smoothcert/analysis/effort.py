"""What a run cost in draws, against a fixed number of them, and what they decided at each radius."""

from __future__ import annotations

import math
import statistics
from collections.abc import Iterable
from dataclasses import dataclass

from smoothcert.analysis import settings
from smoothcert.analysis.text import TextTable, format_radius
from smoothcert.certificates.course import REASONS, Reason
from smoothcert.certificates.rules import LOOKING
from smoothcert.errors import InvalidInput
from smoothcert.runlog.results import Outcome, Results

_SELECTION = 100  # draws that Cohen's procedure sets aside to name the class
_LOOKING = 1.2  # a rule with many looks needs so many more draws at most to prove what a fixed number proves


@dataclass(frozen=True)
class Effort:
    """Draws of the finished images of one run.

    Attributes:
        run: where they are from. images: how many are finished. draws: of all of them.
        mean, median, q90, most: of the draws of one image; q90 is the smallest number that at least 90 % of
            the images did not exceed.
        fixed: what a run with fixed numbers of draws that proves as much makes for as many images: n each
            (n / 1.2 where this run's rule looks at the votes, which is paid for with a larger n), and 100 to
            select the class.
    """

    run: Results
    images: int
    draws: int
    mean: float
    median: float
    q90: int
    most: int
    fixed: int

    @property
    def factor(self) -> float:
        """How many times as many draws the fixed numbers take."""
        return self.fixed / self.draws


@dataclass(frozen=True)
class Decisions:
    """How the finished images of one run stand at one radius, whatever their label.

    ``proved`` counts certificates, right or wrong; ``open_`` counts the others by the reason why their draws
    ended (the words of ``certificates.course.REASONS``).
    """

    radius: float
    proved: int
    open_: dict[str, int]


def effort(results: Results) -> Effort:
    """Count a run's draws.

    Raises:
        InvalidInput: an imported log, which does not say them, or no finished image.
    """
    draws = sorted(o.draws for o in results.outcomes if o.draws is not None)
    if not draws or len(draws) < len(results.outcomes) or results.n is None:
        raise InvalidInput(
            results.name, "holds no counts of draws", "Pass a run directory with a finished image"
        )
    return Effort(
        run=results,
        images=len(draws),
        draws=sum(draws),
        mean=statistics.fmean(draws),
        median=statistics.median(draws),
        q90=draws[math.ceil(0.9 * len(draws)) - 1],
        most=draws[-1],
        fixed=_as_strong(results) * len(draws),
    )


def decisions(results: Results, radii: Iterable[float] | None = None) -> list[Decisions]:
    """What was decided at each radius; by default at the radii of the run's stopping rule."""
    found = []
    for radius in results.radii if radii is None else radii:
        unproved = [o for o in results.outcomes if not _proved(o, radius)]
        reasons = [reason for reason in REASONS if any(o.reason == reason for o in unproved)]
        counts: dict[str, int] = {reason: sum(o.reason == reason for o in unproved) for reason in reasons}
        found.append(Decisions(radius, len(results.outcomes) - len(unproved), counts))
    return found


def effort_table(results: Iterable[Results]) -> TextTable:
    """Draws an image, one row a run, and how many fixed numbers of draws would have made."""
    runs = [run for run in results if run.outcomes]
    facts = settings.differing(runs)
    rows = [
        (settings.sigma(one.run), *(read(one.run) for _, read in facts), *_cells(one))
        for one in (effort(run) for run in runs)
    ]
    header = ("sigma", *(name for name, _ in facts), "mean", "median", "90 %", "most", "fixed n would take")
    caption = (
        "Draws an image: mean, median, 90 % quantile and maximum over the finished images; and how many "
        "times as many a run with fixed numbers makes that proves as much (n each, n / 1.2 if a rule looks "
        "at the votes, and its selection draws)."
    )
    return TextTable(header, tuple(rows), caption)


def decision_table(results: Iterable[Results]) -> TextTable:
    """Images proved and not proved at each radius that the runs were to decide."""
    runs = [run for run in results if run.outcomes]
    facts = settings.differing(runs)
    decided = [(run, one) for run in runs for one in decisions(run)]
    seen = {reason for run, one in decided for reason in one.open_ if one.radius not in run.out_of_reach}
    reasons = [reason for reason in REASONS if reason in seen]
    rows = [
        (
            settings.sigma(run),
            *(read(run) for _, read in facts),
            format_radius(one.radius),
            *_counts(one, reasons, reached=one.radius not in run.out_of_reach),
        )
        for run, one in decided
    ]
    meanings = "; ".join(f"{reason}: {REASONS[reason]}" for reason in reasons)
    caption = (
        "Images by what was decided at each radius. Proved: certified that far, whatever the true class. "
        f"{meanings[:1].upper()}{meanings[1:]}."
    )
    if any(run.out_of_reach for run in runs):
        caption += " A dash: not even unanimous votes would prove that radius with so many draws."
    header = ("sigma", *(name for name, _ in facts), "r", "proved", *reasons)
    return TextTable(header, tuple(rows), caption)


def _as_strong(results: Results) -> int:
    """Draws of an image under fixed numbers that prove as much as this run's rule."""
    rule, n = (results.stop or "fixed").partition(":")[0], results.n or 0
    if rule == "fixed":
        return n + (results.n0 or 0)
    deciding = round(n / _LOOKING) if rule in LOOKING else n
    return deciding + (0 if rule == "predict" else _SELECTION)


def _counts(one: Decisions, reasons: list[Reason], *, reached: bool) -> tuple[str, ...]:
    if not reached:
        return ("-",) * (1 + len(reasons))
    return (f"{one.proved:,}", *(f"{one.open_.get(reason, 0):,}" for reason in reasons))


def _cells(one: Effort) -> tuple[str, ...]:
    return (
        f"{one.mean:,.0f}",
        f"{one.median:,.0f}",
        f"{one.q90:,}",
        f"{one.most:,}",
        f"{one.factor:.1f}x",
    )


def _proved(outcome: Outcome, radius: float) -> bool:
    return outcome.predicted is not None and outcome.radius is not None and outcome.radius >= radius
