"""Merging shards: the rows of all, each once; everything else is refused by name, and nothing is written."""

from __future__ import annotations

import sqlite3
import tracemalloc
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from tests.runlog.test_store import specification

import smoothcert as sc
from smoothcert.errors import InvalidInput, RunFileError, RunLocked, ShardMismatch, SpecificationMismatch
from smoothcert.runlog import merge_shards, tally_digest
from smoothcert.runlog.lock import RunLock
from smoothcert.runlog.merging import by_sigma, write_all
from smoothcert.runlog.shard import WHOLE, Shard
from smoothcert.runlog.specification import NoiseSpec, RuleSpec, Specification
from smoothcert.runlog.store import ExampleRow, TallyRow, create_or_resume, data_hash, open_run
from smoothcert.tallies import Votes

IMAGES = 10
EXAMPLES = [ExampleRow(3 * k, k % 2, f"image-{k}", f"{k:064x}") for k in range(IMAGES)]


def specified(examples: Sequence[ExampleRow] = EXAMPLES, **changes: object) -> Specification:
    base = specification(**changes)
    data = base.data.model_copy(update={"examples": len(examples), "sha256": data_hash(examples)})
    return base.model_copy(update={"data": data})


def rows_of(example: int) -> list[TallyRow]:
    return [
        TallyRow(example, "selection", 0, 10, Votes.of({0: 10}), 0.1),
        TallyRow(example, "estimation", 0, 60, Votes.of({0: 60 - example, 1: example}), 1.0),
        TallyRow(example, "estimation", 60, 40, Votes.of({0: 40}), 1.0),
    ]


def fill(
    directory: Path,
    shard: Shard = WHOLE,
    *,
    spec: Specification | None = None,
    examples: Sequence[ExampleRow] = EXAMPLES,
    without: Callable[[TallyRow], bool] = lambda row: False,
) -> Path:
    """A run file of a shard, as a run would leave it."""
    writer = create_or_resume(
        directory, spec or specified(), examples, {"host": f"node{shard.number}"}, shard
    )
    for row in writer.held():
        writer.append([made for made in rows_of(row.example) if not without(made)])
    writer.close()
    return directory


def cut(place: Path, count: int, **options: object) -> list[Path]:
    """All shards of a run."""
    found = [Shard(number, count) for number in range(1, count + 1)]
    return [fill(place / shard.directory, shard, **options) for shard in found]  # type: ignore[arg-type]


def refused(parts: Sequence[Path], out: Path, error: type[Exception], match: str) -> str:
    """The message of a refusal, after which nothing is there that was not there before."""
    before = {path for path in out.parent.rglob("*") if path.name != ".lock"}
    with pytest.raises(error, match=match) as caught:
        merge_shards(parts, out)
    assert {path for path in out.parent.rglob("*") if path.name != ".lock"} == before
    return str(caught.value)


@pytest.mark.parametrize("count", [1, 2, 3, 5, 10, 13])
def test_the_merged_run_is_the_whole_run(tmp_path: Path, count: int) -> None:
    whole = open_run(fill(tmp_path / "whole"))
    parts = cut(tmp_path, count)
    merged = open_run(merge_shards(parts[::-1], tmp_path / "deep" / "merged"))
    assert list(merged.tallies()) == list(whole.tallies())
    assert tally_digest(merged) == tally_digest(whole)
    assert merged.examples() == whole.examples()
    assert merged.shard.whole
    assert sc.verify(merged).passed
    assert "SHARD" not in sc.verify(merged).claim
    stored = dict(sqlite3.connect(merged.directory / "run.db").execute("SELECT key, value FROM spec"))
    assert stored.keys() == {"specification", "identity", "environment"}
    hosts = [(part["shard"], part["host"]) for part in merged.environment["merged_from"]]
    assert hosts == [(f"{k}/{count}", f"node{k}") for k in range(1, count + 1)]
    assert not list(tmp_path.glob(".smoothcert*"))


def test_a_directory_named_twice_is_taken_once(tmp_path: Path) -> None:
    parts = cut(tmp_path, 2)
    (tmp_path / "x").mkdir()
    merge_shards([*parts, tmp_path / "x" / ".." / parts[0].name, parts[1]], tmp_path / "merged")


def test_other_specifications_are_refused_with_the_difference(tmp_path: Path) -> None:
    parts = cut(tmp_path, 3)
    rule = RuleSpec(task="certify", alpha=0.01, n0=10, n=100)
    noise = NoiseSpec(kind="grid", sigma=0.5, seed=7)
    parts[1] = fill(tmp_path / "other", Shard(2, 3), spec=specified(rule=rule, noise=noise))
    text = refused(parts, tmp_path / "merged", SpecificationMismatch, "different specifications")
    assert "rule.alpha: stored 0.001, asked for 0.01" in text
    assert "noise.seed: stored 0, asked for 7" in text
    assert str(parts[1]) in text


def test_a_shard_that_is_there_twice_is_refused(tmp_path: Path) -> None:
    parts = cut(tmp_path, 3)
    again = fill(tmp_path / "again", Shard(2, 3))
    text = refused([*parts, again], tmp_path / "merged", ShardMismatch, "hold the same shard, 2/3")
    assert str(parts[1]) in text
    assert str(again) in text


def test_shards_of_two_cuts_are_refused(tmp_path: Path) -> None:
    three, two = cut(tmp_path, 3), cut(tmp_path, 2)
    refused([*three[:2], two[1]], tmp_path / "merged", ShardMismatch, "cut their run differently")
    whole = fill(tmp_path / "whole")
    refused(
        [*three, whole], tmp_path / "merged", ShardMismatch, r"\(the whole run\).*cut their run differently"
    )
    another = fill(tmp_path / "whole2")
    refused([whole, another], tmp_path / "merged", ShardMismatch, "are both the whole run")


def test_missing_shards_are_named_with_their_images(tmp_path: Path) -> None:
    parts = cut(tmp_path, 5)
    text = refused(parts[:1] + parts[2:4], tmp_path / "merged", ShardMismatch, "3 of 5 shards at sigma 0.5")
    assert "shards 2/5, 5/5 are missing, with 4 images (3, 12, 15, 24)" in text
    assert "--shard 2/5" in text
    one = refused(parts[1:], tmp_path / "merged", ShardMismatch, "shard 1/5 is missing, with 2 images")
    assert "and so on" not in one


@pytest.mark.parametrize(
    ("lost", "said"),
    [
        (lambda row: row.example == 12 and row.first == 60, r"1 image \(12\) not finished, in shard 3/3"),
        (lambda row: row.example == 12 and row.stage == "selection", r"1 image \(12\) not finished"),
        (lambda row: row.example == 0, r"1 image \(0\) not finished, in shard 1/3"),
        (
            lambda row: row.first == 60,
            r"10 images \(0, 3, 6, 9, 12, ...\) not finished, in shards 1/3, 2/3, 3/3",
        ),
    ],
    ids=["the last draws", "a stage", "an image", "all"],
)
def test_images_that_are_not_finished_are_named(
    tmp_path: Path, lost: Callable[[TallyRow], bool], said: str
) -> None:
    text = refused(cut(tmp_path, 3, without=lost), tmp_path / "merged", ShardMismatch, said)
    assert "Give the command of each of them again" in text


EDITS = {
    "a vote": """UPDATE tallies SET counts = '{"0":60}' WHERE example = 3 AND first = 0 AND stage = 'estimation'""",
    "a digest": "UPDATE tallies SET digest = 'x' WHERE example = 3",
    "a label": "UPDATE examples SET label = 1 - label WHERE example = 3",
    "sigma": "UPDATE spec SET value = replace(value, '\"sigma\":0.5', '\"sigma\":5.0')",
    "the shard": "UPDATE spec SET value = '9/3' WHERE key = 'shard'",
    "no shard": "UPDATE spec SET value = 'third' WHERE key = 'shard'",
}


@pytest.mark.parametrize("how", EDITS)
def test_an_edited_shard_is_refused(tmp_path: Path, how: str) -> None:
    parts = cut(tmp_path, 3)
    edited = parts[0 if how == "a label" else 1]  # images are taken from the first
    with sqlite3.connect(edited / "run.db") as connection:
        assert connection.execute(EDITS[how]).rowcount
    connection.close()
    error = SpecificationMismatch if how == "sigma" else RunFileError
    text = refused(parts, tmp_path / "merged", error, "different" if how == "sigma" else "edited or damaged")
    assert str(edited) in text


def test_draws_of_an_image_of_another_shard_are_refused(tmp_path: Path) -> None:
    parts = cut(tmp_path, 3)
    with sqlite3.connect(parts[1] / "run.db") as connection:
        connection.execute("ATTACH DATABASE ? AS other", (str(parts[0] / "run.db"),))
        connection.execute("INSERT INTO tallies SELECT * FROM other.tallies WHERE example = 0")
        connection.commit()
    connection.close()
    text = refused(
        parts, tmp_path / "merged", RunFileError, "draws of image 0, which belongs to another shard"
    )
    assert str(parts[1]) in text
    failed = [check.name for check in sc.verify(open_run(parts[1])).checks if not check.passed]
    assert failed == ["draws"], "verify of the shard sees it too"


def test_draws_that_nobody_asked_for_are_refused(tmp_path: Path) -> None:
    parts = cut(tmp_path, 3)
    writer = create_or_resume(parts[1], specified(), EXAMPLES, {}, Shard(2, 3))
    writer.append([TallyRow(3, "estimation", 100, 5, Votes.of({0: 5}), 0.1)])
    writer.close()
    refused(parts, tmp_path / "merged", RunFileError, "draws of image 3 that the rule did not ask for")


def test_a_shard_that_is_being_written_is_refused(tmp_path: Path) -> None:
    parts = cut(tmp_path, 2)
    lock = RunLock(parts[0])
    try:
        refused(parts, tmp_path / "merged", RunLocked, "being written by another process")
    finally:
        lock.release()
    merge_shards(parts, tmp_path / "merged")


@pytest.mark.parametrize("made", ["run", "folder", "file"])
def test_nothing_that_exists_is_overwritten(tmp_path: Path, made: str) -> None:
    parts, out = cut(tmp_path, 2), tmp_path / "merged"
    if made == "run":
        merge_shards(parts, out)
    elif made == "folder":
        (out / "inner").mkdir(parents=True)
    else:
        out.write_text("mine")
    refused(parts, out, RunFileError, "exists already")


def test_what_is_no_run_is_refused(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    refused([tmp_path / "empty"], tmp_path / "merged", RunFileError, r"holds no run\.db")
    refused([], tmp_path / "merged", InvalidInput, "nothing to merge")


def test_a_place_that_cannot_be_written_is_one_clear_error(tmp_path: Path) -> None:
    parts = cut(tmp_path / "parts", 2)
    (tmp_path / "file").write_text("in the way")
    refused(parts, tmp_path / "file" / "merged", RunFileError, "cannot be used")


def test_noise_levels_are_merged_all_or_none(tmp_path: Path) -> None:
    levels = {0.25: "sigma-0.25", 0.5: "sigma-0.5"}
    parts = []
    for sigma, name in levels.items():
        spec = specified(noise=NoiseSpec(kind="grid", sigma=sigma, seed=0))
        for number in (1, 2):
            lost: Callable[[TallyRow], bool] = lambda row: sigma == 0.5 and row.example == 9  # noqa: B023, E731
            shard = Shard(number, 2)
            parts.append(fill(tmp_path / shard.directory / name, shard, spec=spec, without=lost))
    out = tmp_path / "merged"
    with pytest.raises(ShardMismatch, match=r"sigma 0\.5: 1 image \(9\) not finished"):
        write_all(by_sigma(parts, out))
    assert not out.exists()
    with pytest.raises(ShardMismatch, match=r"1 of 2 shards at sigma 0\.25"):
        by_sigma(parts[1:], out)
    directory = next(part for part in parts if "sigma-0.5" in str(part) and 9 in _left(part))
    writer = create_or_resume(
        directory, open_run(directory).specification, EXAMPLES, {}, open_run(directory).shard
    )
    writer.append(rows_of(9))
    writer.close()
    assert write_all(by_sigma(parts, out)) == [out / name for name in levels.values()]
    assert [run.sigma for run in sc.open_runs(out)] == [0.25, 0.5]
    assert all(run.complete for run in sc.open_runs(out))
    assert (out / "sigma-0.25" / "run.toml").read_text().count("sigma = 0.25") == 1


def test_two_noise_levels_of_one_name_are_not_confused(tmp_path: Path) -> None:
    """0.25 and 0.25000001 would be written to one place."""
    parts = []
    for number, sigma in ((1, 0.25), (2, 0.25000001)):
        spec = specified(noise=NoiseSpec(kind="grid", sigma=sigma, seed=0))
        parts.append(fill(tmp_path / f"part{number}", Shard(number, 2), spec=spec))
    with pytest.raises(SpecificationMismatch, match=r"noise\.sigma: stored 0\.25, asked for 0\.25000001"):
        by_sigma(parts, tmp_path / "merged")


def _left(directory: Path) -> set[int]:
    run = open_run(directory)
    return {row.example for row in run.held()} - {row.example for row, _ in run.tallies()}


def test_a_merge_holds_no_rows_in_memory(tmp_path: Path) -> None:
    """The rows of one image at a time."""

    def peak(name: str, rows: int) -> int:
        rule = RuleSpec(task="certify", alpha=0.001, n0=10, n=10 * rows)
        spec, parts = specified(rule=rule), []
        for number in (1, 2):
            shard = Shard(number, 2)
            writer = create_or_resume(tmp_path / name / shard.directory, spec, EXAMPLES, {}, shard)
            for row in writer.held():
                selection = TallyRow(row.example, "selection", 0, 10, Votes.of({0: 10}), 0.1)
                pieces = [
                    TallyRow(row.example, "estimation", 10 * k, 10, Votes.of({0: 10}), 0.1)
                    for k in range(rows)
                ]
                writer.append([selection, *pieces])
            writer.close()
            parts.append(writer.directory)
        tracemalloc.start()
        merge_shards(parts, tmp_path / name / "merged")
        found = tracemalloc.get_traced_memory()[1]
        tracemalloc.stop()
        return found

    assert peak("warm", 20) > 0
    assert peak("large", 1_000) < 3_000_000, "10,000 rows take 9 MB, those of one image a tenth of that"
