"""``--data``, ``--data-dir`` and ``--download`` as a person meets them, and runs that know where their data were."""

from __future__ import annotations

import json
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import pytest
from tests.cli.command import main

from smoothcert.runlog.configuration import read_configuration

MODEL = (
    "import torch\n"
    "def net(images):\n"
    "    return torch.stack([images.mean((1, 2, 3)), 0.5 + 0 * images.mean((1, 2, 3))], 1).repeat(1, 5)\n"
)
SMALL = [
    "--classifier",
    "python:mine:net",
    "--denoiser",
    "none",
    "--stop",
    "fixed",
    "--n",
    "40",
    "--n0",
    "10",
    "--quiet",
]


class Done(NamedTuple):
    """What a command printed."""

    stdout: str
    stderr: str


Command = Callable[..., Done]


@pytest.fixture
def place(tmp_path: Path, cifar: Path) -> Path:
    """A folder with a model, and CIFAR-10 in ``data``."""
    (tmp_path / "mine.py").write_text(MODEL)
    shutil.copytree(cifar / "cifar-10-batches-bin", tmp_path / "data")
    return tmp_path


@pytest.fixture
def smoothcert(place: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]) -> Command:
    """The command line in this process, so that torch is imported once."""
    monkeypatch.chdir(place)
    monkeypatch.syspath_prepend(place)
    monkeypatch.delitem(sys.modules, "mine", raising=False)

    def run(*words: str, expect: int = 0) -> Done:
        status = main([*words])
        done = Done(*capfd.readouterr())
        assert status == expect, done.stderr
        return done

    return run


def tallies(smoothcert: Command, run: str) -> list[tuple[str, str]]:
    states = json.loads(smoothcert("status", run, "--json").stdout)
    return [(state["run"].rpartition("/")[2], state["tallies"]) for state in states]


def test_a_run_repeats_from_its_toml_and_does_not_care_where_the_data_lie(
    place: Path, smoothcert: Command
) -> None:
    data = ["--data", "cifar10:test[::2500]", "--sigma", "0.5", "--out", "runs/a"]
    smoothcert("certify", *data, "--data-dir", "data", *SMALL)
    for written in ("runs/a/run.toml", "runs/a/sigma-0.5/run.toml"):
        values = read_configuration(place / written)
        assert values["data_dir"] == str(place / "data")
        assert values["data"] == "cifar10:test[::2500]"
        assert "download" not in values
        smoothcert("certify", "--config", written, "--out", f"b/{written}", "--quiet")
    first = tallies(smoothcert, "runs/a")
    assert (
        first
        == tallies(smoothcert, "b/runs/a/run.toml")
        == tallies(smoothcert, "b/runs/a/sigma-0.5/run.toml")
    )

    (place / "data").rename(place / "moved")
    again = smoothcert("certify", *data, *SMALL[:-1], "--data-dir", "moved")
    assert "0 draws at about" in again.stderr
    assert tallies(smoothcert, "runs/a") == first
    repeat = ["certify", "--config", "runs/a/run.toml", "--out", "runs/a", "--quiet"]
    smoothcert(*repeat, "--data-dir", "moved")
    assert read_configuration(place / "runs/a/run.toml")["data_dir"] == str(place / "moved")


def test_other_images_under_the_same_name_are_another_run(place: Path, smoothcert: Command) -> None:
    data = ["--data", "cifar10:test[:2]", "--sigma", "0.5", "--out", "runs/a", "--data-dir", "data"]
    smoothcert("certify", *data, *SMALL)
    batch = place / "data/cifar-10-batches-bin/test_batch.bin"
    content = bytearray(batch.read_bytes())
    content[100] ^= 1
    batch.write_bytes(content)
    refused = smoothcert("certify", *data, *SMALL, expect=4)
    assert "data.sha256" in refused.stderr


def test_predict_and_grid_take_the_same_options(place: Path, smoothcert: Command) -> None:
    data = ["--data", "cifar10:test[:2]", "--data-dir", "data", *SMALL[:4]]
    done = smoothcert("predict", *data, "--sigma", "0.5", "--n", "40", "--out", "runs/p")
    assert done.stdout.startswith("sigma\tidx\tlabel")
    assert read_configuration(place / "runs/p/sigma-0.5/run.toml")["data_dir"] == str(place / "data")
    smoothcert("grid", *data, "--images", "2", "--samplers", "one-shot", "--out", "g.png")
    assert (place / "g.png").is_file()


def test_missing_data_name_the_places_and_the_ways_out(place: Path, smoothcert: Command) -> None:
    for words in (["certify", *SMALL], ["certify"], ["train", "classifier", "--out", "m"]):
        done = smoothcert(*words, "--data", "cifar100", "--data-dir", "data", expect=4)
        for shown in ("cifar-100-python.tar.gz", str(place / "data"), "--data-dir DIR", "--download"):
            assert shown in done.stderr
        assert "Traceback" not in done.stderr


def test_download_fetches_and_a_failure_is_one_message(
    place: Path, smoothcert: Command, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SMOOTHCERT_MIRROR", "http://127.0.0.1:1")
    words = ["certify", *SMALL, "--data", "mnist", "--data-dir", "new", "--download"]
    done = smoothcert(*words, expect=4)
    assert "http://127.0.0.1:1/train-images-idx3-ubyte.gz" in done.stderr
    assert "Traceback" not in done.stderr


def test_a_folder_of_pictures_with_options(place: Path, smoothcert: Command) -> None:
    from PIL import Image

    for name, colour in (("bright", "white"), ("dark", "black")):
        (place / "pictures" / name).mkdir(parents=True)
        Image.new("RGB", (10, 12), colour).save(place / "pictures" / name / "one.png")
    data = ["--data", "folder:pictures?resize=9&crop=8", "--sigma", "0.25", "--out", "runs/f"]
    smoothcert("certify", *data, *SMALL)
    smoothcert("certify", "--config", "runs/f/run.toml", "--out", "runs/g", "--quiet")
    assert tallies(smoothcert, "runs/f") == tallies(smoothcert, "runs/g")


def test_the_configuration_may_ask_for_a_download_but_not_in_words(place: Path, smoothcert: Command) -> None:
    (place / "c.toml").write_text('download = "yes"\n')
    done = smoothcert("certify", "--config", "c.toml", *SMALL, expect=2)
    assert "download = 'yes'" in done.stderr
    (place / "c.toml").write_text("n = true\n")
    assert "n = True" in smoothcert("certify", "--config", "c.toml", expect=2).stderr
