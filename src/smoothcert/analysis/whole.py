"""What the certificates of single images prove about the whole data set, false certificates allowed for."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from smoothcert.analysis import settings
from smoothcert.analysis.proportion import CONFIDENCE
from smoothcert.analysis.text import TextTable, format_radius
from smoothcert.bounds import population_lower, true_count_lower
from smoothcert.errors import InvalidInput
from smoothcert.runlog.results import Results


@dataclass(frozen=True)
class WholeSet:
    """One run at one radius.

    Attributes:
        run: where the certificates are from. radius: L2 on pixels in [0, 1].
        certified, images: certified correctly, of how many.
        true_at_least: with ``confidence``, so many of the images are truly robust, whichever they are; each
            certificate alone may be false with probability alpha.
        population_at_least: with ``confidence``, this share of the population is, if the images were drawn
            from it independently.
        confidence: of each of the two statements, for this radius alone.
    """

    run: Results
    radius: float
    certified: int
    images: int
    true_at_least: int
    population_at_least: float
    confidence: float


def certified_count(results: Results, radius: float) -> int:
    """Images answered correctly and certified at ``radius``; at 0 an answer without a radius counts too."""
    return sum(o.certified_at(radius) if radius > 0.0 else o.correct for o in results.outcomes)


def whole_set(results: Results, radius: float, *, confidence: float = CONFIDENCE) -> WholeSet:
    """Bounds on the number and on the share of images that are answered correctly within ``radius``.

    Raises:
        InvalidInput: no finished image, or an imported log that does not say its alpha.

    Source: THEORY 5.7; ``bounds.population``.
    """
    if results.alpha is None or not results.outcomes:
        raise InvalidInput(
            results.name,
            "has no finished image or no error probability alpha",
            "Pass a run directory with a finished image",
        )
    certified, images, delta = certified_count(results, radius), len(results.outcomes), 1.0 - confidence
    return WholeSet(
        results,
        radius,
        certified,
        images,
        true_count_lower(certified, images, results.alpha, delta),
        population_lower(certified, images, results.alpha, delta),
        confidence,
    )


def whole_table(
    results: Iterable[Results], radii: Iterable[float], *, confidence: float = CONFIDENCE
) -> TextTable:
    """One row a run and radius: the plain count, and what is proved of the whole set."""
    runs, wanted = [run for run in results if run.outcomes], sorted(set(radii))
    facts = settings.differing(runs)
    found = [whole_set(run, radius, confidence=confidence) for run in runs for radius in wanted]
    rows = [
        (
            settings.sigma(one.run),
            *(read(one.run) for _, read in facts),
            format_radius(one.radius),
            f"{one.certified:,} of {one.images:,} ({100.0 * one.certified / one.images:.1f} %)",
            f"{one.true_at_least:,}",
            f"{int(1000.0 * one.population_at_least) / 10.0:.1f} %",
        )
        for one in found
    ]
    caption = (
        f"Certified correctly, and what that proves with {100 * confidence:g} % confidence for each cell: "
        "how many of these certificates are true, so how many images are truly answered correctly within r "
        "(each alone may be false with probability alpha); and which share of the population they were "
        "drawn from, if they were drawn independently. "
        f"{settings.shared(runs)} {' '.join(settings.warnings(runs))}"
    )
    header = (
        "sigma",
        *(name for name, _ in facts),
        "r",
        "certified",
        "true, at least",
        "population, at least",
    )
    return TextTable(header, tuple(rows), caption.strip())
