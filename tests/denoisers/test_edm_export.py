"""Exported networks of NVlabs/edm: the released layouts name by name, and the arithmetic written a second time."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor
from torch.nn import functional

from smoothcert.denoisers import DiffusionDenoiser, load
from smoothcert.denoisers.edm import song_unet
from smoothcert.denoisers.songunet import SongUNet, SongUNetConfig
from smoothcert.errors import CheckpointError, InvalidInput

Shape = tuple[int, ...]


def layer(name: str, *shape: int, resampled: int = 0) -> Iterator[tuple[str, Shape]]:
    yield f"{name}.weight", shape
    yield f"{name}.bias", shape[:1]
    if resampled:
        yield f"{name}.resample_filter", (1, 1, resampled, resampled)


def block(
    name: str, inside: int, outside: int, emb: int, *, resampled: int = 0, attends: bool = False
) -> dict[str, Shape]:
    shapes = dict(layer(f"{name}.norm0", inside)) | dict(layer(f"{name}.norm1", outside))
    shapes |= dict(layer(f"{name}.conv0", outside, inside, 3, 3, resampled=resampled))
    shapes |= dict(layer(f"{name}.conv1", outside, outside, 3, 3)) | dict(
        layer(f"{name}.affine", outside, emb)
    )
    if inside != outside or resampled:
        shapes |= dict(layer(f"{name}.skip", outside, inside, 1, 1, resampled=resampled))
    if attends:
        shapes |= dict(layer(f"{name}.norm2", outside)) | dict(layer(f"{name}.proj", outside, outside, 1, 1))
        shapes |= dict(layer(f"{name}.qkv", 3 * outside, outside, 1, 1))
    return shapes


def released(
    base: int, *, side: int = 32, scales: int = 3, blocks: int = 4, ncsnpp: bool = False
) -> dict[str, Shape]:
    """Names and shapes of an unconditional state dict: DDPM++, or NCSN++ with its pyramid and Fourier features."""
    emb, width, taps, noise = 4 * base, 2 * base, 4 if ncsnpp else 2, base * (2 if ncsnpp else 1)
    shapes: dict[str, Shape] = {"map_noise.freqs": (noise // 2,)} if ncsnpp else {}
    shapes |= {"map_augment.weight": (noise, 9)}
    shapes |= dict(layer("map_layer0", emb, noise)) | dict(layer("map_layer1", emb, emb))
    shapes |= dict(layer(f"enc.{side}x{side}_conv", base, 3, 3, 3))
    skips, inside = [base], base
    for scale in range(scales):
        here = f"enc.{side >> scale}x{side >> scale}"
        if scale:
            shapes |= block(f"{here}_down", width, width, emb, resampled=taps)
            skips.append(width)
            if ncsnpp:
                pyramid = 3 if scale == 1 else width
                shapes |= dict(layer(f"{here}_aux_residual", width, pyramid, 3, 3, resampled=taps))
        for place in range(blocks):
            shapes |= block(f"{here}_block{place}", inside, width, emb, attends=side >> scale == 16)
            inside = width
            skips.append(width)
    for scale in reversed(range(scales)):
        here = f"dec.{side >> scale}x{side >> scale}"
        if scale == scales - 1:
            shapes |= block(f"{here}_in0", width, width, emb, attends=True)
            shapes |= block(f"{here}_in1", width, width, emb)
        else:
            shapes |= block(f"{here}_up", width, width, emb, resampled=taps)
        for place in range(blocks + 1):
            attends = side >> scale == 16 and place == blocks
            shapes |= block(f"{here}_block{place}", width + skips.pop(), width, emb, attends=attends)
    shapes |= dict(layer(f"dec.{side}x{side}_aux_norm", width))
    return shapes | dict(layer(f"dec.{side}x{side}_aux_conv", 3, width, 3, 3))


@pytest.mark.parametrize(("ncsnpp", "parameters"), [(False, 55_733_891), (True, 56_397_827)])
def test_the_released_cifar_networks_have_a_place_for_every_tensor(ncsnpp: bool, parameters: int) -> None:
    shapes = released(128, ncsnpp=ncsnpp)
    taps = torch.tensor([1.0, 3, 3, 1] if ncsnpp else [1.0, 1])
    filters = taps[:, None] * taps / taps.sum() ** 2
    state = {
        name: filters[None, None] if name.endswith("resample_filter") else torch.empty(shape, device="meta")
        for name, shape in shapes.items()
    }
    with torch.device("meta"):
        network = SongUNet(SongUNetConfig.of(state))
    found = {name: tuple(tensor.shape) for name, tensor in network.state_dict().items()}
    assert found == shapes
    assert sum(parameter.numel() for parameter in network.parameters()) == parameters


def filled(ncsnpp: bool) -> dict[str, Tensor]:
    """A small network of random weights, none of them near zero, so that every one counts."""
    stream = torch.Generator().manual_seed(3)
    taps = torch.tensor([1.0, 3, 3, 1] if ncsnpp else [1.0, 1])
    state = {}
    for name, shape in released(8, scales=2, blocks=2, ncsnpp=ncsnpp).items():
        fan = math.prod(shape[1:]) if len(shape) > 1 else 4
        state[name] = torch.randn(shape, generator=stream, dtype=torch.float64) / fan**0.5
        if name.endswith("resample_filter"):
            state[name] = (taps[:, None] * taps / taps.sum() ** 2)[None, None].double()
    return state


class ByHand:
    """The same forward pass in straight lines, resampling by the definition of a filter on every other pixel."""

    def __init__(self, state: dict[str, Tensor], ncsnpp: bool) -> None:
        self.state, self.taps = state, torch.tensor([1.0, 3, 3, 1] if ncsnpp else [1.0, 1]).double()

    def halved(self, images: Tensor) -> Tensor:
        reach = (len(self.taps) - 1) // 2
        wide = functional.pad(images, (reach,) * 4)
        line = self.taps / self.taps.sum()
        height, width = images.shape[2] // 2, images.shape[3] // 2
        return sum(  # type: ignore[return-value]
            line[i] * line[j] * wide[:, :, i : i + 2 * height : 2, j : j + 2 * width : 2]
            for i in range(len(line))
            for j in range(len(line))
        )

    def doubled(self, images: Tensor) -> Tensor:
        if len(self.taps) == 2:
            return images.repeat_interleave(2, 2).repeat_interleave(2, 3)
        for axis in (2, 3):  # 1, 3, 3, 1: each new pixel is 3/4 the near and 1/4 the far neighbour
            padded = functional.pad(images.movedim(axis, -1), (1, 1))
            here, before, after = padded[..., 1:-1], padded[..., :-2], padded[..., 2:]
            pairs = torch.stack([0.75 * here + 0.25 * before, 0.75 * here + 0.25 * after], -1)
            images = pairs.flatten(-2).movedim(-1, axis)
        return images

    def convolved(self, name: str, images: Tensor) -> Tensor:
        kernel = self.state[f"{name}.weight"]
        return functional.conv2d(images, kernel, self.state[f"{name}.bias"], padding=kernel.shape[-1] // 2)

    def normed(self, name: str, images: Tensor) -> Tensor:
        groups = min(32, images.shape[1] // 4)
        weight, bias = self.state[f"{name}.weight"], self.state[f"{name}.bias"]
        return functional.group_norm(images, groups, weight, bias, 1e-6)

    def block(self, name: str, images: Tensor, emb: Tensor) -> Tensor:
        change = (
            self.halved
            if name.endswith("_down")
            else self.doubled
            if name.endswith("_up")
            else lambda same: same
        )
        inner = self.convolved(f"{name}.conv0", change(functional.silu(self.normed(f"{name}.norm0", images))))
        shift = emb @ self.state[f"{name}.affine.weight"].T + self.state[f"{name}.affine.bias"]
        inner = functional.silu(self.normed(f"{name}.norm1", inner + shift[:, :, None, None]))
        kept = (
            self.convolved(f"{name}.skip", change(images)) if f"{name}.skip.weight" in self.state else images
        )
        inner = (self.convolved(f"{name}.conv1", inner) + kept) / 2**0.5
        if f"{name}.qkv.weight" not in self.state:
            return inner
        rows = self.convolved(f"{name}.qkv", self.normed(f"{name}.norm2", inner)).flatten(2)
        query, key, value = rows[:, 0::3], rows[:, 1::3], rows[:, 2::3]
        weights = torch.softmax(query.transpose(1, 2) @ key / inner.shape[1] ** 0.5, -1)
        seen = (value @ weights.transpose(1, 2)).view_as(inner)
        return (inner + self.convolved(f"{name}.proj", seen)) / 2**0.5

    def __call__(self, images: Tensor, level: Tensor, blocks: int) -> Tensor:
        state = self.state
        if "map_noise.freqs" in state:
            angles = 2 * math.pi * level[:, None] * state["map_noise.freqs"]
        else:
            half = state["map_layer0.weight"].shape[1] // 2
            angles = level[:, None] * 10_000.0 ** -(torch.arange(half).double() / (half - 1))
        emb = torch.cat([angles.sin(), angles.cos()], 1)
        for name in ("map_layer0", "map_layer1"):
            emb = functional.silu(emb @ state[f"{name}.weight"].T + state[f"{name}.bias"])
        inner = self.convolved("enc.32x32_conv", images)
        skips = [inner]
        for place in range(blocks):
            inner = self.block(f"enc.32x32_block{place}", inner, emb)
            skips.append(inner)
        inner = self.block("enc.16x16_down", inner, emb)
        if "enc.16x16_aux_residual.weight" in state:
            # Convolving, then filtering: the border that the filter needs is convolved too.
            wide = functional.conv2d(images, state["enc.16x16_aux_residual.weight"], padding=2)
            line = self.taps / self.taps.sum()
            shrunk = sum(
                line[i] * line[j] * wide[:, :, i : i + 32 : 2, j : j + 32 : 2]
                for i in range(4)
                for j in range(4)
            )
            inner = (inner + shrunk + state["enc.16x16_aux_residual.bias"][:, None, None]) / 2**0.5
        skips.append(inner)
        for place in range(blocks):
            inner = self.block(f"enc.16x16_block{place}", inner, emb)
            skips.append(inner)
        for name in ("dec.16x16_in0", "dec.16x16_in1"):
            inner = self.block(name, inner, emb)
        for side in (16, 32):
            inner = self.block("dec.32x32_up", inner, emb) if side == 32 else inner
            for place in range(blocks + 1):
                joined = torch.cat([inner, skips.pop()], 1)
                inner = self.block(f"dec.{side}x{side}_block{place}", joined, emb)
        return self.convolved("dec.32x32_aux_conv", functional.silu(self.normed("dec.32x32_aux_norm", inner)))


@pytest.mark.parametrize("ncsnpp", [False, True])
def test_the_network_is_what_a_second_writing_of_it_computes(ncsnpp: bool) -> None:
    state = filled(ncsnpp)
    network = song_unet({f"model.{name}": tensor for name, tensor in state.items()}).double()
    network.load_state_dict(state)  # song_unet rounds to float32
    images = torch.randn((2, 3, 32, 32), generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    level = torch.tensor([-0.4, 0.3], dtype=torch.float64)
    with torch.no_grad():
        found, expected = network(images, level), ByHand(state, ncsnpp)(images, level, 2)
    # Softmax and noise embedding are computed in float32, as in the published code.
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5 * float(expected.abs().max()))


@pytest.fixture
def exported(tmp_path: Path) -> Path:
    state = {f"model.{name}": tensor.float() for name, tensor in filled(ncsnpp=False).items()}
    save_file(state, tmp_path / "edm.safetensors")
    return tmp_path / "edm.safetensors"


def test_an_export_is_an_edm_denoiser(exported: Path) -> None:
    made = load(f"edm:{exported}")
    assert isinstance(made, DiffusionDenoiser)
    described = made.describe()
    assert (described["prediction"], described["sigma_data"], described["sign"]) == ("edm", 0.5, 1)
    assert (described["schedule"]["least"], described["schedule"]["most"]) == (0.002, 80.0)
    noisy = torch.rand((2, 3, 32, 32), generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        found = made(noisy, 0.25).double()
        z, s = 2 * noisy.double() - 1, 0.5
        level = torch.full((2,), math.log(s) / 4, dtype=torch.float64)
        answer = ByHand(filled(ncsnpp=False), False)(z / (s**2 + 0.25) ** 0.5, level, 2)
        denoised = 0.25 / (s**2 + 0.25) * z + s * 0.5 / (s**2 + 0.25) ** 0.5 * answer
    torch.testing.assert_close(found, ((denoised + 1) / 2).clamp(0, 1), rtol=0, atol=1e-4)
    assert load(f"edm:{exported}?sigma_data=0.4").describe()["sigma_data"] == 0.4


def test_released_pickles_are_refused_with_the_way_to_export_them(tmp_path: Path) -> None:
    path = tmp_path / "edm-cifar10-32x32-uncond-vp.pkl"
    with pytest.raises(CheckpointError, match="nvlabs"):
        load(f"edm:{path}")
    path.write_bytes(b"\x80\x04anything")
    for name in (f"edm:{path}", str(path)):
        with pytest.raises(CheckpointError, match="runs it when opened") as refusal:
            load(name)
        assert "state_dict()" in refusal.value.instead


def test_other_preconditionings_conditions_and_networks_are_refused(exported: Path, tmp_path: Path) -> None:
    baseline = tmp_path / "baseline-cifar10-32x32-uncond-vp.safetensors"
    baseline.write_bytes(exported.read_bytes())
    with pytest.raises(InvalidInput, match="preconditioning"):
        load(f"edm:{baseline}")
    state = {name: tensor.float() for name, tensor in filled(ncsnpp=False).items()}
    for extra, kind in (("map_label.weight", InvalidInput), ("u", CheckpointError)):
        save_file(state | {extra: torch.ones(8, 10)}, tmp_path / "other.safetensors")
        with pytest.raises(kind):
            load(f"edm:{tmp_path / 'other.safetensors'}")
    state.pop("dec.32x32_aux_norm.weight")
    save_file(state, tmp_path / "other.safetensors")
    with pytest.raises(CheckpointError, match="aux_norm"):
        load(f"edm:{tmp_path / 'other.safetensors'}")


def test_images_that_do_not_fit_are_refused_in_words(exported: Path) -> None:
    made = load(f"edm:{exported}")
    with pytest.raises(InvalidInput, match="greyscale"):
        made(torch.rand(2, 1, 32, 32), 0.5)
    with pytest.raises(InvalidInput, match="multiples of 2"):
        made(torch.rand(2, 3, 31, 32), 0.5)
