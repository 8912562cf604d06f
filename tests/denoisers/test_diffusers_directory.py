"""Diffusion models on disk: written, read back, read by diffusers, or refused."""

from __future__ import annotations

import importlib
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from smoothcert.denoisers import DiffusionDenoiser, diffusers, load
from smoothcert.diffusion.closed_form import CosineSchedule
from smoothcert.diffusion.samplers import EdmHeun
from smoothcert.diffusion.schedule import Schedule, TableSchedule, beta_schedule
from smoothcert.errors import CheckpointError, InvalidInput

LIBRARY: Any = importlib.import_module("diffusers")  # untyped


def network(out_channels: int = 1) -> nn.Module:
    torch.manual_seed(0)
    made: nn.Module = LIBRARY.UNet2DModel(
        sample_size=8,
        in_channels=1,
        out_channels=out_channels,
        layers_per_block=1,
        block_out_channels=(8, 16),
        down_block_types=("DownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "UpBlock2D"),
        norm_num_groups=4,
    ).eval()
    return made


def noisy() -> Tensor:
    return torch.rand((4, 1, 8, 8), generator=torch.Generator().manual_seed(1))


@pytest.fixture
def saved(tmp_path: Path) -> Path:
    denoiser = DiffusionDenoiser(network(), beta_schedule("squaredcos_cap_v2"), prediction="v")
    return diffusers.save(denoiser, tmp_path / "model")


@pytest.mark.parametrize(
    "schedule", [beta_schedule("linear", 100), TableSchedule.from_alpha_bar([0.999, 0.6, 0.1, 0.01])], ids=str
)
@pytest.mark.parametrize("prediction", ["epsilon", "x0", "v"])
def test_what_is_saved_comes_back_the_same(tmp_path: Path, schedule: Schedule, prediction: str) -> None:
    denoiser = DiffusionDenoiser(network(), schedule, prediction=prediction)
    again = diffusers.load(diffusers.save(denoiser, tmp_path))
    assert again.prediction == prediction
    assert again.schedule.to_diffusers()["num_train_timesteps"] == schedule.timesteps
    with torch.no_grad():
        torch.testing.assert_close(again(noisy(), 0.5), denoiser(noisy(), 0.5), rtol=0, atol=1e-6)


def test_diffusers_reads_it_too(saved: Path) -> None:
    pipeline = LIBRARY.DDPMPipeline.from_pretrained(saved)
    assert pipeline.scheduler.config.prediction_type == "v_prediction"
    assert pipeline.scheduler.config.beta_schedule == "squaredcos_cap_v2"
    ours = diffusers.load(saved).network
    assert isinstance(ours, nn.Module)
    theirs = pipeline.unet.state_dict()
    assert theirs.keys() == ours.state_dict().keys()
    assert all(torch.equal(theirs[key], value) for key, value in ours.state_dict().items())


def test_what_diffusers_saves_is_read(tmp_path: Path) -> None:
    LIBRARY.DDPMPipeline(network(), LIBRARY.DDPMScheduler(beta_schedule="scaled_linear")).save_pretrained(
        tmp_path
    )
    read = diffusers.load(tmp_path, sampler=EdmHeun())
    assert read.schedule == beta_schedule("scaled_linear")
    assert read.prediction == "epsilon"
    assert read.sampler == EdmHeun()


def test_loaded_networks_are_ready_and_know_where_they_came_from(saved: Path) -> None:
    read = diffusers.load(saved)
    assert isinstance(read.network, nn.Module)
    assert not read.network.training
    assert read.source == f"diffusers:{saved}"
    assert load(saved).describe() == load(f"diffusers:{saved}").describe() == read.describe()


def test_the_fraction_of_a_timestep_reaches_a_real_network(saved: Path) -> None:
    read = diffusers.load(saved)
    with torch.no_grad():
        near = [read(noisy(), read.schedule.sigma_at(t) / 2) for t in (100.1, 100.9)]
        network: Any = read.network
        rounded = network(noisy(), torch.tensor([100.0]))
        fractional = network(noisy(), torch.tensor([100.9]))
    assert not torch.equal(near[0], near[1])
    assert not torch.equal(rounded.sample, fractional.sample)


def test_a_network_with_learned_variance_is_read(tmp_path: Path) -> None:
    denoiser = DiffusionDenoiser(network(out_channels=2), beta_schedule("linear"))
    read = diffusers.load(diffusers.save(denoiser, tmp_path))
    with torch.no_grad():
        assert read(noisy(), 0.25).shape == noisy().shape


def test_a_bare_network_needs_a_schedule(saved: Path) -> None:
    with pytest.raises(InvalidInput, match="schedule="):
        diffusers.load(saved / "unet")
    read = diffusers.load(saved / "unet", schedule=CosineSchedule(1000), prediction="v")
    assert (read.schedule, read.prediction) == (CosineSchedule(1000), "v")


def test_pickled_weights_are_refused(saved: Path) -> None:
    weights = saved / "unet" / diffusers.WEIGHTS
    torch.save({}, saved / "unet" / "diffusion_pytorch_model.bin")
    weights.unlink()
    with pytest.raises(CheckpointError, match="pickle runs code"):
        diffusers.load(saved)


def test_damaged_and_foreign_directories_are_refused(saved: Path, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"no config\.json"):
        diffusers.load(tmp_path, schedule=CosineSchedule(10))
    weights = saved / "unet" / diffusers.WEIGHTS
    whole = weights.read_bytes()
    weights.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(CheckpointError, match="do not load"):
        diffusers.load(saved)
    weights.unlink()
    with pytest.raises(CheckpointError, match=r"no diffusion_pytorch_model\.safetensors"):
        diffusers.load(saved)
    config = saved / "unet" / "config.json"
    config.write_text(json.dumps({"_class_name": "UNet2DConditionModel"}))
    with pytest.raises(CheckpointError, match="UNet2DConditionModel"):
        diffusers.load(saved)
    config.write_text("{")
    with pytest.raises(CheckpointError):
        diffusers.load(saved)


def test_a_directory_that_differs_from_its_card_is_refused(saved: Path) -> None:
    (saved / "card.toml").write_text('[sha256]\n"model_index.json" = "00"\n')
    with pytest.raises(CheckpointError, match="card"):
        diffusers.load(saved)


def test_what_this_layout_cannot_hold_is_not_written(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="finite table"):
        diffusers.save(DiffusionDenoiser(network(), CosineSchedule(100)), tmp_path)
    with pytest.raises(InvalidInput, match="UNet2DModel"):
        diffusers.save(DiffusionDenoiser(nn.Identity(), beta_schedule("linear")), tmp_path)
    assert not list(tmp_path.iterdir())
