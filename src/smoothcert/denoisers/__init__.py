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
from smoothcert.denoisers import cards, diffusers, dncnn, edm, hub, openai
from smoothcert.denoisers.callable import CallableDenoiser
from smoothcert.denoisers.diffusion import DiffusionDenoiser
from smoothcert.denoisers.dncnn import ConvolutionalDenoiser
from smoothcert.denoisers.gaussian import GaussianDenoiser
from smoothcert.denoisers.identity import IdentityDenoiser
from smoothcert.diffusion.samplers import Sampler
from smoothcert.diffusion.samplers import sampler as sampler_by_name
from smoothcert.errors import InvalidInput, UnknownName
from smoothcert.protocols import named

__all__ = [
    "NAMES",
    "CallableDenoiser",
    "ConvolutionalDenoiser",
    "DescribedDenoiser",
    "DiffusionDenoiser",
    "GaussianDenoiser",
    "IdentityDenoiser",
    "load",
]

_EMBEDDED = {"digits": "digits-denoiser", "cifar10": "cifar10-denoiser"}

NAMES = (
    *_EMBEDDED,
    "identity",
    "a directory",
    "OWNER/MODEL",
    "diffusers:DIRECTORY",
    "openai:FILE",
    "edm:FILE",
    "ffdnet:FILE",
    "fdncnn:FILE",
    "dncnn:FILE",
    "memnet:FILE",
    "python:MODULE:ATTRIBUTE",
)

_OWN = (CallableDenoiser, ConvolutionalDenoiser, DiffusionDenoiser, GaussianDenoiser, IdentityDenoiser)


class DescribedDenoiser(Protocol):
    """What ``load`` returns: a denoiser that says whether it needs ``draws`` and describes itself."""

    @property
    def stochastic(self) -> bool: ...
    def describe(self) -> dict[str, Any]: ...
    def __call__(self, noisy: Tensor, sigma: float, /) -> Tensor: ...


_FILES: dict[str, Callable[[str], DescribedDenoiser]] = {
    "openai": openai.load,
    "edm": edm.load,
    **dict.fromkeys(dncnn.KINDS, dncnn.load),
}


def load(
    name: str | Path | Callable[..., Tensor], *, sampler: str | Sampler | None = None
) -> DescribedDenoiser:
    """The denoiser called ``name``, ready for use.

    ========================================  =============================================================
    ``digits``                                the diffusion model that ships with the package
    ``cifar10``                               the EDM denoiser that ships with the package, for one-shot use
    ``identity``                              no denoiser
    a directory, ``diffusers:DIRECTORY``      a diffusers pipeline, or what ``smoothcert train`` wrote
    ``google/ddpm-cifar10-32``                a pipeline of the Hugging Face hub
    ``openai:FILE.pt``                        a checkpoint of improved-diffusion or guided-diffusion
    ``edm:FILE``                              a state dict of NVlabs/edm
    ``ffdnet:FILE``, ``fdncnn:FILE``          convolutional denoisers that are told the noise level
    ``dncnn:FILE``, ``memnet:FILE``           convolutional denoisers for the noise they were trained on
    ``python:MODULE:ATTRIBUTE``               your own function
    ========================================  =============================================================

    A file takes options behind a question mark: ``dncnn:net.pth?sigma=80/255,90/255``. A file that
    ``cards.toml`` knows by its name needs neither kind nor options.

    Args:
        name: one of the above, or the function itself.
        sampler: ``one-shot`` (default), ``ancestral``, ``ddim:STEPS``, ``edm:STEPS``, or a sampler; diffusion
            models only.

    Raises:
        UnknownName: a name that means nothing here; the message lists what exists.
        InvalidInput: a sampler for a denoiser that has none, or a model of which something is not known.
        CheckpointError: weights that are missing, damaged, of another architecture, not what their card
            says, or would run code.
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
    if text in _EMBEDDED:
        return _from_directory(embedded(_EMBEDDED[text]))
    if text.startswith("python:"):
        return _from_python(text)
    kind = text.partition(":")[0]
    if kind in _FILES and kind != text:
        return _FILES[kind](text)
    directory = Path(text.removeprefix("diffusers:"))
    if text.startswith("diffusers:") or directory.is_dir():
        return _from_directory(directory)
    if Path(text.partition("?")[0]).is_file():
        return _from_file(text)
    if hub.is_id(text):
        return hub.load(text)
    if kind != text:
        raise UnknownName.among("kind of denoiser", kind, (*_FILES, "diffusers", "python"))
    raise UnknownName.among("denoiser", text, NAMES)


def _from_file(text: str) -> DescribedDenoiser:
    """A weight file named without its kind: its card knows it, or the caller has to."""
    card = cards.find(text.partition("?")[0])
    if card is None or card.kind not in _FILES:
        why = "a weight file does not say for which network it is, and no card knows this name"
        kinds = ", ".join(f"{kind}:{text}" for kind in _FILES)
        raise InvalidInput(f"denoiser {text!r}", why, f"Write one of {kinds}")
    return _FILES[card.kind](f"{card.kind}:{text}")


def _from_directory(directory: Path) -> DiffusionDenoiser:
    """A directory of ours or of diffusers, checked against its card where it has one."""
    config = directory / "config.json"
    if config.exists() and read_config(config).get("_class_name") == edm.RESIDUAL_UNET:
        return edm.load_residual_unet(directory)
    return diffusers.load(directory)


def _from_python(text: str) -> DescribedDenoiser:
    found = from_import(text.removeprefix("python:"))
    return found if isinstance(found, _OWN) else CallableDenoiser(found, name=text)
