"""The field's TSV dialects: every one DATA.md lists is read, and what is written never claims more."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from smoothcert.errors import InvalidInput, RunFileError
from smoothcert.runlog.results import Outcome, Results
from smoothcert.runlog.tsv import read_tsv, write_cohen_tsv

DATA = Path(os.environ.get("SMOOTHCERT_TEST_DATA", Path(__file__).parents[3] / "shared" / "data"))
LOGS = DATA / "logs"
needs_logs = pytest.mark.skipif(not LOGS.is_dir(), reason=f"the published logs are not at {LOGS}")
HEADER = "idx\tlabel\tpredict\tradius\tcorrect\ttime\n"


def log(folder: Path, text: str) -> Path:
    path = folder / "log.tsv"
    path.write_bytes(text.encode())
    return path


def verdicts(results: Results) -> list[bool]:
    return [outcome.correct for outcome in results.outcomes]


def test_written_file_is_cohens_format_with_radii_rounded_down(tmp_path: Path) -> None:
    outcomes = (
        Outcome(0, 3, 3, 0.6744897501960817, 75.5),
        Outcome(20, 7, None, 0.0, 0.25),
        Outcome(40, 1, 2, 1.9999999, None),
    )
    write_cohen_tsv(Results("run", outcomes), tmp_path / "out.tsv")
    assert (tmp_path / "out.tsv").read_text() == (
        HEADER + "0\t3\t3\t0.674489\t1\t0:01:15.500000\n20\t7\t-1\t0.000000\t0\t0:00:00.250000\n"
        "40\t1\t2\t1.999999\t0\t\n"
    )
    assert [path.name for path in tmp_path.iterdir()] == ["out.tsv"]


def test_round_trip_keeps_all_but_the_seventh_decimal(tmp_path: Path) -> None:
    outcomes = tuple(
        Outcome(i, i % 7, None if i % 5 == 0 else i % 3, 0.0 if i % 5 == 0 else i / 7, 3600.5 * i)
        for i in range(50)
    )
    write_cohen_tsv(Results("run", outcomes), tmp_path / "out.tsv")
    read = read_tsv(tmp_path / "out.tsv", sigma=0.25, n=1000, n0=100, alpha=0.001)
    assert (read.sigma, read.n, read.n0, read.alpha, read.complete) == (0.25, 1000, 100, 0.001, True)
    for before, after in zip(outcomes, read.outcomes, strict=True):
        assert (before.index, before.label, before.predicted) == (after.index, after.label, after.predicted)
        assert before.radius is not None
        assert after.radius is not None
        assert after.radius <= before.radius < after.radius + 1.1e-6
        assert after.seconds == pytest.approx(before.seconds)


def test_round_trip_of_predictions_has_no_radius_column(tmp_path: Path) -> None:
    outcomes = (Outcome(0, 1, 1, None), Outcome(1, 2, None, None))
    write_cohen_tsv(Results("run", outcomes), tmp_path / "out.tsv")
    assert (tmp_path / "out.tsv").read_text().splitlines()[0] == "idx\tlabel\tpredict\tcorrect\ttime"
    assert read_tsv(tmp_path / "out.tsv").outcomes == outcomes


@pytest.mark.parametrize(
    "outcomes",
    [(Outcome(0, 1, 1, 0.5), Outcome(1, 1, 1, None)), (Outcome(0, None, 1, 0.5, None, True),)],
    ids=["some radii", "no label"],
)
def test_what_the_format_cannot_hold_is_refused(tmp_path: Path, outcomes: tuple[Outcome, ...]) -> None:
    with pytest.raises(InvalidInput, match="label for every image"):
        write_cohen_tsv(Results("run", outcomes), tmp_path / "out.tsv")
    assert not list(tmp_path.iterdir())


def test_an_unwritable_radius_leaves_the_old_file(tmp_path: Path) -> None:
    target = log(tmp_path, "old")
    with pytest.raises(InvalidInput, match="not negative"):
        write_cohen_tsv(Results("run", (Outcome(0, 1, 1, -0.5),)), target)
    assert target.read_text() == "old"


@pytest.mark.parametrize(
    ("time", "seconds"),
    [
        ("15.4", 15.4),
        ("0:02:31.238689", 151.238689),
        ("1:00:01", 3601.0),
        ("1 day, 0:00:01.5", 86401.5),
        ("2 days, 1:00:00", 176400.0),
        ("", None),
    ],
)
def test_times(tmp_path: Path, time: str, seconds: float | None) -> None:
    outcome = read_tsv(log(tmp_path, HEADER + f"0\t1\t1\t0.5\t1\t{time}\n")).outcomes[0]
    assert outcome.seconds == pytest.approx(seconds)


def test_abstention_is_none_and_wrong_even_if_the_file_is_sorted_otherwise(tmp_path: Path) -> None:
    read = read_tsv(log(tmp_path, HEADER + "5\t1\t1\t0.5\t1\t1\n2\t3\t-1\t0.0\t0\t1\n"))
    assert [(o.index, o.predicted, o.correct) for o in read.outcomes] == [(2, None, False), (5, 1, True)]


def test_running_total_in_correct_is_not_a_flag(tmp_path: Path) -> None:
    text = HEADER + "0\t1\t-1\t0.0\t0\t1\n1\t0\t0\t1.5\t1\t1\n2\t5\t4\t1.3\t1\t1\n3\t2\t2\t1.3\t2\t1\n"
    assert verdicts(read_tsv(log(tmp_path, text))) == [False, True, False, True]


def test_running_total_may_start_above_zero(tmp_path: Path) -> None:
    text = HEADER + "8\t1\t1\t0.5\t7\t1\n9\t0\t1\t0.5\t7\t1\n"
    assert verdicts(read_tsv(log(tmp_path, text))) == [True, False]


def test_running_total_beside_a_flag(tmp_path: Path) -> None:
    header = "idx\tlabel\tpredict\tradius\tcorrect\tright\ttime\n"
    text = header + "0\t1\t1\t0.5\t1\tTrue\t1\n1\t1\t2\t0.5\t1\tFalse\t1\n"
    assert verdicts(read_tsv(log(tmp_path, text))) == [True, False]


def test_correct_column_must_agree_with_the_labels(tmp_path: Path) -> None:
    text = HEADER + "0\t1\t1\t0.5\t1\t1\n1\t1\t1\t0.5\t1\t1\n2\t1\t2\t0.5\t1\t1\n"
    with pytest.raises(RunFileError, match=r"line 4.*contradict the correct column"):
        read_tsv(log(tmp_path, text))


NO_LABEL = "idx\tpredict\tradius\tcorrect\ttime\n"


@pytest.mark.parametrize(
    ("lines", "expected"),
    [
        ("0\t4\t0.5\t1\t1\n1\t4\t0.5\t0\t1\n2\t4\t0.5\t1\t1\n", [True, False, True]),
        ("0\t4\t0.5\t1\t1\n1\t4\t0.5\t2\t1\n2\t4\t0.5\t2\t1\n", [True, True, False]),
        ("0\t4\t0.5\t1\t1\n1\t-1\t0.0\t1\t1\n", [True, False]),
    ],
    ids=["flag", "running total", "an abstention settles it"],
)
def test_without_labels_the_file_is_the_judge(tmp_path: Path, lines: str, expected: list[bool]) -> None:
    read = read_tsv(log(tmp_path, NO_LABEL + lines))
    assert verdicts(read) == expected
    assert {outcome.label for outcome in read.outcomes} == {None}


@pytest.mark.parametrize(
    ("lines", "why"),
    [
        ("0\t4\t0.5\t1\t1\n1\t4\t0.5\t1\t1\n", "could be a flag or a running total"),
        ("0\t4\t0.5\t5\t1\n1\t4\t0.5\t3\t1\n", "is neither"),
    ],
)
def test_without_labels_a_doubtful_column_is_refused(tmp_path: Path, lines: str, why: str) -> None:
    with pytest.raises(RunFileError, match=why):
        read_tsv(log(tmp_path, NO_LABEL + lines))


def test_a_named_flag_is_never_doubtful(tmp_path: Path) -> None:
    text = "idx\tpredict\tcorrect\tright\n0\t4\t1\t1\n1\t4\t2\t1\n"
    assert verdicts(read_tsv(log(tmp_path, text))) == [True, True]


def test_header_variants_extra_columns_bom_and_windows_lines(tmp_path: Path) -> None:
    text = "\ufeffIndex\tTarget\tPrediction\tRadius\tgood\tCorrect\tpABar\r\n3\t2\t2\t0.25\t0\t1\t.9\r\n\r\n"
    assert read_tsv(log(tmp_path, text)).outcomes == (Outcome(3, 2, 2, 0.25),)


def test_a_header_repeated_by_an_appending_run_is_passed_over(tmp_path: Path) -> None:
    text = HEADER + "0\t1\t1\t0.5\t1\t1\n" + HEADER + "1\t1\t1\t0.5\t1\t1\n"
    assert len(read_tsv(log(tmp_path, text)).outcomes) == 2


@pytest.mark.parametrize("tail", ["1\t1\t1\t0.", "1\t1", "1"])
def test_cut_last_line_is_refused_or_marked(tmp_path: Path, tail: str) -> None:
    path = log(tmp_path, HEADER + "0\t1\t1\t0.5\t1\t1\n" + tail)
    with pytest.raises(RunFileError, match=r"line 3.*partial=True"):
        read_tsv(path)
    read = read_tsv(path, partial=True)
    assert len(read.outcomes) == 1
    assert read.truncated
    assert not read.complete


def test_cut_last_field_that_matters_is_refused(tmp_path: Path) -> None:
    path = log(tmp_path, "idx\tlabel\tcorrect\tpredict\n0\t1\t1\t1\n1\t12\t0\t1")
    with pytest.raises(RunFileError, match="breaks off"):
        read_tsv(path)


@pytest.mark.parametrize("time", ["0:02:3", "0:02:", "", "15.4"])
def test_cut_time_costs_only_the_time(tmp_path: Path, time: str) -> None:
    read = read_tsv(log(tmp_path, HEADER + f"0\t1\t1\t0.5\t1\t{time}"))
    assert read.outcomes == (Outcome(0, 1, 1, 0.5),)
    assert read.complete


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "holds 0 lines"),
        (HEADER, "no image"),
        ("| r = 0.25 |\n| --- |\n", r"line 1.*not the header"),
        ("idx,label,predict,radius,correct,time\n0,1,1,0.5,1,1\n", r"line 1.*Expected tab-separated"),
        ("idx\tpredict\tradius\n0\t1\t0.5\n", "label or correct"),
        (HEADER + "0\t1\t1\t0.5\t1\n", r"line 2.*5 fields where the header has 6"),
        (HEADER + "0\t1\tcat\t0.5\t1\t1\n", r"line 2.*predicted 'cat' is not a whole number >= -1"),
        (HEADER + "0\t1\t-2\t0.5\t0\t1\n", r"line 2.*predicted '-2'"),
        (HEADER + "0\t1\t1\tnan\t1\t1\n", r"line 2.*radius 'nan' is not a finite number"),
        (HEADER + "0\t1\t1\t-0.5\t1\t1\n", "radius '-0.5'"),
        (HEADER + "0\t1\t1\t0.5\tmaybe\t1\n", "correct 'maybe'"),
        (HEADER + "0\t1\t1\t0.5\t1\tsoon\n", "not a time in seconds or as H:MM:SS"),
        (HEADER + "0\t1\t-1\t0.5\t0\t1\n", "abstains with radius 0.5"),
        (HEADER + "0\t1\t1\t0.5\t1\t1\n0\t1\t1\t0.5\t1\t1\n", r"line 3.*repeats image 0 of line 2"),
    ],
)
def test_foreign_files_are_refused_with_line_and_expectation(tmp_path: Path, text: str, why: str) -> None:
    with pytest.raises(RunFileError, match=why):
        read_tsv(log(tmp_path, text))


def test_binary_and_missing_files_are_refused(tmp_path: Path) -> None:
    (tmp_path / "binary").write_bytes(b"\x80\x81\xff")
    with pytest.raises(RunFileError, match="not a text file"):
        read_tsv(tmp_path / "binary")
    with pytest.raises(RunFileError, match="cannot be read"):
        read_tsv(tmp_path / "missing")


@pytest.mark.parametrize(
    ("printed", "lowest"),
    [("0.25", 0.2495), ("1.55", 1.545), ("0.00602", 0.006015), ("3.81", 3.805), ("0.0", 0.0)],
)
def test_rounding_of_foreign_radii_can_be_taken_back(tmp_path: Path, printed: str, lowest: float) -> None:
    path = log(tmp_path, HEADER + f"0\t1\t1\t{printed}\t1\t1\n")
    assert read_tsv(path).outcomes[0].radius == float(printed)
    lowered = read_tsv(path, radius_digits=3).outcomes[0].radius
    assert lowered == pytest.approx(lowest, abs=1e-12)
    assert lowered is not None
    assert lowered <= lowest
    with pytest.raises(InvalidInput, match="at least one digit"):
        read_tsv(path, radius_digits=0)


@needs_logs
@pytest.mark.parametrize(
    ("name", "images", "correct", "abstained"),
    [
        ("dialects/dds_cumulative_correct.tsv", 20, 12, 5),
        ("consistency/cifar10_resnet110_consistency_lbd20_sigma_0.25.tsv", 10_000, 7_584, 279),
        ("cohen/certify/cifar10/resnet110/noise_0.25/test/sigma_0.25", 500, 374, 43),
        ("cohen/certify/imagenet/resnet50/noise_0.25/test/sigma_0.25", 427, 285, 38),
        ("cohen/predict/imagenet/resnet50/noise_0.25/test/N_100", 500, 330, 46),
    ],
)
def test_published_logs(name: str, images: int, correct: int, abstained: int) -> None:
    read = read_tsv(LOGS / name)
    assert len(read.outcomes) == images
    assert sum(verdicts(read)) == correct
    assert sum(outcome.predicted is None for outcome in read.outcomes) == abstained
    assert ("predict" in name) == all(outcome.radius is None for outcome in read.outcomes)
