"""Lines of a certification log, checked and typed: the private half of ``tsv``. May import errors only."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

from smoothcert.errors import RunFileError

ABSTAIN = -1
_NAMES = {
    "index": ("idx", "index", "original_idx", "id"),
    "label": ("label", "true", "target", "y"),
    "predicted": ("predict", "predicted", "prediction", "pred"),
    "radius": ("radius", "certified_radius"),
    "correct": ("correct",),
    "flag": ("right", "is_correct", "correct_flag"),
    "seconds": ("time", "seconds", "time_elapsed"),
}
_CLOCK = re.compile(r"(?:(\d+) days?, )?(\d+):(\d{1,2}):(\d{1,2}(?:\.\d+)?)")
_EXPECTED = "tab-separated lines under a header such as: idx label predict radius correct time"
_T = TypeVar("_T")


@dataclass(frozen=True)
class Row:
    """One line; ``None`` stands for a column the file lacks, an abstention, or a time not noted."""

    line: int
    index: int
    label: int | None
    predicted: int | None
    radius: float | None
    correct: int | None
    flag: int | None
    seconds: float | None


def lines_of(path: Path) -> tuple[list[tuple[int, str]], bool]:
    """Numbered lines without the blank ones, and whether the last one ends in a newline."""
    try:
        text = path.read_text(encoding="utf-8-sig")
    except OSError as error:
        raise RunFileError(str(path), f"cannot be read ({error.strerror})", "Check the path") from error
    except UnicodeDecodeError as error:
        raise RunFileError(str(path), "is not a text file", f"Expected {_EXPECTED}") from error
    lines = [(number, line) for number, line in enumerate(text.splitlines(), 1) if line.strip()]
    if len(lines) < 2:
        raise RunFileError(str(path), f"holds {len(lines)} lines and no image", f"Expected {_EXPECTED}")
    return lines, text.endswith("\n")


def columns_of(path: str, header: str) -> dict[str, int]:
    """Where each known column stands; unknown ones are passed over."""
    names = [name.strip().lower() for name in header.split("\t")]
    found = {key: names.index(name) for key, known in _NAMES.items() for name in known if name in names}
    judged = found.keys() & {"label", "correct", "flag"}
    if len(names) != len(set(names)) or not {"index", "predicted"} <= found.keys() or not judged:
        raise RunFileError(
            f"{path}, line 1: {header[:80]!r}",
            "is not the header of a certification log (needed once each: idx, predict, and label or correct)",
            f"Expected {_EXPECTED}",
        )
    return {**found, "width": len(names)}


def is_cut(line: str, columns: dict[str, int]) -> bool:
    """Whether a last line without newline lost something: only a cut in the time is harmless."""
    return line.count("\t") + 1 < columns["width"] or columns.get("seconds") != columns["width"] - 1


def cut_short(path: str, line: int) -> RunFileError:
    """The error for a log that ends in mid-line."""
    return RunFileError(
        f"{path}, line {line}",
        "breaks off in mid-line, so the run that wrote it was stopped and images are missing",
        "Pass partial=True to read the lines before it, marked as truncated",
    )


def row_of(where: str, line: int, text: str, columns: dict[str, int]) -> Row:
    """Parse one line; ``RunFileError`` says which field of which line is not what it should be."""
    fields = [field.strip() for field in text.split("\t")]
    if len(fields) != columns["width"]:
        why = f"has {len(fields)} fields where the header has {columns['width']}"
        raise RunFileError(where, why, f"Expected {_EXPECTED}")

    def read(key: str, parse: Callable[[str], _T]) -> _T | None:
        if key not in columns:
            return None
        field = fields[columns[key]]
        try:
            return parse(field)
        except ValueError as error:
            raise RunFileError(
                where, f"{key} {field[:40]!r} is not {error}", f"Expected {_EXPECTED}"
            ) from None

    index, predicted = read("index", _whole(0)), read("predicted", _whole(ABSTAIN))
    assert index is not None, "columns_of saw it"
    assert predicted is not None, "columns_of saw it"
    return Row(
        line,
        index,
        read("label", _whole(0)),
        None if predicted == ABSTAIN else predicted,
        read("radius", _radius),
        read("correct", _verdict),
        read("flag", _verdict),
        read("seconds", _seconds),
    )


def _whole(lowest: int) -> Callable[[str], int]:
    def parse(field: str) -> int:
        if not re.fullmatch(r"-?\d{1,18}", field) or int(field) < lowest:
            raise ValueError(f"a whole number >= {lowest}")
        return int(field)

    return parse


def _verdict(field: str) -> int:
    """A flag or a running total."""
    words = {"true": 1, "false": 0}
    return words[field.lower()] if field.lower() in words else _whole(0)(field)


def _radius(field: str) -> float:
    try:
        radius = float(field)
    except ValueError:
        radius = math.nan
    if not 0.0 <= radius < math.inf:
        raise ValueError("a finite number >= 0")
    return radius


def _seconds(field: str) -> float | None:
    """Plain seconds, ``H:MM:SS.ffffff`` or ``2 days, H:MM:SS``; nothing where nothing was noted."""
    if not field:
        return None
    if clock := _CLOCK.fullmatch(field):
        days, hours, minutes, seconds = clock.groups()
        return int(days or 0) * 86400 + int(hours) * 3600 + int(minutes) * 60 + float(seconds)
    try:
        return _radius(field)
    except ValueError:
        raise ValueError("a time in seconds or as H:MM:SS") from None


def check_rows(path: str, rows: Sequence[Row]) -> None:
    """Each image once, and no radius without an answer."""
    seen: dict[int, int] = {}
    for row in rows:
        where = f"{path}, line {row.line}"
        if row.index in seen:
            why = f"repeats image {row.index} of line {seen[row.index]}"
            raise RunFileError(where, why, "Keep one line for each image")
        if row.predicted is None and row.radius:
            why = f"abstains with radius {row.radius}"
            raise RunFileError(where, why, "An abstention has radius 0; restore the file from a copy")
        seen[row.index] = row.line


def verdicts(path: str, rows: Sequence[Row]) -> list[bool | None]:
    """What ``correct`` says where there is no label; where there is one, check that the two agree."""
    claims = [
        [claim for claim in column if claim is not None]
        for column in ([row.flag for row in rows], [row.correct for row in rows])
        if column and column[0] is not None
    ]
    if rows and rows[0].label is None:
        return list(_judged(path, rows, claims[0], named_flag=rows[0].flag is not None))
    for claim in claims:
        _check_claim(path, rows, claim)
    return [None] * len(rows)


def _steps(totals: Sequence[int]) -> list[int]:
    return [total - before for before, total in zip([0, *totals], totals, strict=False)]


def _check_claim(path: str, rows: Sequence[Row], claim: Sequence[int]) -> None:
    """``correct`` must be the flag ``predict == label``, or its running total (from any start)."""
    truth = [int(row.predicted is not None and row.predicted == row.label) for row in rows]
    flags = [i for i, (a, b) in enumerate(zip(claim, truth, strict=True)) if a != b]
    totals = [i for i, (a, b) in enumerate(zip(_steps(claim), truth, strict=True)) if a != b and i]
    if flags and totals:
        row = rows[max(flags[0], totals[0])]
        raise RunFileError(
            f"{path}, line {row.line}",
            f"predict and label contradict the correct column ({claim[rows.index(row)]})",
            "Restore the file from a copy, or remove the column",
        )


def _judged(path: str, rows: Sequence[Row], claim: Sequence[int], *, named_flag: bool) -> list[bool]:
    """Correctness from the file's own column alone, where its possible readings do not differ."""
    readings = {
        tuple(reading)
        for reading in ([claim] if named_flag else [claim, _steps(claim)])
        if all(v == 0 or (v == 1 and row.predicted is not None) for v, row in zip(reading, rows, strict=True))
    }
    if len(readings) != 1:
        why = "could be a flag or a running total" if readings else "is neither a flag nor a running total"
        raise RunFileError(path, f"has no label column, and its correct column {why}", "Add the label column")
    return [bool(verdict) for verdict in readings.pop()]
