"""Continuing a run: only unfinished images are read, every image is compared when used, no note is believed."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
from tests.engine import targets

import smoothcert as sc
from smoothcert.datasets import ArrayDataset, Subset
from smoothcert.engine import execute, prepare, specify
from smoothcert.engine.blocks import Blocks
from smoothcert.engine.execute import Queue
from smoothcert.engine.job import Job
from smoothcert.engine.local import Threads
from smoothcert.errors import DataError, Interrupted, RunFileError, SpecificationMismatch
from smoothcert.protocols import Dataset, Example
from smoothcert.runlog import facts, results, tally_digest, verify
from smoothcert.runlog.roster import Roster
from smoothcert.runlog.specification import RuleSpec
from smoothcert.runlog.store import RunWriter, TallyRow

RULES = {
    "fixed": {"n0": 50, "n": 300},
    "table": {"stop": "table:0,0.1,0.2", "n": 800},
    "encode": {"n0": 50, "n": 300},
    "anytime": {"stop": "anytime", "n0": 40, "n": 300},
}
NOTED = ("fixed", "table", "encode")
IMAGES = 9


@dataclass
class Stopping:
    """Threads of this process, stopped after some batches as by Ctrl-C; every batch is committed by itself."""

    batches: int
    workers: int = 1

    def answers(self, job: Job, queue: Queue) -> Iterator[list[TallyRow]]:
        for number, rows in enumerate(Threads(1).answers(job, queue), 1):
            yield rows
            if number >= self.batches:
                raise Interrupted("SIGINT", "the test has seen enough", "")

    def note(self) -> str:
        return ""


def job(directory: Path, rule: str, data: Dataset | None = None, shard: str | None = None) -> Job:
    data = targets.images(IMAGES) if data is None else data
    model: sc.SmoothedClassifier | sc.SmoothedEncoder = sc.SmoothedClassifier(targets.model(), sigma=0.5)
    if rule == "encode":
        model = sc.SmoothedEncoder(targets.model()[:3], sigma=0.5)
    task = "encode" if rule == "encode" else "certify"
    chosen = RuleSpec.settle(task, **RULES[rule])  # type: ignore[arg-type]
    return prepare(model, data, directory, chosen, batch=64, workers=1, shard=shard)


def begin(directory: Path, rule: str, batches: int, data: Dataset | None = None) -> Path:
    """A run stopped after some batches."""
    with pytest.raises(Interrupted):
        replace(job(directory, rule, data), executor=Stopping(batches)).run(quiet=True)
    return directory


def edit(directory: Path, *statements: str) -> None:
    with sqlite3.connect(directory / "run.db") as connection:
        for statement in statements:
            connection.execute(statement)
    connection.close()


def noted(directory: Path) -> list[int]:
    return sc.open_run(directory).finished() or []


def failed(directory: Path) -> list[str]:
    return [check.name for check in verify(sc.open_run(directory)).checks if not check.passed]


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    digests = {}
    for rule in RULES:
        directory = tmp_path_factory.mktemp("whole") / rule
        job(directory, rule).run(quiet=True)
        digests[rule] = tally_digest(sc.open_run(directory))
    return digests


@pytest.fixture(autouse=True)
def commit_each_batch(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(execute, "COMMIT_SECONDS", 0.0)


@pytest.mark.parametrize("rule", RULES)
def test_notes_are_exactly_the_finished_images(tmp_path: Path, whole: dict[str, str], rule: str) -> None:
    """After any number of batches; open-ended images are never noted, for more draws may be asked of them."""
    directory = tmp_path / "run"
    for batches in (1, 12, 15, 10**6):
        if batches < 10**6:
            begin(directory, rule, batches)
        else:
            job(directory, rule).run(quiet=True)
        proved = [outcome.index for outcome in results(directory).outcomes]
        assert noted(directory) == (proved if rule in NOTED else [])
        assert not failed(directory)
    assert tally_digest(sc.open_run(directory)) == whole[rule]
    assert len(proved) == IMAGES


@pytest.mark.parametrize("rule", NOTED)
def test_no_note_is_stored_before_its_draws(
    tmp_path: Path, rule: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Looked at after every commit, which is where a kill can strike."""
    append, seen = RunWriter.append, 0

    def watched(writer: RunWriter, *what: object) -> None:
        nonlocal seen
        append(writer, *what)  # type: ignore[arg-type]
        finished = {outcome.index for outcome in results(writer).outcomes}
        seen += len(finished)
        assert set(writer.finished() or ()) <= finished

    monkeypatch.setattr(RunWriter, "append", watched)
    job(tmp_path / "run", rule).run(quiet=True)
    assert seen > IMAGES


def test_answers_that_cannot_be_counted_leave_no_note(
    tmp_path: Path, whole: dict[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A failure between two rows of a batch: none of them is stored, and no image is noted for their sake."""
    finished = Blocks.finished

    def failing(blocks: Blocks, row: TallyRow) -> None:
        finished(blocks, row)
        if blocks._tracker.done:
            raise MemoryError("while counting")

    with monkeypatch.context() as patch:
        patch.setattr(Blocks, "finished", failing)
        with pytest.raises(MemoryError):
            job(tmp_path / "run", "table").run(quiet=True)
    assert noted(tmp_path / "run") == []
    assert not failed(tmp_path / "run")
    job(tmp_path / "run", "table").run(quiet=True)
    assert tally_digest(sc.open_run(tmp_path / "run")) == whole["table"]


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("batches", [7, 20])
def test_a_run_of_the_version_before_goes_on_to_the_bit(
    tmp_path: Path, whole: dict[str, str], rule: str, batches: int
) -> None:
    directory = begin(tmp_path / "run", rule, batches)
    before = noted(directory)
    edit(directory, "DROP TABLE finished", "DELETE FROM spec WHERE key = 'order'")
    assert not failed(directory)
    assert results(directory).planned == IMAGES
    begin(directory, rule, 1)
    assert set(before) <= set(noted(directory))
    assert sc.open_run(directory).ordered
    job(directory, rule).run(quiet=True)
    assert tally_digest(sc.open_run(directory)) == whole[rule]
    assert not failed(directory)


@pytest.mark.parametrize("rule", RULES)
def test_notes_that_are_missing_are_made_again(tmp_path: Path, whole: dict[str, str], rule: str) -> None:
    """An image that is finished and not noted, as in a merged file, is replayed and noted."""
    directory = begin(tmp_path / "run", rule, 25)
    proved = [outcome.index for outcome in results(directory).outcomes]
    edit(directory, "DELETE FROM finished WHERE example % 2 = 0")
    begin(directory, rule, 1)
    assert set(noted(directory)) >= (set(proved) if rule in NOTED else set())
    job(directory, rule).run(quiet=True)
    assert tally_digest(sc.open_run(directory)) == whole[rule]


@pytest.mark.parametrize("rule", NOTED)
def test_rows_of_finished_images_in_large_files_are_left_alone_until_they_are_read(
    tmp_path: Path, rule: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    directory = begin(tmp_path / "run", rule, 30)
    first = noted(directory)[0]
    edit(directory, f"UPDATE tallies SET digest = 'forged' WHERE example = {first}")
    monkeypatch.setattr(facts, "_READ_THROUGH", 0)
    begin(directory, rule, 1)
    with pytest.raises(RunFileError, match="does not match its hash"):
        results(directory)
    assert "row hashes" in failed(directory)


@pytest.mark.parametrize("rule", NOTED)
def test_a_small_file_with_a_damaged_row_of_a_finished_image_does_not_go_on(
    tmp_path: Path, rule: str
) -> None:
    directory = begin(tmp_path / "run", rule, 30)
    edit(directory, f"UPDATE tallies SET digest = 'forged' WHERE example = {noted(directory)[0]}")
    before = list(sc.open_run(directory).tallies())
    with pytest.raises(RunFileError, match="does not match its hash"):
        job(directory, rule).run(quiet=True)
    assert list(sc.open_run(directory).tallies()) == before


@pytest.mark.parametrize("rule", RULES)
def test_rows_of_unfinished_images_are_checked(tmp_path: Path, rule: str) -> None:
    directory = begin(tmp_path / "run", rule, 9)
    edit(directory, "UPDATE tallies SET digest = 'forged' WHERE example = (SELECT max(example) FROM tallies)")
    with pytest.raises(RunFileError, match="does not match its hash"):
        job(directory, rule).run(quiet=True)


@pytest.mark.parametrize("rule", NOTED)
def test_a_forged_note_makes_no_result(tmp_path: Path, whole: dict[str, str], rule: str) -> None:
    """Neither of an image without draws nor of one with some; and the run finds its way back."""
    directory = begin(tmp_path / "run", rule, 9)
    proved, last = results(directory).outcomes, IMAGES - 1
    assert last not in noted(directory)
    edit(directory, f"INSERT INTO finished VALUES ({last})")
    assert results(directory).outcomes == proved
    assert failed(directory) == ["draws"]
    if rule == "fixed":  # its batches run across images: draws beside those that are missing give it away
        with pytest.raises(RunFileError, match="in part"):
            job(directory, rule).run(quiet=True)
        return
    with pytest.raises(RunFileError, match=r"noted images as finished whose draws are missing \(\[8\]\)"):
        job(directory, rule).run(quiet=True)
    assert len(results(directory).outcomes) < IMAGES
    job(directory, rule).run(quiet=True)
    assert tally_digest(sc.open_run(directory)) == whole[rule]
    assert not failed(directory)


class Counted(ArrayDataset):
    """Counts how often an image is read."""

    read = 0

    def __getitem__(self, position: int) -> Example:
        self.read += 1
        return super().__getitem__(position)


def test_the_noise_levels_of_a_command_read_the_images_once(tmp_path: Path) -> None:
    """And a run has the names of its images, also after one whose list came from a file without them."""
    base = targets.images(IMAGES)
    pixels = np.stack([base[k].image for k in range(IMAGES)])
    data = Counted(pixels, np.arange(IMAGES) % 5, levels=255, name="counted", classes=targets.CLASSES)
    rule = RuleSpec.settle("certify", n0=20, n=64)

    def begun(sigma: float, rows: Roster | None) -> tuple[Job, int]:
        before = data.read
        model = sc.SmoothedClassifier(targets.model(), sigma=sigma)
        made = prepare(model, data, tmp_path / f"{sigma:g}", rule, batch=64, workers=1, rows=rows)
        return made, data.read - before

    first, alone = begun(0.25, None)
    second, beside = begun(0.5, first.rows)
    assert alone - beside == IMAGES
    second.run(quiet=True)
    continued, _ = begun(0.5, None)
    assert not continued.rows.named
    third, again = begun(1.0, continued.rows)
    assert again == alone
    third.run(quiet=True)
    names = {data[k].name for k in range(IMAGES)}
    for sigma in ("0.5", "1"):
        assert {row.name for row in sc.open_run(tmp_path / sigma).examples()} == names


def test_a_note_about_another_run_is_refused(tmp_path: Path) -> None:
    directory = begin(tmp_path / "run", "table", 9)
    edit(directory, "INSERT INTO finished VALUES (77)")
    with pytest.raises(RunFileError, match="77 is noted as finished and not of the run"):
        job(directory, "table").run(quiet=True)
    assert failed(directory) == ["draws"]


def test_draws_of_another_run_are_refused(tmp_path: Path) -> None:
    directory = begin(tmp_path / "run", "table", 9)
    row = TallyRow(77, "estimation", 0, 1, sc.tallies.Votes.of({0: 1}), 0.0)
    digest = row.digest(sc.open_run(directory).identity)
    edit(directory, f"INSERT INTO tallies VALUES (77, 'estimation', 0, 1, '{{\"0\":1}}', 0, '{digest}')")
    edit(directory, "INSERT INTO examples VALUES (99, 0, 'after', '00')")
    assert {"image list", "draws"} <= set(failed(directory))


@pytest.mark.parametrize("rule", RULES)
def test_draws_left_are_those_a_run_then_makes(tmp_path: Path, rule: str) -> None:
    """At most, under a stopping rule; asked before and after the notes of an older file are made."""
    directory = begin(tmp_path / "run", rule, 14)
    left = job(directory, rule).draws_left()
    stored = sum(row.draws for row, _ in sc.open_run(directory).tallies())
    edit(directory, "DROP TABLE finished")
    assert job(directory, rule).draws_left() == left
    job(directory, rule).run(quiet=True)
    made = sum(row.draws for row, _ in sc.open_run(directory).tallies()) - stored
    assert made == left if rule != "table" else 0 < made <= left
    assert job(directory, rule).draws_left() == 0


@pytest.mark.parametrize("rule", RULES)
def test_a_shard_goes_on_as_a_run_does(tmp_path: Path, rule: str) -> None:
    """Images of other shards are neither noted nor waited for, with notes and without."""
    job(tmp_path / "whole", rule, shard="2/3").run(quiet=True)
    shard = job(tmp_path / "run", rule, shard="2/3")
    assert shard.draws_left() == sum(n for _, n in shard.specification.rule.stages) * 3
    with pytest.raises(Interrupted):
        replace(shard, executor=Stopping(9)).run(quiet=True)
    shard = job(tmp_path / "run", rule, shard="2/3")
    left, proved = shard.draws_left(), [outcome.index for outcome in results(tmp_path / "run").outcomes]
    assert noted(tmp_path / "run") == (proved if rule in NOTED else [])
    edit(tmp_path / "run", "DROP TABLE finished")
    assert shard.draws_left() == left
    shard.run(quiet=True)
    assert tally_digest(sc.open_run(tmp_path / "run")) == tally_digest(sc.open_run(tmp_path / "whole"))
    assert len(noted(tmp_path / "run")) == (3 if rule in NOTED else 0)
    assert shard.draws_left() == 0
    assert not failed(tmp_path / "run")


class Counting:
    """A data set that counts which images it was asked for."""

    def __init__(self, data: Dataset) -> None:
        self._data, self.asked = data, list[int]()

    def __getattr__(self, name: str) -> object:
        return getattr(self._data, name)

    def __len__(self) -> int:
        return len(self._data)

    def __getitem__(self, position: int) -> object:
        self.asked.append(position)
        return self._data[position]


def with_image_changed(count: int, changed: int) -> ArrayDataset:
    whole = targets.images(count)
    pixels = np.stack([whole[k].image for k in range(count)])
    labels = [whole[k].label for k in range(count)]
    pixels[changed, 0, 0, 0] ^= 1
    return ArrayDataset(pixels, labels, levels=255, name=whole.name, classes=targets.CLASSES)


def test_a_run_that_goes_on_loads_a_few_images_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(specify, "SPOTS", 5)
    directory = begin(tmp_path / "run", "table", 3, targets.images(400))
    data = Counting(targets.images(400))
    found = job(directory, "table", data)  # type: ignore[arg-type]
    assert {0, 99, 199, 299, 399} <= set(data.asked)
    assert len(set(data.asked)) < 50, "those looked at, and those the model check draws from"
    assert found.specification.data.sha256 == sc.open_run(directory).specification.data.sha256


def test_a_changed_image_is_noticed_when_it_is_used(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(specify, "SPOTS", 2)
    data, other = targets.images(120), with_image_changed(120, 60)
    directory = begin(tmp_path / "run", "table", 3, data)
    with pytest.raises(DataError, match=r"image 60 of random images.*not the one this run is about"):
        job(directory, "table", other).run(quiet=True)
    kept = sum(row.draws for row, _ in sc.open_run(directory).tallies())
    assert kept > 30 * 32, "what was finished before is stored"
    assert not failed(directory)
    job(directory, "table", data).run(quiet=True)
    job(tmp_path / "whole", "table", data).run(quiet=True)
    assert tally_digest(sc.open_run(directory)) == tally_digest(sc.open_run(tmp_path / "whole"))


@pytest.mark.parametrize("changed", [0, 4, 8])
def test_a_wrong_data_set_is_refused_before_any_work(tmp_path: Path, changed: int) -> None:
    directory = begin(tmp_path / "run", "table", 3)
    with pytest.raises(SpecificationMismatch, match=r"data\.sha256"):
        job(directory, "table", with_image_changed(IMAGES, changed))
    with pytest.raises(SpecificationMismatch, match=r"data\.examples: stored 9, asked for 8"):
        job(directory, "table", targets.images(IMAGES - 1))


def test_a_data_set_that_answers_differently_each_time_is_noticed(tmp_path: Path) -> None:
    class Restless(Counting):
        def __getitem__(self, position: int) -> object:
            found = targets.images(IMAGES)[position]
            self.asked.append(position)
            times = self.asked.count(position)
            return found if position != 5 else replace(found, image=found.image ^ np.uint8(times % 2))

    with pytest.raises(DataError, match="image 5"):
        job(tmp_path / "run", "table", Restless(targets.images(IMAGES))).run(quiet=True)  # type: ignore[arg-type]


@pytest.mark.parametrize("rule", RULES)
def test_a_data_set_out_of_order_keeps_its_order(
    tmp_path: Path, rule: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(specify, "SPOTS", 2)
    data = Subset(targets.images(40), (0, 7, 3, 11, 5, 2, 39), "some of them")
    directory = begin(tmp_path / "run", rule, 9, data)
    assert not sc.open_run(directory).ordered
    proved = {outcome.index for outcome in results(directory).outcomes}
    assert set(noted(directory)) == (proved if rule in NOTED else set())
    job(directory, rule, data).run(quiet=True)
    job(tmp_path / "whole", rule, data).run(quiet=True)
    assert tally_digest(sc.open_run(directory)) == tally_digest(sc.open_run(tmp_path / "whole"))
    assert not failed(directory)


def test_an_edited_list_of_images_is_refused(tmp_path: Path) -> None:
    directory = begin(tmp_path / "run", "table", 3)
    edit(directory, "UPDATE examples SET label = 1 - label WHERE example = 1")
    with pytest.raises(RunFileError, match="list of images does not match"):
        job(directory, "table")
