"""Tables of text and their writers: markdown, LaTeX, CSV. Nothing here knows what the cells mean."""

from __future__ import annotations

import csv
import io
from dataclasses import dataclass
from decimal import Decimal

_LATEX = {
    "\\": r"\textbackslash{}",
    "{": r"\{",
    "}": r"\}",
    "&": r"\&",
    "%": r"\%",
    "$": r"\$",
    "#": r"\#",
    "_": r"\_",
    "~": r"\textasciitilde{}",
    "^": r"\textasciicircum{}",
    "<": r"\textless{}",
    ">": r"\textgreater{}",
    "|": r"\textbar{}",
    "[": "{[}",  # a row that starts with a bracket would be read as the option of the line break before it
    "]": "{]}",
    "σ": r"$\sigma$",  # noqa: RUF001 - the letter the papers print
    "ε": r"$\varepsilon$",
    "∈": r"$\in$",
    "≫": r"$\gg$",
    "≥": r"$\ge$",
}


@dataclass(frozen=True)
class TextTable:
    """Header, rows, caption; ``strong`` holds the (row, column) of cells to stress."""

    header: tuple[str, ...]
    rows: tuple[tuple[str, ...], ...]
    caption: str
    strong: frozenset[tuple[int, int]] = frozenset()

    def to_markdown(self) -> str:
        """A GitHub table, columns aligned so that it reads well in a terminal, caption below."""
        cells = [
            [_markdown(cell, (i, j) in self.strong) for j, cell in enumerate(row)]
            for i, row in enumerate([self.header, *self.rows], -1)
        ]
        widths = [max(3, *(len(row[j]) for row in cells)) for j in range(len(self.header))]
        lines = [
            " | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)) for row in cells
        ]
        lines.insert(1, " | ".join("-" * width for width in widths))
        return "".join(f"| {line} |\n" for line in lines) + f"\n{_markdown(self.caption, False)}\n"

    def to_latex(self) -> str:
        """A ``table`` float; the document needs the package booktabs."""
        rows = [
            [_latex(cell, (i, j) in self.strong) for j, cell in enumerate(row)]
            for i, row in enumerate(self.rows)
        ]
        lines = [
            "\\begin{table}",
            "\\centering",
            f"\\caption{{{_latex(self.caption, False)}}}",
            f"\\begin{{tabular}}{{{'l' * len(self.header)}}}",
            "\\toprule",
            " & ".join(_latex(cell, False) for cell in self.header) + r" \\",
            "\\midrule",
            *(" & ".join(row) + r" \\" for row in rows),
            "\\bottomrule",
            "\\end{tabular}",
            "\\end{table}",
        ]
        return "\n".join(lines) + "\n"

    def to_csv(self) -> str:
        """Header and rows as they are printed, without the caption."""
        return write_csv([self.header, *self.rows])


def write_csv(rows: list[tuple[str, ...]]) -> str:
    """Comma-separated, quoted where needed, one newline a row."""
    stream = io.StringIO()
    csv.writer(stream, lineterminator="\n").writerows(rows)
    return stream.getvalue()


def _one_line(text: str) -> str:
    return " ".join("".join(c if c.isprintable() else " " for c in text).split())


def _markdown(text: str, strong: bool) -> str:
    escaped = "".join("\\" + c if c in "\\|`*<" else c for c in _one_line(text)).replace("](", "]\\(")
    return f"**{escaped}**" if strong else escaped


def _latex(text: str, strong: bool) -> str:
    escaped = "".join(_LATEX.get(c, c) for c in _one_line(text))
    return f"\\textbf{{{escaped}}}" if strong else escaped


def format_radius(radius: float) -> str:
    """Shortest exact decimal: ``0``, ``0.25``, ``1``."""
    return f"{Decimal(repr(radius)).normalize():f}"
