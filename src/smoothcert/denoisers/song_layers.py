"""The layers of the DDPM++ and NCSN++ networks (Song et al. 2021; Karras et al. 2022), named as released."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

_GROUPS, _LEAST_IN_GROUP = 32, 4
_EPSILON = 1e-6


class Block(nn.Module):
    """A residual block, with a change of scale and self-attention (one head) where asked.

    Every sum of two is divided by sqrt(2), which keeps its variance.
    """

    def __init__(
        self,
        inside: int,
        outside: int,
        embedding: int,
        resampling: tuple[int, ...],
        *,
        up: bool = False,
        down: bool = False,
        attention: bool = False,
    ) -> None:
        super().__init__()
        self.inside = inside
        scaling: dict[str, Any] = {"up": up, "down": down, "resampling": resampling}
        self.norm0 = norm(inside)
        self.conv0 = Convolution(inside, outside, 3, **scaling)
        self.affine = nn.Linear(embedding, outside)
        self.norm1 = norm(outside)
        self.conv1 = Convolution(outside, outside, 3)
        changes = up or down or inside != outside
        self.skip = Convolution(inside, outside, 1, **scaling) if changes else None
        self.attention = attention
        if attention:
            self.norm2 = norm(outside)
            self.qkv = Convolution(outside, 3 * outside, 1)
            self.proj = Convolution(outside, outside, 1)

    def forward(self, images: Tensor, emb: Tensor) -> Tensor:
        inner = self.conv0(functional.silu(self.norm0(images)))
        inner = functional.silu(self.norm1(inner + self.affine(emb)[:, :, None, None]))
        inner = self.conv1(inner) + (images if self.skip is None else self.skip(images))
        inner = inner * math.sqrt(0.5)
        if self.attention:
            inner = (inner + self.proj(self._attended(inner))) * math.sqrt(0.5)
        result: Tensor = inner
        return result

    def _attended(self, inner: Tensor) -> Tensor:
        batch, channels, height, width = inner.shape
        # Rows of the projection are interleaved: query, key, value of channel 0, then of channel 1, ...
        parts = self.qkv(self.norm2(inner)).reshape(batch, channels, 3, height * width).unbind(2)
        query, key, value = (part.transpose(1, 2) for part in parts)
        weights = torch.softmax((query @ key.transpose(1, 2)).float() / math.sqrt(channels), dim=2)
        seen: Tensor = weights.to(value.dtype) @ value
        return seen.transpose(1, 2).reshape(batch, channels, height, width)


class Convolution(nn.Module):
    """A convolution that may halve or double the image by a separable filter, before it or (``fused``) after.

    Args:
        inside: channels in.
        outside: channels out.
        kernel: its sides.
        up: double the image.
        down: halve the image.
        resampling: the filter along one side.
        fused: filter after the convolution.
    """

    resample_filter: Tensor

    def __init__(
        self,
        inside: int,
        outside: int,
        kernel: int,
        *,
        up: bool = False,
        down: bool = False,
        resampling: tuple[int, ...] = (1, 1),
        fused: bool = False,
    ) -> None:
        super().__init__()
        self.up, self.down, self.fused = up, down, fused
        self.weight = nn.Parameter(torch.empty(outside, inside, kernel, kernel))
        self.bias = nn.Parameter(torch.zeros(outside))
        nn.init.xavier_uniform_(self.weight)
        if up or down:
            line = torch.tensor(resampling, dtype=torch.float32)
            self.register_buffer("resample_filter", (line[:, None] * line / line.sum() ** 2)[None, None])

    def forward(self, images: Tensor) -> Tensor:
        padding = self.weight.shape[-1] // 2
        if self.fused and self.down:
            # The filter's own padding goes to the convolution in front of it, so no edge is padded twice.
            reach = (self.resample_filter.shape[-1] - 1) // 2
            wide = functional.conv2d(images, self.weight, padding=padding + reach)
            return self._filtered(wide, 0) + self.bias[:, None, None]
        if self.up or self.down:
            images = self._filtered(images, (self.resample_filter.shape[-1] - 1) // 2)
        return functional.conv2d(images, self.weight, self.bias, padding=padding)

    def _filtered(self, images: Tensor, padding: int) -> Tensor:
        """Each channel by itself; doubling fills in zeros, so its filter weighs four times as much."""
        channels = images.shape[1]
        kernel: Tensor = self.resample_filter.to(images.dtype)
        if self.up:
            spread = (4 * kernel).expand(channels, -1, -1, -1)
            return functional.conv_transpose2d(images, spread, stride=2, padding=padding, groups=channels)
        spread = kernel.expand(channels, -1, -1, -1)
        return functional.conv2d(images, spread, stride=2, padding=padding, groups=channels)


class Waves(nn.Module):
    """Sines, then cosines, of the level at fixed frequencies from 1 down to 1/10000."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.channels = channels

    def forward(self, level: Tensor) -> Tensor:
        half = self.channels // 2
        exponents = torch.arange(half, dtype=torch.float32, device=level.device) / (half - 1)
        angles = level.float()[:, None] * (1 / 10_000) ** exponents
        return torch.cat([angles.sin(), angles.cos()], dim=1)


class Fourier(nn.Module):
    """Sines, then cosines, of the level at the random frequencies that training was started with."""

    freqs: Tensor

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.register_buffer("freqs", 16 * torch.randn(channels // 2))

    def forward(self, level: Tensor) -> Tensor:
        angles = level.float()[:, None] * (2 * math.pi * self.freqs.float())
        return torch.cat([angles.sin(), angles.cos()], dim=1)


def norm(channels: int) -> nn.GroupNorm:
    """Group normalisation in up to 32 groups of no less than 4 channels."""
    return nn.GroupNorm(min(_GROUPS, channels // _LEAST_IN_GROUP), channels, eps=_EPSILON)
