"""Runs that certify features: the same image by image, with any workers, after any interruption; verified."""

from __future__ import annotations

import sqlite3
from pathlib import Path

import numpy as np
import pytest
import torch
from tests.engine import targets

import smoothcert as sc
from smoothcert import analysis, report
from smoothcert.engine import execute
from smoothcert.errors import Interrupted, InvalidInput, RunFileError, SpecificationMismatch
from smoothcert.runlog import tally_digest
from smoothcert.runlog.store import TallyRow

RULE = {"n0": 50, "n": 300, "batch": 64}


def encoder() -> torch.nn.Module:
    return torch.nn.Sequential(*list(targets.model())[:3], torch.nn.Linear(8 * 36, 12))


def head() -> sc.ZeroShotHead:
    rows = np.random.default_rng(3).normal(size=(5, 12))
    return sc.ZeroShotHead(rows / np.linalg.norm(rows, axis=1, keepdims=True), targets.CLASSES)


def smoothed() -> sc.SmoothedEncoder:
    torch.manual_seed(0)
    return sc.SmoothedEncoder(encoder(), sigma=0.5)


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    directory = tmp_path_factory.mktemp("encode") / "run"
    sc.encode(smoothed(), targets.images(5), directory, head=head(), **RULE)  # type: ignore[arg-type]
    return directory


def test_a_run_is_what_certifying_image_by_image_gives(whole: Path) -> None:
    data, run = targets.images(5), smoothed()
    for position, outcome in enumerate(sc.open_runs(whole)[0].outcomes):
        example = data[position]
        alone = run.certify(example.image, n0=50, n=300, example=example.index, batch=64, head=head())
        assert outcome.feature is not None
        assert outcome.feature.m_lower == pytest.approx(alone.m_lower, abs=1e-5)
        assert outcome.feature.covariance_upper == pytest.approx(alone.covariance_upper, abs=1e-5)
        assert outcome.predicted == alone.decisions[0].label
        assert outcome.radius == pytest.approx(alone.decisions[0].radius, abs=2e-3)


@pytest.mark.parametrize("workers", [1, 3])
def test_workers_change_no_bit(tmp_path: Path, whole: Path, workers: int) -> None:
    sc.encode(smoothed(), targets.images(5), tmp_path / "run", head=head(), workers=workers, **RULE)  # type: ignore[arg-type]
    assert tally_digest(sc.open_run(tmp_path / "run")) == tally_digest(sc.open_run(whole))


def test_an_interrupted_run_ends_as_if_nothing_had_happened(
    tmp_path: Path, whole: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Stopped after every few batches, through pilots and estimation draws alike."""

    class Stopping(execute.StopRequest):
        left = 3

        @property
        def received(self) -> int:  # type: ignore[override]
            Stopping.left -= 1
            return 0 if Stopping.left > 0 else 2

        @received.setter
        def received(self, value: int) -> None: ...

    stops = 0
    with monkeypatch.context() as patch:
        patch.setattr(execute, "StopRequest", Stopping)
        for _ in range(60):
            Stopping.left = 3 + stops % 3
            try:
                sc.encode(smoothed(), targets.images(5), tmp_path / "run", head=head(), **RULE)  # type: ignore[arg-type]
                break
            except Interrupted:
                stops += 1
    assert stops >= 3
    sc.encode(smoothed(), targets.images(5), tmp_path / "run", head=head(), **RULE)  # type: ignore[arg-type]
    assert tally_digest(sc.open_run(tmp_path / "run")) == tally_digest(sc.open_run(whole))


def test_it_verifies_and_says_what_is_claimed(whole: Path) -> None:
    checked = sc.verify(sc.open_run(whole))
    assert checked.passed, [check for check in checked.checks if not check.passed]
    assert "keeps at least the stated cosine" in checked.claim
    assert "the answer of the head" in checked.claim
    assert "POST HOC" in sc.verify(sc.open_run(whole), alpha=0.05).claim


def test_an_edited_score_is_noticed(tmp_path: Path, whole: Path) -> None:
    copy = tmp_path / "run.db"
    copy.write_bytes((whole / "run.db").read_bytes())
    with sqlite3.connect(copy) as connection:
        text = connection.execute("SELECT counts FROM tallies WHERE stage = 'estimation'").fetchone()[0]
        connection.execute(
            "UPDATE tallies SET counts = ? WHERE counts = ?",
            (text.replace('"nonfinite":0', '"nonfinite":1'), text),
        )
    connection.close()
    assert not sc.verify(sc.open_run(tmp_path)).passed


def test_sums_of_another_length_are_refused(tmp_path: Path, whole: Path) -> None:
    run = sc.open_run(whole)
    rows = [row for row, _ in run.tallies() if row.stage == "estimation"]
    short = rows[0].tally.__class__(rows[0].draws, rows[0].tally.sums[:-1], 0)  # type: ignore[union-attr,call-arg]
    copy = tmp_path / "run.db"
    copy.write_bytes((whole / "run.db").read_bytes())
    bad = TallyRow(rows[0].example, "estimation", rows[0].first, rows[0].draws, short, rows[0].seconds)
    with sqlite3.connect(copy) as connection:
        connection.execute(
            "UPDATE tallies SET counts = ?, digest = ? WHERE example = ? AND stage = 'estimation' AND first = ?",
            (short.to_json(), bad.digest(run.identity), bad.example, bad.first),
        )
    connection.close()
    assert not sc.verify(sc.open_run(tmp_path)).passed


def test_other_parts_or_numbers_are_another_run(whole: Path) -> None:
    data, others = targets.images(5), RULE | {"n": 301}
    with pytest.raises(SpecificationMismatch, match=r"rule\.n: stored 300, asked for 301"):
        sc.encode(smoothed(), data, whole, head=head(), **others)  # type: ignore[arg-type]
    with pytest.raises(SpecificationMismatch, match=r"head"):
        sc.encode(smoothed(), data, whole, **RULE)  # type: ignore[arg-type]
    with pytest.raises(SpecificationMismatch, match=r"rule\.task"):
        sc.certify(sc.SmoothedClassifier(targets.model(), 0.5), data, whole, n0=50, n=300, batch=64)


def test_any_decision_that_was_counted_can_be_read(whole: Path) -> None:
    radii = {}
    for decision in ("votes", "margin", "dual"):
        (found,) = sc.open_runs(whole, decision=decision)
        assert found.decision == decision
        radii[decision] = [outcome.radius for outcome in found.outcomes]
        analysis.certified_accuracy([found]).table()
    assert radii["votes"] != radii["dual"]
    assert radii["margin"] != radii["dual"]
    with pytest.raises(InvalidInput, match="'votes' or 'margin' or 'dual'"):
        sc.open_runs(whole, decision="loud")


def test_a_run_without_a_head_has_cosines_and_no_accuracy(tmp_path: Path) -> None:
    found = sc.encode(smoothed(), targets.images(3), tmp_path / "run", served=500, **RULE)  # type: ignore[arg-type]
    table = analysis.cosine_table([found], (0.1, 0.25))
    assert {line["bound"] for line in table.lines()} == {
        "ours",
        "paper's FCSB",
        "served feature",
        "to the clean feature",
    }
    assert "r = 0.25" in table.to_markdown()
    by_bound = {(line["bound"], line["radius"]): line["cosine"] for line in table.lines()}
    assert by_bound["ours", 0.1] > by_bound["paper's FCSB", 0.1]
    with pytest.raises(InvalidInput, match="certifies features"):
        analysis.certified_accuracy([found])
    with pytest.raises(InvalidInput, match="no head"):
        sc.open_runs(tmp_path / "run", decision="votes")


def test_votes_are_not_read_as_cosines(tmp_path: Path) -> None:
    found = sc.certify(
        sc.SmoothedClassifier(targets.model(), 0.5), targets.images(3), tmp_path / "run", n0=10, n=50
    )
    with pytest.raises(InvalidInput, match="--task encode"):
        analysis.cosine_table([found])


def test_a_head_for_other_classes_is_refused_before_anything_is_drawn(tmp_path: Path) -> None:
    other = sc.ZeroShotHead(np.eye(12)[:2], ("x", "y"))
    with pytest.raises(InvalidInput, match="on data of a, b"):
        sc.encode(smoothed(), targets.images(3), tmp_path / "run", head=other, **RULE)  # type: ignore[arg-type]
    assert not (tmp_path / "run").exists()
    wrong = sc.ZeroShotHead(np.eye(7)[:5], targets.CLASSES)
    with pytest.raises(InvalidInput, match="its own encoder"):
        sc.encode(smoothed(), targets.images(3), tmp_path / "run", head=wrong, **RULE)  # type: ignore[arg-type]
    assert not (tmp_path / "run").exists()


def test_each_kind_of_model_has_its_own_verb(tmp_path: Path) -> None:
    data, voting = targets.images(2), sc.SmoothedClassifier(targets.model(), 0.5)
    for call, instead in (
        (lambda: sc.certify(smoothed(), data, tmp_path / "run"), r"Use smoothcert\.encode"),  # type: ignore[arg-type]
        (lambda: sc.predict(smoothed(), data, tmp_path / "run"), r"Use smoothcert\.encode"),  # type: ignore[arg-type]
        (lambda: sc.encode(voting, data, tmp_path / "run"), r"Use smoothcert\.certify"),  # type: ignore[arg-type]
        (lambda: sc.encode(encoder(), data, tmp_path / "run"), r"smoothcert\.SmoothedEncoder\(model"),  # type: ignore[arg-type]
    ):
        with pytest.raises(InvalidInput, match=instead):
            call()
    with pytest.raises(InvalidInput, match="without a head"):
        sc.encode(smoothed(), data, tmp_path / "run", decision="votes")
    assert not (tmp_path / "run").exists()


def test_pictures_are_drawn_and_the_same_again(tmp_path: Path, whole: Path) -> None:
    (found,) = sc.open_runs(whole)
    for draw in (report.cosine_curve, report.length_histogram):
        for name in ("one.svg", "other.svg"):
            draw([found], tmp_path / name)
        assert (tmp_path / "one.svg").read_bytes() == (tmp_path / "other.svg").read_bytes()
    attacked = {found.name: [(0.1, 0.97), (0.25, 0.8)]}
    report.cosine_curve([found], tmp_path / "attacked.svg", attacked=attacked)
    assert "best attack found" in (tmp_path / "attacked.svg").read_text(encoding="utf-8")


def test_a_foreign_format_is_refused(tmp_path: Path, whole: Path) -> None:
    copy = tmp_path / "run.db"
    copy.write_bytes((whole / "run.db").read_bytes())
    with sqlite3.connect(copy) as connection:
        connection.execute("UPDATE spec SET value = replace(value, '\"format\":3', '\"format\":2')")
    connection.close()
    with pytest.raises(RunFileError):
        sc.open_runs(tmp_path)
