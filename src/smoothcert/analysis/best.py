"""Best over sigma at each radius: the layout in which the field compares methods."""

from __future__ import annotations

import json
from collections.abc import Hashable, Sequence
from dataclasses import dataclass

from smoothcert.analysis import settings
from smoothcert.analysis.rows import MISSING, Line, RunAccuracy, cell, cells, facts, numbers
from smoothcert.analysis.text import TextTable, format_radius, write_csv
from smoothcert.runlog.results import Results

EXPLANATION = (
    "Each cell: the clean accuracy of the chosen sigma in parentheses, then the certified accuracy of the "
    "best sigma at that radius. Intervals do not account for choosing the best."
)


@dataclass(frozen=True)
class BestRow:
    """Runs of one setting, and which of them is best at each radius (``None``: none has a certificate)."""

    runs: tuple[Results, ...]
    winners: tuple[RunAccuracy | None, ...]

    @property
    def method(self) -> str:
        """Data and model, where the runs say and agree."""
        descriptions = {run.description for run in self.runs}
        count = "1 run" if len(self.runs) == 1 else f"{len(self.runs)} runs"
        return (descriptions.pop() if len(descriptions) == 1 else "") or count


@dataclass(frozen=True)
class BestAccuracy:
    """Best certified accuracy over sigma, one row for each setting."""

    radii: tuple[float, ...]
    rows: tuple[BestRow, ...]
    head: str

    @property
    def caption(self) -> str:
        """As of the table it was chosen from, and what choosing means."""
        return f"{self.head} {EXPLANATION}"

    def cell_texts(self, row: BestRow, *, intervals: bool) -> list[str]:
        """``(88.1)76.7`` for each radius."""
        texts = []
        for radius, winner in zip(self.radii, row.winners, strict=True):
            clean = "" if winner is None or winner.clean is None else f"({winner.clean.percent()})"
            texts.append(MISSING if winner is None else clean + cell(winner.at(radius), intervals=intervals))
        return texts

    def differing(self) -> list[settings.Fact]:
        """The facts besides data and model that tell the groups apart."""
        firsts = [row.runs[0] for row in self.rows]
        return [(name, read) for name, read in settings.differing(firsts) if name != "data and model"]

    def table(self, *, intervals: bool = True) -> TextTable:
        """The cells as text; facts in which the groups differ are columns."""
        extra = self.differing()
        header = ["method", *(name for name, _ in extra), *(f"r = {format_radius(r)}" for r in self.radii)]
        body = [
            (
                row.method,
                *(read(row.runs[0]) for _, read in extra),
                *self.cell_texts(row, intervals=intervals),
            )
            for row in self.rows
        ]
        return TextTable(tuple(header), tuple(body), self.caption)

    def to_markdown(self, *, intervals: bool = True) -> str:
        """The table for a README or a terminal."""
        return self.table(intervals=intervals).to_markdown()

    def to_latex(self, *, intervals: bool = True) -> str:
        """The table for a paper (package booktabs)."""
        return self.table(intervals=intervals).to_latex()

    def to_csv(self) -> str:
        """One line per setting and radius with the chosen run, nothing rounded."""
        return write_csv(cells(self._lines()))

    def to_json(self) -> str:
        """The lines of ``to_csv`` and the caption."""
        return json.dumps({"caption": self.caption, "rows": self._lines()}, indent=2)

    def __str__(self) -> str:
        return self.to_markdown()

    def _lines(self) -> list[Line]:
        return [
            {**facts(winner.run), **numbers(radius, winner.at(radius), winner.clean)}
            for row in self.rows
            for radius, winner in zip(self.radii, row.winners, strict=True)
            if winner is not None
        ]


def best_rows(rows: Sequence[RunAccuracy], *, across_settings: bool) -> tuple[BestRow, ...]:
    """Group rows by setting, or all together, and choose in each group."""
    groups: dict[Hashable, list[RunAccuracy]] = {}
    for row in rows:
        groups.setdefault(None if across_settings else settings.setting(row.run), []).append(row)
    return tuple(
        BestRow(tuple(row.run for row in group), tuple(_winner(group, radius) for radius in group[0].radii))
        for group in groups.values()
    )


def _winner(rows: Sequence[RunAccuracy], radius: float) -> RunAccuracy | None:
    """The greatest share; among equals the greater clean accuracy, then the first (smallest) sigma."""
    counted = [(share, row.clean, row) for row in rows if (share := row.at(radius)) and row.clean]
    ranked = [((share.exact, clean.exact), row) for share, clean, row in counted]
    return max(ranked, key=lambda pair: pair[0])[1] if ranked else None
