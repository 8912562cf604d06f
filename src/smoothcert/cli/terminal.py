"""What the verbs print: tables on a terminal, markdown in a pipe."""

from __future__ import annotations

import sys
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from smoothcert.analysis.text import TextTable


def say(text: str = "", *, quiet: bool = False) -> None:
    """A line for the person at the terminal, on stderr so that results alone reach a pipe."""
    if not quiet:
        print(text, file=sys.stderr)


def show(table: TextTable) -> None:
    """A table on stdout: drawn on a terminal, markdown elsewhere."""
    if not sys.stdout.isatty():
        print(table.to_markdown())
        return
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    drawn = Table(header_style="bold")
    for k, name in enumerate(table.header):
        drawn.add_column(Text(name), justify="left" if k == 0 else "right")
    for i, row in enumerate(table.rows):
        drawn.add_row(
            *(Text(cell, style="bold green" if (i, j) in table.strong else "") for j, cell in enumerate(row))
        )
    console = Console()
    console.print(drawn)
    console.print(Text(table.caption, style="dim"), width=min(console.width, 110))
