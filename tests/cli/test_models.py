"""``smoothcert models``: what a model is, for people and for scripts, before anything is certified."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from smoothcert import encoders
from smoothcert.classifiers import load, plain
from smoothcert.cli.application import app
from smoothcert.engine.specify import component
from smoothcert.errors import InvalidInput, UnknownName


def said(*words: str) -> str:
    result = CliRunner().invoke(app, ["models", *words])
    if result.exception and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result.stdout


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    made = plain.build("resnet20", classes=("cat", "dog", "frog"), mean=(0.5, 0.4, 0.3), std=(0.2, 0.2, 0.2))
    plain.save(made, tmp_path / "net")
    return tmp_path / "net"


def test_an_encoder_is_described_with_its_features() -> None:
    found: dict[str, Any] = json.loads(said("inspect", "--encoder", "digits", "--image", "1x8x8", "--json"))
    assert found["role"] == "encoder"
    assert found["sha256"] == component(encoders.load("digits")).sha256
    assert found["features"] == [256]
    other: dict[str, Any] = json.loads(said("inspect", "--encoder", "digits", "--json"))
    assert other["features"] is None
    assert "1 channel" in other["refused"]
    assert "encoder     python:module:attribute" in said("list")
    with pytest.raises(InvalidInput, match="one model is inspected at a time"):
        said("inspect", "digits", "--encoder", "digits")


def test_a_classifier_is_described_as_a_run_would_describe_it(saved: Path) -> None:
    found: dict[str, Any] = json.loads(said("inspect", str(saved), "--json"))
    assert found["sha256"] == component(load(saved)).sha256
    assert (found["kind"], found["class_count"], found["classes"]) == ("resnet20", 3, ["cat", "dog", "frog"])
    assert found["settings"]["preprocessing"]["mean"] == [0.5, 0.4, 0.3]
    assert found["parameters"] == sum(weight.numel() for weight in load(saved).parameters())  # type: ignore[attr-defined]
    assert found["becomes"] == [3, 32, 32]


def test_people_see_what_an_image_becomes_or_why_it_is_refused(saved: Path) -> None:
    shown = said("inspect", str(saved))
    assert "0.5, 0.4, 0.3" in shown
    assert "cat, dog, frog" in shown
    refused = said("inspect", str(saved), "--image", "1x28x28")
    assert "?grey=repeat" in refused
    assert "becomes" not in refused
    assert "refused" in said("inspect", "digits")
    assert "refused" not in said("inspect", "digits", "--image", "1x8x8")


def test_a_denoiser_is_described() -> None:
    found = json.loads(said("inspect", "--denoiser", "digits", "--json"))
    assert (found["role"], found["kind"]) == ("denoiser", "diffusion")
    assert found["parameters"] > 100_000
    assert len(found["sha256"]) == 64
    assert "one-shot" in said("inspect", "--denoiser", "digits")


def test_the_forms_of_names_are_listed() -> None:
    found = json.loads(said("list", "--json"))
    assert {"classifier", "denoiser", "encoder"} == {one["role"] for one in found}
    by_name = {one["name"]: one for one in found}
    assert by_name["timm:NAME"]["extra"] == "timm"
    assert by_name["digits"]["installed"]
    assert "transformers:HUB_ID_OR_DIRECTORY" in said("list")


def test_what_cannot_be_inspected_is_refused(saved: Path) -> None:
    with pytest.raises(InvalidInput, match="one model is inspected at a time"):
        said("inspect")
    with pytest.raises(InvalidInput, match="one model is inspected at a time"):
        said("inspect", "digits", "--denoiser", "digits")
    with pytest.raises(InvalidInput, match="no shape CxHxW"):
        said("inspect", "digits", "--image", "32")
    with pytest.raises(UnknownName, match="Did you mean 'digits'"):
        said("inspect", "digit")
