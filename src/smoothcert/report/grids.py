"""Image grids: a row an image, a column a stage (clean, noisy, one-shot, multi-step).

Figures 3-5 of Carlini et al. 2023 in kind. Sizes are in inches.
"""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from smoothcert.errors import InvalidInput
from smoothcert.report.canvas import INK, Paths, look, save, targets

if TYPE_CHECKING:
    from matplotlib.figure import Figure

RIGHT, WRONG = "#00825F", "#C44500"  # green and red, darkened for text; told apart by colour-blind readers
_CELL, _GAP, _LABEL, _HEAD, _MARGIN, _TITLE, _LINE = 1.25, 0.14, 0.25, 0.22, 0.14, 0.3, 0.165  # inches
_PIXELS = 240  # each image is enlarged to about this many pixels, so that no viewer smooths it
_LETTERS = 15


@dataclass(frozen=True)
class GridColumn:
    """One stage of every image.

    Attributes:
        title: head of the column.
        images: (N, C, H, W), C = 1 or 3, floats on [0, 1]; what lies outside is clipped for display.
        labels: what the classifier said of each, if it was asked.
        correct: whether that was right; draws a green border and a tick, or a red one and a cross.
    """

    title: str
    images: NDArray[np.floating]
    labels: Sequence[str | None] | None = None
    correct: Sequence[bool | None] | None = None


def grid(
    columns: Sequence[GridColumn], paths: Paths, *, title: str = "", caption: str = ""
) -> tuple[Path, ...]:
    """Draw images side by side, enlarged without smoothing, with predictions and borders.

    Args:
        columns: from left to right, with the same images in the same order.
        paths: one file or several, ending in .png or .svg; the same content gives the same bytes.
        title: above, printed as it is; nothing by default.
        caption: below, wrapped.

    Returns:
        The files written.

    Raises:
        InvalidInput: columns that do not fit together, images of another shape, scale or with NaN, or a path
            of another kind.

    Example:
        >>> import numpy as np
        >>> from smoothcert.report import GridColumn, grid
        >>> clean = np.zeros((2, 1, 8, 8))
        >>> grid([GridColumn("clean", clean, ["zero", "one"], [True, False])], "grid.png")  # doctest: +SKIP
    """
    files = targets(paths)
    _check(columns)
    with look():
        save(_figure(columns, title, caption), files, title=title or "Images")
    return files


def _check(columns: Sequence[GridColumn]) -> None:
    rows = len(columns[0].images) if columns else 0
    if not rows:
        raise InvalidInput(
            "a grid without images", "there is nothing to draw", "Pass at least one column and row"
        )
    for column in columns:
        images = column.images
        if images.ndim != 4 or images.shape[1] not in (1, 3) or len(images) != rows:
            why = f"has images of shape {images.shape}; needed: ({rows}, 1 or 3, H, W)"
            raise InvalidInput(f"column {column.title!r}", why, "Stack the images as (N, C, H, W)")
        if not np.issubdtype(images.dtype, np.floating) or not np.isfinite(images).all():
            why = f"has {images.dtype} images or values that are not finite"
            raise InvalidInput(
                f"column {column.title!r}", why, "Pass floats on [0, 1]; divide 8-bit values by 255"
            )
        for name, listed in (("labels", column.labels), ("correct", column.correct)):
            if listed is not None and len(listed) != rows:
                why = f"has {len(listed)} {name} for {rows} images"
                raise InvalidInput(f"column {column.title!r}", why, "Give one for each image, or None")


def _figure(columns: Sequence[GridColumn], title: str, caption: str) -> Figure:
    from matplotlib.figure import Figure

    rows = len(columns[0].images)
    labelled = any(column.labels is not None or column.correct is not None for column in columns)
    step = _CELL + (_LABEL if labelled else 0.0) + _GAP
    width = 2 * _MARGIN + len(columns) * (_CELL + _GAP) - _GAP
    below = textwrap.wrap(caption, int(width * 16))
    top = _MARGIN + _HEAD + (_TITLE if title else 0.0)
    height = top + rows * step + _LINE * len(below) + _MARGIN
    figure = Figure(figsize=(width, height))
    _text(figure, (_MARGIN, height - _MARGIN), title, fontsize=11, va="top")
    _text(figure, (_MARGIN, _MARGIN / 2), "\n".join(below), fontsize=7.5, va="bottom", linespacing=1.35)
    for j, column in enumerate(columns):
        left = _MARGIN + j * (_CELL + _GAP)
        _text(
            figure,
            (left + _CELL / 2, height - top + 0.08),
            column.title,
            fontsize=10,
            ha="center",
            va="bottom",
        )
        for i in range(rows):
            _cell(figure, column, i, (left, height - top - i * step - _CELL))
    return figure


def _text(figure: Figure, place: tuple[float, float], text: str, **style: Any) -> None:
    width, height = figure.get_size_inches()
    figure.text(place[0] / width, place[1] / height, text, **style)


def _cell(figure: Figure, column: GridColumn, row: int, corner: tuple[float, float]) -> None:
    """One image, its border and what was said of it."""
    correct = column.correct[row] if column.correct is not None else None
    label = column.labels[row] if column.labels is not None else None
    colour = INK if correct is None else RIGHT if correct else WRONG
    (x, y), (width, height) = corner, figure.get_size_inches()
    axes = figure.add_axes((x / width, y / height, _CELL / width, _CELL / height), xticks=[], yticks=[])
    axes.imshow(_enlarged(column.images[row]), cmap="gray", vmin=0.0, vmax=1.0, interpolation="nearest")
    for spine in axes.spines.values():
        spine.set(edgecolor=colour, linewidth=0.6 if correct is None else 3.0)
    sign = "" if correct is None else "✓ " if correct else "✗ "
    text = sign + _short(label or "")
    _text(figure, (x + _CELL / 2, y - 0.06), text, color=colour, fontsize=8.5, ha="center", va="top")


def _enlarged(image: NDArray[np.floating]) -> NDArray[np.float64]:
    """(C, H, W) to (H', W') or (H', W', 3): clipped, every pixel repeated."""
    factor = max(1, -(-_PIXELS // max(image.shape[1:])))
    large: NDArray[np.float64] = (
        np.clip(image.astype(np.float64), 0.0, 1.0).repeat(factor, axis=1).repeat(factor, axis=2)
    )
    return large[0] if len(large) == 1 else large.transpose(1, 2, 0)


def _short(label: str) -> str:
    return label if len(label) <= _LETTERS else label[: _LETTERS - 1] + "…"
