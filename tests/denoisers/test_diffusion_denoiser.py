"""What a network is shown, and what happens to its answer."""

from __future__ import annotations

import json
import math

import pytest
import torch
from torch import Tensor, nn

from smoothcert.denoisers import DiffusionDenoiser
from smoothcert.diffusion.closed_form import EdmSchedule
from smoothcert.diffusion.samplers import Ancestral, EdmHeun
from smoothcert.diffusion.schedule import beta_schedule
from smoothcert.errors import InvalidInput, ModelOutputError, UnknownName

LINEAR = beta_schedule("linear")


class Watched(nn.Module):
    """Predicts no noise at all and remembers what it saw."""

    def __init__(self, dtype: torch.dtype = torch.float32) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1, dtype=dtype))
        self.images: list[Tensor] = []
        self.times: list[Tensor] = []

    def forward(self, images: Tensor, times: Tensor) -> Tensor:
        self.images.append(images)
        self.times.append(times)
        return torch.zeros_like(images)


def images(batch: int = 3) -> Tensor:
    return torch.rand((batch, 3, 4, 4), generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("sigma", [0.25, 0.5, 1.0])
def test_the_network_sees_the_exact_scale_and_the_continuous_time_as_a_tensor(sigma: float) -> None:
    network = Watched()
    DiffusionDenoiser(network, LINEAR)(images(), sigma)
    expected = (2 * images() - 1) / math.sqrt(1 + 4 * sigma**2)
    torch.testing.assert_close(network.images[0], expected, rtol=1e-6, atol=1e-7)
    (times,) = network.times
    assert times.shape == (3,)
    assert times.dtype == torch.float32
    assert times.tolist() == pytest.approx([LINEAR.time_of(2 * sigma)] * 3, rel=1e-6)
    assert not float(times[0]).is_integer()


def test_an_edm_network_is_conditioned_on_a_quarter_of_log_sigma() -> None:
    network = Watched()
    DiffusionDenoiser(network, EdmSchedule())(images(), 0.25)
    assert network.times[0].tolist() == pytest.approx([math.log(0.5) / 4] * 3, rel=1e-6)


def test_a_network_in_half_precision_gets_its_own_type_but_a_precise_time() -> None:
    network = Watched(torch.bfloat16)
    out = DiffusionDenoiser(network, beta_schedule("squaredcos_cap_v2", 4000))(images(), 0.25)
    assert network.images[0].dtype == torch.bfloat16
    assert network.times[0].dtype == torch.float32
    assert network.times[0][0].item() == pytest.approx(1157.513, abs=1e-3)
    assert out.dtype == torch.float32


def test_a_network_that_predicts_no_noise_returns_the_input() -> None:
    out = DiffusionDenoiser(Watched(), LINEAR)(images(), 0.5)
    torch.testing.assert_close(out, images(), rtol=0, atol=1e-6)


def test_sigma_outside_the_schedule_is_refused_in_image_units() -> None:
    for sigma in (0.004, 79.0, math.nan, 0.0, -0.25):
        with pytest.raises(InvalidInput, match=r"0\.00500025 to 78\.7036 for images in \[0, 1\]"):
            DiffusionDenoiser(Watched(), LINEAR)(images(), sigma)


def test_images_of_another_kind_are_refused() -> None:
    for bad in (images()[0], (images() * 255).to(torch.uint8)):
        with pytest.raises(InvalidInput, match="floating-point"):
            DiffusionDenoiser(Watched(), LINEAR)(bad, 0.25)


def test_bad_networks_and_names_are_refused() -> None:
    with pytest.raises(ModelOutputError):
        DiffusionDenoiser(lambda x, t: x[:, :1], LINEAR)(images(), 0.25)
    with pytest.raises(UnknownName, match="epsilon"):
        DiffusionDenoiser(Watched(), LINEAR, prediction="noise")
    with pytest.raises(InvalidInput, match="draws"):
        DiffusionDenoiser(Watched(), LINEAR, sampler=Ancestral())(images(), 0.25)


def test_an_infinite_answer_stays_visible() -> None:
    out = DiffusionDenoiser(lambda x, t: torch.full_like(x, math.inf), LINEAR)(images(), 0.25)
    assert out.isnan().all()


def test_sampler_and_description() -> None:
    one_shot = DiffusionDenoiser(Watched(), LINEAR, prediction="v_prediction", source="diffusers:somewhere")
    edm = one_shot.with_sampler(EdmHeun())
    assert (one_shot.evaluations(0.25), edm.evaluations(0.25)) == (1, 35)
    assert one_shot.with_sampler(Ancestral()).evaluations(0.25) == 146
    assert not edm.stochastic
    assert one_shot.with_sampler(Ancestral()).stochastic
    assert edm.network is one_shot.network
    before, after = one_shot.describe(), edm.describe()
    assert json.loads(json.dumps(before)) == before
    assert before["prediction"] == "v"
    assert edm.source == "diffusers:somewhere"
    assert {key for key in before if before[key] != after[key]} == {"sampler"}
