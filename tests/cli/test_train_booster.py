"""``smoothcert train booster`` as a person meets it: trained for real, read again, refused in words."""

from __future__ import annotations

from pathlib import Path

import pytest
from tests.cli.command import smoothcert

from smoothcert import denoisers
from smoothcert.checkpoints import read_card
from smoothcert.encoders import mapper

SMALL = [
    "--data",
    "digits:train[:128]",
    "--steps",
    "4",
    "--batch-size",
    "8",
    "--width",
    "16",
    "--threads",
    "1",
]


def test_a_booster_is_trained_measured_and_read_again(tmp_path: Path) -> None:
    words = ["train", "booster", *SMALL, "--encoder", "digits", "--denoiser", "digits", "--train-purifier"]
    done = smoothcert(*words, "--purifier-steps", "2", "--sigmas", "0.25,1", "--out", "there", where=tmp_path)
    for shown in (
        "m_nothing",
        "m_purifier",
        "m_mapper",
        "m_both",
        "score_both",
        "cosine_0.25_both",
        "prototypes_both",
    ):
        assert f"\n{shown}: [" in f"\n{done.stdout}"
    assert mapper.load(tmp_path / "there").sigmas == (0.25, 1.0)
    assert not denoisers.load(str(tmp_path / "there" / "purifier")).stochastic
    content = read_card(tmp_path / "there").content
    assert content["command"].startswith("smoothcert train booster --data 'digits:train[:128]' --steps 4")
    assert content["training"]["purifier_steps"] == 2


@pytest.mark.parametrize(
    ("words", "status", "message"),
    [
        (["--encoder", "digit"], 2, "Did you mean 'digits'"),
        (["--denoiser", "nobody"], 2, "denoiser 'nobody'"),
        (["--data", "nowhere"], 2, "nowhere"),
        (["--encoder", "python:torch:ones_like"], 3, "features"),
        (["--sigmas", "0.1,0.2,0.3"], 2, "smallest and a largest"),
        (["--sigmas", "0.5,0.1"], 2, "smallest first"),
        (["--train-purifier"], 2, "without a denoiser"),
        (["--denoiser", "identity", "--train-purifier"], 2, "purifier"),
        (["--batch-size", "1"], 2, "two images"),
    ],
)
def test_bad_input_is_one_message_and_writes_nothing(
    tmp_path: Path, words: list[str], status: int, message: str
) -> None:
    done = smoothcert("train", "booster", *SMALL, *words, "--out", "there", where=tmp_path, expect=status)
    assert message in " ".join(done.stderr.split())
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "there").exists()


def test_the_help_has_examples(tmp_path: Path) -> None:
    shown = " ".join(smoothcert("train", "booster", "--help", where=tmp_path).stdout.split())
    assert "smoothcert train booster --encoder digits --denoiser digits --data digits" in shown
