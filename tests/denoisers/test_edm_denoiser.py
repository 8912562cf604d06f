"""EDM preconditioning: against the paper's formulas written out again, and through every way it is loaded."""

from __future__ import annotations

import importlib
import json
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from smoothcert.denoisers import DiffusionDenoiser, GaussianDenoiser, diffusers, edm, load
from smoothcert.denoisers.takes import Takes
from smoothcert.diffusion.closed_form import EdmSchedule
from smoothcert.diffusion.preconditioning import EdmPreconditioning
from smoothcert.diffusion.samplers import Ancestral, Ddim, EdmHeun
from smoothcert.diffusion.schedule import beta_schedule
from smoothcert.errors import CheckpointError, InvalidInput

LIBRARY: Any = importlib.import_module("diffusers")  # untyped


class Watched(nn.Module):
    """A fixed function of both inputs that keeps what it was given."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.tensor(0.7))

    def forward(self, images: Tensor, level: Tensor) -> Tensor:
        self.images, self.level = images, level
        return torch.tanh(self.weight * images) + level[:, None, None, None]


def noisy(sigma: float = 0.5, channels: int = 3, size: int = 8) -> Tensor:
    stream = torch.Generator().manual_seed(0)
    clean = torch.rand((4, channels, size, size), generator=stream)
    return clean + sigma * torch.randn(clean.shape, generator=stream)


def by_the_formulas(network: nn.Module, images: Tensor, sigma: float, data: float, sign: int = 1) -> Tensor:
    """Table 1 of the paper, in float64 and in its own words: images on [-1, 1], so noise twice as large."""
    s = 2 * sigma
    x = 2 * images.double() - 1
    c_skip = data**2 / (s**2 + data**2)
    c_out = sign * s * data / math.sqrt(s**2 + data**2)
    c_in = 1 / math.sqrt(s**2 + data**2)
    c_noise = torch.full((len(x),), 0.25 * math.log(s), dtype=torch.float64)
    denoised = c_skip * x + c_out * network(c_in * x, c_noise)
    return ((denoised + 1) / 2).clamp(0, 1)


@pytest.mark.parametrize("data", [0.5, 0.25, 1.0])
@pytest.mark.parametrize("sign", [1, -1])
@pytest.mark.parametrize("sigma", [0.01, 0.25, 0.5, 1.0, 20.0])
def test_it_is_what_the_paper_writes(sigma: float, sign: int, data: float) -> None:
    network = Watched().double()
    made = edm.preconditioned(network, sigma_data=data, sign=sign)
    with torch.no_grad():
        found = made(noisy(sigma).double(), sigma)
        expected = by_the_formulas(network, noisy(sigma), sigma, data, sign)
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-12)


@pytest.mark.parametrize("sigma", [0.1, 0.25, 1.0])
def test_the_network_is_told_a_quarter_of_the_logarithm_of_twice_sigma(sigma: float) -> None:
    network = Watched()
    with torch.no_grad():
        edm.preconditioned(network)(noisy(sigma), sigma)
    torch.testing.assert_close(network.level, torch.full((4,), math.log(2 * sigma) / 4))
    torch.testing.assert_close(network.images, (2 * noisy(sigma) - 1) / math.sqrt(4 * sigma**2 + 0.25))


class Ideal(nn.Module):
    """F of the exact posterior mean of Gaussian data, from the definition of D turned round."""

    def __init__(self, data: GaussianDenoiser, spread: float) -> None:
        super().__init__()
        self.data, self.spread = data, spread

    def forward(self, shown: Tensor, level: Tensor) -> Tensor:
        sigma = (4 * level.double()).exp()[:, None, None, None]
        total = (sigma**2 + self.spread**2).sqrt()
        z = shown.double() * total
        clean = 2 * self.data.posterior_mean((z + 1) / 2, sigma.flatten() / 2) - 1
        return (clean - (self.spread / total) ** 2 * z) * total / (sigma * self.spread)


@pytest.mark.parametrize("spread", [0.5, 0.8])
def test_samplers_reach_the_known_answers(spread: float) -> None:
    root = torch.randn((16, 16), generator=torch.Generator().manual_seed(5), dtype=torch.float64)
    data = GaussianDenoiser(
        torch.full((1, 4, 4), 0.5), 0.002 * root @ root.T + 0.01 * torch.eye(16), clamp=False
    )
    images = noisy(0.5, 1, 4).double()
    made = DiffusionDenoiser(
        Ideal(data, spread), EdmSchedule(), prediction=EdmPreconditioning(spread), clamp=False
    )
    torch.testing.assert_close(made(images, 0.5), data(images, 0.5), rtol=0, atol=1e-10)
    for sampler, gap in ((EdmHeun(40), 2e-3), (Ddim(400), 6e-3)):
        end = made.with_sampler(sampler)(images, 0.5)
        torch.testing.assert_close(end, data.flow(images, 0.5), rtol=0, atol=gap)
    assert made.with_sampler(Ancestral()).evaluations(0.5) == 1 + int((EdmSchedule().levels < 1).sum())


def test_it_describes_its_scaling_and_the_noise_it_was_trained_for() -> None:
    described = edm.preconditioned(Watched(), sigma_range=(0.02, 3.0), sigma_data=0.4).describe()
    assert json.loads(json.dumps(described)) == described
    assert described["prediction"] == "edm"
    assert described["sigma_data"] == 0.4
    assert (described["schedule"]["least"], described["schedule"]["most"]) == (0.04, 6.0)
    other = edm.preconditioned(Watched(), sigma_range=(0.02, 3.0), sigma_data=0.5).describe()
    assert other != described


def test_noise_outside_the_trained_range_is_refused() -> None:
    made = edm.preconditioned(Watched(), sigma_range=(0.02, 3.0))
    for sigma in (0.01, 3.1):
        with pytest.raises(InvalidInput, match=r"0\.02 to 3"):
            made(noisy(), sigma)


def test_settings_that_make_no_denoiser_are_refused() -> None:
    for data, sign in ((0.0, 1), (math.inf, 1), (0.5, 2)):
        with pytest.raises(InvalidInput, match="sigma_data"):
            EdmPreconditioning(data, sign)
    with pytest.raises(InvalidInput, match="EdmSchedule"):
        DiffusionDenoiser(Watched(), beta_schedule("linear"), prediction=EdmPreconditioning())


def unet() -> nn.Module:
    torch.manual_seed(0)
    made: nn.Module = LIBRARY.UNet2DModel(
        sample_size=8,
        in_channels=3,
        out_channels=3,
        layers_per_block=1,
        block_out_channels=(8, 16),
        down_block_types=("DownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "UpBlock2D"),
        norm_num_groups=4,
    ).eval()
    return made


@pytest.mark.parametrize("scheduler", ["EDMEulerScheduler", "EDMDPMSolverMultistepScheduler"])
@pytest.mark.parametrize("prediction", ["epsilon", "v_prediction"])
def test_a_directory_of_diffusers_means_what_diffusers_makes_of_it(
    tmp_path: Path, scheduler: str, prediction: str
) -> None:
    theirs = getattr(LIBRARY, scheduler)(sigma_data=0.4, sigma_max=60.0, prediction_type=prediction)
    unet().save_pretrained(tmp_path / "unet")
    theirs.save_pretrained(tmp_path / "scheduler")
    made = load(tmp_path)
    assert isinstance(made, DiffusionDenoiser)
    sigma, images = 0.3, noisy(0.3)
    with torch.no_grad():
        x = 2 * images - 1
        level = theirs.precondition_noise(torch.tensor([2 * sigma]))
        answer = made.network(theirs.precondition_inputs(x, 2 * sigma), level.repeat(4))
        denoised = theirs.precondition_outputs(x, getattr(answer, "sample"), 2 * sigma)  # noqa: B009
        torch.testing.assert_close(made(images, sigma), ((denoised + 1) / 2).clamp(0, 1), rtol=0, atol=1e-6)
    assert made.schedule.sigma_max == 60.0


@pytest.mark.parametrize("sign", [1, -1])
def test_what_is_saved_comes_back_the_same(tmp_path: Path, sign: int) -> None:
    made = edm.preconditioned(unet(), sigma_data=0.45, sigma_range=(0.01, 5.0), sign=sign)
    again = load(diffusers.save(made, tmp_path))
    assert again.describe() == made.describe()
    with torch.no_grad():
        torch.testing.assert_close(again(noisy(), 0.5), made(noisy(), 0.5), rtol=0, atol=1e-6)
    theirs = LIBRARY.EDMEulerScheduler.from_pretrained(tmp_path, subfolder="scheduler")
    assert (theirs.config.sigma_data, theirs.config.sigma_max) == (0.45, 10.0)
    assert LIBRARY.UNet2DModel.from_pretrained(tmp_path, subfolder="unet")


def test_an_unknown_prediction_of_an_edm_scheduler_is_refused(tmp_path: Path) -> None:
    diffusers.save(edm.preconditioned(unet()), tmp_path)
    path = tmp_path / "scheduler" / "scheduler_config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {"prediction_type": "sample"}))
    with pytest.raises(InvalidInput, match="v_prediction"):
        load(tmp_path)


def test_images_that_do_not_fit_are_refused_in_words() -> None:
    made = edm.preconditioned(Watched(), takes=Takes(3, 4))
    with pytest.raises(InvalidInput, match="greyscale"):
        made(noisy(channels=1), 0.5)
    with pytest.raises(InvalidInput, match="multiples of 4"):
        made(noisy(size=10), 0.5)


def test_a_residual_unet_directory_is_an_edm_denoiser(tmp_path: Path) -> None:
    own: Any = importlib.import_module("smoothcert.denoisers.residual_unet")
    torch.manual_seed(0)
    network = own.ResidualUNet(own.ResidualUNetConfig(3, (8, 16), 1)).eval()
    nn.init.normal_(network.tail.weight)
    own.save(network, tmp_path, preconditioning="edm", sigma_data=0.5, trained_sigma=(0.02, 4.0))
    made = load(tmp_path)
    assert isinstance(made, DiffusionDenoiser)
    assert made.schedule == EdmSchedule(least=0.04, most=8.0)
    with torch.no_grad():
        expected = by_the_formulas(network.double(), noisy(), 0.5, 0.5)
        torch.testing.assert_close(made(noisy(), 0.5).double(), expected, rtol=0, atol=1e-5)
    path = tmp_path / "config.json"
    path.write_text(json.dumps({k: v for k, v in json.loads(path.read_text()).items() if k != "sigma_data"}))
    with pytest.raises(CheckpointError, match="sigma_data"):
        load(tmp_path)
