"""A shard: the part of a run's images that one process certifies on its own, on a machine of its own.

A shard of a run has the specification of the whole run, and all its images in the list; which of them it
holds follows from its number alone. So shards agree on everything without talking to each other, and the rows
of one are the rows that the whole run would have.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from smoothcert.errors import InvalidInput, SpecificationMismatch

_MOST = 10**6


@dataclass(frozen=True)
class Shard:
    """Shard ``number`` of ``count``, numbered from 1; ``1/1`` is the whole run.

    The images, in the order of their indices, are dealt out in rounds: each round gives every shard one, and
    begins one shard further than the round before. So shards differ by at most one image, have their share of
    every class in data sorted by class and in data that goes through the classes in turn, and their images do
    not all begin at the same slot of a batch (``engine.blocks``), which would leave the others empty.

    Raises:
        InvalidInput: a number that is not between 1 and the count.
    """

    number: int
    count: int

    def __post_init__(self) -> None:
        if not 1 <= self.count <= _MOST:
            why = f"a run can be cut into 1 to {_MOST:,} shards"
            raise InvalidInput(f"shard {self}", why, "Write for example 3/16")
        if not 1 <= self.number <= self.count:
            raise InvalidInput(
                f"shard {self}",
                f"shards are numbered from 1 to {self.count}",
                f"Write 1/{self.count} to {self.count}/{self.count} (Slurm: --array=1-{self.count})",
            )

    @classmethod
    def parse(cls, text: str) -> Shard:
        """Read ``3/16``; ``InvalidInput`` for anything else."""
        found = re.fullmatch(r"([0-9]{1,9})/([0-9]{1,9})", text.strip())
        if found is None:
            raise InvalidInput(
                f"shard {text!r}", "it is not of the form NUMBER/COUNT", "Write for example 3/16"
            )
        return cls(int(found[1]), int(found[2]))

    @property
    def whole(self) -> bool:
        """Whether it is all there is."""
        return self.count == 1

    @property
    def directory(self) -> str:
        """The name of its directory: ``shard-03-of-16``."""
        return self.pattern.replace("*", f"{self.number:0{self._width}}")

    @property
    def pattern(self) -> str:
        """A glob pattern of the directories of all shards of its cut: ``shard-*-of-16``."""
        return f"shard-*-of-{self.count:0{self._width}}"

    @property
    def _width(self) -> int:
        return max(2, len(str(self.count)))

    def __str__(self) -> str:
        return f"{self.number}/{self.count}"

    def holds(self, rank: int) -> bool:
        """Whether the image of that rank, counted from 0 in the order of the indices, belongs to it."""
        return holder(rank, self.count) == self.number

    def ranks(self, total: int) -> Iterator[int]:
        """The ranks it holds of so many images, ascending."""
        for number, start in enumerate(range(0, total, self.count)):
            rank = start + (self.number - 1 - number) % self.count
            if rank < total:
                yield rank

    def positions(self, examples: Sequence[int]) -> Sequence[int]:
        """The positions, ascending, of its images among all images of the run, given by their indices."""
        if self.whole:
            return range(len(examples))
        order = sorted(range(len(examples)), key=examples.__getitem__)
        return sorted(order[rank] for rank in self.ranks(len(order)))

    def check_asked(self, asked: Shard, directory: Path) -> None:
        """Refuse to go on with another part of the run than this one, which a directory holds.

        Raises:
            SpecificationMismatch: it is another one.
        """
        if self == asked:
            return
        holds, wanted = (
            "the whole run" if part.whole else f"shard {part} of this run" for part in (self, asked)
        )
        repeat = "without a shard" if self.whole else f"as shard {self}"
        raise SpecificationMismatch(
            f"the run directory {directory}",
            f"holds {holds}, and {wanted} was asked for",
            f"Choose another directory, or continue it {repeat}",
        )


WHOLE = Shard(1, 1)


def holder(rank: int, count: int) -> int:
    """The number of the shard, of ``count``, that the image of a rank belongs to."""
    return (rank + rank // count) % count + 1


def as_shard(given: Shard | str | None) -> Shard:
    """A shard as callers write it: ``"3/16"``, or nothing for the whole run."""
    return WHOLE if given is None else given if isinstance(given, Shard) else Shard.parse(str(given))
