"""Tuning and running in other backends, by the command line: chosen, written, certified, resumed, verified."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
from tests.cli.command import in_a_process, smoothcert

from smoothcert.engine.comparison import Measured
from smoothcert.engine.tuning import _by_speed
from smoothcert.runlog.configuration import read_configuration
from smoothcert.runlog.store import open_run

pytest.importorskip("openvino", reason="openvino is not installed")
pytest.importorskip("nncf", reason="nncf is not installed")

DATA = ["--data", "digits:test[:6]", "--sigma", "0.5"]
RUN = [*DATA, "--stop", "fixed", "--n0", "20", "--n", "300", "--batch", "64", "--quiet"]
INT8 = ["--denoiser-backend", "openvino:int8", "--classifier-backend", "openvino:int8"]


def tallies(where: Path, run: str) -> str:
    (state,) = json.loads(smoothcert("status", run, "--json", where=where).stdout)
    found: str = state["tallies"]
    return found


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with one finished run in 8-bit integers."""
    where = tmp_path_factory.mktemp("int8")
    smoothcert("certify", *RUN, *INT8, "--out", "whole", where=where)
    return where


def test_a_run_in_8_bits_verifies_and_says_so(place: Path) -> None:
    done = smoothcert("verify", "whole", where=place)
    assert "openvino:int8" in done.stdout
    spec = open_run(place / "whole/sigma-0.5").specification
    assert spec.denoiser is not None
    assert spec.denoiser.settings["backend"] == spec.classifier.settings["backend"] == "openvino:int8"
    calibration = spec.classifier.settings["conversion"]["calibration"]
    assert (calibration["stream"], calibration["data"]) == ("calibration", "digits:test")
    assert calibration["denoiser"]["source"] == "digits"


def test_another_process_continues_it_bit_for_bit_also_without_the_stored_models(place: Path) -> None:
    words = [*RUN, *INT8, "--out", "parts"]
    smoothcert("certify", *words, "--dry-run", where=place)
    in_a_process("certify", *words, where=place)
    shutil.rmtree(place / "parts/converted")
    smoothcert("certify", *words, where=place)  # converted again, and the same run
    assert tallies(place, "parts") == tallies(place, "whole")
    smoothcert("certify", "--config", "whole/sigma-0.5/run.toml", "--out", "again", "--quiet", where=place)
    assert tallies(place, "again") == tallies(place, "whole")


def test_workers_change_nothing(place: Path) -> None:
    smoothcert("certify", *RUN, *INT8, "--workers", "3", "--out", "three", where=place)
    assert tallies(place, "three") == tallies(place, "whole")


def test_another_backend_is_another_run(place: Path) -> None:
    done = smoothcert("certify", *RUN, "--out", "whole", where=place, expect=4)
    assert "openvino:int8" in done.stderr


def test_slices_of_a_data_set_have_one_base_classifier(place: Path) -> None:
    words = [word if word != "digits:test[:6]" else "digits:test[6:9]" for word in RUN]
    smoothcert("certify", *words, *INT8, "--out", "slice", where=place)
    one, other = (open_run(place / run / "sigma-0.5").specification for run in ("whole", "slice"))
    assert one.classifier == other.classifier
    assert one.denoiser == other.denoiser


def test_half_precision_runs_and_is_recorded(place: Path) -> None:
    half = ["--denoiser-backend", "torch:bf16", "--classifier-backend", "torch:bf16"]
    smoothcert("certify", *RUN, *half, "--out", "half", where=place)
    written = read_configuration(place / "half/sigma-0.5/run.toml")
    assert (written["denoiser_backend"], written["classifier_backend"]) == ("torch:bf16", "torch:bf16")
    smoothcert("verify", "half", where=place)


def test_what_cannot_be_is_refused(place: Path) -> None:
    done = smoothcert("certify", *DATA, "--classifier-backend", "openvino:int9", where=place, expect=2)
    assert "openvino:int8" in done.stderr
    words = [*DATA, "--denoiser", "none", "--denoiser-backend", "torch:bf16"]
    assert "no denoiser" in smoothcert("certify", *words, where=place, expect=2).stderr
    words = [*RUN, "--sampler", "ancestral", "--denoiser-backend", "openvino:f32", "--out", "drawn"]
    assert "noise that this sampler draws" in smoothcert("certify", *words, where=place, expect=2).stderr


def test_tune_writes_what_certify_reads(place: Path) -> None:
    words = ["--backends", "torch:bf16,openvino:int8,openvino:f32", "--seconds", "1", "--batch", "64"]
    done = smoothcert(
        "tune", *DATA, *words, "--agreement", "0.9", "--out", "fast.toml", "--json", where=place
    )
    found = json.loads(done.stdout)
    written = read_configuration(place / "fast.toml")
    assert found["chosen"].items() <= written.items()
    assert written["data"] == "digits:test[:6]"
    assert {one["backend"] for one in found["candidates"]} == {
        "torch",
        "torch:bf16",
        "openvino:int8",
        "openvino:f32",
    }
    for one in found["candidates"]:
        assert one["draws"] >= 3 * 64
        assert one["votes"] == 1.0 if one["backend"] in ("torch", "openvino:f32") else one["votes"] > 0.9
        assert (one["rmse"] is None) == (one["role"] == "classifier")
        assert one["speed_up"] == 1.0 if one["backend"] == "torch" else one["speed_up"] > 0
    assert found["end_to_end"]["votes"] >= 0.9
    more = ["--stop", "fixed", "--n0", "20", "--n", "100", "--out", "fast", "--quiet"]
    smoothcert("certify", "--config", "fast.toml", *more, where=place)
    smoothcert("verify", "fast", where=place)


def test_tune_prints_a_table_and_what_it_means(place: Path) -> None:
    words = ["tune", *DATA, "--denoiser", "none", "--seconds", "0.3", "--backends"]
    assert "openvino:int8" in smoothcert(*words, "openvino:int4", where=place, expect=2).stderr
    done = smoothcert(*words, "torch:bf16,torch:f16", where=place)
    assert "torch:bf16" in done.stdout
    assert "torch:f16" not in done.stdout
    assert "left out: classifier torch:f16: CPUs compute float16 many times slower" in done.stderr
    assert "another base classifier" in done.stderr
    assert max(len(line) for line in done.stdout.splitlines() if line.startswith("|")) <= 80


def measured(role: str, backend: str, speed: float, votes: float) -> Measured:
    return Measured(role, backend, speed, speed, None, votes, 0.5, 100)


def test_the_fastest_pair_that_votes_alike_comes_first_and_the_networks_as_loaded_last() -> None:
    found = _by_speed(
        [
            measured("denoiser", "torch", 10, 1.0),
            measured("denoiser", "fast", 40, 0.985),
            measured("denoiser", "good", 30, 0.995),
            measured("classifier", "torch", 20, 1.0),
            measured("classifier", "fast", 90, 0.994),
            measured("classifier", "good", 60, 0.999),
        ],
        agreement=0.99,
    )
    pairs = [(pair["denoiser"], pair["classifier"]) for pair in found]
    # good with fast would differ on as much as 1.1 %.
    assert pairs == [
        ("good", "good"),
        ("good", "torch"),
        ("torch", "fast"),
        ("torch", "good"),
        ("torch", "torch"),
    ]
