"""``smoothcert certify --task encode`` as a person meets it: tables, files, and errors that say what to write."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tests.cli.command import main

from smoothcert.cli import options, settings

SMALL = ["certify", "--task", "encode", "--data", "digits:test[:2]", "--encoder", "digits", "--sigma", "0.25", "--n", "64", "--n0", "16"]  # fmt: skip


@pytest.fixture
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_it_prints_both_tables_writes_the_pictures_and_verifies(
    here: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    whole = [
        *SMALL,
        "--denoiser",
        "digits",
        "--head",
        "examples:digits:train[:200]",
        "--served",
        "500",
        "--out",
        "run",
    ]
    assert main(whole) == 0
    out = capsys.readouterr().out
    assert "paper's FCSB" in out
    assert "served feature" in out
    assert "Certified accuracy" in out
    for name in (
        "cosines.md",
        "table.md",
        "cosine.png",
        "length.png",
        "curve.png",
        "run.toml",
        "sigma-0.25/run.db",
    ):
        assert (here / "run" / name).exists(), name
    assert main(["verify", "run"]) == 0
    assert "keeps at least the stated cosine" in " ".join(capsys.readouterr().out.split())
    assert main(["table", "run", "--cosine", "--radii", "0.1"]) == 0
    assert "r = 0.1" in capsys.readouterr().out
    assert main(["table", "run", "--decision", "votes"]) == 0
    assert main(["status", "run"]) == 0
    assert "correct and certified so far" in capsys.readouterr().out
    assert "smoothcert certify --config" in (here / "run/sigma-0.25/run.toml").read_text()
    assert main([*SMALL[:3], "--config", "run/run.toml", "--out", "again", "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert main(["table", "run", "--format", "json"]) == 0
    assert said["head"]["rows"] == [
        row | {"run": said["head"]["rows"][0]["run"]} for row in json.loads(capsys.readouterr().out)["rows"]
    ]
    assert (here / "again/sigma-0.25/run.db").exists()
    capsys.readouterr()
    assert main(["table", "run", "again", "--cosine", "--format", "json"]) == 0
    rows = json.loads(capsys.readouterr().out)["rows"]
    by_run = [[row["cosine"] for row in rows if row["run"].startswith(name)] for name in ("run", "again")]
    assert by_run[0] == by_run[1] != []


def test_json_is_for_scripts(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*SMALL, "--denoiser", "none", "--head", "none", "--json", "--out", "run"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert {row["bound"] for row in found["rows"]} == {"ours", "paper's FCSB", "to the clean feature"}
    assert "head" not in found
    assert main(["table", "run"]) != 0
    assert "--cosine" in capsys.readouterr().err
    assert main(["status", "run"]) == 0
    assert "correct" not in capsys.readouterr().out, "nothing answers here"


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--task", "encode", "--classifier", "mine"], "--classifier mine with --task encode"),
        (["--task", "encode", "--stop", "table:0.5"], "--stop table:0.5 with --task encode"),
        (["--task", "encode", "--label-aware"], "--label-aware"),
        (["--encoder", "mine"], "add --task encode"),
        (["--encoder", "digits"], "add --task encode"),
        (["--task", "encode", "--classifier", "digits"], "--classifier digits with --task encode"),
        (["--served", "10"], "add --task encode"),
        (["--task", "sing"], "task"),
        (["--task", "encode", "--decision", "loud"], "decision"),
        ([*SMALL[1:], "--denoiser", "none", "--decision", "loud"], "decision 'loud': is not known"),
        (["--task", "encode", "--mapper", "nowhere"], "--mapper 'nowhere': is not known"),
        (
            ["--task", "encode", "--head", "nowhere"],
            "Known: a directory written by ZeroShotHead.save, examples:DATA",
        ),
        (["--task", "encode", "--head", "prompts:nowhere.txt"], "nowhere.txt"),
        (["--task", "encode", "--served", "0"], "served"),
        (["--task", "encode", "--encoder", "resnet57"], "encoder"),
        ([*SMALL[1:], "--denoiser", "none", "--decision", "dual"], "--head"),
        ([*SMALL[1:], "--denoiser", "none", "--mapper", "m", "--decision", "dual"], "--head"),
        (["--task", "encode", "--data", "cifar10:test", "--denoiser", "none"], "cifar10"),
    ],
)
def test_options_that_do_not_fit_are_one_clear_error(
    here: Path, capsys: pytest.CaptureFixture[str], words: list[str], message: str
) -> None:
    assert main(["certify", *words]) in (2, 4)
    said = capsys.readouterr().err
    assert message in " ".join(said.split())
    assert "Traceback" not in said
    assert not (here / "runs").exists()


def test_prompts_need_a_text_tower(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (here / "prompts.txt").write_text("\n".join(f"the digit {k}" for k in range(10)), encoding="utf-8")
    assert main([*SMALL, "--denoiser", "none", "--head", "prompts:prompts.txt"]) == 2
    assert "text tower" in capsys.readouterr().err


def test_a_mapper_behind_another_denoiser_is_named(here: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """The mapper that ships with the package was trained behind the digits denoiser."""
    words = [*SMALL, "--mapper", "digits", "--head", "none", "--dry-run"]
    assert main([*words, "--denoiser", "none"]) == 0
    assert (
        "note: digits was trained with denoiser digits; with none it is as sound" in capsys.readouterr().err
    )
    assert main([*words, "--denoiser", "digits"]) == 0
    assert "note:" not in capsys.readouterr().err


@pytest.mark.parametrize("lines", ["", "one\ntwo\nthree\n", "a {}\nno template\n"])
def test_prompts_that_do_not_fit_the_classes(
    here: Path, capsys: pytest.CaptureFixture[str], lines: str
) -> None:
    (here / "prompts.txt").write_text(lines, encoding="utf-8")
    assert main([*SMALL, "--denoiser", "none", "--head", "prompts:prompts.txt"]) == 2
    said = " ".join(capsys.readouterr().err.split())
    assert "Write a line for each class" in said
    assert "for 10 classes" in said


def test_the_help_says_when_the_usual_head_is_used() -> None:
    (option,) = options.HeadName.__metadata__
    assert option.show_default == f"{settings.DEMO_HEAD}; none with --data"
