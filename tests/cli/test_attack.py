"""``smoothcert attack`` as a person meets it, on runs of the embedded digits."""

from __future__ import annotations

import json
import shutil
import sqlite3
from pathlib import Path
from typing import Any

import pytest
from tests.cli.command import smoothcert

from smoothcert.runlog.specification import Specification
from smoothcert.runlog.store import open_run

VOTES = ["--data", "digits:test[:6]", "--stop", "fixed", "--n", "300", "--n0", "20", "--sigma", "0.5"]
ENCODE = ["--task", "encode", "--data", "digits:test[:4]", "--n", "500", "--sigma", "0.5"]
SHORT = ["--images", "4", "--steps", "6", "--eot", "8", "--draws", "300", "--most", "2000"]


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    where = tmp_path_factory.mktemp("attack")
    smoothcert("certify", *VOTES, "--out", "runs/votes", "--quiet", where=where)
    smoothcert("certify", *ENCODE, "--out", "runs/encode", "--quiet", where=where)
    return where


def read(place: Path, run: str) -> dict[str, Any]:
    """What the last attack on a run wrote."""
    last = max((place / run).glob("attack*.json"), key=lambda path: path.stat().st_mtime_ns)
    found: dict[str, Any] = json.loads(last.read_text())
    return found


def test_certified_images_survive_at_their_own_radii(place: Path) -> None:
    done = smoothcert("attack", "runs/votes", *SHORT, where=place)
    assert "| own " in done.stdout
    assert "proves nothing by itself" in done.stdout
    told = read(place, "runs/votes/sigma-0.5")
    assert told["broken"] == 0
    assert len(told["attacks"]) >= 2
    for attack in told["attacks"]:
        assert 0 < attack["distance"] <= attack["radius"] == attack["certified"]


def test_given_radii_and_json(place: Path) -> None:
    before = {path: path.read_text() for path in (place / "runs/votes/sigma-0.5").glob("attack*.json")}
    words = ["attack", "runs/votes", *SHORT, "--radius", "0.2,3", "--attack", "apgd", "--json"]
    (told,) = json.loads(smoothcert(*words, where=place).stdout)
    assert told == read(place, "runs/votes/sigma-0.5")
    assert [total["radius"] for total in told["radii"]] == [0.2, 3.0]
    assert before
    assert {path: path.read_text() for path in before} == before, "what an earlier attack found stays"
    assert told["radii"][1]["success_rate"] > 0.7
    assert told["search"]["method"] == "apgd"


def test_features_are_compared_with_both_bounds(place: Path) -> None:
    done = smoothcert("attack", "runs/encode", *SHORT, "--radius", "0.25", where=place)
    assert "attacked cosine" in done.stdout
    (total,) = read(place, "runs/encode/sigma-0.5")["radii"]
    assert total["paper"] < total["certified"] < total["cosine"] <= 1.0
    assert total["broken"] == 0


@pytest.mark.parametrize(
    ("kind", "words"),
    [
        ("encode", [*ENCODE, "--denoiser-backend", "openvino:f32"]),
        ("votes", [*VOTES, "--denoiser-backend", "openvino:f32", "--classifier-backend", "torch:bf16"]),
    ],
)
def test_runs_by_other_libraries_are_attacked_through_torch(place: Path, kind: str, words: list[str]) -> None:
    """A converted denoiser has no gradients; the attack takes torch's and is judged by what the run ran."""
    pytest.importorskip("openvino")
    smoothcert("certify", *words, "--out", f"converted/{kind}", "--quiet", where=place)
    spec = open_run(place / f"converted/{kind}/sigma-0.5").specification
    assert spec.denoiser is not None
    assert spec.denoiser.settings["backend"] == "openvino:f32"
    done = smoothcert("attack", f"converted/{kind}", *SHORT, "--radius", "3", where=place)
    assert "in openvino:f32" in done.stderr
    told = read(place, f"converted/{kind}/sigma-0.5")
    (total,) = told["radii"]
    assert told["broken"] == 0
    assert all(2.5 < attack["distance"] <= 3.0 for attack in told["attacks"])
    assert total["success_rate"] > 0.7 if kind == "votes" else total["cosine"] < 0.7


def forged(place: Path, name: str, **noise: float) -> str:
    """A copy of the run whose specification claims another sigma than its draws had."""
    target = place / "forged" / name
    shutil.copytree(place / "runs/votes/sigma-0.5", target)
    spec = open_run(target).specification
    other = spec.model_copy(update={"noise": spec.noise.model_copy(update=noise)})
    with sqlite3.connect(target / "run.db") as database:
        database.execute("UPDATE spec SET value = ? WHERE key = 'specification'", (other.canonical(),))
        database.execute("UPDATE spec SET value = ? WHERE key = 'identity'", (other.identity(),))
        rows = [
            (row.digest(other.identity()), row.example, row.stage, row.first)
            for row, _ in open_run(target).tallies()
        ]
        database.executemany(
            "UPDATE tallies SET digest = ? WHERE example = ? AND stage = ? AND first = ?", rows
        )
    assert Specification.parse(other.canonical()) == other
    return str(target.relative_to(place))


def test_a_run_that_claims_more_noise_than_it_drew_is_broken_loudly(place: Path) -> None:
    """Counts of sigma .5 read as counts of sigma 1.5 triple every radius; the hashes are made to fit."""
    run = forged(place, "sigma", sigma=1.5)
    smoothcert("verify", run, where=place)
    done = smoothcert("attack", run, *SHORT, where=place, expect=6)
    assert "BROKEN CERTIFICATES" in done.stderr
    assert "CERTIFICATES BROKEN" in done.stdout
    assert "Traceback" not in done.stderr
    assert read(place, run)["broken"] > 0


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--radius", "0"], "positive, finite distance"),
        (["--radius", "-1"], "positive, finite distance"),
        (["--steps", "0"], "steps = 0"),
        (["--eot", "0"], "eot = 0"),
        (["--radius", "0.2,big"], "is not a list of numbers"),
        (["--images", "0"], "--images 0"),
        (["--attack", "fgsm"], "attack 'fgsm'"),
        (["--target", "cat"], "target 'cat'"),
    ],
)
def test_bad_input_is_refused_in_words(place: Path, words: list[str], said: str) -> None:
    done = smoothcert("attack", "runs/votes", *words, where=place, expect=2)
    assert said in done.stderr
    assert "Traceback" not in done.stderr


def test_features_without_a_head_have_no_label_to_attack(place: Path) -> None:
    done = smoothcert("attack", "runs/encode", *SHORT, "--target", "5", where=place, expect=2)
    assert "--target 5: the run has no head" in " ".join(done.stderr.split())


def test_predictions_claim_nothing_to_attack(place: Path) -> None:
    words = ["--data", "digits:test[:2]", "--stop", "fixed", "--n", "50", "--sigma", "0.5", "--quiet"]
    smoothcert("predict", *words, "--out", "runs/predict", where=place)
    done = smoothcert("attack", "runs/predict", where=place, expect=4)
    assert "claim no radius" in done.stderr
