"""SHAPES (Andreas et al. 2016): 3x3 grids of shapes and questions about them, read, parsed and made anew.

A grid is nine cells of 10x10 pixels, each empty or one of {circle, square, triangle} in {red, green, blue}, in
some size. A question asks whether something holds: "is a red shape left of a circle", also over two steps
("left of above"), or of one thing alone ("is a red shape a circle"). The files hold only 10 questions to train
on (64 images each); ``Maker`` composes images of their cells and asks questions of the same grammar, with
answers computed from what ``parse`` read. It never sees a validation or test image.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

DATA = Path(os.environ.get("SMOOTHCERT_TEST_DATA", Path(__file__).parents[2] / "shared" / "data"))
SHAPES, COLOURS = ("circle", "square", "triangle"), ("red", "green", "blue")
STEPS = {"left": (0, -1), "right": (0, 1), "above": (-1, 0), "below": (1, 0)}
NOTHING = "nothing"
WORDS = (
    "yes",
    "no",
    "is",
    "a",
    "shape",
    *SHAPES,
    *COLOURS,
    *STEPS,
    "of",
    "?",
    ":",
    "describe",
    "colour",
    "first",
    "last",
    NOTHING,
)
_CELL = 10
EMPTY = 9
"""The number of an empty cell; others are 3 * shape + colour."""


@dataclass(frozen=True)
class Split:
    """Images ``(N, 3, 30, 30)`` uint8, questions as in the files, answers ``(N,)`` bool.

    ``where``, of made ones only: in which cells the first thing is so placed, ``(N, 9)`` bool.
    """

    images: Any
    questions: tuple[str, ...]
    answers: Any
    where: Any = None


def read(split: str, data: Path | None = None) -> Split:
    """``train`` (640), ``val`` or ``test`` (1,024) as published, channels turned from BGR to RGB."""
    with np.load((data or DATA) / "shapes_vqa" / "shapes_vqa.npz", allow_pickle=False) as stored:
        images = np.ascontiguousarray(stored[f"{split}_images"][..., ::-1].transpose(0, 3, 1, 2))
        return Split(images, tuple(map(str, stored[f"{split}_queries"])), stored[f"{split}_answers"])


def cells(images: Any) -> Any:
    """``(N, 3, 30, 30)`` -> ``(N, 9, 3, 10, 10)``, row by row."""
    grid = images.reshape(-1, 3, 3, _CELL, 3, _CELL).transpose(0, 2, 4, 1, 3, 5)
    return grid.reshape(-1, 9, 3, _CELL, _CELL)


def assembled(parts: Any) -> Any:
    """The inverse of ``cells``."""
    grid = parts.reshape(-1, 3, 3, 3, _CELL, _CELL).transpose(0, 3, 1, 4, 2, 5)
    return grid.reshape(-1, 3, 3 * _CELL, 3 * _CELL)


def parse(cell: Any) -> int:
    """What one cell ``(3, 10, 10)`` shows: its brightest channel, and the outline of what is not black.

    A smoothed square is the product of its rows and its columns; a triangle is wider below than above.
    """
    grey = cell.max(axis=0).astype(float)
    if not grey.any():
        return EMPTY
    first, second = np.linalg.svd(grey, compute_uv=False)[:2]
    widths = (grey[grey.any(axis=1)] > 0).sum(axis=1)
    shape = "square" if second < 0.03 * first else "triangle" if widths[-1] - widths[0] > 2 else "circle"
    return 3 * SHAPES.index(shape) + int(cell.reshape(3, -1).max(axis=1).argmax())


def parsed(images: Any) -> Any:
    """``(N, 9)`` numbers of what the cells show."""
    return np.array([[parse(cell) for cell in grid] for grid in cells(images)])


def answer(question: str, grid: Any) -> bool:
    """Whether the question holds for what ``parsed`` read of one image, ``(9,)``."""
    return bool(_places(_terms(question), grid).any())


def questions() -> tuple[str, ...]:
    """Every question of the grammar: things, with none, one or two steps between them."""
    things = [*SHAPES, *COLOURS]
    ways = [steps for count in (1, 2) for steps in itertools.product(STEPS, repeat=count)]
    related = [
        " ".join(("is", _article(one), *_way(steps), _article(other)))
        for one in things
        for steps in ways
        for other in things
    ]
    alone = [f"is {_article(one)} {_article(shape)}" for one in things for shape in SHAPES]
    return tuple(related + alone + [f"is {_article(one)} {colour}" for one in things for colour in COLOURS])


def _way(steps: Sequence[str]) -> tuple[str, ...]:
    """Steps as they are said."""
    return tuple(f"{step} of" if step in ("left", "right") else step for step in steps)


def _article(thing: str) -> str:
    return f"a {thing}" if thing in SHAPES else f"a {thing} shape"


def described(grid: Any) -> str:
    """The nine cells in words, two for each: a colour and a shape, or nothing twice."""
    return " ".join(
        f"{NOTHING} {NOTHING}" if kind == EMPTY else f"{COLOURS[kind % 3]} {SHAPES[kind // 3]}"
        for kind in grid
    )


class Maker:
    """New images out of the cells of given ones, and questions that are true half of the time.

    Args:
        images: whose cells are used, ``(N, 3, 30, 30)`` uint8: the training images and no others.
    """

    def __init__(self, images: Any) -> None:
        self._cells = cells(images).reshape(-1, 3, _CELL, _CELL)
        self._kinds = parsed(images).reshape(-1)
        self._questions = questions()
        self._terms = [_terms(question) for question in self._questions]
        steps = np.array([len(steps) for _, steps, _ in self._terms])
        self._by_steps = [np.flatnonzero(steps == count) for count in range(3)]

    def images(self, size: int, rng: np.random.Generator) -> tuple[Any, Any]:
        """Images ``(size, 3, 30, 30)`` and kinds ``(size, 9)``; cells may be mirrored, which changes no kind."""
        chosen = rng.integers(len(self._cells), size=(size, 9))
        turned = rng.random((size, 9)) < 0.5
        parts = self._cells[chosen]
        return assembled(np.where(turned[:, :, None, None, None], parts[..., ::-1], parts)), self._kinds[
            chosen
        ]

    def looks(self, size: int, rng: np.random.Generator) -> tuple[Any, tuple[str, ...], Any]:
        """Images, what to look for from each cell, and the words for it ``(size, 9)``.

        "colour left of above": what colour has the thing that this cell is left of above, or nothing.
        "left of above a square": yes where this cell is so placed. "last a circle left of above a square" is
        the same of a whole question, and "first a circle left of above a square": yes where a circle is.
        """
        images, kinds = self.images(size, rng)
        seen = [
            self._look(grid, int(kind), rng)
            for grid, kind in zip(kinds, rng.integers(4, size=size), strict=True)
        ]
        return images, tuple(text for text, _ in seen), np.stack([words for _, words in seen])

    def _look(self, grid: Any, kind: int, rng: np.random.Generator) -> tuple[str, Any]:
        steps = tuple(rng.choice(list(STEPS), size=rng.integers(3)))
        one, other = rng.choice((*SHAPES, *COLOURS), size=2)
        if kind == 0:
            name, things = (("shape", SHAPES), ("colour", COLOURS))[rng.integers(2)]
            words = np.full(9, NOTHING, dtype=object)
            for thing in things:
                words[_moved(_holds(thing, grid), steps)] = thing
            return " ".join((name, *_way(steps))), words
        here = _holds(one, grid) if kind == 1 else _moved(_holds(other, grid), steps)
        said = (*_way(steps), _article(other))
        text = said if kind == 3 else ("first" if kind == 1 else "last", _article(one), *said)
        return " ".join(text), np.where(here, "yes", "no").astype(object)

    def batch(self, size: int, rng: np.random.Generator) -> Split:
        """New images, a question for each, and its answer.

        About half of the answers is yes; as many questions have no step as one or two.
        """
        images, kinds = self.images(size, rng)
        wanted = rng.random(size) < 0.5
        asked = [self._one(grid, bool(want), rng) for grid, want in zip(kinds, wanted, strict=True)]
        where = np.array([places for _, places in asked])
        return Split(images, tuple(text for text, _ in asked), where.any(axis=1), where)

    def _one(self, grid: Any, wanted: bool, rng: np.random.Generator) -> tuple[str, Any]:
        places = np.zeros(9, bool)
        for number in rng.choice(self._by_steps[rng.integers(3)], size=20):
            places = _places(self._terms[number], grid)
            if bool(places.any()) == wanted:
                break
        return self._questions[number], places


def _terms(question: str) -> tuple[str, tuple[str, ...], str]:
    words = [word for word in question.split() if word not in ("is", "a", "of", "shape")]
    return words[0], tuple(words[1:-1]), words[-1]


def _places(terms: tuple[str, tuple[str, ...], str], grid: Any) -> Any:
    """The cells ``(9,)`` that show the first thing, where the steps say that the last one is."""
    first, steps, last = terms
    return _holds(first, grid) & _moved(_holds(last, grid), steps)


def _holds(thing: str, grid: Any) -> Any:
    """Which of the nine cells show it."""
    full = grid != EMPTY
    return full & (grid // 3 == SHAPES.index(thing) if thing in SHAPES else grid % 3 == COLOURS.index(thing))


def _moved(mask: Any, steps: Sequence[str]) -> Any:
    """Cells from which the steps, the last one first, lead from a cell of the mask to its neighbours."""
    grid = mask.reshape(3, 3)
    for step in reversed(steps):
        down, right = STEPS[step]
        padded = np.pad(grid, 1)
        grid = padded[1 - down : 4 - down, 1 - right : 4 - right]
    return grid.reshape(-1)
