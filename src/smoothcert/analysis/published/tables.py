"""Read the TOML files of this folder."""

from __future__ import annotations

import re
import sys
from dataclasses import dataclass
from decimal import Decimal
from functools import cache
from importlib import resources
from typing import Any, Literal

from smoothcert.analysis.text import TextTable
from smoothcert.errors import UnknownName

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

Kind = Literal["best over sigma", "per sigma", "accuracy"]
_CELL = re.compile(r"(?:\((?P<clean>[\d.]+)\))?(?P<value>[\d.]+)(?P<best>\*?)")


@dataclass(frozen=True)
class PublishedCell:
    """One cell.

    Attributes:
        printed: as it stands in the paper; "-" or empty where the paper has no figure.
        value: accuracy in per cent; ``None`` where there is none.
        clean: clean accuracy in per cent, where printed in parentheses.
        best: whether the paper marks the cell as the best of its column.
    """

    printed: str
    value: float | None
    clean: float | None
    best: bool


@dataclass(frozen=True)
class PublishedRow:
    """One row: what identifies it, by the names of the table's keys, and its cells."""

    keys: tuple[tuple[str, str], ...]
    cells: tuple[PublishedCell, ...]

    def key(self, name: str) -> str:
        """The value of one key, such as ``method``; empty if the table has no such key."""
        return dict(self.keys).get(name, "")


@dataclass(frozen=True)
class PublishedTable:
    """A table of a paper.

    Attributes:
        name: ``paper:table``; ``aliases`` are other names of it.
        title: what the paper says it shows.
        citation: where it stands.
        dataset: the images.
        kind: "best over sigma" (clean accuracy in parentheses), "per sigma" (certified accuracy, one row a
            sigma), or "accuracy" (columns are not radii).
        unit: "percent" or "fraction", of the cells as printed.
        keys: what identifies a row, in order.
        column_key: what the columns are: "epsilon" (an L2 radius on pixels in [0, 1]) or "sigma".
        columns: the column heads as printed.
        notes: where the text is doubtful or disagrees with another table.
    """

    name: str
    aliases: tuple[str, ...]
    title: str
    citation: str
    dataset: str
    kind: Kind
    unit: Literal["percent", "fraction"]
    keys: tuple[str, ...]
    column_key: str
    columns: tuple[str, ...]
    notes: tuple[str, ...]
    rows: tuple[PublishedRow, ...]

    @property
    def radii(self) -> tuple[float, ...]:
        """The columns as numbers."""
        return tuple(float(column) for column in self.columns)

    def table(self) -> TextTable:
        """As printed; best cells that the paper marks are stressed."""
        header = (*(key.replace("_", " ") for key in self.keys), *self.columns)
        rows = tuple(
            (*(v for _, v in row.keys), *(c.printed.rstrip("*") for c in row.cells)) for row in self.rows
        )
        first = len(self.keys)
        strong = {
            (i, first + j) for i, row in enumerate(self.rows) for j, c in enumerate(row.cells) if c.best
        }
        caption = " ".join([f"{self.title} {self.citation}.", *self.notes])
        return TextTable(header, rows, caption, frozenset(strong))

    def to_markdown(self) -> str:
        """The table as GitHub markdown."""
        return self.table().to_markdown()

    def __str__(self) -> str:
        return self.to_markdown()


def names() -> tuple[str, ...]:
    """Every name ``load`` knows, aliases included."""
    return tuple(sorted(_known()))


def load(name: str) -> PublishedTable:
    """A published table, such as ``carlini2023:cifar10`` (its table 2) or ``carlini2023:table6a``.

    Raises:
        UnknownName: the message lists what exists.
    """
    known = _known()
    if name not in known:
        raise UnknownName.among("published table", name, known)
    return known[name]


@cache
def _known() -> dict[str, PublishedTable]:
    folder = resources.files("smoothcert.analysis.published")
    files = (file for file in folder.iterdir() if file.name.endswith(".toml"))
    tables = [_table(tomllib.loads(file.read_text(encoding="utf-8"))) for file in files]
    return {name: table for table in tables for name in (table.name, *table.aliases)}


def _table(data: dict[str, Any]) -> PublishedTable:
    keys, unit = tuple(data["keys"]), data["unit"]
    rows = tuple(_row(row, keys, len(data["columns"]), unit) for row in data["rows"])
    listed: dict[str, Any] = {key: tuple(data.get(key, ())) for key in ("aliases", "columns", "notes")}
    single: dict[str, Any] = {
        key: data[key] for key in ("name", "title", "citation", "dataset", "kind", "unit", "column_key")
    }
    return PublishedTable(**single, **listed, keys=keys, rows=rows)


def _row(row: dict[str, Any], keys: tuple[str, ...], width: int, unit: str) -> PublishedRow:
    cells = tuple(_cell(printed, unit) for printed in row["cells"])
    assert len(cells) == width, f"{row} does not fit its table"
    return PublishedRow(tuple((key, row[key]) for key in keys), cells)


def _cell(printed: str, unit: str) -> PublishedCell:
    if printed in ("-", ""):
        return PublishedCell(printed, None, None, False)
    match = _CELL.fullmatch(printed)
    assert match, f"{printed!r} is not a cell"
    scale = 100 if unit == "fraction" else 1
    value, clean = (
        None if match[g] is None else float(Decimal(match[g]) * scale) for g in ("value", "clean")
    )
    return PublishedCell(printed, value, clean, bool(match["best"]))
