"""Images in columns: the same list, the same hash, found by name in any order."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tests.runlog.test_store import EXAMPLES, fill, specification

from smoothcert.runlog.finished import unfinished_ranges
from smoothcert.runlog.roster import Roster
from smoothcert.runlog.rows import ExampleRow, data_hash
from smoothcert.runlog.store import create_or_resume, open_run

names = st.lists(st.integers(0, 50), min_size=1, max_size=12, unique=True)


def rows_of(numbers: list[int]) -> list[ExampleRow]:
    return [ExampleRow(k, k % 3, f"bild-ü{k}", f"{7 * k:064x}") for k in numbers]


@given(names)
def test_a_roster_is_the_list_it_was_made_of(numbers: list[int]) -> None:
    rows = rows_of(numbers)
    roster = Roster(rows)
    assert list(roster) == rows
    assert roster[-1] == rows[-1]
    assert roster[1:3] == rows[1:3]
    assert roster.sha256 == data_hash(rows)
    assert roster.ascending == (numbers == sorted(numbers))
    assert [roster.place(example) for example in numbers] == list(enumerate(rows))
    assert dict(roster.labels) == {row.example: row.label for row in rows}
    assert all(example not in roster.labels for example in {*range(-2, 55)} - set(numbers))
    assert roster.unique
    assert not Roster([*rows, rows[0]]).unique


@given(names, st.data())
def test_stretches_are_the_unfinished_images(numbers: list[int], data: st.DataObject) -> None:
    roster = Roster(rows_of(numbers))
    flags = bytearray(data.draw(st.lists(st.booleans(), min_size=len(numbers), max_size=len(numbers))))
    found = list(unfinished_ranges(roster, flags))
    assert found == sorted(found)
    inside = [e for first, last in found for e in sorted(numbers) if first <= e <= last]
    assert inside == sorted(e for e, flag in zip(numbers, flags, strict=True) if not flag)


def test_a_run_file_gives_its_images(tmp_path: Path) -> None:
    run = open_run(fill(tmp_path / "run"))
    roster = Roster.read(run)
    assert roster.sha256 == run.data_hash() == data_hash(EXAMPLES)
    assert [row.example for row in roster] == [row.example for row in EXAMPLES]
    assert run.ordered


def test_a_run_says_whether_its_images_ascend(tmp_path: Path) -> None:
    create_or_resume(tmp_path / "run", specification(), EXAMPLES[::-1], {}).close()
    run = open_run(tmp_path / "run")
    assert not run.ordered
    assert run.data_hash() == data_hash(EXAMPLES)


@pytest.mark.parametrize("rows", [0, 1])
def test_few_images(rows: int) -> None:
    roster = Roster(rows_of([5][:rows]))
    assert len(roster) == rows
    assert roster.ascending
    assert roster.sha256 == data_hash(rows_of([5][:rows]))
