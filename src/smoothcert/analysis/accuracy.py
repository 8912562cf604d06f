"""Certified accuracy of runs at chosen radii, one row a run: the per-sigma tables of the field."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from dataclasses import dataclass

from smoothcert.analysis import settings
from smoothcert.analysis.beside import Beside, beside
from smoothcert.analysis.best import BestAccuracy, best_rows
from smoothcert.analysis.proportion import CONFIDENCE, Proportion
from smoothcert.analysis.rows import RunAccuracy, cell, cells, tidy
from smoothcert.analysis.text import TextTable, format_radius, write_csv
from smoothcert.errors import InvalidInput
from smoothcert.runlog.results import Results

RADII = (0.0, 0.25, 0.5, 0.75, 1.0)
CONVENTION = (
    "An image counts at radius r if the answer is correct and its certified L2 radius (pixels in [0, 1]) is "
    "at least r; abstentions count as errors."
)


@dataclass(frozen=True)
class CertifiedAccuracy:
    """Certified accuracy of each run at each radius.

    Attributes:
        radii: L2 on pixels in [0, 1], ascending.
        rows: one per run, by sigma.
        confidence: level of every interval.
    """

    radii: tuple[float, ...]
    rows: tuple[RunAccuracy, ...]
    confidence: float = CONFIDENCE

    def best(self, *, across_settings: bool = False) -> BestAccuracy:
        """The best sigma at each radius, with that sigma's clean accuracy: the layout of the DDS paper.

        Runs are compared only with runs that share data, model, images, draws and alpha; each such group has
        a row of its own. ``across_settings=True`` makes them one group (models trained for one sigma each,
        for instance); the caption then says that the runs differ.
        """
        rows = best_rows(self.rows, across_settings=across_settings)
        return BestAccuracy(self.radii, rows, self.caption)

    def against(self, name: str, *, across_settings: bool = False) -> Beside:
        """Put these runs beside a published table; see ``analysis.published.names()``.

        The best row is compared with tables that are themselves best over sigma, else the rows per sigma.

        Raises:
            UnknownName: no such table.
            InvalidInput: a table whose columns are not radii.
        """
        return beside(self, name, across_settings=across_settings)

    @property
    def caption(self) -> str:
        """What was measured, on what, with which error probabilities and marks."""
        runs = [row.run for row in self.rows]
        head = f"Certified accuracy (%) with pointwise {self.confidence * 100:g} % Clopper-Pearson intervals"
        return " ".join([f"{head}: {settings.shared(runs)}", *settings.warnings(runs), CONVENTION])

    def table(self, *, intervals: bool = True) -> TextTable:
        """The cells as text; the best of each column is stressed."""
        facts = settings.differing([row.run for row in self.rows])
        clean = [] if 0.0 in self.radii else ["clean"]
        header = [
            "sigma",
            *(name for name, _ in facts),
            *clean,
            *(f"r = {format_radius(r)}" for r in self.radii),
        ]
        columns = [*([[row.clean for row in self.rows]] if clean else [])]
        columns += [[row.at(radius) for row in self.rows] for radius in self.radii]
        rows = [
            (
                settings.sigma(row.run),
                *(read(row.run) for _, read in facts),
                *(cell(column[i], intervals=intervals) for column in columns),
            )
            for i, row in enumerate(self.rows)
        ]
        first = 1 + len(facts)
        strong = frozenset((i, first + j) for j, column in enumerate(columns) for i in _tops(column))
        return TextTable(tuple(header), tuple(rows), self.caption, strong)

    def to_markdown(self, *, intervals: bool = True) -> str:
        """The table for a README or a terminal."""
        return self.table(intervals=intervals).to_markdown()

    def to_latex(self, *, intervals: bool = True) -> str:
        """The table for a paper (package booktabs)."""
        return self.table(intervals=intervals).to_latex()

    def to_csv(self) -> str:
        """One line per run and radius, counts and interval included, nothing rounded."""
        return write_csv(cells(tidy(self.rows)))

    def to_json(self) -> str:
        """The lines of ``to_csv`` and the caption."""
        return json.dumps({"caption": self.caption, "rows": tidy(self.rows)}, indent=2)

    def __str__(self) -> str:
        return self.to_markdown()


def certified_accuracy(
    results: Iterable[Results], radii: Iterable[float] = RADII, *, confidence: float = CONFIDENCE
) -> CertifiedAccuracy:
    """Count, for each run and radius, the images that are answered correctly and certified that far.

    Args:
        results: runs or imported logs, one row each; nothing is merged.
        radii: L2 on pixels in [0, 1].
        confidence: of the two-sided Clopper-Pearson intervals, pointwise.

    Raises:
        InvalidInput: no runs, or a radius that is negative or not finite.

    Source: Cohen et al. 2019, section 4 (approximate certified test set accuracy).
    """
    ordered = tuple(sorted({float(radius) for radius in radii}))
    runs = sorted(results, key=lambda run: math.inf if run.sigma is None else run.sigma)
    if not runs or not all(0.0 <= radius < math.inf for radius in ordered):
        raise InvalidInput(
            f"{len(runs)} runs at radii {ordered}",
            "a table needs at least one run and finite radii >= 0",
            "Pass what open_run or read_tsv returned, and radii such as (0, 0.25, 0.5)",
        )
    silent = [run.name for run in runs if run.certifies_features and run.decision is None]
    if silent:
        raise InvalidInput(
            f"the run {silent[0]}",
            "certifies features, and has no head whose answers could be counted",
            "Print its cosines (table --cosine, analysis.cosine_table), or make a run with --head",
        )
    return CertifiedAccuracy(
        ordered, tuple(RunAccuracy.of(run, ordered, confidence) for run in runs), confidence
    )


def _tops(column: list[Proportion | None]) -> list[int]:
    """Rows that hold the column's greatest share, unless nothing is certified."""
    top = max((share.exact for share in column if share), default=None)
    return [i for i, share in enumerate(column) if share and share.count and share.exact == top]
