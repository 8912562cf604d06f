"""No denoiser: the noisy image itself, confined to [0, 1]. The baseline of every comparison."""

from __future__ import annotations

from typing import Any

from torch import Tensor


class IdentityDenoiser:
    """D(noisy, sigma) = noisy clamped to [0, 1]."""

    stochastic = False
    source = "identity"

    def __call__(self, noisy: Tensor, sigma: float, /) -> Tensor:
        return noisy.clamp(0, 1)

    def describe(self) -> dict[str, Any]:
        """Plain data for a run's specification."""
        return {"kind": "identity"}
