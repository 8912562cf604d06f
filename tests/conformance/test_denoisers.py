"""What every denoiser must do, whatever is inside: one suite, all of them."""

from __future__ import annotations

import hashlib
import importlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from smoothcert.denoisers import (
    CallableDenoiser,
    DescribedDenoiser,
    DiffusionDenoiser,
    GaussianDenoiser,
    load,
)
from smoothcert.diffusion.closed_form import CosineSchedule
from smoothcert.diffusion.samplers import Ancestral, Ddim, EdmHeun, OneShot, Sampler
from smoothcert.diffusion.schedule import beta_schedule
from smoothcert.errors import UnknownName

LIBRARY: Any = importlib.import_module("diffusers")  # untyped

SHAPE = (1, 8, 8)
SAMPLERS: tuple[Sampler, ...] = (OneShot(), Ancestral(), Ddim(5), EdmHeun(4))


@dataclass(frozen=True)
class NamedDraws:
    """Noise that is a pure function of (name of the draw, step)."""

    names: tuple[str, ...]

    def normal(self, step: int) -> Tensor:
        return torch.stack([self._one(f"{name}/{step}") for name in self.names])

    def _one(self, name: str) -> Tensor:
        seed = int.from_bytes(hashlib.sha256(name.encode()).digest()[:4], "little")
        return torch.randn(SHAPE, generator=torch.Generator().manual_seed(seed))


@cache
def gaussian() -> GaussianDenoiser:
    pixels = 64
    root = torch.randn((pixels, pixels), generator=torch.Generator().manual_seed(5), dtype=torch.float64)
    return GaussianDenoiser(torch.full(SHAPE, 0.5), 0.001 * root @ root.T + 0.01 * torch.eye(pixels))


@cache
def unet() -> nn.Module:
    torch.manual_seed(0)
    network: nn.Module = LIBRARY.UNet2DModel(
        sample_size=8,
        in_channels=1,
        out_channels=1,
        layers_per_block=1,
        block_out_channels=(8, 16),
        down_block_types=("DownBlock2D", "AttnDownBlock2D"),
        up_block_types=("AttnUpBlock2D", "UpBlock2D"),
        norm_num_groups=4,
    )
    return network.eval()


def shrink(noisy: Tensor, sigma: float) -> Tensor:
    return (noisy + sigma**2 * 0.5) / (1 + sigma**2)


def digits(sampler: Sampler) -> DescribedDenoiser:
    try:
        return load("digits", sampler=sampler)
    except UnknownName:
        pytest.skip("the embedded digits weights are not in this tree")


def makers() -> dict[str, Callable[[], DescribedDenoiser]]:
    linear, cosine = beta_schedule("linear", 50, start=1e-3, end=0.3), CosineSchedule(50)
    found: dict[str, Callable[[], DescribedDenoiser]] = {
        "identity": lambda: load("identity"),
        "callable": lambda: CallableDenoiser(shrink),
        "gaussian": gaussian,
    }
    for chosen in SAMPLERS:
        for prediction in ("epsilon", "x0", "v"):
            found[f"ideal-{prediction}-{chosen.name}"] = lambda s=chosen, p=prediction: DiffusionDenoiser(  # type: ignore[misc]
                gaussian().network(cosine, prediction=p), cosine, prediction=p, sampler=s
            )
        found[f"unet-{chosen.name}"] = lambda s=chosen: DiffusionDenoiser(unet(), linear, sampler=s)  # type: ignore[misc]
        if chosen != Ancestral():  # its thousand steps are walked by the small U-Net
            found[f"digits-{chosen.name}"] = lambda s=chosen: digits(s)  # type: ignore[misc]
    return found


@pytest.fixture(params=list(makers()))
def denoiser(request: pytest.FixtureRequest) -> DescribedDenoiser:
    torch.set_num_threads(1)
    return makers()[request.param]()


def names(batch: int, first: int = 0) -> tuple[str, ...]:
    return tuple(f"draw-{i}" for i in range(first, first + batch))


def noisy(sigma: float, batch: int = 6, seed: int = 0) -> Tensor:
    stream = torch.Generator().manual_seed(seed)
    clean = torch.randint(0, 17, (batch, *SHAPE), generator=stream) / 16
    return clean + sigma * torch.randn(clean.shape, generator=stream)


@torch.inference_mode()
def ask(denoiser: DescribedDenoiser, images: Tensor, sigma: float, who: tuple[str, ...]) -> Tensor:
    if denoiser.stochastic:
        extra: dict[str, Any] = {"draws": NamedDraws(who)}
        return denoiser(images, sigma, **extra)
    return denoiser(images, sigma)


@pytest.mark.parametrize("sigma", [0.1, 0.25, 0.5, 1.0])
def test_shape_type_and_scale(denoiser: DescribedDenoiser, sigma: float) -> None:
    images = noisy(sigma)
    before = images.clone()
    clean = ask(denoiser, images, sigma, names(6))
    assert clean.shape == images.shape
    assert clean.dtype == images.dtype
    assert torch.isfinite(clean).all()
    assert clean.min() >= 0
    assert clean.max() <= 1
    assert torch.equal(images, before), "the noisy images were changed in place"


def test_the_same_question_gets_the_same_answer(denoiser: DescribedDenoiser) -> None:
    torch.manual_seed(1)
    first = ask(denoiser, noisy(0.5), 0.5, names(6))
    torch.manual_seed(2)  # nothing may come from the global stream
    state = torch.get_rng_state()
    assert torch.equal(ask(denoiser, noisy(0.5), 0.5, names(6)), first)
    assert torch.equal(torch.get_rng_state(), state)


def test_an_answer_does_not_depend_on_batch_mates(denoiser: DescribedDenoiser) -> None:
    mine, others = noisy(0.5), noisy(0.5, seed=9)
    among_others = torch.cat([mine[:2], others[2:]])
    first = ask(denoiser, mine, 0.5, names(6))
    second = ask(denoiser, among_others, 0.5, names(2) + names(4, first=100))
    assert torch.equal(first[:2], second[:2])


def test_an_answer_moves_with_its_draw(denoiser: DescribedDenoiser) -> None:
    order = [3, 0, 5, 1, 4, 2]
    straight = ask(denoiser, noisy(0.5), 0.5, names(6))
    shuffled = ask(denoiser, noisy(0.5)[order], 0.5, tuple(names(6)[i] for i in order))
    torch.testing.assert_close(shuffled, straight[order], rtol=0, atol=1e-6)


def test_little_noise_returns_the_input(denoiser: DescribedDenoiser) -> None:
    """As sigma falls to the least the schedule holds, the answer goes to the (clamped) input."""
    schedule = getattr(denoiser, "schedule", None)
    sigma = schedule.sigma_min / 2 if schedule else 1e-4
    images = noisy(sigma)
    far = (ask(denoiser, images, sigma, names(6)) - images.clamp(0, 1)).abs().max()
    # A posterior mean moves by less than 6 sigma on pixels whose spread is far above sigma.
    assert far <= 6 * sigma + 1e-6


def test_draws_decide_for_stochastic_denoisers_only(denoiser: DescribedDenoiser) -> None:
    first = ask(denoiser, noisy(0.5), 0.5, names(6))
    second = ask(denoiser, noisy(0.5), 0.5, names(6, first=50))
    assert torch.equal(first, second) != denoiser.stochastic


def test_the_description_is_plain_data(denoiser: DescribedDenoiser) -> None:
    described = denoiser.describe()
    assert json.loads(json.dumps(described)) == described
    assert denoiser.describe() == described
