"""A run beside a published table."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from smoothcert.analysis import settings
from smoothcert.analysis.published import PublishedCell, PublishedTable, load, names
from smoothcert.analysis.rows import MISSING, cell
from smoothcert.analysis.text import TextTable, format_radius
from smoothcert.errors import InvalidInput
from smoothcert.runlog.results import Results

if TYPE_CHECKING:
    from smoothcert.analysis.accuracy import CertifiedAccuracy


@dataclass(frozen=True)
class Beside:
    """Published rows, then the run's, over the radii of both; "-" where one side has no figure."""

    published: PublishedTable
    text: TextTable

    def to_markdown(self) -> str:
        """The table for a README or a terminal."""
        return self.text.to_markdown()

    def to_latex(self) -> str:
        """The table for a paper (package booktabs)."""
        return self.text.to_latex()

    def to_csv(self) -> str:
        """Header and rows as printed."""
        return self.text.to_csv()

    def to_json(self) -> str:
        """Caption, and one object per row as printed."""
        rows = [dict(zip(self.text.header, row, strict=True)) for row in self.text.rows]
        return json.dumps({"caption": self.text.caption, "rows": rows}, indent=2)

    def __str__(self) -> str:
        return self.to_markdown()


def beside(measured: CertifiedAccuracy, name: str, *, across_settings: bool = False) -> Beside:
    """Align a published table and a measured one by radius; see ``CertifiedAccuracy.against``."""
    published = load(name)
    if published.column_key != "epsilon":
        usable = ", ".join(known for known in names() if load(known).column_key == "epsilon")
        raise InvalidInput(name, "has noise levels, not radii, in its columns", f"Choose one of: {usable}")
    radii = tuple(sorted({*published.radii, *measured.radii}))
    own = _own_rows(measured, published, radii, across_settings)
    header = (*(key.replace("_", " ") for key in published.keys), *(f"r = {format_radius(r)}" for r in radii))
    text = TextTable(header, (*_published_rows(published, radii), *own), _caption(measured, published))
    return Beside(published, text)


def _published_rows(published: PublishedTable, radii: Sequence[float]) -> list[tuple[str, ...]]:
    rows = []
    for row in published.rows:
        printed = {r: _printed(c, published) for r, c in zip(published.radii, row.cells, strict=True)}
        rows.append((*(value for _, value in row.keys), *(printed.get(r, MISSING) for r in radii)))
    return rows


def _printed(cell: PublishedCell, published: PublishedTable) -> str:
    """As printed, except that a fraction becomes per cent with the digits it has."""
    if cell.value is None or published.unit == "percent":
        return cell.printed or MISSING
    return f"{cell.value:g}" + "*" * cell.best


def _own_rows(
    measured: CertifiedAccuracy, published: PublishedTable, radii: Sequence[float], across_settings: bool
) -> list[tuple[str, ...]]:
    """The best row, or one row per sigma, as the published table has it."""
    if published.kind == "per sigma":
        facts = settings.differing([row.run for row in measured.rows])
        rows = [
            (settings.sigma(row.run) + _label(row.run, facts), [cell(s, intervals=False) for s in row.shares])
            for row in measured.rows
        ]
    else:
        best = measured.best(across_settings=across_settings)
        rows = [
            (row.method + _label(row.runs[0], best.differing()), best.cell_texts(row, intervals=False))
            for row in best.rows
        ]
    blank = [MISSING] * (len(published.keys) - 1)
    own = [(label, dict(zip(measured.radii, texts, strict=True))) for label, texts in rows]
    return [(label, *blank, *(texts.get(r, MISSING) for r in radii)) for label, texts in own]


def _label(run: Results, facts: Sequence[settings.Fact]) -> str:
    """`` (this run; images 427 of 500)``."""
    return f" ({'; '.join(['this run', *(f'{name} {read(run)}' for name, read in facts)])})"


def _caption(measured: CertifiedAccuracy, published: PublishedTable) -> str:
    unit = " (fractions there, per cent here)" if published.unit == "fraction" else ""
    theirs = f"Published rows: {published.citation}, {published.dataset}{unit}."
    return " ".join([theirs, f"This run: {measured.caption}", *published.notes])
