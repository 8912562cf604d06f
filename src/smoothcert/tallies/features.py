"""The features of a few draws themselves: those of a pilot, from which an image's plan is made."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from smoothcert.errors import InvalidInput
from smoothcert.tallies.packing import packed, unpacked

Piece = tuple[int, npt.NDArray[np.int64]]
_UNIT = 1 << 15  # the steps in which a coordinate of a unit vector is stored
HALF_STEP = 0.5 / _UNIT
"""How far a stored coordinate is from what the encoder answered, at most."""


@dataclass(frozen=True, eq=False)
class Features:
    """Unit features of some draws in steps of 2^-15, in the order of the draws whatever order they came in.

    Attributes:
        pieces: pairs (first draw, steps ``(draws, k)``), ascending.
    """

    pieces: tuple[Piece, ...]

    @classmethod
    def of(cls, first: int, features: npt.NDArray[np.float64]) -> Features:
        """Those of consecutive draws: rows ``(draws, k)`` of the unit ball."""
        return cls(((first, np.rint(features * _UNIT).astype(np.int64)),))

    @property
    def total(self) -> int:
        """Number of draws."""
        return sum(len(steps) for _, steps in self.pieces)

    @property
    def nonfinite(self) -> int:
        """Draws whose feature was not finite or had no direction."""
        return sum(int((steps == 0).all(axis=1).sum()) for _, steps in self.pieces)

    def rows(self) -> npt.NDArray[np.float64]:
        """The features ``(draws, k)``."""
        return np.concatenate([steps for _, steps in self.pieces]).astype(np.float64) / _UNIT

    def __add__(self, other: object) -> Features:
        if not isinstance(other, Features):
            return NotImplemented
        pieces = sorted((*self.pieces, *other.pieces), key=lambda piece: piece[0])
        ends = [first + len(steps) for first, steps in pieces]
        widths = {steps.shape[1] for _, steps in pieces}
        if len(widths) > 1 or any(end > first for end, (first, _) in zip(ends, pieces[1:], strict=False)):
            raise InvalidInput(
                f"pilot features of {sorted(widths)} numbers from draws {[first for first, _ in pieces]}",
                "they overlap or have different dimensions",
                "Add each draw once, of one image and one encoder",
            )
        return Features(tuple(_joined(pieces)))

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Features) and self._key == other._key

    def __hash__(self) -> int:
        return hash(self._key)

    @property
    def _key(self) -> tuple[tuple[int, tuple[int, ...], bytes], ...]:
        return tuple((first, steps.shape, steps.tobytes()) for first, steps in self.pieces)

    def to_json(self) -> str:
        """Canonical JSON, the form stored in a run file."""
        stored = [[first, steps.shape[1], packed(steps.ravel())] for first, steps in self.pieces]
        return json.dumps({"features": stored}, separators=(",", ":"))

    @classmethod
    def from_plain(cls, stored: dict[str, Any]) -> Features:
        """Read what ``to_json`` wrote."""
        pieces = tuple(
            (int(first), unpacked(text).reshape(-1, int(width))) for first, width, text in stored["features"]
        )
        if not pieces or any(np.abs(steps).max(initial=0) > _UNIT for _, steps in pieces):
            raise InvalidInput(
                "pilot features", "are outside the unit ball", "Restore the run file from a copy"
            )
        return cls(pieces)


def _joined(pieces: list[Piece]) -> Iterator[Piece]:
    """Pieces that continue each other as one, so that equal draws are equal tallies."""
    first, parts = pieces[0][0], [pieces[0][1]]
    for start, steps in pieces[1:]:
        if start != first + sum(map(len, parts)):
            yield first, np.concatenate(parts)
            first, parts = start, []
        parts.append(steps)
    yield first, np.concatenate(parts)
