"""Samplers on data N(m, c) a pixel, where the best estimate, the flow and the chain are known exactly."""

from __future__ import annotations

import importlib
import json
import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from smoothcert.diffusion.closed_form import CosineSchedule, EdmSchedule
from smoothcert.diffusion.samplers import Ancestral, Ddim, EdmHeun, OneShot, Sampler, sampler
from smoothcert.diffusion.schedule import Schedule, TableSchedule, beta_schedule
from smoothcert.errors import InvalidInput, UnknownName

LIBRARY: Any = importlib.import_module("diffusers")  # untyped

LINEAR = beta_schedule("linear")
MEAN, VARIANCE = 0.2, 0.3


class Exact:
    """D(z, sigma) for pixels drawn from N(MEAN, VARIANCE); remembers at which noise it was asked."""

    def __init__(self) -> None:
        self.asked: list[float] = []

    def __call__(self, z: Tensor, sigma: float) -> Tensor:
        self.asked.append(sigma)
        return MEAN + VARIANCE / (VARIANCE + sigma**2) * (z - MEAN)


class Recorded:
    """Standard normal noise, the same for every call with the same step."""

    def __init__(self, like: Tensor) -> None:
        self.like = like
        self.steps: list[int] = []

    def normal(self, step: int) -> Tensor:
        self.steps.append(step)
        return torch.randn(self.like.shape, generator=torch.Generator().manual_seed(step))


def noisy() -> Tensor:
    return torch.linspace(-3, 3, 12, dtype=torch.float64).reshape(1, 1, 3, 4)


def flow(z: Tensor, sigma: float) -> Tensor:
    """The end of the probability-flow ODE dz/dsigma = (z - D)/sigma."""
    return MEAN + math.sqrt(VARIANCE / (VARIANCE + sigma**2)) * (z - MEAN)


def error(chosen: Sampler, schedule: Schedule, sigma: float) -> float:
    got = chosen(Exact(), schedule, noisy(), sigma)
    return float((got - flow(noisy(), sigma)).abs().max())


def test_one_shot_is_the_estimate() -> None:
    exact = Exact()
    got = OneShot()(exact, LINEAR, noisy(), 1.0)
    assert torch.equal(got, Exact()(noisy(), 1.0))
    assert exact.asked == [1.0]


@pytest.mark.parametrize("sigma", [0.5, 1.0, 2.0])
@pytest.mark.parametrize(
    ("make", "order"), [(Ddim, 1.0), (lambda n: EdmHeun(n, sigma_min=1e-6), 2.0)], ids=["ddim", "edm"]
)
def test_deterministic_samplers_converge_to_the_flow_at_their_order(
    make: Callable[[int], Sampler], order: float, sigma: float
) -> None:
    # A schedule whose least noise is far below the errors looked at.
    schedule = EdmSchedule(least=1e-6)
    coarse, fine = (error(make(steps), schedule, sigma) for steps in (200, 400))
    assert math.log2(coarse / fine) == pytest.approx(order, abs=0.12)
    assert fine < {1.0: 2e-2, 2.0: 2e-4}[order]


@pytest.mark.parametrize("schedule", [LINEAR, CosineSchedule(4000)], ids=["linear", "cosine"])
def test_they_converge_on_discrete_schedules_up_to_the_least_noise(schedule: Schedule) -> None:
    # The last step, from sigma_min to 0, is not refined: its error is about sigma_min^2 / (2 variance).
    last = schedule.sigma_min**2 / (2 * VARIANCE) * 3.2
    assert error(EdmHeun(400), schedule, 1.0) < last + 2e-5
    assert error(Ddim(4000), schedule, 1.0) < last + 2e-3
    assert error(EdmHeun(18), schedule, 1.0) < 0.01


def test_edm_follows_the_published_algorithm() -> None:
    sigma, steps, low = 1.0, 18, 0.002
    exact, z = Exact(), noisy()
    inverse = 1 / 7
    t = [(sigma**inverse + i / (steps - 1) * (low**inverse - sigma**inverse)) ** 7 for i in range(steps)] + [
        0.0
    ]
    for i in range(steps):
        d = (z - Exact()(z, t[i])) / t[i]
        following = z + (t[i + 1] - t[i]) * d
        if t[i + 1] > 0:
            d_prime = (following - Exact()(following, t[i + 1])) / t[i + 1]
            following = z + (t[i + 1] - t[i]) * (d / 2 + d_prime / 2)
        z = following
    got = EdmHeun()(exact, EdmSchedule(), noisy(), sigma)
    torch.testing.assert_close(got, z, rtol=0, atol=1e-12)
    assert len(exact.asked) == EdmHeun().evaluations(EdmSchedule(), sigma) == 35


def test_edm_never_asks_below_the_least_noise_of_the_schedule() -> None:
    exact = Exact()
    EdmHeun()(exact, LINEAR, noisy(), 1.0)
    assert min(exact.asked) == LINEAR.sigma_min
    assert len(exact.asked) == 35
    at_the_end = Exact()
    got = EdmHeun()(at_the_end, LINEAR, noisy(), LINEAR.sigma_min)
    assert at_the_end.asked == [LINEAR.sigma_min]
    assert EdmHeun().evaluations(LINEAR, LINEAR.sigma_min) == 1
    assert torch.equal(got, Exact()(noisy(), LINEAR.sigma_min))


def test_edm_keeps_to_its_own_least_noise_where_the_schedule_goes_lower() -> None:
    exact = Exact()
    EdmHeun()(exact, EdmSchedule(least=1e-6), noisy(), 1.0)
    assert min(exact.asked) == 0.002


def test_ddim_with_one_step_is_one_shot_and_is_evenly_spaced_in_time() -> None:
    assert torch.equal(Ddim(1)(Exact(), LINEAR, noisy(), 1.0), OneShot()(Exact(), LINEAR, noisy(), 1.0))
    exact = Exact()
    Ddim(4)(exact, LINEAR, noisy(), 1.0)
    times = [LINEAR.time_of(sigma) for sigma in exact.asked]
    np.testing.assert_allclose(times, LINEAR.time_of(1.0) * np.array([1, 3 / 4, 1 / 2, 1 / 4]), rtol=1e-9)


def test_ddim_steps_are_those_of_diffusers() -> None:
    theirs = LIBRARY.DDIMScheduler(
        num_train_timesteps=20, beta_start=0.01, beta_end=0.3, clip_sample=False, steps_offset=0
    )
    theirs.set_timesteps(20)
    schedule = Schedule.from_diffusers(dict(theirs.config))
    x = torch.linspace(-2, 2, 12).reshape(1, 1, 3, 4)
    z = x.double() * math.sqrt(1 + schedule.sigma_max**2)
    for t in (19, 18):
        here, there = schedule.sigma_at(float(t)), schedule.sigma_at(float(t - 1))
        scale = math.sqrt(1 + here**2)
        clean = Exact()(x.double() * scale, here)
        noise = ((x.double() * scale - clean) / here).float()
        x = theirs.step(noise, t, x, eta=0.0).prev_sample
        z = clean + there / here * (z - clean)
    torch.testing.assert_close(x.double() * math.sqrt(1 + there**2), z, rtol=0, atol=1e-5)


def test_ancestral_is_the_chain_of_diffusers() -> None:
    theirs = LIBRARY.DDPMScheduler(num_train_timesteps=20, beta_start=0.01, beta_end=0.3, clip_sample=False)
    schedule = Schedule.from_diffusers(dict(theirs.config))
    z = noisy() * schedule.sigma_max
    x = (z / math.sqrt(1 + schedule.sigma_max**2)).float()
    for step, t in enumerate(range(19, -1, -1)):
        sigma = schedule.sigma_at(float(t))
        scale = math.sqrt(1 + sigma**2)
        noise = (x.double() * scale - Exact()(x.double() * scale, sigma)) / sigma
        same = torch.Generator().manual_seed(step)  # the generator of Recorded
        x = theirs.step(noise.float(), t, x, generator=same).prev_sample
    got = Ancestral()(Exact(), schedule, z, schedule.sigma_max, Recorded(z))
    torch.testing.assert_close(got, x.double(), rtol=0, atol=2e-5)


def test_ancestral_visits_every_index_below_and_names_every_step() -> None:
    schedule = TableSchedule.from_alpha_bar([0.99, 0.8, 0.5, 0.2])
    exact, draws = Exact(), Recorded(noisy())
    sigma = schedule.sigma_at(2.4)
    Ancestral()(exact, schedule, noisy(), sigma, draws)
    np.testing.assert_allclose([schedule.time_of(s) for s in exact.asked], [2.4, 2, 1, 0], atol=1e-12)
    assert draws.steps == [0, 1, 2]
    assert Ancestral().evaluations(schedule, sigma) == 4
    for sigma in (schedule.sigma_at(2.0), schedule.sigma_at(2.0) * (1 + 1e-15)):
        assert Ancestral().evaluations(schedule, sigma) == 3
    assert Ancestral().evaluations(LINEAR, 0.5) == 146
    with pytest.raises(InvalidInput, match="draws"):
        Ancestral()(Exact(), schedule, noisy(), 1.0)


def test_ancestral_noise_has_the_variance_of_the_posterior() -> None:
    """One step, judged exactly: the answer is affine in the noise, with a known slope."""
    schedule = TableSchedule.from_alpha_bar([0.9, 0.4])
    low, high = schedule.levels.tolist()
    alpha_bar, before = 0.4, 0.9
    beta = 1 - alpha_bar / before
    posterior = beta * (1 - before) / (1 - alpha_bar)  # Ho et al. 2020, eq. (7), for x_t

    class Unit:
        def __init__(self, value: float) -> None:
            self.value = value

        def normal(self, step: int) -> Tensor:
            return torch.full((1, 1, 3, 4), self.value)

    with_noise, without = (Ancestral()(Exact(), schedule, noisy(), high, Unit(v)) for v in (1.0, 0.0))
    gain = VARIANCE / (VARIANCE + low**2)
    expected = torch.full_like(noisy(), gain * math.sqrt(posterior / before))
    torch.testing.assert_close(with_noise - without, expected, rtol=1e-12, atol=0)


@pytest.mark.parametrize(
    ("name", "made"),
    [
        ("one-shot", OneShot()),
        ("ancestral", Ancestral()),
        ("ddim:7", Ddim(7)),
        ("edm", EdmHeun(18)),
        ("edm:9", EdmHeun(9)),
    ],
)
def test_samplers_by_name(name: str, made: Sampler) -> None:
    assert sampler(name) == made
    assert json.loads(json.dumps(made.describe()))["name"] == made.name
    exact = Exact()
    made(exact, LINEAR, noisy(), 0.5, Recorded(noisy()))
    assert len(exact.asked) == made.evaluations(LINEAR, 0.5)
    assert made.stochastic == (name == "ancestral")


def test_bad_names_and_numbers_are_refused() -> None:
    for unknown in ("one_shot", "ancestral:5", "heun", ""):
        with pytest.raises(UnknownName, match="ddim:STEPS"):
            sampler(unknown)
    for bad in ("ddim", "ddim:", "ddim:x", "ddim:0", "ddim:-3", "ddim:1.5", "edm:1", "edm:"):
        with pytest.raises(InvalidInput):
            sampler(bad)
    with pytest.raises(InvalidInput):
        EdmHeun(sigma_min=0.0)


@pytest.mark.parametrize("chosen", [Ancestral(), Ddim(5), EdmHeun(5)], ids=lambda s: str(s.name))
def test_a_sigma_outside_the_schedule_is_refused_by_the_multi_step_samplers_that_look_it_up(
    chosen: Sampler,
) -> None:
    schedule = beta_schedule("linear")

    def estimate(z: Tensor, sigma: float) -> Tensor:
        schedule.time_of(sigma)
        return z

    for sigma in (schedule.sigma_min / 2, schedule.sigma_max * 2):
        with pytest.raises(InvalidInput, match="Choose a sigma"):
            chosen(estimate, schedule, noisy(), sigma, Recorded(noisy()))
