"""What is done once instead of once a batch gives the same answers, and gradients still flow."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn

from smoothcert.classifiers.labels import Reordered
from smoothcert.classifiers.pretrained import PretrainedClassifier
from smoothcert.denoisers import DiffusionDenoiser
from smoothcert.diffusion.samplers import Ddim
from smoothcert.diffusion.schedule import Schedule, TableSchedule, beta_schedule
from smoothcert.networks.preprocessing import Preprocessing


def told_times(denoiser: DiffusionDenoiser, sigma: float) -> list[float]:
    """What the network was told in one call."""
    told: list[float] = []

    def network(x_t: Tensor, times: Tensor) -> Tensor:
        told.append(float(times[0]))
        return torch.zeros_like(x_t)

    denoiser.network = network
    denoiser(torch.rand(2, 1, 4, 4), sigma)
    return told


def test_a_noise_level_is_solved_once_and_each_has_its_own_time(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[float] = []
    solve = Schedule.time_of

    def counted(self: Schedule, sigma: float) -> float:
        asked.append(sigma)
        return solve(self, sigma)

    schedule = beta_schedule("linear", 1000)
    denoiser = DiffusionDenoiser(nn.Identity(), schedule)
    monkeypatch.setattr(TableSchedule, "time_of", counted)
    for sigma in (0.25, 1.0, 0.25, 0.5, 1.0, 0.25):
        assert told_times(denoiser, sigma) == [pytest.approx(solve(schedule, 2 * sigma))]
    assert sorted(asked) == [0.5, 1.0, 2.0]


def test_every_step_of_a_sampler_is_told_its_own_time() -> None:
    denoiser = DiffusionDenoiser(nn.Identity(), beta_schedule("linear", 1000), sampler=Ddim(5))
    first, second = told_times(denoiser, 0.5), told_times(denoiser, 0.5)
    assert first == second
    assert len(set(first)) == 5


def classifier() -> PretrainedClassifier:
    network = nn.Sequential(nn.Flatten(), nn.Linear(48, 3))
    prepared = Preprocessing((0.1, 0.2, 0.3), (0.4, 0.5, 0.6), expects=(4, 4))
    return PretrainedClassifier(network, prepared, kind="test", class_count=3, classes=("a", "b", "c"))


@pytest.mark.parametrize("wrap", [lambda inner: inner, lambda inner: Reordered(inner, (2, 0, 1))])
def test_a_model_that_was_certified_can_be_attacked(wrap: Any) -> None:
    """Numbers first made in inference mode would refuse to take part in a gradient."""
    model, images = wrap(classifier()), torch.rand(2, 3, 4, 4)
    with torch.inference_mode():
        before = model(images)
    moved = images.clone().requires_grad_()
    answers = model(moved)
    answers.sum().backward()
    assert torch.equal(answers.detach(), before)
    assert moved.grad is not None
    assert moved.grad.abs().sum() > 0


def test_two_normalisations_do_not_share_their_numbers() -> None:
    images = torch.rand(2, 3, 4, 4)
    for mean, std in (((0.1, 0.2, 0.3), (0.4, 0.5, 0.6)), ((0.3, 0.2, 0.1), (0.6, 0.5, 0.4))):
        by_hand = (images - torch.tensor(mean).view(1, 3, 1, 1)) / torch.tensor(std).view(1, 3, 1, 1)
        for dtype in (torch.float32, torch.float64):
            found = Preprocessing(mean, std)(images.to(dtype))
            assert found.dtype == dtype
            torch.testing.assert_close(found.float(), by_hand, rtol=1e-6, atol=1e-6)
