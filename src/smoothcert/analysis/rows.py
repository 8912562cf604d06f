"""One run's certified accuracy, as counted; the row every table is made of."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from smoothcert.analysis import settings
from smoothcert.analysis.proportion import Proportion
from smoothcert.analysis.whole import certified_count, whole_set
from smoothcert.runlog.results import Results

Line = dict[str, str | int | float | bool | None]
MISSING = "-"


@dataclass(frozen=True)
class RunAccuracy:
    """What one run proves, radius by radius.

    Attributes:
        run: the run, with sigma, n0, n, alpha and its name.
        clean: share answered correctly (an abstention is not); ``None`` without a finished image.
        radii: L2 on pixels in [0, 1], ascending.
        shares: share certified at each radius; ``None`` where the run holds predictions only.
    """

    run: Results = field(repr=False)
    clean: Proportion | None
    radii: tuple[float, ...]
    shares: tuple[Proportion | None, ...]

    @classmethod
    def of(cls, run: Results, radii: tuple[float, ...], confidence: float) -> RunAccuracy:
        """Count one run's images."""

        def share(radius: float) -> Proportion | None:
            if not run.outcomes or (radius > 0.0 and not settings.certifies(run)):
                return None
            return Proportion.of(certified_count(run, radius), len(run.outcomes), confidence=confidence)

        return cls(run, share(0.0), radii, tuple(share(radius) for radius in radii))

    def at(self, radius: float) -> Proportion | None:
        """The share at one of ``radii``."""
        return self.shares[self.radii.index(radius)]


def facts(run: Results) -> Line:
    """What identifies a run in a machine-readable line."""
    return {
        "run": run.name,
        "description": run.description,
        "sigma": run.sigma,
        "n0": run.n0,
        "n": run.n,
        "stop": run.stop,
        "label_aware": run.label_aware,
        "alpha": run.alpha,
        "alpha_post_hoc": run.alpha_post_hoc,
        "images": len(run.outcomes),
        "planned": run.planned,
        "complete": run.complete,
        "shard": run.shard,
    }


def numbers(radius: float, share: Proportion | None, clean: Proportion | None) -> Line:
    """One cell in full: counts, shares, interval."""
    return {
        "radius": radius,
        "certified": share and share.count,
        "accuracy": share and share.value,
        "lower": share and share.lower,
        "upper": share and share.upper,
        "confidence": share and share.confidence,
        "clean_correct": clean and clean.count,
        "clean_accuracy": clean and clean.value,
    }


def _whole(run: Results, radius: float) -> Line:
    """What is proved of all images together, where the source says its alpha."""
    if run.alpha is None or not run.outcomes or (radius > 0.0 and not settings.certifies(run)):
        return {"true_at_least": None, "population_at_least": None}
    found = whole_set(run, radius)
    return {"true_at_least": found.true_at_least, "population_at_least": found.population_at_least}


def tidy(rows: Iterable[RunAccuracy]) -> list[Line]:
    """One line per run and radius."""
    return [
        {**facts(row.run), **numbers(radius, share, row.clean), **_whole(row.run, radius)}
        for row in rows
        for radius, share in zip(row.radii, row.shares, strict=True)
    ]


def cells(lines: Sequence[Line]) -> list[tuple[str, ...]]:
    """The same as text: a header and one row a line, empty where nothing is known."""
    text = [tuple("" if value is None else str(value) for value in line.values()) for line in lines]
    return [tuple(lines[0]), *text] if lines else []


def cell(share: Proportion | None, *, intervals: bool) -> str:
    """``76.7 [75.8, 77.6]``, per cent."""
    if share is None:
        return MISSING
    return f"{share.percent()} {share.interval()}" if intervals else share.percent()
