"""Weights as files: what is missing, cut, changed or could run code is refused with a reason."""

from __future__ import annotations

import hashlib
import json
import pickle
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from smoothcert.checkpoints import (
    embedded,
    hashes,
    load_safetensors,
    load_state,
    read_card,
    read_config,
    sha256,
)
from smoothcert.errors import CheckpointError, UnknownName

SHIPPED = {
    "digits-classifier": "CC BY 4.0",
    "digits-denoiser": "CC BY 4.0",
    "cifar10-denoiser": "Learning multiple layers of features",
}
"""What ships, and what its card must say of the images it was made from."""


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    path = tmp_path / "model.safetensors"
    save_file({"a": torch.arange(6.0).reshape(2, 3), "b": torch.ones(1)}, path)
    return path


@pytest.fixture
def copied(tmp_path: Path) -> Path:
    return Path(shutil.copytree(embedded("digits-classifier"), tmp_path / "copy"))


def test_reads_back_what_was_saved(weights: Path) -> None:
    tensors = load_safetensors(weights)
    assert tensors.keys() == {"a", "b"}
    assert torch.equal(tensors["a"], torch.arange(6.0).reshape(2, 3))


@pytest.mark.parametrize("kept", [0, 4, 8, 40, -1])
def test_a_truncated_file_is_refused(weights: Path, kept: int) -> None:
    weights.write_bytes(weights.read_bytes()[:kept])
    with pytest.raises(CheckpointError, match="cannot be read"):
        load_safetensors(weights)


def test_bytes_after_the_end_are_refused(weights: Path) -> None:
    weights.write_bytes(weights.read_bytes() + b"\0")
    with pytest.raises(CheckpointError, match="cannot be read"):
        load_safetensors(weights)


def test_a_missing_file_and_a_directory_are_refused(tmp_path: Path) -> None:
    for path in (tmp_path / "absent.safetensors", tmp_path):
        with pytest.raises(CheckpointError, match="cannot be read"):
            load_safetensors(path)


class Trap:
    """Pickled, it writes a file when it is opened."""

    def __init__(self, witness: Path) -> None:
        self.witness = witness

    def __reduce__(self) -> tuple[object, tuple[object, ...]]:
        return Path.touch, (self.witness,)


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_a_bare_pickle_is_named_and_never_opened(tmp_path: Path, protocol: int) -> None:
    path, witness = tmp_path / "model.safetensors", tmp_path / "ran"
    path.write_bytes(pickle.dumps(Trap(witness), protocol=protocol))
    with pytest.raises(CheckpointError, match="pickle"):
        load_safetensors(path)
    assert not witness.exists()


def test_a_torch_checkpoint_is_named_and_never_opened(tmp_path: Path) -> None:
    path, witness = tmp_path / "model.pt", tmp_path / "ran"
    torch.save({"trap": Trap(witness)}, path)
    with pytest.raises(CheckpointError, match=r"pickle.*Convert it to safetensors"):
        load_safetensors(path)
    assert not witness.exists()


def test_a_header_that_begins_like_a_pickle_is_still_read(tmp_path: Path) -> None:
    """A header of 0x0280 bytes makes the file start with the two bytes of a protocol-2 pickle."""
    path = tmp_path / "model.safetensors"
    lengths = []
    for padding in range(700):
        save_file({"a": torch.zeros(1)}, path, metadata={"padding": "x" * padding})
        lengths.append(int.from_bytes(path.read_bytes()[:8], "little"))
        if lengths[-1] == 0x0280:
            break
    assert lengths[-1] == 0x0280
    assert load_safetensors(path).keys() == {"a"}


@pytest.mark.parametrize("text", ["", "{", "[1]", "\udcff"])
def test_a_configuration_must_be_a_json_object(tmp_path: Path, text: str) -> None:
    path = tmp_path / "config.json"
    path.write_text(text, encoding="utf-8", errors="surrogateescape")
    with pytest.raises(CheckpointError, match=r"config\.json"):
        read_config(path)


def test_hashes_cover_weights_and_configuration_only(copied: Path) -> None:
    (copied / "notes.txt").write_text("not part of the model")
    found = hashes(copied)
    assert list(found) == ["config.json", "model.safetensors"]
    for name, digest in found.items():
        assert digest == hashlib.sha256((copied / name).read_bytes()).hexdigest() == sha256(copied / name)


def test_an_empty_directory_and_a_missing_file_have_no_hash(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="holds no configuration or weights"):
        hashes(tmp_path)
    with pytest.raises(CheckpointError, match="cannot be read"):
        sha256(tmp_path / "absent")


@pytest.mark.parametrize("name", SHIPPED)
def test_shipped_weights_match_their_cards(name: str) -> None:
    card = read_card(embedded(name))
    assert card.sha256 == hashes(embedded(name))
    assert {"title", "command", "data", "training", "versions", "figures"} <= card.content.keys()
    assert SHIPPED[name] in card.content["data"]["source"]


def test_shipped_weights_fit_in_the_package() -> None:
    files = [path for name in SHIPPED for path in embedded(name).rglob("*") if path.is_file()]
    assert sum(path.stat().st_size for path in files) < 12_000_000


def test_one_changed_bit_is_refused(copied: Path) -> None:
    weights = copied / "model.safetensors"
    content = bytearray(weights.read_bytes())
    content[-1] ^= 1
    weights.write_bytes(content)
    with pytest.raises(CheckpointError, match=r"model\.safetensors.*SHA-256"):
        read_card(copied)


def test_missing_and_unlisted_files_are_refused(copied: Path) -> None:
    (copied / "extra.json").write_text("{}")
    with pytest.raises(CheckpointError, match=r"extra\.json"):
        read_card(copied)
    (copied / "extra.json").unlink()
    (copied / "config.json").unlink()
    with pytest.raises(CheckpointError, match=r"config\.json"):
        read_card(copied)


@pytest.mark.parametrize("text", ["", 'sha256 = "none"', "sha256 = {a = 1}", "not toml ["])
def test_a_card_without_hashes_is_refused(copied: Path, text: str) -> None:
    (copied / "card.toml").write_text(text)
    with pytest.raises(CheckpointError, match="card"):
        read_card(copied)


@pytest.mark.parametrize("name", ["digits-classifer", "..", ".", "", "../weights", "digits-classifier/.."])
def test_unknown_embedded_names_list_what_ships(name: str) -> None:
    with pytest.raises(UnknownName, match="digits-classifier, digits-denoiser"):
        embedded(name)


def test_importing_the_module_imports_neither_torch_nor_safetensors() -> None:
    code = "import sys, smoothcert.checkpoints; print(json.dumps(sorted(sys.modules)))"
    command = [sys.executable, "-c", "import json; " + code]
    modules = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    assert not {"torch", "safetensors", "numpy"} & set(modules)


class _Bomb:
    """What a malicious checkpoint looks like: unpickling it calls a function of the attacker's choice."""

    def __init__(self, witness: Path) -> None:
        self.witness = witness

    def __reduce__(self) -> tuple[object, tuple[str, ...]]:
        return Path.touch, (self.witness,)  # type: ignore[return-value]


@pytest.mark.parametrize("wrap", ["zip", "legacy", "bare"])
def test_a_checkpoint_with_code_in_it_is_refused_and_never_executed(tmp_path: Path, wrap: str) -> None:
    witness, path = tmp_path / "executed", tmp_path / "model.pt"
    bomb = {"state_dict": {"w": torch.zeros(2)}, "payload": _Bomb(witness)}
    if wrap == "bare":
        path.write_bytes(pickle.dumps(bomb))
    else:
        torch.save(bomb, path, _use_new_zipfile_serialization=wrap == "zip")
    with pytest.raises(CheckpointError, match="nothing in it was executed"):
        load_state(path)
    assert not witness.exists()
    with open(path, "rb") as file:  # the plant is live: an ordinary load does run it
        torch.load(file, weights_only=False) if wrap != "bare" else pickle.load(file)
    assert witness.exists()


@pytest.mark.parametrize("suffix", [".pt", ".th", ".safetensors", ".npz"])
def test_every_published_kind_of_weight_file_gives_the_same_tensors(tmp_path: Path, suffix: str) -> None:
    state = {"conv.weight": torch.randn(2, 3, 3, 3), "conv.bias": torch.arange(2.0)}
    path = tmp_path / f"model{suffix}"
    if suffix == ".safetensors":
        save_file(state, path)
    elif suffix == ".npz":
        np.savez(path, **{name: value.numpy() for name, value in state.items()})
    elif suffix == ".th":  # as data-parallel training scripts publish it
        torch.save(
            {"state_dict": {f"module.{name}": v for name, v in state.items()}, "best_prec1": 91.7}, path
        )
    else:
        torch.save(state, path)
    found = load_state(path)
    assert found.keys() == state.keys()
    assert all(torch.equal(found[name], state[name]) for name in state)


@pytest.mark.parametrize("suffix", [".pt", ".safetensors", ".npz"])
@pytest.mark.parametrize("kept", [0, 3, 100, -20])
def test_a_truncated_weight_file_of_any_kind_is_refused(tmp_path: Path, suffix: str, kept: int) -> None:
    path = tmp_path / f"model{suffix}"
    state = {"w": torch.randn(64)}
    if suffix == ".pt":
        torch.save(state, path)
    elif suffix == ".npz":
        np.savez(path, w=state["w"].numpy())
    else:
        save_file(state, path)
    path.write_bytes(path.read_bytes()[:kept])
    with pytest.raises(CheckpointError):
        load_state(path)


@pytest.mark.parametrize(
    "content", [{}, {"a": 1}, [1, 2], torch.zeros(2), {"state_dict": {1: torch.zeros(1)}}]
)
def test_a_file_without_a_state_dict_is_refused(tmp_path: Path, content: object) -> None:
    torch.save(content, tmp_path / "x.pt")
    with pytest.raises(CheckpointError, match="no state dict"):
        load_state(tmp_path / "x.pt")


def test_object_arrays_in_npz_are_refused(tmp_path: Path) -> None:
    witness = tmp_path / "executed"
    np.savez(tmp_path / "x.npz", w=np.array([_Bomb(witness)], dtype=object))
    with pytest.raises(CheckpointError):
        load_state(tmp_path / "x.npz")
    assert not witness.exists()
