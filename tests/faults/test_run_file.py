"""A run file that is torn, foreign or not to be written; a disk that is full."""

from __future__ import annotations

import os
import random
import shutil
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from tests.engine import targets
from tests.faults.drivers import SAID, drive_as_nobody, drive_with_small_files
from tests.faults.harness import Whole, begun, half_a_run, refused, start, stored

import smoothcert as sc
from smoothcert.errors import RunFileError, SpecificationMismatch

Report = Callable[[str, object], None]
Undisturbed = Callable[[str], Whole]
SEED = int(os.environ.get("SMOOTHCERT_FAULT_SEED", "0"))  # another one finds other faults


@pytest.fixture(scope="module")
def half(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Half a run under a stopping rule; tests work on copies."""
    directory = tmp_path_factory.mktemp("half") / "run"
    half_a_run(directory, "table")
    return directory


def copied(half: Path, to: Path) -> Path:
    shutil.rmtree(to, ignore_errors=True)
    return Path(shutil.copytree(half, to))


def continued(directory: Path) -> None:
    targets.run(directory, rule="table")


def truncated(whole: bytes, chance: random.Random) -> bytes:
    return whole[
        : chance.choice([0, chance.randrange(len(whole)), 4096 * chance.randrange(len(whole) // 4096)])
    ]


def flipped(whole: bytes, chance: random.Random) -> bytes:
    """A few bytes of one page are others."""
    torn, page = bytearray(whole), 4096 * chance.randrange(len(whole) // 4096)
    for _ in range(chance.choice([1, 1, 1, 8, 64])):
        torn[page + chance.randrange(4096)] ^= chance.randrange(1, 256)
    return bytes(torn)


def zeroed(whole: bytes, chance: random.Random) -> bytes:
    """A page that never reached the disk."""
    page = 4096 * chance.randrange(len(whole) // 4096)
    return whole[:page] + bytes(4096) + whole[page + 4096 :]


def tear(
    half: Path,
    place: Path,
    whole: Whole,
    report: Report,
    kind: Callable[[bytes, random.Random], bytes],
    times: int,
) -> None:
    """What is damaged is refused and left as it is; where nothing that counts was hit, the run goes on."""
    chance, sound, harmless = random.Random(SEED), (half / "run.db").read_bytes(), 0
    for _ in range(times):
        directory = copied(half, place / "run")
        torn = kind(sound, chance)
        (directory / "run.db").write_bytes(torn)
        try:
            continued(directory)
        except RunFileError:
            assert (directory / "run.db").read_bytes() == torn
            assert not (directory / "run.db-journal").exists()
        else:
            harmless += torn != sound
            whole.matches(directory, report)
    report(f"run.db {kind.__name__}", times)
    assert kind is flipped or not harmless
    assert harmless < times


@pytest.mark.parametrize("kind", [truncated, flipped, zeroed])
def test_a_torn_run_file_is_refused_untouched(
    half: Path, tmp_path: Path, undisturbed: Undisturbed, report: Report, kind: Callable[..., bytes]
) -> None:
    tear(half, tmp_path, undisturbed("table"), report, kind, 8)


@pytest.mark.faults_long
@pytest.mark.parametrize("kind", [truncated, flipped, zeroed])
def test_many_torn_run_files_are_refused_untouched(
    half: Path, tmp_path: Path, undisturbed: Undisturbed, report: Report, kind: Callable[..., bytes]
) -> None:
    tear(half, tmp_path, undisturbed("table"), report, kind, 150)


def test_damage_that_no_row_shows_is_refused(half: Path, tmp_path: Path, report: Report) -> None:
    """In the head of the file, which SQLite alone understands; in the boundaries, which the rows do not name;
    in an image that is finished, whose rows nobody needs."""
    for spoil in (spoil_the_head, spoil_a_boundary, spoil_a_finished_image):
        directory = copied(half, tmp_path / "run")
        spoil(directory / "run.db")
        before = (directory / "run.db").read_bytes()
        refused(lambda: continued(directory), RunFileError, "edited or damaged")  # noqa: B023
        assert (directory / "run.db").read_bytes() == before
        report("run.db flipped", 1)


def spoil_the_head(path: Path) -> None:
    torn = bytearray(path.read_bytes())
    torn[67] ^= 1
    path.write_bytes(torn)


def spoil_a_boundary(path: Path) -> None:
    connection = sqlite3.connect(path)
    change = "UPDATE spec SET value = replace(value, '\"looks\": [32, 48', '\"looks\": [32, 49') WHERE key = 'design'"
    connection.execute(change)
    connection.commit()
    assert "[32, 49" in connection.execute("SELECT value FROM spec WHERE key = 'design'").fetchone()[0]
    connection.close()


def spoil_a_finished_image(path: Path) -> None:
    connection = sqlite3.connect(path)
    finished = connection.execute("SELECT min(example) FROM finished").fetchone()
    connection.execute("UPDATE tallies SET counts = 'n' || counts WHERE example = ?", finished)
    connection.commit()
    assert connection.total_changes
    connection.close()


def another_database(path: Path) -> None:
    connection = sqlite3.connect(path)
    connection.execute("CREATE TABLE spec (key TEXT, value TEXT)")
    connection.commit()
    connection.close()


@pytest.mark.parametrize(
    "foreign",
    [another_database, lambda path: path.write_text("My notes\n" * 900), lambda path: path.write_bytes(b"")],
    ids=["another SQLite database", "a text", "nothing"],
)
def test_a_foreign_file_is_refused_untouched(
    tmp_path: Path, report: Report, foreign: Callable[[Path], None]
) -> None:
    foreign(tmp_path / "run.db")
    before = (tmp_path / "run.db").read_bytes()
    refused(lambda: continued(tmp_path), RunFileError, "run")
    assert (tmp_path / "run.db").read_bytes() == before
    report("run.db foreign", 1)


def test_another_run_is_refused_untouched(half: Path, tmp_path: Path, report: Report) -> None:
    directory = copied(half, tmp_path / "run")
    before = (directory / "run.db").read_bytes()
    refused(lambda: targets.run(directory, rule="anytime"), SpecificationMismatch, "rule.stop")
    assert (directory / "run.db").read_bytes() == before
    report("run.db of another run", 1)


def cut_off_in_a_commit(directory: Path) -> None:
    """What a machine that loses power within a commit leaves: pages half written, and SQLite's journal."""
    code = """
import os, sqlite3, sys
c = sqlite3.connect(sys.argv[1])
c.execute("PRAGMA cache_size = 2")
c.execute("UPDATE tallies SET digest = 'torn', counts = counts || ' '")
os.kill(os.getpid(), 9)
"""
    subprocess.run([sys.executable, "-c", code, directory / "run.db"], check=False)
    assert (directory / "run.db-journal").stat().st_size > 4096


@pytest.mark.parametrize("reading", [True, False], ids=["read", "continued"])
def test_a_commit_that_was_cut_off_is_taken_back(
    half: Path, tmp_path: Path, undisturbed: Undisturbed, report: Report, reading: bool
) -> None:
    directory = copied(half, tmp_path / "run")
    rows = stored(directory)
    cut_off_in_a_commit(directory)
    torn = (directory / "run.db").read_bytes()
    if reading:
        assert sc.verify(sc.open_run(directory)).passed
        assert torn != (directory / "run.db").read_bytes()
        assert stored(directory) == rows
    continued(directory)
    undisturbed("table").matches(directory, report)
    report("killed within a commit", 1)


@pytest.mark.parametrize("seed", range(3))
def test_a_journal_that_is_torn_itself(
    half: Path, tmp_path: Path, undisturbed: Undisturbed, report: Report, seed: int
) -> None:
    directory = copied(half, tmp_path / "run")
    (directory / "run.db-journal").write_bytes(random.Random(seed).randbytes(3_000))
    continued(directory)
    undisturbed("table").matches(directory, report)
    report("journal torn", 1)


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A file system with little room."""
    place = tmp_path / "disk"
    place.mkdir()
    if (
        os.getuid() != 0
        or subprocess.run(
            ["mount", "-t", "tmpfs", "-o", "size=64k", "tmpfs", place], check=False, capture_output=True
        ).returncode
    ):
        pytest.skip("a small disk can be mounted only by root, where mounting is allowed")
    yield place
    subprocess.run(["umount", place], check=True)


def test_the_disk_is_full(small_disk: Path, undisturbed: Undisturbed, report: Report) -> None:
    directory = small_disk / "run"
    for size in ("48k", "64k", "80k"):
        subprocess.run(["mount", "-o", f"remount,size={size}", small_disk], check=True)
        refused(
            lambda: targets.run(directory, commit_seconds=0.0),
            RunFileError,
            "full",
            "Free some space",
            "committed is kept",
        )
        assert begun(directory)
        report("disk full", 1)
    kept = set(stored(directory))
    subprocess.run(["mount", "-o", "remount,size=8m", small_disk], check=True)
    targets.run(directory)
    assert kept <= set(stored(directory))
    undisturbed("fixed").matches(directory, report)


def test_the_disk_is_full_before_the_run_begins(
    small_disk: Path, undisturbed: Undisturbed, report: Report
) -> None:
    (small_disk / "ballast").write_bytes(bytes(56 * 1024))
    refused(lambda: targets.run(small_disk / "run"), RunFileError, "Free some space")
    report("disk full", 1)
    (small_disk / "ballast").unlink()
    subprocess.run(["mount", "-o", "remount,size=8m", small_disk], check=True)
    targets.run(small_disk / "run")
    undisturbed("fixed").matches(small_disk / "run", report)


def test_files_may_not_grow(tmp_path: Path, undisturbed: Undisturbed, report: Report) -> None:
    directory = tmp_path / "run"
    for most in (32 * 1024, 40 * 1024):
        process = start(drive_with_small_files, directory, most, commit_seconds=0.0)
        process.join()
        assert process.exitcode == 4
        said = (tmp_path / SAID).read_text()
        assert "RunFileError" in said
        assert "quota" in said
        assert "committed is kept" in said
        assert begun(directory)
        report("file size limited", 1)
    targets.run(directory)
    undisturbed("fixed").matches(directory, report)


@pytest.fixture
def public(half: Path) -> Iterator[Path]:
    """Half a run where other users can see it."""
    if os.getuid() != 0:
        pytest.skip("only root can start a process of another user")
    place = Path(tempfile.mkdtemp(prefix="smoothcert-"))
    place.chmod(0o777)
    yield copied(half, place / "run")
    shutil.rmtree(place)


def as_nobody(directory: Path, read: bool = False) -> int | None:
    process = start(drive_as_nobody, directory, read=read, rule="table")
    process.join()
    return process.exitcode


@pytest.mark.parametrize("what", ["run.db", "directory", "both but the lock"])
def test_read_only(public: Path, undisturbed: Undisturbed, report: Report, what: str) -> None:
    os.chown(public, 65534, 65534)
    for path in public.iterdir():
        os.chown(path, 65534, 65534)
    rights = {"run.db": 0o755, "directory": 0o555, "both but the lock": 0o555}[what]
    (public / "run.db").chmod(0o644 if what == "directory" else 0o444)
    public.chmod(rights)
    before = (public / "run.db").read_bytes()
    assert as_nobody(public, read=True) == 0, "what may be read can be verified"
    assert as_nobody(public) == 4
    said = (public.parent / SAID).read_text()
    assert "RunFileError" in said
    assert "writ" in said
    assert (public / "run.db").read_bytes() == before
    assert not (public / "run.db-journal").exists()
    report("read-only", 1)
    public.chmod(0o755)
    (public / "run.db").chmod(0o644)
    continued(public)
    undisturbed("table").matches(public, report)


def test_a_disk_mounted_read_only(
    half: Path, small_disk: Path, undisturbed: Undisturbed, report: Report
) -> None:
    subprocess.run(["mount", "-o", "remount,size=8m", small_disk], check=True)
    directory = copied(half, small_disk / "run")
    subprocess.run(["mount", "-o", "remount,ro", small_disk], check=True)
    assert sc.verify(sc.open_run(directory)).passed
    refused(lambda: continued(directory), RunFileError, "writ")
    report("read-only", 1)
    subprocess.run(["mount", "-o", "remount,rw", small_disk], check=True)
    continued(directory)
    undisturbed("table").matches(directory, report)
