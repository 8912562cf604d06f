"""The rows of a run file: an image, and what some of its draws answered."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from dataclasses import dataclass

from smoothcert.tallies import Tally


@dataclass(frozen=True, slots=True)
class ExampleRow:
    """One image of the run: index in its data set, true class, name, and the SHA-256 of its pixels."""

    example: int
    label: int
    name: str
    sha256: str


@dataclass(frozen=True, slots=True)
class TallyRow:
    """What the draws ``first .. first + draws - 1`` of one stage of one image answered, and their cost."""

    example: int
    stage: str
    first: int
    draws: int
    tally: Tally
    seconds: float

    def digest(self, identity: str) -> str:
        """Hash of the row within its run: an edited or foreign row does not match."""
        text = f"{identity}|{self.example}|{self.stage}|{self.first}|{self.draws}|{self.tally.to_json()}"
        return hashlib.sha256(text.encode()).hexdigest()[:32]


def data_hash(examples: Iterable[ExampleRow]) -> str:
    """SHA-256 over index, label and pixel hash of every image, in index order."""
    whole = hashlib.sha256()
    for row in sorted(examples, key=lambda row: row.example):
        whole.update(f"{row.example} {row.label} {row.sha256}\n".encode())
    return whole.hexdigest()
