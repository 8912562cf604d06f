"""The images of a run in some 60 bytes each, in the order of the data set: for runs of millions."""

from __future__ import annotations

import hashlib
import itertools
import operator
from array import array
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from typing import overload

from smoothcert.runlog.database import edited
from smoothcert.runlog.rows import ExampleRow
from smoothcert.runlog.shard import Shard
from smoothcert.runlog.store import RunReader

_CHUNK = 1 << 13
_HASH = 32  # bytes of a SHA-256


class Roster(Sequence[ExampleRow]):
    """A list of ``ExampleRow`` kept in columns; a row is made when it is asked for.

    Attributes:
        examples: stream names of the images, in the order of the data set.
        ascending: whether they ascend in that order.
    """

    def __init__(self, rows: Iterable[ExampleRow] = ()) -> None:
        self.examples, self._labels = array("q"), array("q")
        self._pixels, self._names, self._ends = bytearray(), bytearray(), array("q")
        for row in rows:
            self.examples.append(row.example)
            self._labels.append(row.label)
            self._pixels += bytes.fromhex(row.sha256)
            self._names += row.name.encode()
            self._ends.append(len(self._names))
        self._settle()

    @classmethod
    def read(cls, run: RunReader) -> Roster:
        """The images of a run file, in index order and without their names.

        Raises:
            RunFileError: a number, label or hash that is none.
        """
        roster = cls()
        try:
            for rows in run.image_columns():
                examples, labels, pixels = zip(*rows, strict=True)
                roster.examples.extend(examples)
                roster._labels.extend(labels)
                roster._pixels += bytes.fromhex("".join(pixels))
        except (TypeError, ValueError, OverflowError) as error:
            what = f"an image's number, label or hash is none: {error}"
            raise edited(run.directory, what) from error
        roster._settle()
        return roster

    def _settle(self) -> None:
        following = itertools.islice(self.examples, 1, None)
        self.ascending = all(map(operator.lt, self.examples, following))
        size = len(self.examples)
        self._plain = self.ascending and size > 0 and (self.examples[0], self.examples[-1]) == (0, size - 1)

    @cached_property
    def order(self) -> Sequence[int]:
        """The positions by ascending stream name."""
        if self.ascending:
            return range(len(self))
        return array("q", sorted(range(len(self)), key=self.examples.__getitem__))

    @property
    def named(self) -> bool:
        """Whether it was made of the images themselves: a run file's list comes without their names."""
        return bool(self._ends)

    @cached_property
    def unique(self) -> bool:
        """Whether no two images share a stream name."""
        return self.ascending or len(set(self.examples)) == len(self)

    @cached_property
    def sha256(self) -> str:
        """``data_hash`` of the rows."""
        whole, order = hashlib.sha256(), self.order
        for start in range(0, len(order), _CHUNK):
            text = "".join(
                f"{self.examples[k]} {self._labels[k]} {self._pixels[_HASH * k : _HASH * k + _HASH].hex()}\n"
                for k in order[start : start + _CHUNK]
            )
            whole.update(text.encode())
        return whole.hexdigest()

    @property
    def labels(self) -> Mapping[int, int]:
        """Stream name -> true class."""
        return _ByName(self, self._labels)

    def labels_of(self, shard: Shard) -> Mapping[int, int]:
        """The same, of the images that a shard certifies."""
        if shard.whole:
            return self.labels
        return {self.examples[k]: self._labels[k] for k in shard.positions(self.examples)}

    def position(self, example: int) -> int:
        """The place of an image in the data set; ``KeyError`` for one that is not of the run."""
        if self._plain:
            if 0 <= example < len(self):
                return example
            raise KeyError(example)
        order = self.order
        if self.ascending:
            rank = bisect_left(self.examples, example)
        else:
            rank = bisect_left(order, example, key=self.examples.__getitem__)
        if rank < len(order) and self.examples[order[rank]] == example:
            return order[rank]
        raise KeyError(example)

    def place(self, example: int) -> tuple[int, ExampleRow]:
        """The place of an image in the data set, and its row."""
        position = self.position(example)
        return position, self[position]

    def __len__(self) -> int:
        return len(self.examples)

    @overload
    def __getitem__(self, position: int) -> ExampleRow: ...
    @overload
    def __getitem__(self, position: slice) -> list[ExampleRow]: ...
    def __getitem__(self, position: int | slice) -> ExampleRow | list[ExampleRow]:
        if isinstance(position, slice):
            return [self[k] for k in range(*position.indices(len(self)))]
        k = range(len(self))[position]
        name = self._names[self._ends[k - 1] if k else 0 : self._ends[k]] if self._ends else b""
        pixels = self._pixels[_HASH * k : _HASH * k + _HASH].hex()
        return ExampleRow(self.examples[k], self._labels[k], name.decode(), pixels)

    def __iter__(self) -> Iterator[ExampleRow]:
        return map(self.__getitem__, range(len(self)))


class _ByName(Mapping[int, int]):
    """A column of a roster by stream name."""

    def __init__(self, roster: Roster, column: Sequence[int]) -> None:
        self._roster, self._column = roster, column

    def __getitem__(self, example: int) -> int:
        return self._column[self._roster.position(example)]

    def __len__(self) -> int:
        return len(self._column)

    def __iter__(self) -> Iterator[int]:
        return iter(self._roster.examples)
