"""Convolutional denoisers for one range of noise: ``ffdnet:``, ``fdncnn:``, ``dncnn:`` and ``memnet:FILE``.

Zhang et al. 2017 and 2018 (KAIR and older) and Salman et al. 2020. Unlike diffusion models they know only the
noise they were trained on; another sigma is refused, unless the name asks for one of two ways around.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from smoothcert.checkpoints import load_state
from smoothcert.denoisers import cards
from smoothcert.denoisers.convolutional import image_channels, stack
from smoothcert.denoisers.memnet import MemNet
from smoothcert.denoisers.names import Name, number, truth
from smoothcert.denoisers.takes import Takes
from smoothcert.errors import InvalidInput

KINDS = ("ffdnet", "fdncnn", "dncnn", "memnet")
OPTIONS = ("sigma", "extrapolate", "shrink")
_TRAINED = {"ffdnet": "0,75/255", "fdncnn": "0,75/255"}  # these two have one range for all published weights
_TOLERANCE = 1e-6  # 0.25 is no other noise than 63.75/255


class ConvolutionalDenoiser:
    """D(noisy, sigma): a network that was trained on noise of one range.

    Args:
        network: ``(noisy (B, C, H, W), sigma) -> images (B, C, H, W)``, all in units of [0, 1].
        sigma_range: smallest and largest noise it was trained on.
        takes: the images it was built for.
        extrapolate: ask the network about noise outside of the range all the same.
        shrink: above the range, take contrast off the noisy images, about 0.5, until their noise is in it,
            and give it back to the answer.
        kind: what the network is called in a run's specification.
        source: the name it was loaded by.

    Raises:
        InvalidInput: a range that is none, or both ways around.
    """

    stochastic = False

    def __init__(
        self,
        network: nn.Module,
        sigma_range: tuple[float, float],
        *,
        takes: Takes,
        extrapolate: bool = False,
        shrink: bool = False,
        kind: str = "dncnn",
        source: str | None = None,
    ) -> None:
        if not 0 <= sigma_range[0] <= sigma_range[1] < float("inf") or sigma_range[1] == 0:
            why = "a range has a smallest and a largest noise, not negative"
            raise InvalidInput(f"sigma={sigma_range}", why, "Write sigma=80/255,90/255")
        if extrapolate and shrink:
            why = "they are two ways around one limit"
            raise InvalidInput("extrapolate=true with shrink=true", why, "Choose one")
        self.network, self.sigma_range, self.takes = network, sigma_range, takes
        self.extrapolate, self.shrink = extrapolate, shrink
        self.kind, self.source = kind, source

    def __call__(self, noisy: Tensor, sigma: float, /) -> Tensor:
        """Estimate the clean images, ``(B, C, H, W)`` in [0, 1]; NaN where the network was not finite.

        Raises:
            InvalidInput: noise it was not trained on, or images it was not built for.
        """
        if noisy.ndim != 4 or not noisy.is_floating_point():
            given = f"images of shape {tuple(noisy.shape)} and type {noisy.dtype}"
            instead = "Divide grey levels by their maximum and add a batch dimension"
            raise InvalidInput(given, "a denoiser works on floating-point (B, C, H, W)", instead)
        self.takes.check(noisy)
        told = self._told(sigma)
        contrast = told / sigma if told < sigma else 1.0
        shown = 0.5 + contrast * (noisy - 0.5) if contrast < 1 else noisy
        clean: Tensor = self.network(shown.to(self._dtype(noisy)), told).to(noisy.dtype)
        clean = 0.5 + (clean - 0.5) / contrast if contrast < 1 else clean
        return clean.clamp(0, 1) + 0 * clean

    def describe(self) -> dict[str, Any]:
        """Plain data for a run's specification; ``trained_sigma`` in units of [0, 1]."""
        return {
            "kind": self.kind,
            "trained_sigma": list(self.sigma_range),
            "extrapolate": self.extrapolate,
            "shrink": self.shrink,
        }

    def _told(self, sigma: float) -> float:
        """The noise that the network is told, less than there is where contrast is taken off."""
        least, most = self.sigma_range
        if self.extrapolate or least * (1 - _TOLERANCE) <= sigma <= most * (1 + _TOLERANCE):
            return sigma
        if self.shrink and sigma > most:
            return most
        raise self._outside(sigma)

    def _outside(self, sigma: float) -> InvalidInput:
        least, most = self.sigma_range
        known = f"{least:g} to {most:g} ({255 * least:g}/255 to {255 * most:g}/255)"
        return InvalidInput(
            f"sigma={sigma:g} ({255 * sigma:g}/255) for a denoiser trained on {known}",
            "other noise it leaves in the image, or takes the image for noise",
            "Choose a sigma in that range or a diffusion model; as a baseline, write behind its name "
            "?shrink=true (less contrast has less noise) or ?extrapolate=true (ask it all the same)",
        )

    def _dtype(self, noisy: Tensor) -> Any:
        return next((p.dtype for p in self.network.parameters() if p.is_floating_point()), noisy.dtype)


def load(text: str) -> ConvolutionalDenoiser:
    """The denoiser of ``KIND:FILE`` or ``KIND:FILE?sigma=80/255,90/255&extrapolate=true``.

    Raises:
        InvalidInput: an unknown training range, or options that make no sense.
        CheckpointError: a file that is missing, damaged, of another kind, not what its card says, or would
            run code.
    """
    name = Name.parse(text, known=OPTIONS)
    card = cards.find(name.path)
    path = name.existing(card.source if card else None)
    settings = {**(card.settings if card and card.kind == name.kind else {}), **name.options}
    trained = _range(settings.get("sigma", _TRAINED.get(name.kind)), text)
    network, takes = _network(name.kind, load_state(path))
    ways = {way: truth(way, settings.get(way, False)) for way in ("extrapolate", "shrink")}
    return ConvolutionalDenoiser(network, trained, takes=takes, kind=name.kind, source=text, **ways)


def _network(kind: str, state: Mapping[str, Tensor]) -> tuple[nn.Module, Takes]:
    if kind == "memnet":
        memnet = MemNet.of(state)
        return memnet, Takes(memnet.image_channels)
    conditioned = kind in ("ffdnet", "fdncnn")
    made = stack(state, noise_map=conditioned, residual=not conditioned, shuffled=kind == "ffdnet")
    return made, Takes(image_channels(made))


def _range(written: Any, text: str) -> tuple[float, float]:
    if written is None:
        why = "neither its weights nor a card say for which noise it was trained"
        instead = (
            f"Write {text}{'&' if '?' in text else '?'}sigma=80/255,90/255 (or one number) behind its name"
        )
        raise InvalidInput(f"denoiser {text!r}", why, instead)
    ends = [number("sigma", part) for part in str(written).split(",")]
    if len(ends) > 2:
        raise InvalidInput(f"sigma={written}", "a range has two ends", "Write sigma=80/255,90/255")
    return ends[0], ends[-1]
