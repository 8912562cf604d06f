"""Diffusion models on disk: written, read back, read by diffusers, or refused."""

from __future__ import annotations

import importlib
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
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


class Trap:
    """Pickled, it writes a file when it is opened."""

    def __init__(self, witness: Path) -> None:
        self.witness = witness

    def __reduce__(self) -> tuple[object, tuple[object, ...]]:
        return Path.touch, (self.witness,)


def test_torch_weights_are_read_without_running_anything_in_them(saved: Path, tmp_path: Path) -> None:
    weights, witness = saved / "unet" / diffusers.WEIGHTS, tmp_path / "witness"
    whole = load(saved)
    state = load_file(weights)
    weights.unlink()
    torch.save(state, saved / "unet" / diffusers.PICKLED)
    with torch.no_grad():
        assert torch.equal(load(saved)(noisy(), 0.5), whole(noisy(), 0.5))
    torch.save({"weight": Trap(witness)}, saved / "unet" / diffusers.PICKLED)
    with pytest.raises(CheckpointError, match="nothing in it was executed"):
        load(saved)
    assert not witness.exists()


def test_settings_beside_the_weights_are_read_as_well(saved: Path, tmp_path: Path) -> None:
    """The layout of google/ddpm-cifar10-32 and its time: no folders, and older names of the attention layers."""
    torch.manual_seed(0)
    blocks = {"down_block_types": ("AttnDownBlock2D",), "up_block_types": ("AttnUpBlock2D",)}
    made = LIBRARY.UNet2DModel(
        sample_size=8, in_channels=1, out_channels=1, block_out_channels=(8,), norm_num_groups=4, **blocks
    ).eval()
    made.save_pretrained(tmp_path / "old")
    LIBRARY.DDPMScheduler(prediction_type="sample").save_pretrained(tmp_path / "old")
    path = tmp_path / "old" / diffusers.WEIGHTS
    older = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}
    state = load_file(path)
    for new, old in older.items():
        state = {name.replace(new, old): tensor for name, tensor in state.items()}
    save_file(state, path)
    read = load(tmp_path / "old")
    assert isinstance(read, DiffusionDenoiser)
    assert read.prediction == "x0"
    with torch.no_grad():
        same = DiffusionDenoiser(made, beta_schedule("linear"), prediction="x0")
        assert torch.equal(read(noisy(), 0.5), same(noisy(), 0.5))


@pytest.mark.parametrize(
    "table", ["linear", "scaled_linear", "squaredcos_cap_v2", "sigmoid", "trained_betas"]
)
@pytest.mark.parametrize("prediction", ["epsilon", "sample", "v_prediction"])
@pytest.mark.parametrize(
    "scheduler",
    [
        "DDPMScheduler",
        "DDIMScheduler",
        "DPMSolverMultistepScheduler",
        "PNDMScheduler",
        "EulerDiscreteScheduler",
    ],
)
def test_every_scheduler_of_diffusers_means_the_same_table(
    tmp_path: Path, scheduler: str, prediction: str, table: str
) -> None:
    listed = torch.linspace(0.001, 0.03, 50).double().numpy()
    given = {"trained_betas": listed.tolist()} if table == "trained_betas" else {"beta_schedule": table}
    try:
        theirs = getattr(LIBRARY, scheduler)(num_train_timesteps=50, prediction_type=prediction, **given)
    except (NotImplementedError, TypeError, ValueError):
        pytest.skip(f"{scheduler} knows no {table}, {prediction}")
    theirs.save_pretrained(tmp_path / "scheduler")
    config = json.loads((tmp_path / "scheduler" / diffusers.SCHEDULER).read_text())
    schedule = Schedule.from_diffusers(config)
    if hasattr(theirs, "alphas_cumprod"):
        expected = theirs.alphas_cumprod.double()
        found = torch.tensor([schedule.alpha_bar(t) for t in range(50)], dtype=torch.float64)
        torch.testing.assert_close(found, expected, rtol=2e-5, atol=1e-8)
    assert DiffusionDenoiser(nn.Identity(), schedule, prediction=config["prediction_type"]).prediction in (
        "epsilon",
        "x0",
        "v",
    )


@pytest.mark.parametrize(
    "setting", [{"class_embed_type": "timestep"}, {"num_class_embeds": 10}, {"center_input_sample": True}]
)
def test_networks_that_want_more_than_an_image_are_refused(saved: Path, setting: dict[str, Any]) -> None:
    path = saved / "unet" / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | setting))
    with pytest.raises(InvalidInput, match=r"label|\[-1, 1\]"):
        load(saved)


@pytest.mark.parametrize(
    "scheduler", ["FlowMatchEulerDiscreteScheduler", "ScoreSdeVeScheduler", "continuous"]
)
def test_schedulers_whose_noise_means_something_else_are_refused(saved: Path, scheduler: str) -> None:
    if scheduler == "continuous":
        theirs = LIBRARY.EulerDiscreteScheduler(timestep_type="continuous", prediction_type="v_prediction")
    else:
        theirs = getattr(LIBRARY, scheduler)()
    theirs.save_pretrained(saved / "scheduler")
    with pytest.raises(InvalidInput, match="noise levels mean something else"):
        load(saved)


def test_images_that_do_not_fit_are_refused_in_words(saved: Path) -> None:
    read = load(saved)
    with pytest.raises(InvalidInput, match="RGB"):
        read(torch.rand(2, 3, 8, 8), 0.5)
    with pytest.raises(InvalidInput, match="multiples of 2"):
        read(torch.rand(2, 1, 9, 8), 0.5)


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
