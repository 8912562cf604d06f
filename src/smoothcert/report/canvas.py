"""The drawing surface: one look for all pictures, and files that are whole and the same every time.

matplotlib is imported inside the functions; pyplot and its global state never are.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from smoothcert.errors import InvalidInput

if TYPE_CHECKING:
    from matplotlib.figure import Figure

Paths = str | Path | Sequence[str | Path]

# Okabe and Ito 2008: told apart by readers of every kind of colour vision; without yellow, too pale on white
PALETTE = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
INK, FAINT = "#222222", "#DDDDDD"
DOTS_PER_INCH = 200
_LOOK: dict[Any, Any] = {
    "font.family": ["DejaVu Sans", "sans-serif"],
    "text.color": INK,
    "axes.labelcolor": INK,
    "axes.edgecolor": INK,
    "xtick.color": INK,
    "ytick.color": INK,
    "text.parse_math": False,  # a dollar sign in a run's name is a dollar sign
    "svg.fonttype": "none",  # text stays text: searchable, and read aloud by screen readers
    "svg.hashsalt": "smoothcert",  # the same picture has the same identifiers
}


@contextmanager
def look() -> Iterator[None]:
    """Draw and save inside this, whatever the user's own matplotlib settings are."""
    import matplotlib
    import matplotlib.style

    with matplotlib.style.context("default"), matplotlib.rc_context(_LOOK):
        yield


def targets(paths: Paths) -> tuple[Path, ...]:
    """The files to write; ``InvalidInput`` for an ending other than .png or .svg, before any drawing."""
    listed = [paths] if isinstance(paths, str | Path) else list(paths)
    found = tuple(Path(path) for path in listed)
    odd = [str(path) for path in found if path.suffix.lower() not in (".png", ".svg")]
    if odd or not found:
        given = f"path {', '.join(odd) or '(none)'}"
        raise InvalidInput(given, "pictures are PNG or SVG", "Write curve.png or curve.svg")
    return found


def save(figure: Figure, paths: Sequence[Path], *, title: str) -> None:
    """Write every file whole or not at all, without dates, so that equal pictures are equal files."""
    for path in paths:
        kind = path.suffix.lower().removeprefix(".")
        undated = {"Date": None, "Creator": None} if kind == "svg" else {"Software": None}
        scratch = path.with_name(f".{path.name}.{os.getpid()}.tmp")
        try:
            figure.savefig(scratch, format=kind, dpi=DOTS_PER_INCH, metadata={"Title": title, **undated})
            scratch.replace(path)
        finally:
            scratch.unlink(missing_ok=True)
