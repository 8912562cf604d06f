"""Certified cosines of runs that encode: what features keep under attack, image by image and on average."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np
import numpy.typing as npt

from smoothcert.analysis import settings
from smoothcert.analysis.proportion import CONFIDENCE
from smoothcert.analysis.text import TextTable, format_radius, write_csv
from smoothcert.certificates.feature import FeatureCertificate
from smoothcert.errors import InvalidInput
from smoothcert.runlog.results import Results

RADII = (0.12, 0.25, 0.5, 0.75, 1.0)
OURS, PAPER, SERVED, CLEAN = "ours", "paper's FCSB", "served feature", "to the clean feature"
_BOUNDS: dict[str, Callable[[FeatureCertificate, npt.NDArray[np.float64]], object]] = {
    OURS: FeatureCertificate.cosine_lower,
    PAPER: FeatureCertificate.paper_cosine_lower,
    SERVED: FeatureCertificate.served_cosine_lower,
    CLEAN: FeatureCertificate.reference_cosine_lower,
}
Values = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Mean:
    """A mean over images with its two-sided t interval, and the share of images that are above 0."""

    value: float
    lower: float
    upper: float
    positive: float

    @classmethod
    def of(cls, values: Values, confidence: float = CONFIDENCE) -> Mean:
        """Of one number an image."""
        from scipy.special import stdtrit

        count, mean = len(values), float(values.mean())
        spread = float(values.std(ddof=1)) / math.sqrt(count) if count > 1 else math.inf
        half = float(stdtrit(max(1, count - 1), 0.5 + 0.5 * confidence)) * spread if spread else 0.0
        return cls(mean, mean - half, mean + half, float((values > 0.0).mean()))

    def __str__(self) -> str:
        half = self.upper - self.value
        return f"{self.value:.3f} ± {half:.3f}" if math.isfinite(half) else f"{self.value:.3f}"


@dataclass(frozen=True)
class CertifiedCosines:
    """The certified cosines of one run.

    Attributes:
        run: the run.
        radii: L2 on pixels in [0, 1], ascending.
        m, score: lower bounds on ||F|| and on the Gaussian robustness score, one an image.
        bounds: cosines ``(images, radii)`` by name of the bound; an abstention is 0.
    """

    run: Results = field(repr=False)
    radii: tuple[float, ...]
    m: Values
    score: Values
    bounds: dict[str, Values]


def certified_cosines(run: Results, radii: Iterable[float] = RADII) -> CertifiedCosines:
    """Evaluate the bounds of every finished image of a run that encodes.

    Raises:
        InvalidInput: a run that certifies something else, or without a finished image; a bad radius.
    """
    ordered = tuple(sorted({float(radius) for radius in radii}))
    found = [outcome.feature for outcome in run.outcomes if outcome.feature is not None]
    if not found or not all(0.0 <= radius < math.inf for radius in ordered) or not ordered:
        raise InvalidInput(
            f"the run {run.name} ({run.task}, {len(run.outcomes)} images) at radii {ordered}",
            "certified cosines need a run that encodes, a finished image, and finite radii >= 0",
            "Pass what 'smoothcert certify --task encode' wrote, and radii such as 0.25,0.5",
        )
    names = [name for name in _BOUNDS if name != SERVED or found[0].served is not None]
    at = np.asarray(ordered)
    return CertifiedCosines(
        run,
        ordered,
        np.array([certificate.m_lower for certificate in found]),
        np.array([certificate.score_lower for certificate in found]),
        {name: np.array([_BOUNDS[name](certificate, at) for certificate in found]) for name in names},
    )


@dataclass(frozen=True)
class CosineTable:
    """Mean certified cosine of each run at each radius, by each bound."""

    rows: tuple[CertifiedCosines, ...]
    confidence: float = CONFIDENCE

    @property
    def caption(self) -> str:
        """What was measured, on what, with which error probabilities and marks."""
        runs = [row.run for row in self.rows]
        head = (
            "Certified cosine of the smoothed feature under any change of L2 norm at most r (pixels in "
            f"[0, 1]): mean over the images with its {self.confidence * 100:g} % t interval, abstentions "
            "counting as 0; m and S are lower bounds on the length of the feature and on the Gaussian score"
        )
        return " ".join([f"{head}: {settings.shared(runs)}", *settings.warnings(runs)])

    def table(self, bounds: Sequence[str] = (OURS, PAPER, SERVED)) -> TextTable:
        """The cells as text, one line a run and bound."""
        facts = settings.differing([row.run for row in self.rows])
        radii = self.rows[0].radii
        header = ("sigma", *(name for name, _ in facts), "m", "S", "bound", *(_r(radius) for radius in radii))
        lines = []
        for row in self.rows:
            said = [settings.sigma(row.run), *(read(row.run) for _, read in facts)]
            said += [str(Mean.of(row.m, self.confidence)), str(Mean.of(row.score, self.confidence))]
            for name in bounds:
                if name in row.bounds:
                    cells = [str(Mean.of(column, self.confidence)) for column in row.bounds[name].T]
                    lines.append((*said, name, *cells))
                    said = [""] * len(said)
        return TextTable(header, tuple(lines), self.caption)

    def lines(self) -> list[dict[str, str | float | None]]:
        """One line a run, bound and radius, nothing rounded."""
        return [
            {
                "run": row.run.name,
                "sigma": row.run.sigma,
                "alpha": row.run.alpha,
                "n": row.run.n,
                "images": len(row.m),
                "m": float(row.m.mean()),
                "score": float(row.score.mean()),
                "bound": name,
                "radius": radius,
                "cosine": mean.value,
                "lower": mean.lower,
                "upper": mean.upper,
                "certified_share": mean.positive,
            }
            for row in self.rows
            for name, values in row.bounds.items()
            for radius, column in zip(row.radii, values.T, strict=True)
            for mean in (Mean.of(column, self.confidence),)
        ]

    def to_json(self) -> str:
        """The lines and the caption."""
        return json.dumps({"caption": self.caption, "rows": self.lines()}, indent=2)

    def to_csv(self) -> str:
        """The lines for a spreadsheet."""
        lines = self.lines()
        return write_csv([tuple(lines[0]), *(tuple(str(value) for value in line.values()) for line in lines)])

    def to_markdown(self) -> str:
        """The table for a README or a terminal."""
        return self.table().to_markdown()

    def to_latex(self) -> str:
        """The table for a paper (package booktabs)."""
        return self.table().to_latex()


def cosine_table(
    results: Iterable[Results], radii: Iterable[float] = RADII, *, confidence: float = CONFIDENCE
) -> CosineTable:
    """Mean certified cosines of runs that encode, at chosen radii; errors as for ``certified_cosines``."""
    at = tuple(radii)
    runs = sorted(results, key=lambda run: math.inf if run.sigma is None else run.sigma)
    if not runs:
        raise InvalidInput("no runs", "there is nothing to evaluate", "Pass what open_runs returned")
    return CosineTable(tuple(certified_cosines(run, at) for run in runs), confidence)


def _r(radius: float) -> str:
    return f"r = {format_radius(radius)}"
