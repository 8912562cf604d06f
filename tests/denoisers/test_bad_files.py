"""Files that are not what they should be, hub models, and cards: every loader refuses in words and runs nothing."""

from __future__ import annotations

import importlib
import io
import pickle
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from smoothcert.checkpoints import sha256
from smoothcert.denoisers import DiffusionDenoiser, cards, diffusers, load
from smoothcert.diffusion.schedule import beta_schedule
from smoothcert.errors import CheckpointError, UnknownName

HUB: Any = importlib.import_module("huggingface_hub")
LIBRARY: Any = importlib.import_module("diffusers")
KINDS = {
    "openai": "?noise_schedule=linear&diffusion_steps=1000&num_heads=1",
    "edm": "",
    "ffdnet": "",
    "fdncnn": "",
    "dncnn": "?sigma=0.25",
    "memnet": "?sigma=0.25",
}


class Trap:
    """Pickled, it writes a file when it is opened."""

    def __init__(self, witness: Path) -> None:
        self.witness = witness

    def __reduce__(self) -> tuple[object, tuple[object, ...]]:
        return Path.touch, (self.witness,)


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("ending", ["pt", "pth", "pth.tar", "safetensors", "npz", "bin"])
def test_code_planted_in_weights_is_refused_and_never_run(tmp_path: Path, kind: str, ending: str) -> None:
    path, witness = tmp_path / f"net.{ending}", tmp_path / "witness"
    bare = io.BytesIO()
    pickle.dump({"state_dict": Trap(witness)}, bare)
    torch.save({"conv0.weight": torch.ones(1), "x": Trap(witness)}, path)
    for content in (path.read_bytes(), bare.getvalue()):
        path.write_bytes(content)
        with pytest.raises(CheckpointError):
            load(f"{kind}:{path}{KINDS[kind]}")
        assert not witness.exists()


@pytest.mark.parametrize("kind", KINDS)
def test_missing_cut_and_empty_files_are_refused(tmp_path: Path, kind: str) -> None:
    with pytest.raises(CheckpointError, match="no such file"):
        load(f"{kind}:{tmp_path / 'absent.pt'}{KINDS[kind]}")
    path = tmp_path / "net.pt"
    torch.save({"conv0.weight": torch.ones(8, 3, 3, 3)}, path)
    whole = path.read_bytes()
    for content in (b"", whole[: len(whole) // 2], b"not a model"):
        path.write_bytes(content)
        with pytest.raises(CheckpointError):
            load(f"{kind}:{path}{KINDS[kind]}")


@pytest.mark.parametrize(
    ("name", "near"),
    [
        ("identidy", "identity"),
        ("opnai:x.pt", "openai"),
        ("ffdnt:x.pth", "ffdnet"),
        ("digit", "digits"),
    ],
)
def test_an_unknown_name_suggests_the_nearest(name: str, near: str) -> None:
    with pytest.raises(UnknownName, match=f"Did you mean '{near}'"):
        load(name)


def network(path: Path) -> Path:
    stream = np.random.default_rng(0)
    shapes = {
        "conv0.weight": (8, 13, 3, 3),
        "conv0.bias": (8,),
        "conv1.weight": (12, 8, 3, 3),
        "conv1.bias": (12,),
    }
    np.savez(path, **{name: stream.normal(size=shape).astype(np.float32) for name, shape in shapes.items()})
    return path


CARD = (
    '["net.npz"]\nkind = "ffdnet"\nsource = "https://example.org/net.npz"\nlicence = "none"\nsha256 = "{}"\n'
)


def test_a_file_is_compared_with_the_hash_of_its_card(tmp_path: Path) -> None:
    path = network(tmp_path / "net.npz")
    (tmp_path / "cards.toml").write_text(CARD.format(sha256(path)))
    assert load(path).describe()["kind"] == "ffdnet"
    (tmp_path / "cards.toml").write_text(CARD.format("0" * 64))
    for name in (str(path), f"ffdnet:{path}"):
        with pytest.raises(CheckpointError, match="SHA-256"):
            load(name)
    path.unlink()
    with pytest.raises(CheckpointError, match=r"example\.org"):
        load(f"ffdnet:{path}")


@pytest.mark.parametrize("content", ["[", '["net.npz"]\nkind = "ffdnet"\n', 'a = "b"\n'])
def test_cards_that_say_nothing_are_refused(tmp_path: Path, content: str) -> None:
    (tmp_path / "cards.toml").write_text(content)
    with pytest.raises(CheckpointError, match=r"cards\.toml"):
        load(f"ffdnet:{network(tmp_path / 'net.npz')}")


def test_every_card_of_the_package_is_whole() -> None:
    found = cards.published()
    assert {
        "cifar10_uncond_50M_500K.pt",
        "256x256_diffusion_uncond.pt",
        "google/ddpm-cifar10-32",
    } <= found.keys()
    for file, card in found.items():
        assert card.kind in {*KINDS, "hub"}, file
        assert card.source.startswith("https://"), file
        assert card.licence, file
        assert card.sha256 is None or len(card.sha256) == 64, file


def test_a_file_without_kind_or_card_is_asked_for_its_kind(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="ffdnet:"):
        load(network(tmp_path / "mine.npz"))


@pytest.fixture
def pipeline(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    unet = LIBRARY.UNet2DModel(
        sample_size=8,
        in_channels=1,
        out_channels=1,
        layers_per_block=1,
        block_out_channels=(8,),
        down_block_types=("DownBlock2D",),
        up_block_types=("UpBlock2D",),
        norm_num_groups=4,
    ).eval()
    return diffusers.save(DiffusionDenoiser(unet, beta_schedule("linear")), tmp_path / "published")


def serve(monkeypatch: pytest.MonkeyPatch, source: Path, cache: Path) -> list[list[str]]:
    """Stands for the hub: copies what is asked for into a cache and remembers what that was."""
    asked: list[list[str]] = []

    def snapshot_download(name: str, *, allow_patterns: list[str]) -> str:
        assert name == "owner/model"
        asked.append(allow_patterns)
        for path in source.rglob("*"):
            place = path.relative_to(source)
            if path.is_file() and any(place.match(pattern) for pattern in allow_patterns):
                (cache / place).parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(path, cache / place)
        return str(cache)

    monkeypatch.setattr(HUB, "snapshot_download", snapshot_download)
    return asked


def test_a_model_of_the_hub_is_found_by_its_id(
    monkeypatch: pytest.MonkeyPatch, pipeline: Path, tmp_path: Path
) -> None:
    asked = serve(monkeypatch, pipeline, tmp_path / "cache")
    made = load("owner/model")
    assert made.describe() == load(pipeline).describe()
    assert isinstance(made, DiffusionDenoiser)
    assert made.source == "owner/model"
    assert len(asked) == 1
    assert not any(pattern.endswith(".bin") for pattern in asked[0]), "safetensors first"


def test_older_weights_of_the_hub_are_opened_without_running_them(
    monkeypatch: pytest.MonkeyPatch, pipeline: Path, tmp_path: Path
) -> None:
    expected = load(pipeline)
    weights = pipeline / "unet" / diffusers.WEIGHTS
    state = expected.network.state_dict()  # type: ignore[attr-defined]
    weights.unlink()
    torch.save(state, pipeline / "unet" / diffusers.PICKLED)
    serve(monkeypatch, pipeline, tmp_path / "cache")
    images = torch.rand(2, 1, 8, 8)
    with torch.no_grad():
        assert torch.equal(load("owner/model")(images, 0.5), expected(images, 0.5))
    torch.save({"a": Trap(tmp_path / "witness")}, pipeline / "unet" / diffusers.PICKLED)
    with pytest.raises(CheckpointError, match="nothing in it was executed"):
        load("owner/model")
    assert not (tmp_path / "witness").exists()


def test_without_a_connection_the_error_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise HUB.errors.LocalEntryNotFoundError("no network")

    monkeypatch.setattr(HUB, "snapshot_download", refuse)
    with pytest.raises(CheckpointError, match="no directory here") as refusal:
        load("google/ddpm-cifar10-32")
    assert "connection" in refusal.value.instead
