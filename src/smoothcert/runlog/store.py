"""The run file on disk: one SQLite database in a run directory, one writer, every commit atomic.

Tables: ``spec`` (key, value), ``examples`` (one row an image), ``tallies`` (one row a finished range of
draws), ``finished`` (images that a run which is continued need not read again). A process killed at any
instant loses at most what was not committed; nothing is ever rewritten.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

from smoothcert.errors import InvalidInput, RunFileError, SpecificationMismatch
from smoothcert.runlog.create import FINISHED, INSERT, create, stored_row
from smoothcert.runlog.database import DATABASE, connect, edited, not_a_run, sqlite_errors
from smoothcert.runlog.facts import check_boundaries, check_undamaged
from smoothcert.runlog.lock import RunLock
from smoothcert.runlog.rows import ExampleRow, TallyRow, data_hash
from smoothcert.runlog.shard import WHOLE, Shard
from smoothcert.runlog.specification import Specification
from smoothcert.tallies import tally_from_json

__all__ = [
    "DATABASE",
    "ExampleRow",
    "RunReader",
    "RunWriter",
    "TallyRow",
    "another_run",
    "create",
    "create_or_resume",
    "data_hash",
    "open_run",
    "stored_specification",
]

_ALL = (-(2**63), 2**63 - 1)  # the first and the last number an image can have
_CHUNK = 1 << 8  # images read at a time: so few that Python's collector has nothing to walk through


class RunReader:
    """A run file opened for reading. Use ``open_run``."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._connection = connect(directory / DATABASE, write=False)
        with sqlite_errors(directory):
            stored = dict(self._connection.execute("SELECT key, value FROM spec"))
        if "specification" not in stored:
            raise not_a_run(directory, "it holds no specification")
        self.specification = Specification.parse(stored["specification"])
        self.identity = stored.get("identity", "")
        try:
            self.environment: dict[str, Any] = json.loads(stored.get("environment", "{}"))
            self.design_facts: dict[str, Any] = json.loads(stored.get("design", "{}"))
        except ValueError as error:
            raise edited(directory, f"what it says about itself is unreadable: {error}") from error
        self.shard = _stored_shard(directory, stored.get("shard"))
        self.ordered = stored.get("order") == "ascending"  # of the images in their data set, by number

    def examples(self) -> list[ExampleRow]:
        """Every image the run is about, in index order."""
        query = "SELECT example, label, name, sha256 FROM examples ORDER BY example"
        with sqlite_errors(self.directory):
            rows = [ExampleRow(*row) for row in self._connection.execute(query)]
        if not all(isinstance(row.example, int) and isinstance(row.label, int) for row in rows):
            raise edited(self.directory, "an image's number or label is no integer")
        return rows

    def held(self) -> list[ExampleRow]:
        """The images that this run file is to certify: all of them, unless it is a shard."""
        rows = self.examples()
        return [rows[k] for k in self.shard.positions([row.example for row in rows])]

    def image_columns(self) -> Iterator[list[tuple[int, int, str]]]:
        """Number, label and pixel hash of every image, in index order, a few at a time."""
        query = "SELECT example, label, sha256 FROM examples ORDER BY example"
        with sqlite_errors(self.directory):
            found = self._connection.execute(query)
            while rows := found.fetchmany(_CHUNK):
                yield rows

    def tallies(self, first: int = _ALL[0], last: int = _ALL[1]) -> Iterator[tuple[TallyRow, str]]:
        """Every stored row with its digest, by example, stage and first draw; of some images if so wished."""
        query = (
            "SELECT example, stage, first, draws, counts, seconds, digest FROM tallies "
            "WHERE example BETWEEN ? AND ? ORDER BY example, stage, first"
        )
        with sqlite_errors(self.directory):
            for example, stage, start, draws, counts, seconds, digest in self._connection.execute(
                query, (first, last)
            ):
                try:
                    tally = tally_from_json(str(counts))
                    row = TallyRow(int(example), str(stage), int(start), int(draws), tally, float(seconds))
                except (ValueError, TypeError) as error:
                    raise edited(
                        self.directory, f"a row of example {example} is unreadable: {error}"
                    ) from error
                yield row, digest

    def checked_tallies(self) -> Iterator[TallyRow]:
        """Every stored row, after comparing every hash; ``RunFileError`` for an edited or foreign one."""
        if self.data_hash() != self.specification.data.sha256:
            raise edited(self.directory, "the list of images does not match its hash")
        yield from self.checked_rows()

    def checked_examples(self) -> list[ExampleRow]:
        """Every image the run is about; ``RunFileError`` where they are not those of the specification."""
        rows = self.examples()
        if data_hash(rows) != self.specification.data.sha256:
            raise edited(self.directory, "the list of images does not match its hash")
        return rows

    def checked_rows(self) -> Iterator[TallyRow]:
        """As ``checked_tallies``, for those who know the images from elsewhere and read many files."""
        if self.specification.identity() != self.identity:
            raise edited(self.directory, "the specification does not match its hash")
        yield from self.rows_of(*_ALL)

    def rows_of(self, first: int, last: int) -> Iterator[TallyRow]:
        """The stored rows of the images ``first .. last``, after comparing their own hashes."""
        for row, digest in self.tallies(first, last):
            if digest != row.digest(self.identity) or row.tally.total != row.draws:
                raise edited(self.directory, f"a row of example {row.example} does not match its hash")
            yield row

    def data_hash(self) -> str:
        """``data_hash`` of the stored list of images."""
        whole = hashlib.sha256()
        for rows in self.image_columns():
            whole.update("".join(f"{example} {label} {pixels}\n" for example, label, pixels in rows).encode())
        return whole.hexdigest()

    def sums(self, first: int = _ALL[0], last: int = _ALL[1]) -> tuple[int, float]:
        """Stored draws and the seconds they took, of all images or of some; not compared with any hash."""
        query = "SELECT sum(draws), sum(seconds) FROM tallies WHERE example BETWEEN ? AND ?"
        with sqlite_errors(self.directory):
            draws, seconds = self._connection.execute(query, (first, last)).fetchone()
        return int(draws or 0), float(seconds or 0.0)

    def nonfinite(self) -> int:
        """Stored draws whose answer was not finite."""
        if self.specification.rule.task == "encode":
            return sum(row.tally.nonfinite for row, _ in self.tallies())
        query = "SELECT counts FROM tallies WHERE counts LIKE '%nonfinite%'"  # votes say it where it is so
        with sqlite_errors(self.directory):
            found = self._connection.execute(query)
            return sum(tally_from_json(str(counts)).nonfinite for (counts,) in found)

    def finished(self) -> list[int] | None:
        """The images noted as finished, ascending; ``None`` in a file of a version that kept no notes."""
        with sqlite_errors(self.directory):
            if not self._connection.execute("PRAGMA table_info(finished)").fetchall():
                return None
            found = self._connection.execute("SELECT example FROM finished ORDER BY example")
            return [example for (example,) in found]

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
        self._connection = connect(directory / DATABASE, write=True)

    def append(self, rows: Sequence[TallyRow], finished: Iterable[int] = ()) -> None:
        """Commit finished rows, and a note of the images that are finished with them, all or none."""
        values = [stored_row(row, self.identity) for row in rows]
        with sqlite_errors(self.directory), self._connection:
            self._connection.executemany(INSERT, values)
            self._note(finished)

    def note_finished(self, finished: Iterable[int]) -> None:
        """Add notes, also to a file of a version that kept none."""
        with sqlite_errors(self.directory), self._connection:
            self._connection.execute("BEGIN")
            self._connection.execute(FINISHED)
            self._note(finished)

    def drop_notes(self) -> None:
        """Forget which images are finished."""
        with sqlite_errors(self.directory), self._connection:
            self._connection.execute("DROP TABLE finished")

    def note_order(self) -> None:
        """Note that the numbers of the images ascend in their data set."""
        with sqlite_errors(self.directory), self._connection:
            self._connection.execute("INSERT OR REPLACE INTO spec VALUES ('order', 'ascending')")
        self.ordered = True

    def _note(self, finished: Iterable[int]) -> None:
        """Part of a transaction of the caller's."""
        rows = ((example,) for example in finished)
        self._connection.executemany("INSERT OR IGNORE INTO finished VALUES (?)", rows)

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
    except BaseException:
        lock.release()
        raise
    try:
        _same_run(writer, specification)
        check_undamaged(writer)
        writer.shard.check_asked(shard, directory)
        writer.raise_draws(specification)
    except BaseException:
        writer.close()
        raise
    return writer


def _same_run(writer: RunWriter, asked: Specification) -> None:
    if not writer.specification.identity() == asked.identity() == writer.identity:
        raise another_run(writer.directory, writer.specification, asked)
    check_boundaries(writer)


def another_run(directory: Path, stored: Specification, asked: Specification) -> SpecificationMismatch:
    """The error for a directory that holds another run, with every difference on a line."""
    lines = stored.difference(asked) or ["the stored identity does not match its specification"]
    return SpecificationMismatch(
        f"the run directory {directory}",
        "holds a run with another specification, and draws of two runs must not be mixed:\n  "
        + "\n  ".join(lines),
        "\nChoose another directory, or repeat the stored specification",
    )


def _stored_shard(directory: Path, text: str | None) -> Shard:
    try:
        return WHOLE if text is None else Shard.parse(text)
    except InvalidInput as error:
        raise edited(directory, str(error)) from error
