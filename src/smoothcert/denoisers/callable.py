"""Any function of (noisy, sigma) as a denoiser, its answers checked."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn

from smoothcert.errors import InvalidInput, ModelOutputError
from smoothcert.protocols import Draws


class CallableDenoiser:
    """A user's function behind the face of a denoiser: shape, type and finiteness of each answer are checked.

    The function gets images in [0, 1] plus noise and sigma in the same units, and returns images in [0, 1];
    what leaves that range is clamped. ``network`` is the module it is or holds, for mode and device. A
    function with a true attribute ``stochastic`` is given ``draws=`` too.
    """

    def __init__(self, function: Callable[..., Tensor], *, name: str | None = None) -> None:
        if not callable(function):
            raise InvalidInput(
                f"a denoiser of type {type(function).__name__}",
                "it cannot be called",
                "Give (noisy, sigma) -> images",
            )
        self.function = function
        self.name: str = name or str(getattr(function, "__qualname__", type(function).__qualname__))
        self.source = self.name
        self.stochastic = bool(getattr(function, "stochastic", False))
        held = function if isinstance(function, nn.Module) else getattr(function, "network", None)
        self.network: nn.Module | None = held if isinstance(held, nn.Module) else None

    def __call__(self, noisy: Tensor, sigma: float, /, *, draws: Draws | None = None) -> Tensor:
        """``(B, C, H, W)`` -> ``(B, C, H, W)`` of the same type, in [0, 1].

        Raises:
            InvalidInput: a stochastic function without draws.
            ModelOutputError: an answer of another shape or type, or one that is not finite.
        """
        if self.stochastic and draws is None:
            raise InvalidInput(f"denoiser {self.name!r} without draws", "it is stochastic", "Pass draws=")
        clean = self.function(noisy, sigma, draws=draws) if self.stochastic else self.function(noisy, sigma)
        self._check(clean, noisy)
        return clean.to(noisy.dtype).clamp(0, 1)

    def describe(self) -> dict[str, Any]:
        """Plain data for a run's specification: the function's own description, if it has one."""
        own = getattr(self.function, "describe", None)
        return {"kind": "callable", "name": self.name, **({"function": own()} if callable(own) else {})}

    def _check(self, clean: object, noisy: Tensor) -> None:
        if not isinstance(clean, Tensor) or clean.shape != noisy.shape or not clean.is_floating_point():
            got = (
                f"{tuple(clean.shape)} of {clean.dtype}"
                if isinstance(clean, Tensor)
                else type(clean).__name__
            )
            raise ModelOutputError(
                f"denoiser {self.name!r} returned {got} for images {tuple(noisy.shape)}",
                "a denoised image has the shape of the noisy one and floating-point pixels",
                "Return a tensor of images in [0, 1]",
            )
        if not bool(torch.isfinite(clean).all()):
            raise ModelOutputError(
                f"denoiser {self.name!r} returned NaN or infinity",
                "no classifier can be asked about such an image",
                "Check the function at this sigma",
            )
