"""What is observed and stored: counts of draws. Frozen, addable, mergeable. Imports errors only."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from smoothcert.errors import InvalidInput

_COUNTED = 10_000  # classes up to which labels are counted in a table


@dataclass(frozen=True)
class Votes:
    """How often each class was the model's answer, and how often the answer was not finite.

    A non-finite answer (NaN or infinity among the scores) is a draw that no class won. It stays in ``total``,
    so it always counts against the certificate.

    Attributes:
        counts: pairs (class, number of draws), sorted by class, zero counts left out.
        nonfinite: number of draws with a non-finite answer.
    """

    counts: tuple[tuple[int, int], ...] = ()
    nonfinite: int = 0

    def __post_init__(self) -> None:
        classes = [label for label, _ in self.counts]
        sound = (
            classes == sorted(set(classes))
            and all(label >= 0 and count > 0 for label, count in self.counts)
            and self.nonfinite >= 0
        )
        if not sound:
            raise InvalidInput(
                f"counts {self.counts!r}, nonfinite {self.nonfinite!r}",
                "a tally needs distinct sorted classes >= 0 and positive counts",
                "Build it with Votes.of({class: count})",
            )

    @classmethod
    def of(cls, counts: Mapping[int, int], nonfinite: int = 0) -> Votes:
        """Build a tally from a mapping class -> count; zero counts are dropped."""
        return cls(tuple(sorted((int(c), int(k)) for c, k in counts.items() if k)), int(nonfinite))

    @classmethod
    def from_labels(cls, labels: npt.ArrayLike) -> Votes:
        """Count labels, where a negative label stands for a non-finite answer."""
        given = np.asarray(labels, dtype=np.int64).reshape(-1)
        named = given[given >= 0]
        if named.size and named.max() < _COUNTED:  # several times as fast as sorting, for the usual few draws
            counts = np.bincount(named)
            found = np.flatnonzero(counts)
            counts = counts[found]
        else:
            found, counts = np.unique(named, return_counts=True)
        return cls(tuple(zip(found.tolist(), counts.tolist(), strict=True)), given.size - named.size)

    @property
    def total(self) -> int:
        """Number of draws, non-finite ones included."""
        return sum(count for _, count in self.counts) + self.nonfinite

    def count(self, label: int | None) -> int:
        """Number of draws that answered ``label`` (0 for ``None``)."""
        return dict(self.counts).get(label, 0) if label is not None else 0

    def ranked(self) -> list[tuple[int, int]]:
        """Pairs (class, count), most frequent first; ties go to the smaller class."""
        return sorted(self.counts, key=lambda pair: (-pair[1], pair[0]))

    def top(self) -> int | None:
        """The most frequent class, or ``None`` when no draw had a finite answer."""
        ranked = self.ranked()
        return ranked[0][0] if ranked else None

    def strongest_rival(self, label: int) -> int:
        """The largest count among the other classes, the non-finite answers being one of them."""
        return max([self.nonfinite, *(count for c, count in self.counts if c != label)])

    def __add__(self, other: Votes) -> Votes:
        if not isinstance(other, Votes):
            return NotImplemented
        if not other.counts or not self.counts:
            return Votes(self.counts or other.counts, self.nonfinite + other.nonfinite)
        merged = dict(self.counts)
        for label, count in other.counts:
            merged[label] = merged.get(label, 0) + count
        return Votes(tuple(sorted(merged.items())), self.nonfinite + other.nonfinite)

    def to_json(self) -> str:
        """Sparse canonical JSON, the form stored in a run file."""
        stored: dict[str, int] = {str(label): count for label, count in self.counts}
        if self.nonfinite:
            stored["nonfinite"] = self.nonfinite
        return json.dumps(stored, separators=(",", ":"))

    @classmethod
    def from_json(cls, text: str) -> Votes:
        """Read what ``to_json`` wrote; anything else raises ``InvalidInput``."""
        try:
            stored = json.loads(text)
            nonfinite = stored.pop("nonfinite", 0)
            if not all(type(v) is int for v in [nonfinite, *stored.values()]):
                raise TypeError("counts must be integers")
            return cls.of({int(label): count for label, count in stored.items()}, nonfinite)
        except (ValueError, TypeError, AttributeError) as error:
            raise InvalidInput(
                f"tally {text[:80]!r}", f"is not a vote count ({error})", "Restore the run file from a copy"
            ) from error
