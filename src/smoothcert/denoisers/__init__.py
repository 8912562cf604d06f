"""Denoisers: D(noisy, sigma) -> clean images in [0, 1], one file per kind, found by name with ``load``.

A denoiser hides its own scaling and timesteps, and takes any randomness from named ``draws``. May import
diffusion, protocols, checkpoints and what is below; the diffusers library is imported only when a model is
read or written.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, Protocol

from torch import Tensor

from smoothcert.checkpoints import embedded, from_import, read_config
from smoothcert.denoisers import diffusers, edm
from smoothcert.denoisers.callable import CallableDenoiser
from smoothcert.denoisers.diffusion import DiffusionDenoiser
from smoothcert.denoisers.gaussian import GaussianDenoiser
from smoothcert.denoisers.identity import IdentityDenoiser
from smoothcert.diffusion.samplers import Sampler
from smoothcert.diffusion.samplers import sampler as sampler_by_name
from smoothcert.errors import InvalidInput, UnknownName
from smoothcert.protocols import named

__all__ = [
    "NAMES",
    "CallableDenoiser",
    "DescribedDenoiser",
    "DiffusionDenoiser",
    "GaussianDenoiser",
    "IdentityDenoiser",
    "load",
]

NAMES = ("digits", "identity", "a directory", "diffusers:DIRECTORY", "python:MODULE:ATTRIBUTE")

_OWN = (CallableDenoiser, DiffusionDenoiser, GaussianDenoiser, IdentityDenoiser)


class DescribedDenoiser(Protocol):
    """What ``load`` returns: a denoiser that says whether it needs ``draws`` and describes itself."""

    @property
    def stochastic(self) -> bool: ...
    def describe(self) -> dict[str, Any]: ...
    def __call__(self, noisy: Tensor, sigma: float, /) -> Tensor: ...


def load(
    name: str | Path | Callable[..., Tensor], *, sampler: str | Sampler | None = None
) -> DescribedDenoiser:
    """The denoiser called ``name``, ready for use.

    Args:
        name: ``digits`` (embedded), ``identity``, a model directory (also ``diffusers:DIRECTORY``),
            ``python:MODULE:ATTRIBUTE`` for your own function, or the function itself.
        sampler: ``one-shot`` (default), ``ancestral``, ``ddim:STEPS``, ``edm:STEPS``, or a sampler; diffusion
            models only.

    Raises:
        UnknownName: a name that means nothing here; the message lists what exists.
        InvalidInput: a sampler for a denoiser that has none.
        CheckpointError: a model directory that cannot be read.
    """
    found = name if isinstance(name, _OWN) else _find(name)
    if isinstance(name, str | Path):
        named(found, str(name))
    if sampler is None:
        return found
    if not isinstance(found, DiffusionDenoiser):
        raise InvalidInput(
            f"sampler {sampler!r} with denoiser {name!r}", "it is no diffusion model", "Leave the sampler out"
        )
    chosen = found.with_sampler(sampler_by_name(sampler) if isinstance(sampler, str) else sampler)
    return named(chosen, str(getattr(found, "source", "diffusion")))


def _find(name: str | Path | Callable[..., Tensor]) -> DescribedDenoiser:
    if not isinstance(name, str | Path):
        return CallableDenoiser(name)
    text = str(name)
    if text == "identity":
        return IdentityDenoiser()
    if text == "digits":
        found = diffusers.load(embedded("digits-denoiser"))
        found.source = text
        return found
    if text.startswith("python:"):
        return _from_python(text)
    directory = Path(text.removeprefix("diffusers:"))
    if text.startswith("diffusers:") or directory.is_dir():
        return _from_directory(directory)
    raise UnknownName.among("denoiser", text, NAMES)


def _from_directory(directory: Path) -> DiffusionDenoiser:
    config = directory / "config.json"
    if config.exists() and read_config(config).get("_class_name") == edm.RESIDUAL_UNET:
        return edm.load_residual_unet(directory)
    return diffusers.load(directory)


def _from_python(text: str) -> DescribedDenoiser:
    found = from_import(text.removeprefix("python:"))
    return found if isinstance(found, _OWN) else CallableDenoiser(found, name=text)
