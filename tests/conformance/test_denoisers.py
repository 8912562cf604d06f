"""What every denoiser must do, whatever is inside: one suite, all of them."""

from __future__ import annotations

import hashlib
import importlib
import json
import tempfile
from collections.abc import Callable
from copy import copy, deepcopy
from dataclasses import dataclass
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from tests.realdata import DATA
from torch import Tensor, nn

from smoothcert.denoisers import (
    CallableDenoiser,
    ConvolutionalDenoiser,
    DescribedDenoiser,
    DiffusionDenoiser,
    GaussianDenoiser,
    diffusers,
    edm,
    load,
)
from smoothcert.denoisers.convolutional import stack
from smoothcert.denoisers.memnet import MemNet
from smoothcert.denoisers.songunet import SongUNet, SongUNetConfig
from smoothcert.denoisers.takes import Takes
from smoothcert.diffusion.closed_form import CosineSchedule
from smoothcert.diffusion.samplers import Ancestral, Ddim, EdmHeun, OneShot, Sampler
from smoothcert.diffusion.schedule import beta_schedule
from smoothcert.errors import InvalidInput, UnknownName

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


@cache
def folder() -> Path:
    """Where denoisers that come from files are written, to be loaded by name like a user's."""
    return Path(tempfile.mkdtemp())


@cache
def from_diffusers(prediction: str) -> DescribedDenoiser:
    """A pipeline directory; ``edm`` stands for an EDM scheduler, the others for prediction types of DDPM's."""
    linear = beta_schedule("linear", 50, start=1e-5, end=0.3)
    made = (
        edm.preconditioned(unet())
        if prediction == "edm"
        else DiffusionDenoiser(unet(), linear, prediction=prediction)
    )
    return load(diffusers.save(made, folder() / f"diffusers-{prediction}"))


@cache
def from_nvlabs(fourier: bool) -> DescribedDenoiser:
    torch.manual_seed(0)
    shape = {"fourier": True, "residual_encoder": True, "resampling": (1, 3, 3, 1)} if fourier else {}
    config = SongUNetConfig(8, 1, (16, 16), 1, (4,), 16, 32, 9, **shape)  # type: ignore[arg-type]
    path = folder() / f"edm-{fourier}.safetensors"
    save_file({f"model.{name}": value for name, value in SongUNet(config).state_dict().items()}, path)
    return load(f"edm:{path}")


@cache
def from_openai() -> DescribedDenoiser:
    """A network of improved-diffusion's layout: the small reference with one channel in and two out."""
    source = DATA / "openai_reference" / "improved_small.pt"
    if not source.exists():
        pytest.skip(f"{source} is absent")
    state = torch.load(source, weights_only=True)
    state["input_blocks.0.0.weight"] = state["input_blocks.0.0.weight"][:, :1].clone()
    state["out.2.weight"], state["out.2.bias"] = (
        state["out.2.weight"][:2].clone(),
        state["out.2.bias"][:2].clone(),
    )
    torch.save(state, folder() / "openai.pt")
    flags = "noise_schedule=cosine&diffusion_steps=4000&rescale_timesteps=true&num_heads=2"
    return load(f"openai:{folder() / 'openai.pt'}?{flags}")


def layers(*channels: int) -> dict[str, Tensor]:
    stream, state = torch.Generator().manual_seed(0), {}
    for place, (inside, outside) in enumerate(pairwise(channels)):
        state[f"conv{place}.weight"] = torch.randn((outside, inside, 3, 3), generator=stream) / 9
        state[f"conv{place}.bias"] = 0.1 * torch.randn(outside, generator=stream)
    return state


@cache
def convolutional(kind: str) -> DescribedDenoiser:
    torch.manual_seed(0)
    states = {"ffdnet": layers(5, 8, 4), "fdncnn": layers(2, 8, 1), "dncnn": layers(1, 8, 1)}
    state = MemNet(1, 4, 2, 2).state_dict() if kind == "memnet" else states[kind]
    save_file(state, folder() / f"{kind}.safetensors")
    return load(f"{kind}:{folder() / kind}.safetensors?sigma=0,1")


def makers() -> dict[str, Callable[[], DescribedDenoiser]]:
    linear, cosine = beta_schedule("linear", 50, start=1e-3, end=0.3), CosineSchedule(50)
    found: dict[str, Callable[[], DescribedDenoiser]] = {
        "identity": lambda: load("identity"),
        "callable": lambda: CallableDenoiser(shrink),
        "gaussian": gaussian,
    }
    for kind in ("ffdnet", "fdncnn", "dncnn", "memnet"):
        found[kind] = lambda k=kind: convolutional(k)  # type: ignore[misc]
    for prediction in ("epsilon", "x0", "v", "edm"):
        found[f"diffusers-{prediction}"] = lambda p=prediction: from_diffusers(p)  # type: ignore[misc]
    for chosen in (OneShot(), EdmHeun(4)):
        for fourier in (False, True):
            found[f"edm-{'ncsnpp' if fourier else 'ddpmpp'}-{chosen.name}"] = lambda s=chosen, f=fourier: (
                load(  # type: ignore[misc]
                    from_nvlabs(f), sampler=s
                )
            )
        found[f"openai-{chosen.name}"] = lambda s=chosen: load(from_openai(), sampler=s)  # type: ignore[misc]
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
    if isinstance(denoiser, ConvolutionalDenoiser):
        pytest.skip("trained for a range of noise that need not reach down to 0; see below")
    if isinstance(denoiser, DiffusionDenoiser) and denoiser.prediction == "x0" and denoiser.takes:
        pytest.skip("its answer is the network's own, and this network is not trained")
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


@pytest.mark.parametrize("kind", ["ffdnet", "fdncnn", "dncnn", "memnet"])
def test_below_a_trained_range_is_refused_and_at_its_end_is_not(kind: str) -> None:
    """What sigma -> 0 means for a network of one range: no answer, rather than one nobody trained."""
    network: nn.Module = MemNet(1, 4, 1, 1).eval()
    if kind != "memnet":
        widths = {"ffdnet": (5, 8, 4), "fdncnn": (2, 8, 1), "dncnn": (1, 8, 1)}[kind]
        network = stack(
            layers(*widths), noise_map=kind != "dncnn", residual=kind == "dncnn", shuffled=kind == "ffdnet"
        )
    made = ConvolutionalDenoiser(network, (0.1, 0.5), takes=Takes(1))
    for inside in (0.1, 0.5):
        assert ask(made, noisy(inside), inside, names(6)).shape == (6, *SHAPE)
    for outside in (1e-4, 0.0999, 0.501):
        with pytest.raises(InvalidInput, match=r"0\.1 to 0\.5"):
            made(noisy(0.1), outside)
    assert made.describe()["trained_sigma"] == [0.1, 0.5]


def half(denoiser: DescribedDenoiser) -> DescribedDenoiser:
    """The same denoiser with its network in bfloat16, the one it came from left as it is."""
    copied = copy(denoiser)
    network = getattr(denoiser, "network", None)
    if not isinstance(network, nn.Module) or not list(network.parameters()):
        pytest.skip("it holds no weights")
    copied.network = deepcopy(network).to(torch.bfloat16)  # type: ignore[attr-defined]
    return copied


def test_half_precision_stays_finite_and_near(denoiser: DescribedDenoiser) -> None:
    found = ask(half(denoiser), noisy(0.5), 0.5, names(6))
    assert found.dtype == torch.float32
    assert torch.isfinite(found).all()
    if not denoiser.stochastic:
        assert (found - ask(denoiser, noisy(0.5), 0.5, names(6))).abs().mean() < 0.05


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_cuda_agrees_with_the_cpu(denoiser: DescribedDenoiser) -> None:
    network = getattr(denoiser, "network", None)
    if denoiser.stochastic or not isinstance(network, nn.Module) or not list(network.parameters()):
        pytest.skip("nothing to be moved, or noise that is drawn on the CPU")
    expected, there = ask(denoiser, noisy(0.5), 0.5, names(6)), copy(denoiser)
    there.network = deepcopy(network).cuda()  # type: ignore[attr-defined]
    with torch.backends.cudnn.flags(allow_tf32=False):
        found = ask(there, noisy(0.5).cuda(), 0.5, names(6)).cpu()
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-4)


def test_images_of_another_depth_are_refused_by_whatever_has_one(denoiser: DescribedDenoiser) -> None:
    if getattr(denoiser, "takes", None) is None:
        pytest.skip("it takes images of any depth")
    with pytest.raises(InvalidInput, match="RGB"):
        ask(denoiser, noisy(0.5).repeat(1, 3, 1, 1), 0.5, names(6))


def test_its_weights_are_found_for_the_hash_of_a_run(denoiser: DescribedDenoiser) -> None:
    if getattr(denoiser, "source", None) is None or getattr(denoiser, "takes", None) is None:
        pytest.skip("it holds no published weights")
    assert [module for module in vars(denoiser).values() if isinstance(module, nn.Module)]
