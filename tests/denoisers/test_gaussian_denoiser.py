"""Everything between a noisy image in [0, 1] and a network, against data whose every answer is known."""

from __future__ import annotations

import math
from dataclasses import dataclass
from itertools import pairwise

import pytest
import torch
from torch import Tensor

from smoothcert.denoisers import DiffusionDenoiser, GaussianDenoiser
from smoothcert.diffusion.closed_form import CosineSchedule, EdmSchedule
from smoothcert.diffusion.samplers import Ancestral, Ddim, EdmHeun, Sampler
from smoothcert.diffusion.schedule import Schedule, beta_schedule
from smoothcert.errors import InvalidInput

SHAPE = (1, 2, 2)
PIXELS = 4
SCHEDULES: tuple[Schedule, ...] = (
    beta_schedule("linear"),
    beta_schedule("scaled_linear"),
    beta_schedule("sigmoid"),
    beta_schedule("squaredcos_cap_v2", 4000),
    CosineSchedule(4000),
    EdmSchedule(),
)


def covariance() -> Tensor:
    root = torch.randn((PIXELS, PIXELS), generator=torch.Generator().manual_seed(3), dtype=torch.float64)
    return 0.02 * root @ root.T + 0.01 * torch.eye(PIXELS, dtype=torch.float64)


def mean() -> Tensor:
    return torch.tensor([0.2, 0.4, 0.6, 0.9], dtype=torch.float64).reshape(SHAPE)


def data(*, clamp: bool = False) -> GaussianDenoiser:
    return GaussianDenoiser(mean(), covariance(), clamp=clamp)


def noisy(batch: int = 5) -> Tensor:
    return torch.randn((batch, *SHAPE), generator=torch.Generator().manual_seed(4), dtype=torch.float64) + 0.5


def behind_a_network(
    schedule: Schedule, prediction: str, sampler: Sampler | None = None
) -> DiffusionDenoiser:
    network = data().network(schedule, prediction=prediction)
    made = DiffusionDenoiser(network, schedule, prediction=prediction, clamp=False)
    return made.with_sampler(sampler) if sampler else made


def test_posterior_mean_is_the_textbook_formula() -> None:
    sigma = 0.3
    gain = covariance() @ torch.linalg.inv(covariance() + sigma**2 * torch.eye(PIXELS, dtype=torch.float64))
    offset = (noisy() - mean()).flatten(1)
    expected = mean() + (offset @ gain.T).reshape(-1, *SHAPE)
    torch.testing.assert_close(data()(noisy(), sigma), expected, rtol=0, atol=1e-12)
    left = covariance() - gain @ covariance()
    torch.testing.assert_close(data().posterior_covariance(sigma), left, rtol=0, atol=1e-12)


def test_the_flow_solves_its_differential_equation() -> None:
    sigma, step = 0.3, 1e-5
    slope = (noisy() - data()(noisy(), sigma)) / sigma
    along = noisy() - step * slope  # one small step down the flow must not change where it ends
    torch.testing.assert_close(
        data().flow(along, sigma - step), data().flow(noisy(), sigma), rtol=0, atol=1e-8
    )


@pytest.mark.parametrize("schedule", SCHEDULES, ids=lambda s: str(s.name))
@pytest.mark.parametrize("prediction", ["epsilon", "x0", "v"])
@pytest.mark.parametrize("sigma", [0.05, 0.25, 0.5, 1.0])
def test_one_shot_behind_any_schedule_and_prediction_is_the_posterior_mean(
    schedule: Schedule, prediction: str, sigma: float
) -> None:
    """Scale, timestep and prediction cancel exactly, or this fails."""
    got = behind_a_network(schedule, prediction)(noisy(), sigma)
    torch.testing.assert_close(got, data()(noisy(), sigma), rtol=0, atol=1e-11)


@pytest.mark.parametrize("sigma", [0.25, 1.0])
def test_single_precision_costs_single_precision(sigma: float) -> None:
    got = behind_a_network(beta_schedule("linear"), "epsilon")(noisy().float(), sigma)
    assert got.dtype == torch.float32
    torch.testing.assert_close(got, data()(noisy(), sigma).float(), rtol=0, atol=1e-5)


@pytest.mark.parametrize("sigma", [0.25, 0.5, 1.0])
def test_deterministic_samplers_end_where_the_flow_ends(sigma: float) -> None:
    end = data().flow(noisy(), sigma)
    schedule = EdmSchedule(least=2e-5)
    heun = behind_a_network(schedule, "v", EdmHeun(300, sigma_min=2e-5))
    torch.testing.assert_close(heun(noisy(), sigma), end, rtol=0, atol=1e-4)
    published = behind_a_network(schedule, "epsilon", EdmHeun())
    torch.testing.assert_close(published(noisy(), sigma), end, rtol=0, atol=2e-2)
    ddim = behind_a_network(CosineSchedule(4000), "epsilon", Ddim(1000))
    torch.testing.assert_close(ddim(noisy(), sigma), end, rtol=0, atol=1e-2)


@dataclass
class Numbered:
    """Noise named by (seed, step) alone, one row per draw."""

    count: int

    def normal(self, step: int) -> Tensor:
        stream = torch.Generator().manual_seed(1000 + step)
        return torch.randn((self.count, *SHAPE), generator=stream)


@pytest.mark.parametrize("sigma", [0.25, 0.5])
def test_the_ancestral_chain_ends_in_the_posterior(sigma: float) -> None:
    """Mean and covariance of 20,000 chains from one noisy image; false alarm rate below 1e-5 in all.

    E[z' | z] is linear in E[x0 | z], so the mean is exact at every number of steps. The variance lacks
    (1 - r)^2 Var[x0 | z] a step; here that leaves it a few percent short, by an exact recursion.
    """
    count, schedule = 20_000, beta_schedule("linear")
    one = noisy(1)
    chain = behind_a_network(schedule, "epsilon", Ancestral())
    ends = chain(one.expand(count, -1, -1, -1), sigma, draws=Numbered(count)).flatten(1)

    values, vectors = torch.linalg.eigh(covariance())
    variances = chain_variances(values, schedule, sigma)
    posterior = values * sigma**2 / (values + sigma**2)
    assert ((variances / posterior - 1).abs() < 0.08).all()

    exact_mean = data()(one, sigma).flatten()
    white = (ends - exact_mean) @ vectors / variances.sqrt()
    assert (white.mean(0).abs() * math.sqrt(count) < 5.2).all()  # 4 normals: 8e-7
    assert ((white.square().mean(0) - 1).abs() * math.sqrt(count / 2) < 5.2).all()
    products = torch.triu(white.T @ white / count, diagonal=1)
    assert (products.abs() * math.sqrt(count) < 5.2).all()  # 6 normals


def chain_variances(values: Tensor, schedule: Schedule, sigma: float) -> Tensor:
    """Variance of the chain's end along each eigenvector, step by step on images in [0, 1]."""
    levels = [sigma, *(level / 2 for level in schedule.levels[::-1].tolist() if level / 2 < sigma)]
    spread = torch.zeros_like(values)
    for here, there in pairwise(levels):
        gain, kept = values / (values + here**2), (there / here) ** 2
        spread = (gain + kept * (1 - gain)) ** 2 * spread + there**2 * (1 - kept)
    end: Tensor = (values / (values + levels[-1] ** 2)) ** 2 * spread
    return end


def test_answers_are_images_unless_asked_otherwise() -> None:
    far = noisy() * 40
    for denoiser in (
        data(clamp=True),
        DiffusionDenoiser(data().network(SCHEDULES[0]), SCHEDULES[0]),
    ):
        assert denoiser(far, 0.25).min() == 0
        assert denoiser(far, 0.25).max() == 1
    assert data()(far, 0.25).abs().max() > 5


def test_data_that_are_no_gaussian_are_refused() -> None:
    with pytest.raises(InvalidInput, match="same images"):
        GaussianDenoiser(mean(), torch.eye(3))
    with pytest.raises(InvalidInput, match="semidefinite"):
        GaussianDenoiser(mean(), -torch.eye(PIXELS))
    with pytest.raises(InvalidInput, match="semidefinite"):
        GaussianDenoiser(mean(), torch.triu(torch.ones(PIXELS, PIXELS)))
