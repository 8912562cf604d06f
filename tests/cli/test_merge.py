"""Shards from the command line, as a job array makes them: merged, refused by name, marked wherever shown."""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
import subprocess
import sys
from pathlib import Path

import pytest
from tests.cli.command import main, smoothcert
from tests.cli.test_commands import state

BASE = ["--data", "digits:test[:7]", "--n", "400", "--quiet"]
LEVELS = ["--sigma", "0.25,0.5"]


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The whole run, and the same in three shards below one directory, each a process of its own."""
    where = tmp_path_factory.mktemp("shards")
    smoothcert("certify", *BASE, *LEVELS, "--out", "runs/whole", where=where)
    for number in (1, 2, 3):
        smoothcert("certify", *BASE, *LEVELS, "--shard", f"{number}/3", "--out", "runs/parts", where=where)
    return where


@pytest.fixture
def place(tmp_path: Path, made: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A copy to do damage in, which is the working directory."""
    shutil.copytree(made / "runs", tmp_path / "runs")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def words(capsys: pytest.CaptureFixture[str]) -> str:
    """What was said on stderr, in one line."""
    return " ".join(capsys.readouterr().err.split())


def test_a_job_array_and_a_merge_make_the_whole_run(place: Path) -> None:
    names = sorted(path.name for path in (place / "runs/parts").iterdir())
    assert names == ["shard-01-of-03", "shard-02-of-03", "shard-03-of-03"]
    done = smoothcert("merge", "runs/parts", "--out", "runs/merged", where=place)
    assert "runs/merged/sigma-0.25: 3 shards, 7 images" in done.stderr
    for level in ("sigma-0.25", "sigma-0.5"):
        mine, whole = (state(f"runs/{name}/{level}", place) for name in ("merged", "whole"))
        assert mine["tallies"] == whole["tallies"]
        assert mine["complete"]
        assert mine["shard"] is None
    tables = [smoothcert("table", f"runs/{name}", where=place).stdout for name in ("merged", "whole")]
    assert tables[0] == tables[1]
    again = smoothcert("certify", "--config", "runs/merged/run.toml", "--out", "runs/merged", where=place)
    assert "0 draws at about" in again.stderr
    assert again.stdout.startswith(tables[0])
    assert "ok" in smoothcert("verify", "runs/merged", where=place).stdout


def test_merging_needs_no_torch(place: Path) -> None:
    (place / "hidden").mkdir()
    for name in ("torch", "diffusers"):
        (place / "hidden" / f"{name}.py").write_text("raise ImportError('there is no GPU stack here')\n")
    path = os.pathsep.join([str(place / "hidden"), os.environ.get("PYTHONPATH", "")])
    command = [
        sys.executable,
        "-m",
        "smoothcert",
        "merge",
        "runs/parts/shard-*-of-03",
        "--out",
        "m",
        "--json",
    ]
    done = subprocess.run(
        command, env=os.environ | {"PYTHONPATH": path}, capture_output=True, text=True, check=True
    )
    assert json.loads(done.stdout) == [
        {"run": f"m/sigma-{sigma:g}", "shards": 3, "images": 7} for sigma in (0.25, 0.5)
    ]


def test_a_shard_says_what_it_is_wherever_it_is_shown(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    one = "runs/parts/shard-03-of-03"
    assert main(["certify", *BASE[:-1], *LEVELS, "--shard", "3/3", "--out", "runs/parts"]) == 0
    said = words(capsys)
    assert "shard 3/3: 3 of these images" in said
    assert "shard 3/3, sigma 0.25: 3 of 3 images finished" in said
    assert "smoothcert merge runs/parts/shard-*-of-03 --out runs/parts-whole" in said
    assert "cost: at most 0 draws" in said
    assert main(["status", one]) == 0
    assert "sigma-0.25: shard 3/3, complete; 3 of 3 images" in capsys.readouterr().out
    assert main(["verify", one]) == 0
    assert "SHARD 3/3: only these images of the run's 7" in " ".join(capsys.readouterr().out.split())
    for option in ([], ["--best"], ["--proved"], ["--against", "carlini2023:cifar10"]):
        assert main(["table", one, *option]) == 0
        shown = capsys.readouterr().out
        assert "shard 3/3" in shown, option
        assert "Shard: a part of the run's images alone" in shown, option
    assert main(["table", one, "--format", "json"]) == 0
    assert {row["shard"] for row in json.loads(capsys.readouterr().out)["rows"]} == {"3/3"}
    assert main(["table", "runs/parts"]) == 0
    assert "| sigma | images | shard | r = 0" in capsys.readouterr().out
    assert main(["curve", one, "--out", "curve.svg"]) == 0
    assert "shard 3/3" in " ".join((place / "curve.svg").read_text(encoding="utf-8").split())
    assert main(["export", one, "--format", "json", "--out", "logs"]) == 0
    assert json.loads((place / "logs/shard-03-of-03-sigma-0.25.json").read_text())["shard"] == "3/3"


def test_a_single_draw_of_several_shards_is_several_rows(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    fixed = ["--data", "digits:test[:4]", "--stop", "fixed", "--n", "50", "--n0", "10", "--quiet"]
    for number in (1, 2):
        assert main(["certify", *fixed, "--sigma", "1", "--shard", f"{number}/2", "--out", "runs/f"]) == 0
    capsys.readouterr()
    assert main(["table", "runs/f", "--single-draw"]) == 0
    shown = capsys.readouterr().out
    assert "shard 1/2" in shown
    assert "shard 2/2" in shown


def test_gaps_are_named_and_nothing_is_written(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["merge", "runs/parts/shard-0[13]*", "--out", "runs/merged"]) == 4
    said = words(capsys)
    assert "shard 2/3 is missing, with 2 images" in said
    assert "Run the same command with --shard 2/3" in said
    with sqlite3.connect(place / "runs/parts/shard-01-of-03/sigma-0.5/run.db") as connection:
        example = connection.execute("SELECT max(example) FROM tallies").fetchone()[0]
        connection.execute("DELETE FROM tallies WHERE example = ?", (example,))
    connection.close()
    assert main(["merge", "runs/parts", "--out", "runs/merged"]) == 4
    assert f"sigma 0.5: 1 image ({example}) not finished, in shard 1/3" in words(capsys)
    assert not (place / "runs/merged").exists()
    again = ["certify", *BASE, *LEVELS, "--shard", "1/3", "--out", "runs/parts"]
    assert main(again) == 4, "the run had noted that image as finished"
    assert "run the same command again" in words(capsys)
    assert main(again) == 0
    assert main(["merge", "runs/parts", "--out", "runs/merged"]) == 0
    assert main(["merge", "runs/parts", "--out", "runs/merged"]) == 4
    assert "exists already" in words(capsys)


@pytest.mark.parametrize("verb", [["certify"], ["predict"], ["certify", "--task", "encode"]])
@pytest.mark.parametrize("shard", ["0/16", "17/16", "half"])
def test_a_shard_that_cannot_be_is_refused(
    place: Path, capsys: pytest.CaptureFixture[str], verb: list[str], shard: str
) -> None:
    assert main([*verb, "--data", "digits:test[:2]", "--shard", shard, "--out", "runs/new"]) == 2
    said = words(capsys)
    assert shard in said
    assert "Write 1/16 to 16/16" in said or "Write for example 3/16" in said
    assert not (place / "runs/new").exists()


def test_a_shard_that_would_not_fit_the_others_is_refused_at_once(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    shutil.rmtree(place / "runs/parts/shard-02-of-03")
    other = ["certify", *BASE, *LEVELS, "--seed", "1", "--shard", "2/3", "--out", "runs/parts"]
    assert main(other) == 4
    said = words(capsys)
    assert "noise.seed: stored 0, asked for 1" in said
    assert "could never be merged" in said
    assert "shard-01-of-03/sigma-0.25" in said
    assert not (place / "runs/parts/shard-02-of-03").exists()
    assert main([*other[:-1], "runs/others"]) == 0, "elsewhere it is a run of its own"


@pytest.mark.parametrize(
    "run",
    [
        ["predict", "--data", "digits:test[:3]", "--sigma", "0.5", "--n", "100"],
        [
            "certify",
            "--task",
            "encode",
            "--data",
            "digits:test[:3]",
            "--sigma",
            "0.5",
            "--n",
            "64",
            "--n0",
            "16",
        ],
    ],
    ids=["predict", "encode"],
)
def test_other_tasks_have_shards_too_also_empty_ones(
    place: Path, capsys: pytest.CaptureFixture[str], run: list[str]
) -> None:
    for number in range(1, 6):
        assert main([*run, "--shard", f"{number}/5", "--out", "runs/p", "--quiet"]) == 0
    assert main(["status", "runs/p"]) == 0
    assert "shard 5/5, complete; 0 of 0 images" in capsys.readouterr().out
    assert main(["merge", "runs/p", "--out", "runs/m"]) == 0
    assert main([*run, "--out", "runs/w", "--quiet"]) == 0
    assert state("runs/m", place)["tallies"] == state("runs/w", place)["tallies"]
    assert main([*run, "--out", "runs/m", "--quiet"]) == 0, "and it is continued as any run"


def test_json_of_a_shard(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    run = ["certify", *BASE, *LEVELS, "--shard", "1/3", "--out", "runs/parts", "--json"]
    assert main(run) == 0
    found = json.loads(capsys.readouterr().out)
    assert [(one["shard"], one["sigma"], one["complete"]) for one in found] == [
        ("1/3", 0.25, True),
        ("1/3", 0.5, True),
    ]
