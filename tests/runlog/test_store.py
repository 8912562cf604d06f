"""The run file: atomic, single-writer, checked on reading, and refusing what is foreign."""

from __future__ import annotations

import shutil
import sqlite3
from collections.abc import Callable
from pathlib import Path

import pytest

import smoothcert as sc
from smoothcert.errors import InvalidInput, RunFileError, RunLocked, SpecificationMismatch
from smoothcert.runlog import results, tally_digest
from smoothcert.runlog.configuration import read_configuration, settings
from smoothcert.runlog.lock import RunLock, is_locked
from smoothcert.runlog.reading import merge, open_runs, run_directories
from smoothcert.runlog.specification import (
    ComponentSpec,
    DataSpec,
    ExecutionSpec,
    NoiseSpec,
    RuleSpec,
    Specification,
)
from smoothcert.runlog.store import ExampleRow, TallyRow, create_or_resume, data_hash, open_run
from smoothcert.tallies import Votes

EXAMPLES = [ExampleRow(k, k % 2, f"image-{k}", f"{k:064x}") for k in range(3)]


def specification(**changes: object) -> Specification:
    parts: dict[str, object] = {
        "data": DataSpec(
            name="three",
            examples=3,
            levels=255,
            shape=(1, 2, 2),
            classes=("a", "b"),
            sha256=data_hash(EXAMPLES),
        ),
        "classifier": ComponentSpec(source="somebody's", sha256=None),
        "denoiser": None,
        "noise": NoiseSpec(kind="grid", sigma=0.5, seed=0),
        "rule": RuleSpec(task="certify", alpha=0.001, n0=10, n=100),
        "execution": ExecutionSpec(batch=32, threads=1, device="cpu", libraries={"torch": "2.13"}),
    }
    return Specification(**(parts | changes))


def fill(directory: Path, votes: Votes = Votes.of({0: 95, 1: 5})) -> Path:  # noqa: B008 - frozen
    writer = create_or_resume(directory, specification(), EXAMPLES, {"host": "here"})
    for row in EXAMPLES:
        selection = TallyRow(row.example, "selection", 0, 10, Votes.of({0: 10}), 0.1)
        writer.append([selection, TallyRow(row.example, "estimation", 0, 100, votes, 1.0)])
    writer.close()
    return directory


def test_what_is_written_is_read_back(tmp_path: Path) -> None:
    run = open_run(fill(tmp_path / "run"))
    assert run.specification == specification()
    assert run.identity == specification().identity()
    assert run.examples() == EXAMPLES
    assert [row.tally.total for row, _ in run.tallies()] == [100, 10] * 3
    found = results(run)
    assert found.complete
    assert [o.predicted for o in found.outcomes] == [0, 0, 0]
    assert [o.correct for o in found.outcomes] == [True, False, True]


def test_a_finished_run_verifies_and_says_what_it_claims(tmp_path: Path) -> None:
    checked = sc.verify(open_run(fill(tmp_path / "run")))
    assert checked.passed
    for words in (
        "3 of 3 images",
        "sigma = 0.5",
        "n = 100",
        "alpha = 0.001",
        "0 images are abstentions",
        "grid of 256",
    ):
        assert words in checked.claim


def test_another_alpha_is_marked_post_hoc(tmp_path: Path) -> None:
    run = open_run(fill(tmp_path / "run"))
    strict, loose = results(run, alpha=1e-6), results(run, alpha=0.1)
    assert strict.alpha_post_hoc
    assert loose.alpha_post_hoc
    assert not results(run).alpha_post_hoc
    assert (strict.outcomes[0].radius or 0) < (loose.outcomes[0].radius or 0)
    assert "POST HOC" in sc.verify(run, alpha=0.1).claim


TAMPERING: dict[str, str] = {
    "more votes": """UPDATE tallies SET counts = '{"0":99,"1":1}' WHERE example = 0 AND stage = 'estimation'""",
    "fewer draws": "UPDATE tallies SET draws = 99 WHERE example = 0 AND stage = 'estimation'",
    "another label": "UPDATE examples SET label = 1 - label WHERE example = 0",
    "an image left out": "DELETE FROM examples WHERE example = 1",
    "draws of another stage": "UPDATE tallies SET stage = 'peeking' WHERE example = 0 AND stage = 'selection'",
    "a smaller sigma": "UPDATE spec SET value = replace(value, '\"sigma\":0.5', '\"sigma\":5.0') WHERE key = 'specification'",
    "a larger alpha": "UPDATE spec SET value = replace(value, '0.001', '0.1') WHERE key = 'specification'",
    "a repeated range": "INSERT INTO tallies SELECT example, stage, 1, draws, counts, seconds, digest FROM tallies WHERE example = 0 AND stage = 'estimation'",
    "a count that is no count": 'UPDATE tallies SET counts = \'{"0":"many"}\' WHERE example = 2',
}


@pytest.mark.parametrize("how", TAMPERING)
def test_an_edited_file_does_not_verify(tmp_path: Path, how: str) -> None:
    directory = fill(tmp_path / "run")
    with sqlite3.connect(directory / "run.db") as connection:
        assert connection.execute(TAMPERING[how]).rowcount != 0
    connection.close()
    checked = sc.verify(open_run(directory))
    assert not checked.passed
    assert checked.results is None
    with pytest.raises(RunFileError):
        results(open_run(directory))


def test_missing_draws_leave_the_image_unfinished_and_are_said(tmp_path: Path) -> None:
    directory = tmp_path / "run"
    writer = create_or_resume(directory, specification(), EXAMPLES, {})
    writer.append([TallyRow(0, "selection", 0, 10, Votes.of({0: 10}), 0.1)])
    writer.append([TallyRow(0, "estimation", 50, 50, Votes.of({0: 50}), 0.1)])
    writer.close()
    run = open_run(directory)
    assert results(run).outcomes == ()
    checked = sc.verify(run)
    assert checked.passed
    assert "none of 3 images" in checked.claim


def test_overlapping_draws_are_refused() -> None:
    rows = [TallyRow(0, "estimation", first, 10, Votes.of({0: 10}), 0.0) for first in (0, 5)]
    with pytest.raises(RunFileError, match="counted twice"):
        merge(rows)


def test_merging_does_not_depend_on_how_draws_were_cut(tmp_path: Path) -> None:
    rows = [TallyRow(0, "estimation", first, 10, Votes.of({first: 10}), 0.0) for first in (20, 0, 10)]
    image = merge(rows)[0]
    assert image.ranges == {"estimation": [(0, 30)]}
    assert image.tallies["estimation"] == Votes.of({0: 10, 10: 10, 20: 10})


def test_a_writer_keeps_others_out_and_readers_in(tmp_path: Path) -> None:
    directory = tmp_path / "run"
    writer = create_or_resume(directory, specification(), EXAMPLES, {})
    assert is_locked(directory)
    assert open_run(directory).examples() == EXAMPLES
    with pytest.raises(RunLocked):
        RunLock(directory)
    writer.close()
    assert not is_locked(directory)
    RunLock(directory).release()


def test_an_append_is_all_or_nothing(tmp_path: Path) -> None:
    directory = tmp_path / "run"
    writer = create_or_resume(directory, specification(), EXAMPLES, {})
    row = TallyRow(0, "selection", 0, 10, Votes.of({0: 10}), 0.1)
    other = TallyRow(1, "selection", 0, 10, Votes.of({0: 10}), 0.1)
    with pytest.raises(RunFileError, match="already holds"):
        writer.append([row, other, row], [0, 1])
    assert list(writer.tallies()) == []
    assert writer.finished() == []
    writer.append([row], [0])
    assert writer.finished() == [0]
    writer.close()


def test_another_specification_is_shown_field_by_field(tmp_path: Path) -> None:
    fill(tmp_path / "run")
    other = specification(noise=NoiseSpec(kind="float", sigma=0.5, seed=3))
    with pytest.raises(SpecificationMismatch) as caught:
        create_or_resume(tmp_path / "run", other, EXAMPLES, {})
    assert 'noise.kind: stored "grid", asked for "float"' in str(caught.value)
    assert "noise.seed: stored 0, asked for 3" in str(caught.value)
    assert not is_locked(tmp_path / "run")


def _garbage(path: Path) -> None:
    path.write_bytes(b"this is not a database at all" * 100)


def _foreign(path: Path) -> None:
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE recipes (name TEXT)")
    connection.close()


def _torn(path: Path) -> None:
    fill(path.parent / "whole")
    path.write_bytes((path.parent / "whole" / "run.db").read_bytes()[:5000])


def _newer(path: Path) -> None:
    fill(path.parent / "whole")
    shutil.copy(path.parent / "whole" / "run.db", path)
    with sqlite3.connect(path) as connection:
        connection.execute("UPDATE spec SET value = replace(value, '\"format\":1', '\"format\":99')")
    connection.close()


@pytest.mark.parametrize("spoil", [_garbage, _foreign, _torn, _newer])
def test_a_file_that_is_no_run_is_one_clear_error(tmp_path: Path, spoil: Callable[[Path], None]) -> None:
    spoil(tmp_path / "run.db")
    before = (tmp_path / "run.db").read_bytes()
    with pytest.raises(RunFileError):
        run = open_run(tmp_path)
        assert not sc.verify(run).passed
        results(run)
    with pytest.raises(RunFileError):
        create_or_resume(tmp_path, specification(), EXAMPLES, {}).append(
            [TallyRow(0, "selection", 0, 10, Votes.of({0: 10}), 0.1)]
        )
    assert (tmp_path / "run.db").read_bytes() == before, "nothing may be overwritten"


def test_a_half_made_database_is_started_afresh(tmp_path: Path) -> None:
    (tmp_path / "run.db.new").write_bytes(b"left by a process killed while creating the run")
    assert sc.verify(open_run(fill(tmp_path))).passed


def test_a_full_disk_is_one_clear_error_and_loses_nothing(tmp_path: Path) -> None:
    directory = tmp_path / "run"
    writer = create_or_resume(directory, specification(), EXAMPLES, {})
    writer.append([TallyRow(0, "selection", 0, 10, Votes.of({0: 10}), 0.1)])
    pages = writer._connection.execute("PRAGMA page_count").fetchone()[0]
    writer._connection.execute(f"PRAGMA max_page_count = {pages}")
    many = [TallyRow(1, "estimation", k, 1, Votes.of({0: 1}), 0.1) for k in range(2_000)]
    with pytest.raises(RunFileError, match=r"full.*Free some space"):
        writer.append(many)
    writer.close()
    assert [row.draws for row, _ in open_run(directory).tallies()] == [10]


def test_runs_are_found_by_pattern_and_by_parent(tmp_path: Path) -> None:
    for name in ("b", "a"):
        fill(tmp_path / "runs" / name)
    assert [path.name for path in run_directories(tmp_path / "runs")] == ["a", "b"]
    assert len(open_runs(tmp_path / "runs" / "*")) == 2
    with pytest.raises(RunFileError, match=r"names no directory"):
        open_runs(tmp_path / "nothing*")
    with pytest.raises(RunFileError, match=r"holds no run\.db"):
        open_run(tmp_path)


def test_the_digest_tells_runs_apart(tmp_path: Path) -> None:
    same = [tally_digest(open_run(fill(tmp_path / name))) for name in ("a", "b")]
    other = tally_digest(open_run(fill(tmp_path / "c", Votes.of({0: 94, 1: 6}))))
    assert same[0] == same[1] != other


def test_specifications_survive_json_and_have_one_identity() -> None:
    spec = specification()
    assert Specification.parse(spec.canonical()) == spec
    assert Specification.parse(spec.canonical()).identity() == spec.identity()
    assert (
        specification(rule=RuleSpec(task="certify", alpha=0.01, n0=10, n=100)).identity() != spec.identity()
    )


def test_identity_is_the_one_of_the_first_release() -> None:
    """A change here means that every stored run becomes another run: bump the format and migrate instead."""
    assert specification().identity() == "34364aca85bf5142c398e1ffd33e47a872629820425a65b42e67bb72c8533c50"
    assert 'format":1,' in specification().canonical(), "versions before stopping rules can read it"


@pytest.mark.parametrize(
    ("stop", "identity"),
    [
        ("table:0,0.25,0.5", "52dd8c9b59643be7543b8f8df558af4f7e0a7076d4ee57eb82216b7a0b2dc604"),
        ("anytime", "15eaec2b87ab35e75e259fb3333aa2e3a24e863fd19356067aa8b937d89b5b91"),
    ],
)
def test_identities_with_stopping_rules(stop: str, identity: str) -> None:
    rule = RuleSpec.settle("certify", stop=stop, n=1_000)
    spec = specification(rule=rule)
    assert spec.identity() == identity
    assert '"format":2,' in spec.canonical()
    assert Specification.parse(spec.canonical()) == spec
    longer = specification(rule=RuleSpec.settle("certify", stop=stop, n=2_000)).identity()
    assert (longer == identity) == (stop == "anytime"), (
        "only an open-ended run may be continued with more draws"
    )


def test_a_format_nobody_knows_is_refused() -> None:
    with pytest.raises(RunFileError, match=r"reads the formats 1, 2, 3"):
        Specification.parse(specification().canonical().replace('"format":1,', '"format":4,'))


@pytest.mark.parametrize(
    "values",
    [
        {"alpha": 0.0},
        {"alpha": 2.0},
        {"n": 0},
        {"n0": 0},
        {"n": 1.5},
        {"alpha": float("nan")},
        {"stop": "table:no"},
    ],
)
def test_impossible_rules_say_what_was_given(values: dict[str, object]) -> None:
    key = next(iter(values))
    with pytest.raises(InvalidInput, match=f"{key} ?=|selection draws"):
        RuleSpec(**({"task": "certify", "alpha": 0.001, "n0": 10, "n": 100} | values))  # type: ignore[arg-type]


def test_configuration_round_trip(tmp_path: Path) -> None:
    from smoothcert.runlog.configuration import to_toml

    values = settings(specification())
    (tmp_path / "run.toml").write_text(to_toml(values))
    assert read_configuration(tmp_path / "run.toml") == values


@pytest.mark.parametrize("text", ["sigma = ", "[noise]\nsigma = 1\n", "\xff"])
def test_configuration_that_is_not_flat_toml_is_refused(tmp_path: Path, text: str) -> None:
    (tmp_path / "run.toml").write_bytes(text.encode("latin-1"))
    with pytest.raises(InvalidInput):
        read_configuration(tmp_path / "run.toml")
