"""The tables of a run file, and a new one: written beside its place, then moved there, or not at all."""

from __future__ import annotations

import itertools
import json
import operator
import sqlite3
from array import array
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from smoothcert.runlog.database import APPLICATION, DATABASE, sqlite_errors
from smoothcert.runlog.rows import ExampleRow, TallyRow
from smoothcert.runlog.shard import WHOLE, Shard
from smoothcert.runlog.specification import Specification

_SCHEMA = """
CREATE TABLE spec (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE examples (example INTEGER PRIMARY KEY, label INTEGER NOT NULL, name TEXT NOT NULL,
                       sha256 TEXT NOT NULL);
CREATE TABLE tallies (example INTEGER NOT NULL, stage TEXT NOT NULL, first INTEGER NOT NULL,
                      draws INTEGER NOT NULL, counts TEXT NOT NULL, seconds REAL NOT NULL,
                      digest TEXT NOT NULL, PRIMARY KEY (example, stage, first)) WITHOUT ROWID;
"""
INSERT = "INSERT INTO tallies VALUES (?, ?, ?, ?, ?, ?, ?)"
FINISHED = "CREATE TABLE IF NOT EXISTS finished (example INTEGER PRIMARY KEY)"


def create(
    directory: Path,
    specification: Specification,
    examples: Sequence[ExampleRow],
    environment: dict[str, Any],
    shard: Shard = WHOLE,
    rows: Iterable[TallyRow] = (),
    in_order: bool = True,
) -> None:
    """Write a complete new database beside its place, then move it there: it exists whole or not at all.

    ``rows`` are taken one by one; whatever they raise leaves nothing behind. ``in_order``: whether the images
    come in the order of their data set; the file then notes whether their numbers ascend in it.
    """
    draft = directory / f"{DATABASE}.new"
    draft.unlink(missing_ok=True)
    with sqlite_errors(directory):
        connection = sqlite3.connect(draft)
        try:
            with connection:
                connection.executescript(_SCHEMA)
                connection.execute(FINISHED)
                connection.execute(f"PRAGMA application_id = {APPLICATION}")
                stored = {
                    "specification": specification.canonical(),
                    "identity": specification.identity(),
                    "environment": json.dumps(environment, sort_keys=True),
                }
                if facts := specification.design().facts():
                    stored["design"] = json.dumps(facts, sort_keys=True)
                if not shard.whole:
                    stored["shard"] = str(shard)
                numbers = array("q", (row.example for row in examples))
                if in_order and all(map(operator.lt, numbers, itertools.islice(numbers, 1, None))):
                    stored["order"] = "ascending"
                connection.executemany("INSERT INTO spec VALUES (?, ?)", stored.items())
                images = ((row.example, row.label, row.name, row.sha256) for row in examples)
                connection.executemany("INSERT INTO examples VALUES (?, ?, ?, ?)", images)
                connection.executemany(INSERT, (stored_row(row, stored["identity"]) for row in rows))
        except BaseException:
            connection.close()
            draft.unlink(missing_ok=True)
            raise
        finally:
            connection.close()
        draft.replace(directory / DATABASE)


def stored_row(row: TallyRow, identity: str) -> tuple[Any, ...]:
    """A row as the table holds it."""
    counts, digest = row.tally.to_json(), row.digest(identity)
    return (row.example, row.stage, row.first, row.draws, counts, row.seconds, digest)
