"""The command line as a person or script meets it: every verb, run for real on the embedded digits."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from tests.cli.command import in_a_process, smoothcert

from smoothcert.errors import RunFileError
from smoothcert.runlog.store import open_run

SMALL = ["--data", "digits:test[:4]", "--stop", "fixed", "--n", "150", "--n0", "20", "--sigma", "0.25,0.5"]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with one finished run of two noise levels."""
    where = tmp_path_factory.mktemp("cli")
    done = in_a_process("certify", *SMALL, "--out", "runs/small", where=where)
    assert "| 0.25" in done.stdout
    assert "What next" in done.stderr
    return where


def test_a_run_leaves_pictures_tables_and_the_toml_that_repeats_it(place: Path) -> None:
    names = {path.name for path in (place / "runs/small").iterdir()}
    assert names == {
        "curve.png",
        "curve.svg",
        "grid.png",
        "grid.svg",
        "run.toml",
        "table.md",
        "sigma-0.25",
        "sigma-0.5",
    }
    smoothcert("certify", "--config", "runs/small/run.toml", "--out", "runs/again", "--quiet", where=place)
    single = ["certify", "--config", "runs/small/sigma-0.5/run.toml", "--out", "runs/single", "--quiet"]
    smoothcert(*single, where=place)
    states = json.loads(smoothcert("status", "runs", "--json", where=place).stdout)
    tallies = {state["run"]: state["tallies"] for state in states}
    assert tallies["runs/small/sigma-0.25"] == tallies["runs/again/sigma-0.25"]
    assert (
        tallies["runs/small/sigma-0.5"] == tallies["runs/again/sigma-0.5"] == tallies["runs/single/sigma-0.5"]
    )


def test_running_again_continues_and_another_rule_is_refused(place: Path) -> None:
    again = smoothcert("certify", *SMALL, "--out", "runs/small", where=place)
    assert "0 draws at about" in again.stderr
    other = smoothcert("certify", *SMALL, "--alpha", "0.01", "--out", "runs/small", where=place, expect=4)
    assert "rule.alpha: stored 0.001, asked for 0.01" in other.stderr
    assert "Traceback" not in other.stderr


def test_dry_run_prints_the_cost_and_draws_nothing(place: Path) -> None:
    done = smoothcert("certify", *SMALL, "--out", "runs/dry", "--dry-run", where=place)
    assert "1,360 draws at about" in done.stdout
    assert not (place / "runs/dry").exists()
    cost = json.loads(
        smoothcert("certify", *SMALL, "--out", "runs/dry", "--dry-run", "--json", where=place).stdout
    )
    assert cost["draws"] == 1_360
    assert cost["seconds"] > 0


@pytest.mark.parametrize("output", ["markdown", "latex", "csv", "json"])
def test_table_in_every_format(place: Path, output: str) -> None:
    done = smoothcert("table", "runs/small", "--radii", "0,0.3", "--format", output, where=place)
    assert "0.3" in done.stdout
    if output == "json":
        assert len(json.loads(done.stdout)["rows"]) > 0


def test_table_best_against_a_published_one(place: Path) -> None:
    done = smoothcert("table", "runs/small", "--against", "carlini2023:cifar10", where=place)
    assert "(88.1)76.7" in done.stdout
    assert "this run" in done.stdout.lower()
    unknown = smoothcert("table", "runs/small", "--against", "carlini2023:cifar11", where=place, expect=2)
    assert "Did you mean" in unknown.stderr


def test_reading_verbs_never_import_torch(place: Path) -> None:
    """An auditor has no torch: with it hidden, reading still works."""
    (place / "hidden").mkdir(exist_ok=True)
    for name in ("torch", "diffusers"):
        (place / "hidden" / f"{name}.py").write_text("raise ImportError('there is no GPU stack here')\n")
    environment = os.environ | {"PYTHONPATH": str(place / "hidden")}
    for words in (
        ["verify", "runs/small"],
        ["table", "runs/small", "--best"],
        ["curve", "runs/small", "--out", "auditor.png"],
        ["status", "runs/small"],
        ["export", "runs/small", "--out", "auditor"],
    ):
        command = [sys.executable, "-m", "smoothcert", *words]
        done = subprocess.run(
            command, cwd=place, env=environment, capture_output=True, text=True, check=False
        )
        assert done.returncode == 0, done.stderr


def test_verify_speaks_plainly_and_fails_loudly(place: Path) -> None:
    good = smoothcert("verify", "runs/small", where=place)
    assert "4 of 4 images" in good.stdout
    assert "FAILED" not in good.stdout
    import shutil
    import sqlite3

    shutil.copytree(place / "runs/small/sigma-0.5", place / "forged", dirs_exist_ok=True)
    with sqlite3.connect(place / "forged/run.db") as connection:
        connection.execute("UPDATE tallies SET counts = '{\"3\":150}' WHERE stage = 'estimation'")
    connection.close()
    bad = in_a_process("verify", "forged", where=place, expect=5)
    assert "FAILED  row hashes" in bad.stdout


def test_export_and_reading_it_back(place: Path) -> None:
    smoothcert("export", "runs/small", "--out", "logs", where=place)
    text = (place / "logs/small-sigma-0.25.tsv").read_text()
    assert text.startswith("idx\tlabel\tpredict\tradius\tcorrect\ttime\n")
    assert len(text.splitlines()) == 5
    table = smoothcert("table", "logs/small-sigma-0.25.tsv", "--format", "csv", where=place)
    assert "0.25" in table.stdout


def test_predict_and_grid(place: Path) -> None:
    done = smoothcert("predict", "--data", "digits:test[:3]", "--sigma", "0.25", "--n", "100", where=place)
    assert done.stdout.splitlines()[0] == "sigma\tidx\tlabel\tpredict"
    assert len(done.stdout.splitlines()) == 4
    smoothcert("grid", "--images", "2", "--samplers", "one-shot,edm:4", "--out", "pictures.png", where=place)
    assert (place / "pictures.svg").stat().st_size > 1_000


def test_a_denoiser_that_is_no_diffusion_model_gets_its_pictures_too(place: Path) -> None:
    words = [
        "--data",
        "digits:test[:2]",
        "--n",
        "50",
        "--sigma",
        "0.5",
        "--classifier",
        "digits",
        "--out",
        "runs/same",
    ]
    done = smoothcert("certify", "--denoiser", "identity", *words, where=place)
    assert "| 0.5" in done.stdout
    assert (place / "runs/same/grid.png").stat().st_size > 1_000


def test_a_model_of_ones_own(place: Path) -> None:
    (place / "mine.py").write_text(
        "import torch\ndef net(x):\n    return torch.stack([x.mean((1, 2, 3)), 1 - x.mean((1, 2, 3))], 1)\n"
        "def mixed(x):\n    return net(x - x.mean(0))\n"
    )
    words = ["--denoiser", "none", "--data", "digits:test[:3]", "--n", "100", "--sigma", "0.5", "--quiet"]
    smoothcert("certify", "--classifier", "python:mine:net", *words, "--out", "runs/mine", where=place)
    checked = smoothcert("verify", "runs/mine", where=place)
    assert "taken on trust" in " ".join(checked.stdout.split())
    refused = smoothcert(
        "certify", "--classifier", "python:mine:mixed", *words, "--out", "runs/no", where=place, expect=3
    )
    assert "other images of its batch" in refused.stderr


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--sigma", "0"], "positive finite"),
        (["--sigma", "abc"], "not a list of numbers"),
        (["--alpha", "1.5"], "alpha=1.5"),
        (["--n", "0"], "n=0"),
        (["--noise", "salt"], "no such noise"),
        (["--data", "digitz"], "Did you mean 'digits'"),
        (["--data", "digits:test[:0]"], "selects none"),
        (["--denoiser", "nowhere"], "is not known"),
        (["--sampler", "twice"], "is not known"),
        (["--sampler", "ddim:99999999"], "change nothing"),
        (["--denoiser", "none", "--sampler", "edm"], "no denoiser to sample"),
        (["--device", "tpu"], "device 'tpu'"),
        (["--workers", "0"], "--workers 0"),
        (["--batch", "0"], "batch=0"),
        (["--sigma", "1000000"], "exact noise stops"),
        (["--sigma", "0.00001"], "sigma"),
        (["--config", "missing.toml"], "cannot be read"),
        (["--stop", "tabel:0,1"], "Did you mean 'table'"),
        (["--stop", "table:0,x"], "no list of numbers"),
        (["--stop", "radius:0.25,0.5"], "decides one radius"),
        (["--stop", "radius:9"], "even unanimous votes"),
        (["--stop", "predict"], "decides something else"),
        (["--stop", "curve:2"], "one share of sigma"),
        (["--stop", "fixed:3"], "takes no numbers"),
        (["--stop", "fixed", "--futility", "0.01"], "futility"),
        (["--stop", "curve", "--label-aware"], "label-aware"),
        (["--futility", "0.7"], "futility=0.7"),
        (["--n0", "100"], "Add --stop fixed"),
        (["--n", "3000000"], "exact boundaries stop"),
    ],
)
def test_bad_input_is_one_clear_error(tmp_path: Path, words: list[str], said: str) -> None:
    done = smoothcert("certify", "--data", "digits:test[:2]", "--n", "50", *words, where=tmp_path, expect=2)
    assert said in done.stderr
    assert "Traceback" not in done.stderr


def test_unknown_configuration_keys_are_refused(tmp_path: Path) -> None:
    (tmp_path / "run.toml").write_text("sigmaa = 0.5\n")
    done = smoothcert("certify", "--config", "run.toml", where=tmp_path, expect=2)
    assert "Did you mean 'sigma'" in done.stderr
    (tmp_path / "run.toml").write_text('n = "many"\n')
    done = smoothcert("certify", "--config", "run.toml", where=tmp_path, expect=2)
    assert "must be int" in done.stderr


LONG = {
    "fixed": ["--data", "digits:test[:6]", "--stop", "fixed", "--n", "4000"],
    "table": ["--data", "digits:test[:30]", "--n", "6000"],
}


def long_run(rule: str, out: str) -> list[str]:
    return ["certify", *LONG[rule], "--sigma", "0.5", "--quiet", "--out", out]


def state(name: str, where: Path) -> dict[str, object]:
    found: dict[str, object] = json.loads(smoothcert("status", name, "--json", where=where).stdout)[0]
    return found


@pytest.fixture(scope="module")
def undisturbed(place: Path) -> dict[str, object]:
    for rule in LONG:
        smoothcert(*long_run(rule, f"whole-{rule}"), where=place)
    return {rule: state(f"whole-{rule}", place)["tallies"] for rule in LONG}


def stored_draws(directory: Path) -> int:
    try:
        return sum(row.draws for row, _ in open_run(directory).tallies())
    except RunFileError:
        return 0  # not made yet


@pytest.mark.parametrize(
    ("number", "status", "rule"),
    [
        (signal.SIGINT, 130, "fixed"),
        (signal.SIGTERM, 143, "table"),
        (signal.SIGKILL, -9, "fixed"),
        (signal.SIGKILL, -9, "table"),
    ],
)
def test_stopped_and_started_again(
    tmp_path: Path, undisturbed: dict[str, object], number: signal.Signals, status: int, rule: str
) -> None:
    process = subprocess.Popen(
        [sys.executable, "-m", "smoothcert", *long_run(rule, "run")], cwd=tmp_path, stderr=subprocess.PIPE
    )
    while not stored_draws(tmp_path / "run/sigma-0.5"):  # the first commit comes after a second
        time.sleep(0.02)
        assert process.poll() is None
    process.send_signal(number)
    process.communicate()
    assert process.returncode == status
    before = state("run", tmp_path)
    assert before["draws"]
    assert not before["complete"]
    smoothcert(*long_run(rule, "run"), where=tmp_path)
    assert state("run", tmp_path)["tallies"] == undisturbed[rule]
