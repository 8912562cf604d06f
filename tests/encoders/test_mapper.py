"""The mapper as a network and as a file: shapes, independence, what it refuses."""

from __future__ import annotations

import json
import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from smoothcert.encoders import mapper
from smoothcert.encoders.mapper import Mapper, MapperConfig
from smoothcert.errors import CheckpointError, InvalidInput, UnknownName


def trained(heads: int = 0, **settings: Any) -> Mapper:
    """A mapper that does something: no training is needed for that, only weights."""
    torch.manual_seed(0)
    model = Mapper(MapperConfig(12, (0.1, 0.5), width=16, blocks=2, heads=heads, **settings))
    for part in model.parameters():
        torch.nn.init.normal_(part, std=0.2)
    model.scale.copy_(torch.linspace(0.5, 2.0, 12))
    return model.eval().requires_grad_(False)


SHAPES = pytest.mark.parametrize(("heads", "shape"), [(0, (12,)), (4, (7, 12)), (4, (12,)), (0, (7, 12))])


@SHAPES
def test_features_keep_their_shape_and_type(heads: int, shape: tuple[int, ...]) -> None:
    model, features = trained(heads), torch.randn(5, *shape)
    assert model(features, 0.3).shape == features.shape
    assert not torch.equal(model(features, 0.3), features)
    assert model(features.bfloat16(), 0.3).dtype == torch.bfloat16


@SHAPES
def test_no_answer_depends_on_batch_mates(heads: int, shape: tuple[int, ...]) -> None:
    model, features = trained(heads), torch.randn(6, *shape)
    together = model(features, 0.3)
    others = torch.cat([features[:1], 100 * torch.randn(5, *shape)])
    torch.testing.assert_close(model(others, 0.3)[0], together[0], rtol=0, atol=1e-6)
    torch.testing.assert_close(model(features.flip(0), 0.3).flip(0), together, rtol=0, atol=1e-5)


def test_with_attention_an_images_tokens_know_of_each_other() -> None:
    features = torch.randn(3, 7, 12)
    changed = features.clone()
    changed[:, 6] += 1
    with_heads, without = trained(4), trained(0)
    assert not torch.allclose(with_heads(features, 0.3)[:, 0], with_heads(changed, 0.3)[:, 0])
    assert torch.equal(without(features, 0.3)[:, 0], without(changed, 0.3)[:, 0])


def test_the_answer_depends_on_sigma_and_sigmas_of_a_batch_are_its_images_own() -> None:
    model, features = trained(4), torch.randn(2, 7, 12)
    both = model.residual(features, torch.tensor([0.1, 0.5]))
    assert not torch.allclose(model(features, 0.1), model(features, 0.5))
    torch.testing.assert_close(features[:1] + both[:1], model(features[:1], 0.1))
    torch.testing.assert_close(features[1:] + both[1:], model(features[1:], 0.5))


def test_a_fresh_mapper_changes_nothing() -> None:
    features = torch.randn(4, 12)
    assert torch.equal(Mapper(MapperConfig(12, (0.1, 0.5)))(features, 0.2), features)


def test_features_are_measured_in_units_of_their_own_spread() -> None:
    """An encoder whose features are a hundred times larger, and moved, is the same encoder."""
    model, larger, features = trained(), trained(), torch.randn(4, 12)
    larger.scale.mul_(100)
    larger.centre.copy_(100 * model.centre + 7)
    wanted = 100 * model(features, 0.3) + 7
    torch.testing.assert_close(larger(100 * features + 7, 0.3), wanted, rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize("sigma", [0.0, 0.0999, 0.501, 1.0, float("nan")])
def test_a_sigma_it_was_not_trained_for_is_refused(sigma: float) -> None:
    with pytest.raises(InvalidInput, match=r"sigma mismatch between booster and run.*0\.1 to 0\.5"):
        trained()(torch.randn(2, 12), sigma)


@pytest.mark.parametrize(
    "features",
    [torch.randn(2, 11), torch.randn(2, 3, 11), torch.randn(12), torch.zeros(2, 12, dtype=torch.int64)],
)
def test_features_of_another_dimension_are_refused(features: Tensor) -> None:
    with pytest.raises(InvalidInput, match="features of shape"):
        trained()(features, 0.3)


@pytest.mark.parametrize(
    "settings",
    [
        {"dimension": 0}, {"sigmas": (0.0, 0.5)}, {"sigmas": (0.5, 0.1)}, {"sigmas": (0.1, float("inf"))},
        {"heads": 3}, {"heads": -1}, {"blocks": 0}, {"width": 0},
    ],
)  # fmt: skip
def test_what_is_no_mapper_cannot_be_configured(settings: dict[str, Any]) -> None:
    with pytest.raises(InvalidInput):
        MapperConfig(**{"dimension": 12, "sigmas": (0.1, 0.5), "width": 16, **settings})


@pytest.mark.parametrize("heads", [0, 4])
def test_what_was_saved_is_read_again_to_the_bit(tmp_path: Path, heads: int) -> None:
    model, features = trained(heads, encoder="digits", denoiser="cifar10"), torch.randn(3, 12)
    mapper.save(model, tmp_path)
    again = mapper.load(tmp_path)
    assert again.config == model.config
    assert torch.equal(again(features, 0.3), model(features, 0.3))
    assert again.source == str(tmp_path)
    assert again.describe()["sigmas"] == [0.1, 0.5]
    assert json.loads(json.dumps(again.describe())) == again.describe()
    assert not any(part.requires_grad for part in again.parameters())


def test_a_name_nobody_knows_is_told_from_a_broken_directory(tmp_path: Path) -> None:
    with pytest.raises(UnknownName, match="digits"):
        mapper.load(tmp_path / "nowhere")


class _Bomb:
    def __init__(self, witness: Path) -> None:
        self.witness = witness

    def __reduce__(self) -> Any:
        return Path.touch, (self.witness,)


def _edited(directory: Path, **changes: Any) -> None:
    path = directory / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


@pytest.mark.parametrize(
    "spoil", ["missing", "truncated", "bomb", "architecture", "dimension", "unknown", "nan", "card"]
)
def test_spoiled_files_are_refused_and_run_nothing(tmp_path: Path, spoil: str) -> None:
    model, witness, weights = trained(), tmp_path / "executed", tmp_path / "model.safetensors"
    if spoil == "nan":
        model.leave.bias[3] = float("nan")
    mapper.save(model, tmp_path)
    content = weights.read_bytes()
    if spoil == "missing":
        weights.unlink()
    elif spoil == "truncated":
        weights.write_bytes(content[:-5])
    elif spoil == "bomb":
        weights.write_bytes(pickle.dumps(_Bomb(witness)))
    elif spoil == "architecture":
        _edited(tmp_path, architecture="another")
    elif spoil == "dimension":
        _edited(tmp_path, dimension=13)
    elif spoil == "unknown":
        _edited(tmp_path, depth=3)
    elif spoil == "card":
        (tmp_path / "card.toml").write_text('[sha256]\n"model.safetensors" = "00"\n"config.json" = "00"\n')
    with pytest.raises(CheckpointError):
        mapper.load(tmp_path)
    assert not witness.exists()
