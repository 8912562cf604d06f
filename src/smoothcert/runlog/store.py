"""The run file on disk: one SQLite database in a run directory, one writer, every commit atomic.

Tables: ``spec`` (key, value), ``examples`` (one row an image), ``tallies`` (one row a finished range of
draws). A process killed at any instant loses at most what was not committed; nothing is ever rewritten.
"""

from __future__ import annotations

import hashlib
import json
import sqlite3
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from smoothcert.errors import InvalidInput, RunFileError, SpecificationMismatch
from smoothcert.runlog.lock import RunLock
from smoothcert.runlog.shard import WHOLE, Shard
from smoothcert.runlog.specification import Specification
from smoothcert.tallies import Tally, tally_from_json

DATABASE = "run.db"
_APPLICATION = 0x534D4354  # "SMCT": tells our files from other SQLite databases
_SCHEMA = """
CREATE TABLE spec (key TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE examples (example INTEGER PRIMARY KEY, label INTEGER NOT NULL, name TEXT NOT NULL,
                       sha256 TEXT NOT NULL);
CREATE TABLE tallies (example INTEGER NOT NULL, stage TEXT NOT NULL, first INTEGER NOT NULL,
                      draws INTEGER NOT NULL, counts TEXT NOT NULL, seconds REAL NOT NULL,
                      digest TEXT NOT NULL, PRIMARY KEY (example, stage, first)) WITHOUT ROWID;
"""
_INSERT = "INSERT INTO tallies VALUES (?, ?, ?, ?, ?, ?, ?)"


@dataclass(frozen=True)
class ExampleRow:
    """One image of the run: index in its data set, true class, name, and the SHA-256 of its pixels."""

    example: int
    label: int
    name: str
    sha256: str


@dataclass(frozen=True)
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


class RunReader:
    """A run file opened for reading. Use ``open_run``."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._connection = _connect(directory / DATABASE, write=False)
        with sqlite_errors(directory):
            stored = dict(self._connection.execute("SELECT key, value FROM spec"))
        if "specification" not in stored:
            raise _not_a_run(directory, "it holds no specification")
        self.specification = Specification.parse(stored["specification"])
        self.identity = stored.get("identity", "")
        self.environment: dict[str, Any] = json.loads(stored.get("environment", "{}"))
        self.design_facts: dict[str, Any] = json.loads(stored.get("design", "{}"))
        self.shard = _stored_shard(directory, stored.get("shard"))

    def examples(self) -> list[ExampleRow]:
        """Every image the run is about, in index order."""
        query = "SELECT example, label, name, sha256 FROM examples ORDER BY example"
        with sqlite_errors(self.directory):
            rows = [ExampleRow(*row) for row in self._connection.execute(query)]
        if not all(isinstance(row.example, int) and isinstance(row.label, int) for row in rows):
            raise _edited(self.directory, "an image's number or label is no integer")
        return rows

    def held(self) -> list[ExampleRow]:
        """The images that this run file is to certify: all of them, unless it is a shard."""
        rows = self.examples()
        return [rows[k] for k in self.shard.positions([row.example for row in rows])]

    def tallies(self) -> Iterator[tuple[TallyRow, str]]:
        """Every stored row with its digest, by example, stage and first draw."""
        query = (
            "SELECT example, stage, first, draws, counts, seconds, digest FROM tallies "
            "ORDER BY example, stage, first"
        )
        with sqlite_errors(self.directory):
            for example, stage, first, draws, counts, seconds, digest in self._connection.execute(query):
                try:
                    tally = tally_from_json(str(counts))
                    row = TallyRow(int(example), str(stage), int(first), int(draws), tally, float(seconds))
                except ValueError as error:
                    raise _edited(
                        self.directory, f"a row of example {example} is unreadable: {error}"
                    ) from error
                yield row, digest

    def checked_tallies(self) -> Iterator[TallyRow]:
        """Every stored row, after comparing all hashes; ``RunFileError`` for an edited or foreign one."""
        self.checked_examples()
        yield from self.checked_rows()

    def checked_examples(self) -> list[ExampleRow]:
        """Every image the run is about; ``RunFileError`` where they are not those of the specification."""
        rows = self.examples()
        if data_hash(rows) != self.specification.data.sha256:
            raise _edited(self.directory, "the list of images does not match its hash")
        return rows

    def checked_rows(self) -> Iterator[TallyRow]:
        """As ``checked_tallies``, for those who know the images from elsewhere and read many files."""
        if self.specification.identity() != self.identity:
            raise _edited(self.directory, "the specification does not match its hash")
        for row, digest in self.tallies():
            if digest != row.digest(self.identity) or row.tally.total != row.draws:
                raise _edited(self.directory, f"a row of example {row.example} does not match its hash")
            yield row

    def integrity(self) -> str:
        """SQLite's own check of the file: ``ok`` or what is wrong."""
        with sqlite_errors(self.directory):
            return str(self._connection.execute("PRAGMA integrity_check").fetchone()[0])

    def close(self) -> None:
        """Close the file."""
        self._connection.close()


class RunWriter(RunReader):
    """The single writer of a run file. Use ``create_or_resume``."""

    def __init__(self, directory: Path, lock: RunLock) -> None:
        self._lock = lock
        super().__init__(directory)
        self._connection.close()
        self._connection = _connect(directory / DATABASE, write=True)

    def append(self, rows: Sequence[TallyRow]) -> None:
        """Commit finished rows, all or none."""
        values = [_stored(row, self.identity) for row in rows]
        with sqlite_errors(self.directory), self._connection:
            self._connection.executemany(_INSERT, values)

    def raise_draws(self, specification: Specification) -> None:
        """Note that a run whose draws are open-ended now goes further than before."""
        if specification.rule.n <= self.specification.rule.n:
            return
        with sqlite_errors(self.directory), self._connection:
            text = (specification.canonical(), "specification")
            self._connection.execute("UPDATE spec SET value = ? WHERE key = ?", text)
        self.specification = specification

    def close(self) -> None:
        """Close the file and let others write."""
        super().close()
        self._lock.release()


def open_run(path: str | Path) -> RunReader:
    """Open a run directory (or its ``run.db``) for reading.

    Raises:
        RunFileError: not there, not a run file, corrupt, or of a newer format.
    """
    directory = Path(path)
    directory = directory.parent if directory.name == DATABASE else directory
    if not (directory / DATABASE).is_file():
        raise RunFileError(
            str(path), f"holds no {DATABASE}", "Pass a directory that 'smoothcert certify' wrote"
        )
    return RunReader(directory)


def stored_specification(directory: Path) -> Specification | None:
    """The specification of the run in ``directory``, or ``None`` where there is no run yet."""
    if not (directory / DATABASE).exists():
        return None
    reader = open_run(directory)
    reader.close()
    return reader.specification


def create_or_resume(
    directory: str | Path,
    specification: Specification,
    examples: Sequence[ExampleRow],
    environment: dict[str, Any],
    shard: Shard = WHOLE,
) -> RunWriter:
    """Open a run directory for writing: a new run, or the continuation of the very same one.

    Raises:
        SpecificationMismatch: the directory holds another run, or another shard of it; the message lists
            every difference.
        RunLocked: another process is writing it.
        RunFileError: it cannot be written, or holds something that is not a run.
    """
    directory = Path(directory)
    try:
        directory.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise RunFileError(
            str(directory), f"cannot be created ({error})", "Choose another directory"
        ) from error
    lock = RunLock(directory)
    try:
        if not (directory / DATABASE).exists():
            create(directory, specification, examples, environment, shard)
        writer = RunWriter(directory, lock)
        _same_run(writer, specification)
        writer.shard.check_asked(shard, directory)
        writer.raise_draws(specification)
    except BaseException:
        lock.release()
        raise
    return writer


def _same_run(writer: RunWriter, asked: Specification) -> None:
    if writer.specification.identity() == asked.identity() == writer.identity:
        return
    writer.close()
    raise another_run(writer.directory, writer.specification, asked)


def another_run(directory: Path, stored: Specification, asked: Specification) -> SpecificationMismatch:
    """The error for a directory that holds another run, with every difference on a line."""
    lines = stored.difference(asked) or ["the stored identity does not match its specification"]
    return SpecificationMismatch(
        f"the run directory {directory}",
        "holds a run with another specification, and draws of two runs must not be mixed:\n  "
        + "\n  ".join(lines),
        "\nChoose another directory, or repeat the stored specification",
    )


def create(
    directory: Path,
    specification: Specification,
    examples: Sequence[ExampleRow],
    environment: dict[str, Any],
    shard: Shard = WHOLE,
    rows: Iterable[TallyRow] = (),
) -> None:
    """Write a complete new database beside its place, then move it there: it exists whole or not at all.

    ``rows`` are taken one by one; whatever they raise leaves nothing behind.
    """
    draft = directory / f"{DATABASE}.new"
    draft.unlink(missing_ok=True)
    with sqlite_errors(directory):
        connection = sqlite3.connect(draft)
        try:
            with connection:
                connection.executescript(_SCHEMA)
                connection.execute(f"PRAGMA application_id = {_APPLICATION}")
                stored = {
                    "specification": specification.canonical(),
                    "identity": specification.identity(),
                    "environment": json.dumps(environment, sort_keys=True),
                }
                if facts := specification.design().facts():
                    stored["design"] = json.dumps(facts, sort_keys=True)
                if not shard.whole:
                    stored["shard"] = str(shard)
                connection.executemany("INSERT INTO spec VALUES (?, ?)", stored.items())
                images = ((row.example, row.label, row.name, row.sha256) for row in examples)
                connection.executemany("INSERT INTO examples VALUES (?, ?, ?, ?)", images)
                connection.executemany(_INSERT, (_stored(row, stored["identity"]) for row in rows))
        except BaseException:
            connection.close()
            draft.unlink(missing_ok=True)
            raise
        finally:
            connection.close()
        draft.replace(directory / DATABASE)


def _stored(row: TallyRow, identity: str) -> tuple[Any, ...]:
    """A row as the table holds it."""
    counts, digest = row.tally.to_json(), row.digest(identity)
    return (row.example, row.stage, row.first, row.draws, counts, row.seconds, digest)


def _stored_shard(directory: Path, text: str | None) -> Shard:
    try:
        return WHOLE if text is None else Shard.parse(text)
    except InvalidInput as error:
        raise _edited(directory, str(error)) from error


def _connect(path: Path, *, write: bool) -> sqlite3.Connection:
    with sqlite_errors(path.parent):
        mode = "rw" if write else "ro"
        connection = sqlite3.connect(f"{path.resolve().as_uri()}?mode={mode}", uri=True, timeout=30.0)
        if connection.execute("PRAGMA application_id").fetchone()[0] != _APPLICATION:
            connection.close()
            raise _not_a_run(path.parent, "it is an SQLite file of something else")
        if write:
            connection.execute("PRAGMA synchronous = FULL")
        return connection


@contextmanager
def sqlite_errors(directory: Path) -> Iterator[None]:
    """Turn SQLite's and the file system's errors into ``RunFileError`` that says what to do."""
    try:
        yield
    except sqlite3.IntegrityError as error:
        raise RunFileError(
            f"the run in {directory}",
            f"already holds these draws ({error})",
            "Report this as a bug of smoothcert",
        ) from error
    except (sqlite3.DatabaseError, OSError) as error:
        text = str(error)
        if "full" in text or "No space" in text:
            hint = "Free some space and run the same command again: everything committed is kept"
        elif "readonly" in text or "denied" in text or "unable to open" in text:
            hint = "Make the directory readable and writable, or choose another one"
        elif "locked" in text:
            hint = "Another program holds the file open; close it and run the same command again"
        else:
            hint = "Restore it from a copy, or choose another directory"
        raise RunFileError(f"the run file in {directory}", f"cannot be used ({text})", hint) from error


def _edited(directory: Path, what: str) -> RunFileError:
    return RunFileError(
        f"the run file in {directory}",
        f"was edited or damaged ({what})",
        "Restore it from a copy, or repeat the run ('smoothcert verify' shows every check)",
    )


def _not_a_run(directory: Path, why: str) -> RunFileError:
    return RunFileError(
        f"{directory / DATABASE}", f"is not a run file: {why}", "Pass a directory smoothcert wrote"
    )
