"""Stopping rules from the command line, on the embedded digits."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tests.cli.command import smoothcert
from tests.cli.test_commands import state

BASE = ["--data", "digits:test[:12]", "--sigma", "0.5", "--quiet"]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    where = tmp_path_factory.mktemp("stopping")
    smoothcert("certify", *BASE, "--n", "2000", "--out", "runs/usual", where=where)
    return where


def test_the_usual_rule_is_the_table(place: Path) -> None:
    written = (place / "runs/usual/run.toml").read_text()
    assert 'stop = "table:0,0.25,0.5,0.75,1"' in written
    found = json.loads(smoothcert("table", "runs/usual", "--format", "json", where=place).stdout)
    assert {row["stop"] for row in found["rows"]} == {"table:0,0.25,0.5,0.75,1"}
    assert all(row["true_at_least"] <= row["certified"] for row in found["rows"])
    assert state("runs/usual", place)["complete"]
    smoothcert("certify", "--config", "runs/usual/run.toml", "--out", "runs/again", "--quiet", where=place)
    assert state("runs/again", place)["tallies"] == state("runs/usual", place)["tallies"]
    single = "runs/usual/sigma-0.5/run.toml"
    smoothcert("certify", "--config", single, "--out", "runs/single", "--quiet", where=place)
    assert state("runs/single", place)["tallies"] == state("runs/usual", place)["tallies"]


def test_draws_decisions_and_the_whole_set_are_printed(place: Path) -> None:
    draws = smoothcert("table", "runs/usual", "--draws", where=place).stdout
    assert "fixed n would take" in draws
    assert "proved" in draws
    whole = smoothcert("table", "runs/usual", "--proved", where=place).stdout
    assert "of 12" in whole
    checked = smoothcert("verify", "runs/usual", where=place).stdout
    assert "looks from 32 to 2,000 draws" in checked
    assert "under the stopping rule" in " ".join(checked.split())
    text = smoothcert("export", "runs/usual", "--out", "logs", where=place)
    assert text.returncode == 0


@pytest.mark.parametrize(
    "flags",
    [
        ("--cosine", "--best"),
        ("--draws", "--decision", "votes"),
        ("--cosine", "--draws"),
        ("--proved", "--best"),
    ],
)
def test_flags_that_another_table_ignores_are_refused(place: Path, flags: tuple[str, ...]) -> None:
    done = smoothcert("table", "runs/usual", *flags, where=place, expect=2)
    assert "prints a table of its own" in done.stderr


def test_fixed_and_table_agree_where_both_decide(place: Path) -> None:
    smoothcert("certify", *BASE, "--stop", "fixed", "--n", "2000", "--out", "runs/fixed", where=place)
    table = smoothcert("table", "runs/usual", "runs/fixed", "--format", "json", where=place)
    found = json.loads(table.stdout)["rows"]
    counts = {
        run: [r["certified"] for r in found if r["run"].startswith(run)] for run in ("runs/u", "runs/f")
    }
    assert all(abs(a - b) <= 1 for a, b in zip(*counts.values(), strict=True)), counts


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--stop", "radius:0.25", "--n", "1000"], "radius:0.25"),
        (["--stop", "curve:0.1", "--n0", "200", "--n", "1500"], "planned by the selection draws"),
        (["--stop", "anytime", "--n", "300"], "for all numbers of draws at once"),
        (["--label-aware", "--n", "1000"], "LABEL-AWARE"),
        (["--bound", "pair", "--n", "1000"], "names the class"),
    ],
)
def test_every_rule_runs_and_verifies(place: Path, words: list[str], said: str) -> None:
    out = "runs/" + "".join(c if c.isalnum() else "-" for c in "".join(words))
    smoothcert("certify", *BASE, *words, "--out", out, where=place)
    assert said in " ".join(smoothcert("verify", out, where=place).stdout.split())


def test_predict_stops_when_the_answer_is_known(place: Path) -> None:
    words = ["--data", "digits:test[:6]", "--sigma", "0.25", "--out", "runs/answers"]
    done = smoothcert("predict", *words, where=place)
    assert len(done.stdout.splitlines()) == 7
    draws = smoothcert("table", "runs/answers", "--draws", where=place).stdout
    assert "mean" in draws
    refused = smoothcert("table", "runs/answers", "--single-draw", where=place, expect=2)
    assert "biased" in refused.stderr
