"""Checkpoints of improved- and guided-diffusion: against outputs of the published code, and refused in words."""

from __future__ import annotations

import dataclasses
import json
import shutil
from collections.abc import Iterator
from copy import deepcopy
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from tests.realdata import DATA, needs
from torch import Tensor, nn

from smoothcert.denoisers import DiffusionDenoiser, load
from smoothcert.denoisers import openai as loader
from smoothcert.denoisers.openai_layout import Layout, converted
from smoothcert.diffusion.schedule import beta_schedule
from smoothcert.errors import CheckpointError, InvalidInput, UnknownName

REFERENCE = DATA / "openai_reference"
FAMILIES = ("improved_small", "guided_small")
present = needs(*(f"openai_reference/{name}.pt" for name in FAMILIES))


@cache
def read(family: str) -> tuple[DiffusionDenoiser, dict[str, Any]]:
    made = load(f"openai:{REFERENCE / family}.pt")
    assert isinstance(made, DiffusionDenoiser)
    with np.load(REFERENCE / f"{family}_reference.npz") as stored:
        return made, {name: torch.from_numpy(stored[name]) for name in stored.files}


@present
@pytest.mark.parametrize("family", FAMILIES)
def test_the_network_answers_as_published(family: str) -> None:
    """In float64, to leave only the rounding of the reference itself, which was made in float32."""
    made, known = read(family)
    network: Any = deepcopy(made.network)
    network.double()
    for time in (0.0, 7.0, 250.25, 999.0):
        with torch.no_grad():
            found = network(known["sigma_0.5_x_t"].double(), torch.full((2,), time)).sample
        torch.testing.assert_close(found.float(), known[f"unet_t_{time}"], rtol=0, atol=1e-5)


@present
@pytest.mark.parametrize("family", FAMILIES)
@pytest.mark.parametrize("sigma", ["0.25", "0.5", "1.0"])
def test_one_shot_denoises_as_published(family: str, sigma: str) -> None:
    """Through the whole chain: the sigma of their integer step, our continuous time of it, our clamping."""
    made, known = read(family)
    true = float(known[f"sigma_{sigma}_sigma_true"])
    step = int(known[f"sigma_{sigma}_t"])
    assert made.schedule.sigma_at(float(step)) == pytest.approx(2 * true, rel=1e-12)
    assert made.schedule.time_of(2 * true) == pytest.approx(step, abs=1e-8)
    noisy = known["x"] + true * known[f"sigma_{sigma}_noise"]
    with torch.no_grad():
        found = made(noisy, true)
    # float32 against float32, and an answer of the network counts 2 sigma-fold in [-1, 1], sigma-fold here.
    expected = (known[f"sigma_{sigma}_pred_xstart"] + 1) / 2
    torch.testing.assert_close(found, expected, rtol=0, atol=1e-5 * max(1, 2 * true))


@present
def test_the_rescaled_family_is_told_a_quarter_of_its_step() -> None:
    made, known = read("improved_small")
    told: list[Tensor] = []
    assert isinstance(made.network, nn.Module)
    made.network.register_forward_pre_hook(lambda _, given: told.append(given[1]))
    with torch.no_grad():
        made(known["x"], float(known["sigma_0.5_sigma_true"]))
    torch.testing.assert_close(told[0], torch.full((2,), 1984 / 4), rtol=1e-6, atol=0)
    assert made.describe()["schedule"]["time_scale"] == 0.25
    assert "time_scale" not in read("guided_small")[0].describe()["schedule"]


def test_a_scaled_time_is_told_and_found_again_and_not_given_to_diffusers() -> None:
    plain = beta_schedule("linear", 200)
    table = dataclasses.replace(plain, time_scale=5.0)
    assert table.sigma_at(33.3) == plain.sigma_at(33.3)
    assert table.condition(33.3) == pytest.approx(5 * 33.3)
    assert table.time_conditioned_on(table.condition(33.3)) == pytest.approx(33.3)
    assert table != plain
    with pytest.raises(InvalidInput, match="time_scale"):
        table.to_diffusers()
    with pytest.raises(InvalidInput, match="time_scale"):
        dataclasses.replace(plain, time_scale=0.0)


# The layouts of the two released models, written down from their code bases a second time.


def residual(name: str, inside: int, outside: int, embedding: int) -> Iterator[tuple[str, tuple[int, ...]]]:
    for layer, shape in {
        "in_layers.0": (inside,),
        "in_layers.2": (outside, inside, 3, 3),
        "emb_layers.1": (2 * outside, embedding),
        "out_layers.0": (outside,),
        "out_layers.3": (outside, outside, 3, 3),
    }.items():
        yield from parameters(f"{name}.{layer}", shape)
    if inside != outside:
        yield from parameters(f"{name}.skip_connection", (outside, inside, 1, 1))


def attention(name: str, width: int) -> Iterator[tuple[str, tuple[int, ...]]]:
    yield from parameters(f"{name}.norm", (width,))
    yield from parameters(f"{name}.qkv", (3 * width, width, 1))
    yield from parameters(f"{name}.proj_out", (width, width, 1))


def parameters(name: str, shape: tuple[int, ...]) -> Iterator[tuple[str, tuple[int, ...]]]:
    yield f"{name}.weight", shape
    yield f"{name}.bias", shape[:1]


def released(
    base: int, multipliers: tuple[int, ...], blocks: int, attended: tuple[int, ...], updown: bool
) -> dict[str, Tensor]:
    """Names and shapes of a state dict, on the device that has no memory; ``attended`` lists scales."""
    emb, shapes = 4 * base, {}
    shapes |= dict(parameters("time_embed.0", (emb, base))) | dict(parameters("time_embed.2", (emb, emb)))
    shapes |= dict(parameters("input_blocks.0.0", (base, 3, 3, 3)))
    width, index, skips = base, 1, [base]
    for scale, multiplier in enumerate(multipliers):
        for _ in range(blocks):
            shapes |= dict(residual(f"input_blocks.{index}.0", width, base * multiplier, emb))
            width = base * multiplier
            if scale in attended:
                shapes |= dict(attention(f"input_blocks.{index}.1", width))
            index += 1
            skips.append(width)
        if scale < len(multipliers) - 1:
            there = f"input_blocks.{index}.0"
            shapes |= dict(
                residual(there, width, width, emb)
                if updown
                else parameters(f"{there}.op", (width, width, 3, 3))
            )
            index += 1
            skips.append(width)
    shapes |= dict(residual("middle_block.0", width, width, emb)) | dict(attention("middle_block.1", width))
    shapes |= dict(residual("middle_block.2", width, width, emb))
    index = 0
    for scale, multiplier in reversed(list(enumerate(multipliers))):
        for block in range(blocks + 1):
            there, place = f"output_blocks.{index}", 1
            shapes |= dict(residual(f"{there}.0", width + skips.pop(), base * multiplier, emb))
            width = base * multiplier
            if scale in attended:
                shapes |= dict(attention(f"{there}.1", width))
                place = 2
            if scale and block == blocks:
                shapes |= dict(
                    residual(f"{there}.{place}", width, width, emb)
                    if updown
                    else parameters(f"{there}.{place}.conv", (width, width, 3, 3))
                )
            index += 1
    shapes |= dict(parameters("out.0", (width,))) | dict(parameters("out.2", (6, width, 3, 3)))
    return {name: torch.empty(shape, device="meta") for name, shape in shapes.items()}


RELEASED = {
    "improved-diffusion cifar10_uncond_50M_500K": (
        released(128, (1, 2, 2, 2), 3, (1, 2), updown=False),
        446,
        52_546_438,
    ),
    "guided-diffusion 256x256_diffusion_uncond": (
        released(256, (1, 1, 2, 2, 4, 4), 2, (3, 4, 5), updown=True),
        566,
        552_814_086,
    ),
}


@pytest.mark.parametrize("name", RELEASED)
def test_the_released_models_have_a_place_for_every_tensor(name: str) -> None:
    state, tensors, numbers = RELEASED[name]
    assert (len(state), sum(tensor.numel() for tensor in state.values())) == (tensors, numbers)
    layout = Layout.of(state)
    network = loader.build(state, layout, 64, {})
    assert sum(parameter.numel() for parameter in network.parameters()) == numbers


def test_attention_heads_lie_one_after_another_or_part_by_part() -> None:
    state = {
        name: torch.randn(tensor.shape, generator=torch.Generator().manual_seed(0))
        for name, tensor in released(32, (1,), 1, (0,), updown=False).items()
    }
    rows = state["middle_block.1.qkv.weight"].flatten(1)
    layout = Layout.of(state)
    old = converted(state, layout, 8)["mid_block.attentions.0.to_k.weight"]
    assert torch.equal(old[:8], rows[8:16])
    assert torch.equal(old[8:16], rows[32:40])
    new = converted(state, layout, 8, new_order=True)["mid_block.attentions.0.to_k.weight"]
    assert torch.equal(new, rows[32:64])


@pytest.fixture
def small(tmp_path: Path) -> Path:
    """A made-up checkpoint of improved-diffusion's layout, without a ``.json``."""
    stream = torch.Generator().manual_seed(0)
    shapes = released(32, (1, 2), 1, (1,), updown=False)
    state = {name: 0.1 * torch.randn(tensor.shape, generator=stream) for name, tensor in shapes.items()}
    torch.save(state, tmp_path / "small.pt")
    return tmp_path / "small.pt"


ALL = "noise_schedule=cosine&diffusion_steps=50&rescale_timesteps=true&num_heads=2"


def test_options_in_the_name_a_json_beside_and_a_card_say_the_same(small: Path) -> None:
    described = load(f"openai:{small}?{ALL}").describe()
    flags = dict(pair.split("=") for pair in ALL.split("&"))
    small.with_suffix(".json").write_text(
        json.dumps(flags | {"diffusion_steps": 50, "rescale_timesteps": True})
    )
    assert load(f"openai:{small}").describe() == described
    small.with_suffix(".json").unlink()
    settings = "\n".join(f'{key} = "{value}"' for key, value in flags.items())
    (small.parent / "cards.toml").write_text(
        f'["small.pt"]\nkind="openai"\nsource="here"\nlicence="none"\n["small.pt".settings]\n{settings}\n'
    )
    assert load(small).describe() == load(f"openai:{small}").describe() == described
    assert load(f"openai:{small}?noise_schedule=linear").describe() != described


@pytest.mark.parametrize("missing", ["noise_schedule", "diffusion_steps", "rescale_timesteps", "num_heads"])
def test_what_nothing_says_is_asked_for(small: Path, missing: str) -> None:
    rest = "&".join(pair for pair in ALL.split("&") if not pair.startswith(missing))
    with pytest.raises(InvalidInput, match=missing) as refusal:
        load(f"openai:{small}?{rest}")
    assert f"{missing}=" in refusal.value.instead


def test_a_thousand_steps_need_no_rescaling(small: Path) -> None:
    made = load(f"openai:{small}?noise_schedule=linear&diffusion_steps=1000&num_heads=2")
    assert isinstance(made, DiffusionDenoiser)
    assert made.schedule == beta_schedule("linear", 1000)


@pytest.mark.parametrize(
    ("spoil", "why"),
    [
        (lambda state: state.pop("middle_block.1.norm.weight"), "missing"),
        (lambda state: state.update({"more.weight": torch.ones(1)}), "no place"),
        (lambda state: state.update({"out.2.bias": torch.ones(5)}), "another shape"),
        (lambda state: state.pop("input_blocks.0.0.weight"), "not named as"),
        (lambda state: state.clear() or state.update({"a": torch.ones(1)}), "not named as"),
    ],
)
def test_weights_of_another_architecture_are_refused(small: Path, spoil: Any, why: str) -> None:
    state = torch.load(small, weights_only=True)
    spoil(state)
    torch.save(state, small)
    with pytest.raises(CheckpointError, match=why):
        load(f"openai:{small}?{ALL}")


def test_linear_betas_are_meant_for_a_thousand_steps(small: Path) -> None:
    """Both code bases spread the same noise over other numbers of steps: 1e-4 to .02 become 20 times as large."""
    made = load(f"openai:{small}?{ALL.replace('cosine', 'linear')}")
    assert isinstance(made, DiffusionDenoiser)
    assert made.schedule.levels == pytest.approx(beta_schedule("linear", 50, start=0.002, end=0.4).levels)


def test_class_conditional_and_uneven_heads_are_refused(small: Path) -> None:
    with pytest.raises(InvalidInput, match="heads of one size"):
        load(f"openai:{small}?{ALL.replace('num_heads=2', 'num_heads=5')}")
    state = torch.load(small, weights_only=True) | {"label_emb.weight": torch.ones(10, 128)}
    torch.save(state, small)
    with pytest.raises(InvalidInput, match="class-conditional"):
        load(f"openai:{small}?{ALL}")


def test_a_json_of_another_model_is_refused(small: Path) -> None:
    small.with_suffix(".json").write_text(json.dumps({"num_res_blocks": 3}))
    with pytest.raises(CheckpointError, match="num_res_blocks"):
        load(f"openai:{small}?{ALL}")


def test_safetensors_are_read_as_well(small: Path) -> None:
    save_file(torch.load(small, weights_only=True), small.with_suffix(".safetensors"))
    other = load(f"openai:{small.with_suffix('.safetensors')}?{ALL}")
    images = torch.rand(2, 3, 8, 8)
    with torch.no_grad():
        assert torch.equal(other(images, 0.5), load(f"openai:{small}?{ALL}")(images, 0.5))


def test_images_that_do_not_fit_are_refused_in_words(small: Path) -> None:
    made = load(f"openai:{small}?{ALL}")
    with pytest.raises(InvalidInput, match="greyscale"):
        made(torch.rand(2, 1, 8, 8), 0.5)
    with pytest.raises(InvalidInput, match="multiples of 2"):
        made(torch.rand(2, 3, 9, 8), 0.5)


def test_unknown_schedules_and_options_name_those_that_exist(small: Path) -> None:
    with pytest.raises(UnknownName, match="cosine"):
        load(f"openai:{small}?{ALL.replace('cosine', 'cosin')}")
    with pytest.raises(UnknownName, match="num_heads"):
        load(f"openai:{small}?num_head=2")
    with pytest.raises(CheckpointError, match="openaipublic"):
        load(f"openai:{small.parent / 'cifar10_uncond_50M_500K.pt'}")
    shutil.copy(small, small.parent / "cifar10_uncond_50M_500K.pt")
    made = load(small.parent / "cifar10_uncond_50M_500K.pt")  # its card says the rest
    assert made.describe()["schedule"]["num_train_timesteps"] == 4000
