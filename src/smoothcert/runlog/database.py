"""The database of a run directory: opening it, and its errors in words that say what to do."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

from smoothcert.errors import RunFileError

DATABASE = "run.db"
APPLICATION = 0x534D4354  # "SMCT": tells our files from other SQLite databases


def connect(path: Path, *, write: bool) -> sqlite3.Connection:
    """Open a run's database; ``RunFileError`` for anything else."""
    with sqlite_errors(path.parent):
        connection = _opened(path, "rw" if write else "ro")
        try:
            found = _application(connection)
        except sqlite3.OperationalError:
            if write or not path.with_name(f"{path.name}-journal").exists():
                raise
            # A writer was killed within a commit. Only one who may write can take it back, so do that first.
            with closing(_opened(path, "rw")) as other:
                _application(other)
            found = _application(connection)
        if found != APPLICATION:
            connection.close()
            empty = path.stat().st_size == 0
            raise not_a_run(path.parent, "it is empty" if empty else "it is an SQLite file of something else")
        if write:
            connection.execute("PRAGMA synchronous = FULL")
        return connection


def _opened(path: Path, mode: str) -> sqlite3.Connection:
    return sqlite3.connect(f"{path.resolve().as_uri()}?mode={mode}", uri=True, timeout=30.0)


def _application(connection: sqlite3.Connection) -> int:
    """Whose file it is; the first look at it, which takes back a commit that was cut off."""
    return int(connection.execute("PRAGMA application_id").fetchone()[0])


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
    except (sqlite3.DatabaseError, UnicodeDecodeError, OSError) as error:
        text = str(error)
        if "full" in text or "No space" in text:
            hint = "Free some space and run the same command again: everything committed is kept"
        elif "readonly" in text or "denied" in text or "unable to open" in text:
            hint = "Make the directory readable and writable, or choose another one"
        elif "locked" in text:
            hint = "Another program holds the file open; close it and run the same command again"
        elif "disk I/O" in text:
            hint = (
                "See whether the disk works and whether a quota is used up, then run the same command again: "
                "everything committed is kept"
            )
        else:
            hint = "Restore it from a copy, or choose another directory"
        raise RunFileError(f"the run file in {directory}", f"cannot be used ({text})", hint) from error


def edited(directory: Path, what: str) -> RunFileError:
    """The error for a file whose parts do not fit together."""
    return RunFileError(
        f"the run file in {directory}",
        f"was edited or damaged ({what})",
        "Restore it from a copy, or repeat the run ('smoothcert verify' shows every check)",
    )


def not_a_run(directory: Path, why: str) -> RunFileError:
    """The error for a database that is something else."""
    return RunFileError(
        f"{directory / DATABASE}", f"is not a run file: {why}", "Pass a directory smoothcert wrote"
    )
