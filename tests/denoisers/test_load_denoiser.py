"""Denoisers by name, and functions of one's own behind the same face."""

from __future__ import annotations

import math
import subprocess
import sys
import types
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from smoothcert.denoisers import CallableDenoiser, DiffusionDenoiser, IdentityDenoiser, load
from smoothcert.diffusion.samplers import Ancestral, Ddim, EdmHeun
from smoothcert.diffusion.schedule import beta_schedule
from smoothcert.errors import InvalidInput, ModelOutputError, UnknownName

NOISY = torch.rand((2, 1, 4, 4), generator=torch.Generator().manual_seed(0)) * 2 - 0.5


def halfway(noisy: Tensor, sigma: float) -> Tensor:
    return (noisy + 0.5) / 2


class Jitter(nn.Module):
    stochastic = True

    def forward(self, noisy: Tensor, sigma: float, *, draws: Any) -> Tensor:
        drawn: Tensor = draws.normal(0)
        return noisy + 0 * drawn


class Zeros:
    def normal(self, step: int) -> Tensor:
        return torch.zeros_like(NOISY)


def test_identity_confines_to_images() -> None:
    assert torch.equal(load("identity")(NOISY, 0.25), NOISY.clamp(0, 1))
    assert isinstance(load("identity"), IdentityDenoiser)


def test_a_function_is_a_denoiser() -> None:
    made = load(halfway)
    assert torch.equal(made(NOISY, 0.25), halfway(NOISY, 0.25).clamp(0, 1))
    assert not made.stochastic
    assert made.describe() == {"kind": "callable", "name": "halfway"}


def test_a_function_is_found_by_module_and_attribute(monkeypatch: pytest.MonkeyPatch) -> None:
    module = types.ModuleType("somebodys_denoisers")
    module.mine = halfway  # type: ignore[attr-defined]
    module.number = 3  # type: ignore[attr-defined]
    module.ready = IdentityDenoiser()  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, module.__name__, module)
    made = load("python:somebodys_denoisers:mine")
    assert torch.equal(made(NOISY, 0.25), halfway(NOISY, 0.25).clamp(0, 1))
    assert made.describe()["name"] == "python:somebodys_denoisers:mine"
    assert load("python:somebodys_denoisers:ready") is module.ready
    for missing in ("python:somebodys_denoisers:missing", "python:no_such_module:x"):
        with pytest.raises(UnknownName):
            load(missing)
    for malformed in ("python:", "python:sys"):
        with pytest.raises(InvalidInput, match="python:module:attribute"):
            load(malformed)
    with pytest.raises(InvalidInput, match="cannot be called"):
        load("python:somebodys_denoisers:number")


def test_a_stochastic_function_gets_draws_and_its_module_is_shown() -> None:
    made = CallableDenoiser(Jitter())
    assert made.stochastic
    assert isinstance(made.network, Jitter)
    assert torch.equal(made(NOISY, 0.25, draws=Zeros()), NOISY.clamp(0, 1))
    with pytest.raises(InvalidInput, match="draws"):
        made(NOISY, 0.25)


@pytest.mark.parametrize(
    "answer",
    [NOISY[:1], NOISY[0], NOISY.long(), NOISY.numpy(), None, NOISY / 0, NOISY * math.nan],
    ids=["batch", "rank", "integer", "numpy", "none", "infinite", "nan"],
)
def test_answers_that_are_no_images_are_refused(answer: Any) -> None:
    with pytest.raises(ModelOutputError):
        load(lambda noisy, sigma: answer)(NOISY, 0.25)


def test_samplers_by_name_for_diffusion_models_only() -> None:
    model = DiffusionDenoiser(lambda x, t: x, beta_schedule("linear"))
    for name, expected in {"ddim:5": Ddim(5), "edm": EdmHeun(), "ancestral": Ancestral()}.items():
        made = load(model, sampler=name)
        assert isinstance(made, DiffusionDenoiser)
        assert made.sampler == expected
    assert load(model) is model
    same = load(model, sampler=Ddim(3))
    assert isinstance(same, DiffusionDenoiser)
    assert same.sampler == Ddim(3)
    with pytest.raises(InvalidInput, match="no diffusion model"):
        load("identity", sampler="edm")
    with pytest.raises(UnknownName, match="one-shot"):
        load(model, sampler="two-shot")


def test_looking_for_a_denoiser_does_not_import_diffusers() -> None:
    program = (
        "import sys, smoothcert.denoisers as d; d.load('identity'); sys.exit('diffusers' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


def test_an_unknown_name_lists_what_exists() -> None:
    with pytest.raises(UnknownName, match="identity") as refusal:
        load("identidy")
    assert "digits" in str(refusal.value)
