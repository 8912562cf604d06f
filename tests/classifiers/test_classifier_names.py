"""How classifiers are found: by name, directory, import path or as a callable, and what is refused."""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from smoothcert.checkpoints import embedded
from smoothcert.classifiers import CallableClassifier, ConvNet, ConvNetConfig, convnet, load
from smoothcert.errors import CheckpointError, InvalidInput, ModelOutputError, UnknownName


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    return Path(shutil.copytree(embedded("digits-classifier"), tmp_path / "copy"))


def brightest(images: Tensor) -> Tensor:
    return images.flatten(1).argmax(1)


def test_every_way_to_name_the_shipped_one_gives_the_same_answers(saved: Path) -> None:
    images = torch.rand(4, 1, 8, 8, generator=torch.Generator().manual_seed(1))
    answers = [load(source)(images) for source in ("digits", str(saved), saved)]
    assert all(torch.equal(answers[0], other) for other in answers[1:])


def test_each_says_what_it_is_for_the_specification_of_a_run(saved: Path) -> None:
    named = [load(source) for source in ("digits", saved, "python:operator:neg", brightest)]
    sources = [getattr(classifier, "source", None) for classifier in named]
    assert sources == ["digits", str(saved), "python:operator:neg", "brightest"]
    kinds = [json.loads(json.dumps(getattr(classifier, "describe")()))["kind"] for classifier in named]  # noqa: B009
    assert kinds == ["smoothcert-convnet", "smoothcert-convnet", "callable", "callable"]


def test_python_paths_import_the_attribute(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "smoothcert_test_models.py").write_text("def first(x):\n    return x[:, 0, 0, :2]\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    classifier = load("python:smoothcert_test_models:first")
    assert classifier(torch.zeros(3, 1, 8, 8)).shape == (3, 2)
    with pytest.raises(UnknownName, match="Did you mean 'first'"):
        load("python:smoothcert_test_models:frist")
    sys.modules.pop("smoothcert_test_models")


def test_a_module_whose_own_import_fails_says_what_it_needs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "smoothcert_test_broken.py").write_text("import smoothcert_test_absent\n")
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(ModuleNotFoundError, match="smoothcert_test_absent"):
        load("python:smoothcert_test_broken:net")


@pytest.mark.parametrize("source", ["digit", "", "resnet", "/no/such/directory", "python:no_such_mod:x"])
def test_unknown_names_are_refused(source: str) -> None:
    with pytest.raises(UnknownName):
        load(source)


@pytest.mark.parametrize("source", ["python:", "python:math", "python::sqrt", "python:math:"])
def test_malformed_import_paths_are_refused(source: str) -> None:
    with pytest.raises(InvalidInput, match="python:module:attribute"):
        load(source)


@pytest.mark.parametrize("source", [3, None, nn.Identity])
def test_what_cannot_classify_is_refused(source: object) -> None:
    with pytest.raises(InvalidInput):
        load(source)  # type: ignore[arg-type]


def test_callables_are_used_as_they_are() -> None:
    classifier = load(brightest)
    images = torch.rand(5, 1, 8, 8, generator=torch.Generator().manual_seed(2))
    assert torch.equal(classifier(images), brightest(images))
    assert load(classifier) is classifier
    assert "brightest" in repr(classifier)


def test_a_module_left_in_training_mode_is_put_in_eval_mode() -> None:
    model = nn.Sequential(nn.Flatten(), nn.Dropout(0.5), nn.Linear(64, 3))
    classifier = load(model.train())
    images = torch.ones(4, 1, 8, 8)
    assert torch.equal(classifier(images), classifier(images))
    assert not model.training
    model[1].train()  # a part of it, under a whole in eval mode
    assert torch.equal(classifier(images), classifier(images))


@pytest.mark.parametrize(
    ("output", "accepted"),
    [
        (torch.zeros(4, 10), True),
        (torch.zeros(4, 10, dtype=torch.float16), True),
        (torch.zeros(4, dtype=torch.int64), True),
        (torch.full((4, 2), float("nan")), True),  # counted by the engine, against the certificate
        (torch.zeros(4), False),
        (torch.zeros(3, 10), False),
        (torch.zeros(10), False),
        (torch.zeros(4, 0), False),
        (torch.zeros(4, 10, 1), False),
        (torch.zeros(4, 10, dtype=torch.int64), False),
        (torch.zeros(4, dtype=torch.bool), False),
        ([0, 1, 2, 3], False),
        (None, False),
    ],
)
def test_outputs_are_checked(output: object, accepted: bool) -> None:
    classifier = CallableClassifier(lambda images: output, name="fixed")
    if accepted:
        assert classifier(torch.zeros(4, 1, 8, 8)) is output
    else:
        with pytest.raises(ModelOutputError, match=r"fixed returned .*\(4, classes\)|fixed returned"):
            classifier(torch.zeros(4, 1, 8, 8))


def test_outputs_with_logits_are_unwrapped() -> None:
    class Output:
        logits = torch.zeros(4, 10)

    assert CallableClassifier(lambda images: Output())(torch.zeros(4, 1, 8, 8)) is Output.logits


def test_saving_and_loading_keeps_every_answer(tmp_path: Path) -> None:
    config = ConvNetConfig((3, 12, 8), ("a", "b", "c"), width=5, dropout=0.1)
    model = ConvNet(config).eval()
    convnet.save(model, tmp_path / "new" / "model")
    again = convnet.load(tmp_path / "new" / "model")
    images = torch.rand(2, 3, 12, 8, generator=torch.Generator().manual_seed(3))
    assert again.config == config
    assert torch.equal(again(images), model(images))


@pytest.mark.parametrize(
    "change",
    [
        {"architecture": "resnet"},
        {"width": 16},
        {"width": 0},
        {"width": "wide"},
        {"classes": []},
        {"shape": [8, 8]},
        {"shape": [1, 2, 2]},
        {"depth": 4},
    ],
)
def test_a_configuration_that_does_not_fit_is_refused(saved: Path, change: dict[str, object]) -> None:
    (saved / "card.toml").unlink()
    config = json.loads((saved / "config.json").read_text())
    (saved / "config.json").write_text(json.dumps({**config, **change}))
    with pytest.raises(CheckpointError, match="train classifier"):
        load(saved)


def test_weights_that_are_not_finite_are_refused(saved: Path) -> None:
    (saved / "card.toml").unlink()
    tensors = dict(convnet.load(saved).state_dict())
    tensors["head.bias"] = torch.full((10,), float("nan"))
    save_file(tensors, saved / "model.safetensors")
    with pytest.raises(CheckpointError, match=r"head\.bias"):
        load(saved)


def test_weights_that_differ_from_the_card_are_refused(saved: Path) -> None:
    model = ConvNet(ConvNetConfig((1, 8, 8), tuple("0123456789")))
    convnet.save(model, saved)
    with pytest.raises(CheckpointError, match="SHA-256"):
        load(saved)


@pytest.mark.parametrize("missing", ["config.json", "model.safetensors"])
def test_missing_files_are_named(saved: Path, missing: str) -> None:
    (saved / "card.toml").unlink()
    (saved / missing).unlink()
    with pytest.raises(CheckpointError, match=missing):
        load(saved)
