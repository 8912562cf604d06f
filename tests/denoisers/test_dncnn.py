"""Convolutional denoisers: real weights at the PSNR they are known for, layouts rebuilt by hand, ranges kept."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from tests.realdata import DATA, needs
from torch import Tensor, nn
from torch.nn import functional

from smoothcert.denoisers import ConvolutionalDenoiser, load
from smoothcert.denoisers.takes import Takes
from smoothcert.errors import CheckpointError, InvalidInput

WEIGHTS = DATA / "weights"
IMAGES = DATA / "cifar10" / "cifar10_test_every20.npz"


@cache
def images() -> Tensor:
    with np.load(IMAGES) as stored:
        return torch.from_numpy(stored["images"]).float() / 255


@cache
def noise() -> Tensor:
    return torch.randn((500, 3, 32, 32), generator=torch.Generator().manual_seed(0))


def psnr(found: Tensor) -> float:
    errors = ((found - images()) ** 2).mean((1, 2, 3))
    return float((-10 * torch.log10(errors)).mean())


# Measured elsewhere on the same 500 images; another draw of the noise moves them by .06 dB.
@needs("weights/ffdnet_color.npz", "weights/fdncnn_color.npz", "weights/dncnn_color_80to90.npz", "cifar10")
@pytest.mark.parametrize(
    ("name", "sigma", "decibels"),
    [
        ("ffdnet:ffdnet_color.npz", 25 / 255, 29.13),
        ("ffdnet:ffdnet_color.npz", 50 / 255, 25.38),
        ("ffdnet:ffdnet_color.npz", 0.25, 24.12),
        ("ffdnet:ffdnet_color.npz?extrapolate=true", 85 / 255, 22.72),
        ("ffdnet:ffdnet_color.npz?extrapolate=true", 0.5, 20.45),
        ("ffdnet:ffdnet_color.npz?shrink=true", 0.5, 20.76),
        ("fdncnn:fdncnn_color.npz", 50 / 255, 25.44),
        ("dncnn:dncnn_color_80to90.npz", 85 / 255, 22.64),
    ],
)
def test_released_weights_denoise_as_they_are_known_to(name: str, sigma: float, decibels: float) -> None:
    kind, _, file = name.partition(":")
    made = load(f"{kind}:{WEIGHTS / file}")
    noisy = images() + sigma * noise()
    with torch.no_grad():
        found = torch.cat([made(batch, sigma) for batch in noisy.split(25)])
    assert psnr(found) == pytest.approx(decibels, abs=0.1)
    assert psnr(noisy.clamp(0, 1)) < psnr(found) - 5


def numbered(channels: tuple[int, ...], seed: int = 0) -> dict[str, Tensor]:
    """Layers ``conv0``, ``conv1``, ... of these widths."""
    stream = torch.Generator().manual_seed(seed)
    state = {}
    for place, (inside, outside) in enumerate(pairwise(channels)):
        state[f"conv{place}.weight"] = torch.randn((outside, inside, 3, 3), generator=stream) / (
            3 * inside**0.5
        )
        state[f"conv{place}.bias"] = 0.1 * torch.randn(outside, generator=stream)
    return state


def convolved(state: dict[str, Tensor], shown: Tensor, names: list[str]) -> Tensor:
    for place, name in enumerate(names):
        shown = functional.conv2d(shown, state[f"{name}.weight"], state.get(f"{name}.bias"), padding=1)
        shown = shown.relu() if place < len(names) - 1 else shown
    return shown


def saved(tmp_path: Path, state: dict[str, Tensor], name: str = "net.npz") -> Path:
    np.savez(tmp_path / name, **{key: tensor.numpy() for key, tensor in state.items()})
    return tmp_path / name


def noisy(channels: int = 3, height: int = 8, width: int = 8) -> Tensor:
    return torch.rand((2, channels, height, width), generator=torch.Generator().manual_seed(1)) * 1.2 - 0.1


@pytest.mark.parametrize(("height", "width"), [(8, 8), (7, 8), (8, 5)])
def test_ffdnet_is_its_formula(tmp_path: Path, height: int, width: int) -> None:
    """Four pixels of a square as channels (row by row), then the noise map, odd sides repeated at their end."""
    state, shown = numbered((13, 16, 12)), noisy(3, height, width)
    found = load(f"ffdnet:{saved(tmp_path, state)}")(shown, 0.2)
    even = functional.pad(shown, (0, width % 2, 0, height % 2), mode="replicate")
    squares = torch.stack(
        [even[:, c, i::2, j::2] for c in range(3) for i in range(2) for j in range(2)], dim=1
    )
    inner = convolved(
        state, torch.cat([squares, torch.full_like(squares[:, :1], 0.2)], 1), ["conv0", "conv1"]
    )
    expected = torch.zeros_like(even)
    for place, (c, i, j) in enumerate((c, i, j) for c in range(3) for i in range(2) for j in range(2)):
        expected[:, c, i::2, j::2] = inner[:, place]
    torch.testing.assert_close(found, expected[..., :height, :width].clamp(0, 1), rtol=0, atol=1e-6)


def test_fdncnn_is_told_the_noise_and_answers_the_image(tmp_path: Path) -> None:
    state = numbered((4, 8, 3))
    found = load(f"fdncnn:{saved(tmp_path, state)}")(noisy(), 0.2)
    expected = convolved(state, torch.cat([noisy(), torch.full((2, 1, 8, 8), 0.2)], 1), ["conv0", "conv1"])
    torch.testing.assert_close(found, expected.clamp(0, 1), rtol=0, atol=1e-6)


def test_dncnn_answers_the_noise(tmp_path: Path) -> None:
    state = numbered((3, 8, 3))
    found = load(f"dncnn:{saved(tmp_path, state)}?sigma=0.1,0.3")(noisy(), 0.2)
    expected = noisy() - convolved(state, noisy(), ["conv0", "conv1"])
    torch.testing.assert_close(found, expected.clamp(0, 1), rtol=0, atol=1e-6)


def with_batch_norm(*, prefix: str, bias: bool) -> nn.Module:
    """KAIR's ``model.0`` with biases, denoised-smoothing's ``dncnn.0`` without: convolution, norm, ReLU."""
    torch.manual_seed(0)
    layers: list[nn.Module] = [nn.Conv2d(3, 8, 3, padding=1), nn.ReLU()]
    for _ in range(2):
        norm = nn.BatchNorm2d(8, eps=1e-4)
        norm.running_mean, norm.running_var = 0.1 * torch.randn(8), 0.5 + torch.rand(8)
        nn.init.uniform_(norm.weight)
        layers += [nn.Conv2d(8, 8, 3, padding=1, bias=bias), norm, nn.ReLU()]
    layers.append(nn.Conv2d(8, 3, 3, padding=1, bias=bias))
    return nn.ModuleDict({prefix: nn.Sequential(*layers)}).eval()


@pytest.mark.parametrize(("prefix", "bias"), [("model", True), ("dncnn", False)])
@pytest.mark.parametrize("wrapped", [True, False])
def test_dncnn_with_batch_norm_as_both_code_bases_save_it(
    tmp_path: Path, prefix: str, bias: bool, wrapped: bool
) -> None:
    whole = with_batch_norm(prefix=prefix, bias=bias)
    state: Any = {
        f"module.{name}" if wrapped else name: tensor for name, tensor in whole.state_dict().items()
    }
    path = tmp_path / "checkpoint.pth.tar"
    torch.save({"epoch": 90, "arch": "cifar_dncnn", "state_dict": state} if wrapped else state, path)
    made = load(f"dncnn:{path}?sigma=0.25")
    inner: Any = whole
    with torch.no_grad():
        expected = (noisy() - inner[prefix](noisy())).clamp(0, 1)
        torch.testing.assert_close(made(noisy(), 0.25), expected, rtol=0, atol=1e-6)
    assert made.describe()["trained_sigma"] == [0.25, 0.25]


def memnet_state(channels: int, memories: int, blocks: int) -> dict[str, Tensor]:
    """Names and shapes as in denoised-smoothing's archs."""
    stream, state = torch.Generator().manual_seed(0), {}

    def layer(name: str, inside: int, outside: int, kernel: int = 3) -> None:
        for part, shape in (("weight", (inside,)), ("bias", (inside,)), ("running_mean", (inside,))):
            state[f"{name}.bn.{part}"] = 0.5 + torch.rand(shape, generator=stream)
        state[f"{name}.bn.running_var"] = 0.5 + torch.rand(inside, generator=stream)
        state[f"{name}.bn.num_batches_tracked"] = torch.tensor(7)
        weight = torch.randn((outside, inside, kernel, kernel), generator=stream)
        state[f"{name}.conv.weight"] = weight / (kernel * inside**0.5)

    layer("feature_extractor", 3, channels)
    layer("reconstructor", channels, 3)
    for memory in range(memories):
        for block in range(blocks):
            layer(f"dense_memory.{memory}.recursive_unit.{block}.relu_conv1", channels, channels)
            layer(f"dense_memory.{memory}.recursive_unit.{block}.relu_conv2", channels, channels)
        layer(f"dense_memory.{memory}.gate_unit", (blocks + memory + 1) * channels, channels, 1)
    return state


def memnet_by_hand(state: dict[str, Tensor], shown: Tensor, memories: int, blocks: int) -> Tensor:
    def layer(name: str, inner: Tensor) -> Tensor:
        mean, variance = state[f"{name}.bn.running_mean"], state[f"{name}.bn.running_var"]
        weight, bias = state[f"{name}.bn.weight"], state[f"{name}.bn.bias"]
        kernel = state[f"{name}.conv.weight"]
        inner = functional.batch_norm(inner, mean, variance, weight, bias).relu()
        return functional.conv2d(inner, kernel, padding=kernel.shape[-1] // 2)

    inner = layer("feature_extractor", shown)
    long = [inner]
    for memory in range(memories):
        short = []
        for block in range(blocks):
            unit = f"dense_memory.{memory}.recursive_unit.{block}"
            inner = inner + layer(f"{unit}.relu_conv2", layer(f"{unit}.relu_conv1", inner))
            short.append(inner)
        inner = layer(f"dense_memory.{memory}.gate_unit", torch.cat(short + long, 1))
        long.append(inner)
    return shown + layer("reconstructor", inner)


def test_memnet_is_its_formula(tmp_path: Path) -> None:
    state = memnet_state(8, 3, 2)
    made = load(f"memnet:{saved(tmp_path, state)}?sigma=0.25")
    with torch.no_grad():
        expected = memnet_by_hand(state, noisy(), 3, 2).clamp(0, 1)
        torch.testing.assert_close(made(noisy(), 0.25), expected, rtol=0, atol=1e-5)


def test_the_memnet_of_salman_et_al_has_their_size(tmp_path: Path) -> None:
    """3 memory blocks of 6 residual blocks, 64 channels: 36 convolutions of 64 to 64 and what joins them."""
    state = memnet_state(64, 3, 6)
    made = load(f"memnet:{saved(tmp_path, state)}?sigma=0.25")
    assert isinstance(made, ConvolutionalDenoiser)
    gates = sum((6 + k) * 64 * 64 + 2 * (6 + k) * 64 for k in (1, 2, 3))
    inner = 36 * (64 * 64 * 9 + 2 * 64) + (3 * 64 * 9 + 2 * 3) + (64 * 3 * 9 + 2 * 64)
    assert sum(p.numel() for p in made.network.parameters()) == gates + inner


class Echo(nn.Module):
    """Gives back the images, a tenth darker, and keeps what it was told."""

    def forward(self, images: Tensor, sigma: float) -> Tensor:
        self.images, self.sigma = images, sigma
        return images - 0.1


def echo(**settings: Any) -> tuple[Echo, ConvolutionalDenoiser]:
    network = Echo()
    return network, ConvolutionalDenoiser(network, (80 / 255, 90 / 255), takes=Takes(3), **settings)


def test_noise_it_was_not_trained_on_is_refused_with_ways_around() -> None:
    _, made = echo()
    for sigma in (0.25, 0.5):
        with pytest.raises(InvalidInput, match=r"80/255 to 90/255") as refusal:
            made(noisy(), sigma)
        assert "extrapolate=true" in refusal.value.instead
        assert "shrink=true" in refusal.value.instead
    for inside in (80 / 255, 0.333, 90 / 255):
        assert made(noisy(), inside).shape == noisy().shape


def test_extrapolating_asks_all_the_same_and_is_recorded() -> None:
    network, made = echo(extrapolate=True)
    made(noisy(), 0.5)
    assert network.sigma == 0.5
    assert made.describe()["extrapolate"] is True


def test_shrinking_takes_contrast_and_gives_it_back() -> None:
    network, made = echo(shrink=True)
    found = made(noisy(), 180 / 255)
    assert network.sigma == 90 / 255
    torch.testing.assert_close(network.images, 0.5 + (noisy() - 0.5) / 2)
    torch.testing.assert_close(found, (noisy() - 0.2).clamp(0, 1))
    assert made.describe()["shrink"] is True
    with pytest.raises(InvalidInput, match="80/255"):
        made(noisy(), 0.1)  # less contrast never helps against too little noise


@pytest.mark.parametrize(
    "options", ["sigma=0.3,0.1", "sigma=0,0", "sigma=1,2,3", "sigma=x", "sigma=1/0", "sigma=-1"]
)
def test_ranges_that_are_none_are_refused(tmp_path: Path, options: str) -> None:
    with pytest.raises(InvalidInput, match="sigma"):
        load(f"dncnn:{saved(tmp_path, numbered((3, 8, 3)))}?{options}")


def test_a_range_that_nothing_says_is_asked_for(tmp_path: Path) -> None:
    path = saved(tmp_path, numbered((3, 8, 3)))
    with pytest.raises(InvalidInput, match=r"\?sigma="):
        load(f"dncnn:{path}")
    with pytest.raises(InvalidInput, match="neither true nor false"):
        load(f"dncnn:{path}?sigma=0.25&shrink=perhaps")
    with pytest.raises(InvalidInput, match="Choose one"):
        load(f"dncnn:{path}?sigma=0.25&shrink=true&extrapolate=true")


@pytest.mark.parametrize(
    ("kind", "state"),
    [
        ("ffdnet", numbered((4, 8, 3))),
        ("fdncnn", numbered((3, 8, 3))),
        ("dncnn", numbered((4, 8, 3))),
        ("dncnn", numbered((3, 8, 3)) | {"fc.weight": torch.ones(2, 2)}),
        ("dncnn", numbered((3, 8, 3)) | {"conv1.weight": torch.ones(3, 9, 3, 3)}),
        ("memnet", numbered((3, 8, 3))),
    ],
)
def test_weights_of_another_kind_are_refused(tmp_path: Path, kind: str, state: dict[str, Tensor]) -> None:
    with pytest.raises(CheckpointError, match="kind"):
        load(f"{kind}:{saved(tmp_path, state)}?sigma=0.25")


@pytest.mark.parametrize(
    ("kind", "widths"), [("ffdnet", (13, 8, 12)), ("fdncnn", (4, 8, 3)), ("dncnn", (3, 8, 3))]
)
def test_images_of_another_depth_are_refused_in_words(
    tmp_path: Path, kind: str, widths: tuple[int, ...]
) -> None:
    made: Callable[..., Tensor] = load(f"{kind}:{saved(tmp_path, numbered(widths))}?sigma=0.25")
    with pytest.raises(InvalidInput, match="greyscale"):
        made(noisy(channels=1), 0.25)
    with pytest.raises(InvalidInput, match="floating-point"):
        made(torch.zeros(2, 3, 8, 8, dtype=torch.uint8), 0.25)
