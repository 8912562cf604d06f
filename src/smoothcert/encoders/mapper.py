"""The smoothness mapper of a booster: a residual network that moves the features of noisy images to where
those of the clean images lie.

M(z, sigma) = z + R(z, sigma). It sits behind an encoder, M(E(P(x + noise)), sigma), and decides nothing about
soundness: the certified function is whatever comes out. On disk: ``config.json``, ``model.safetensors``, and
``card.toml``. z are features ``(B, k)`` or ``(B, T, d)``; no answer depends on batch mates.

Source: the sigma-conditioned smoothness mapper of arXiv 2601.16200.
"""

from __future__ import annotations

import json
import math
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from smoothcert.checkpoints import CARD, embedded, load_safetensors, read_card, read_config
from smoothcert.errors import CheckpointError, InvalidInput, UnknownName

ARCHITECTURE = "smoothcert-mapper"
_WAVES, _LEVEL = 16, 32
_EMBEDDED = {"digits": "digits-booster"}
NAMES = (*_EMBEDDED, "a directory written by smoothcert train booster")
_NEAR = 1e-6  # relative; a sigma that was written down and read again is still in range


@dataclass(frozen=True)
class MapperConfig:
    """What fixes the shape of a mapper and what it is for.

    Attributes:
        dimension: length of a feature, k of ``(B, k)`` or d of ``(B, T, d)``.
        sigmas: smallest and largest noise it was trained for, standard deviations on [0, 1] pixels.
        width: of its hidden layers.
        blocks: attention and MLP layers, one after the other.
        heads: of attention over the T tokens of one image; 0 for none, which single features do not need.
        encoder, denoiser: what it was trained behind, by name; informative only.

    Raises:
        InvalidInput: a network that cannot be built, or a range that is not positive and in order.
    """

    dimension: int
    sigmas: tuple[float, float]
    width: int = 128
    blocks: int = 2
    heads: int = 0
    encoder: str = ""
    denoiser: str = ""

    def __post_init__(self) -> None:
        if min(self.dimension, self.width, self.blocks) < 1 or not 0 <= self.heads <= self.width:
            raise InvalidInput(f"{self}", "a mapper needs features, width and blocks", "Choose 1 or more")
        if self.heads and self.width % self.heads:
            found = f"width={self.width}, heads={self.heads}"
            raise InvalidInput(found, "every head gets an equal share", "Choose a multiple of heads")
        if len(self.sigmas) != 2 or not 0 < self.sigmas[0] <= self.sigmas[1] < math.inf:
            why = "a mapper is trained for a range of noise, smallest first, both positive"
            raise InvalidInput(f"sigmas={self.sigmas}", why, "Write for instance sigmas=(0.12, 0.5)")


class Mapper(nn.Module):
    """M(z, sigma) = z + R(z, sigma): features of noisy images in, smoother ones of the same shape out.

    R works on ``(z - centre) / scale`` and answers in units of ``scale``, the mean and the standard deviation
    of clean features in each dimension, so encoders of any scale are alike to it. A fresh mapper has R = 0.

    Attributes:
        config: its shape and purpose.
        source: the name by which a run's specification calls it.
    """

    centre: Tensor
    scale: Tensor

    def __init__(self, config: MapperConfig, *, source: str = ARCHITECTURE) -> None:
        super().__init__()
        self.config, self.source = config, source
        self.register_buffer("centre", torch.zeros(config.dimension))
        self.register_buffer("scale", torch.ones(config.dimension))
        self.embed = nn.Sequential(nn.Linear(_WAVES, _LEVEL), nn.SiLU(), nn.Linear(_LEVEL, _LEVEL), nn.SiLU())
        self.enter = nn.Linear(config.dimension, config.width)
        self.blocks = nn.ModuleList(_Block(config.width, config.heads) for _ in range(config.blocks))
        self.leave = nn.Linear(config.width, config.dimension)
        nn.init.zeros_(self.leave.weight)
        nn.init.zeros_(self.leave.bias)

    @property
    def sigmas(self) -> tuple[float, float]:
        """Smallest and largest noise it was trained for."""
        return self.config.sigmas

    def forward(self, features: Tensor, sigma: float) -> Tensor:
        """Features of the shape given, ``(B, k)`` or ``(B, T, d)``, in their own type.

        Raises:
            InvalidInput: a sigma it was not trained for, or features of another dimension.
        """
        self.check(sigma)
        levels = torch.full((len(features),), sigma, dtype=torch.float32, device=features.device)
        return features + self.residual(features, levels).to(features.dtype)

    def residual(self, features: Tensor, sigmas: Tensor) -> Tensor:
        """R(z, sigma), each image of the batch with a sigma of its own ``(B,)``, also outside the range.

        Raises:
            InvalidInput: features of another dimension.
        """
        self._check_features(features)
        tokens = features[:, None] if features.ndim == 2 else features
        level = self.embed(_waves(sigmas / self.sigmas[1]).to(self.scale.dtype))
        hidden = self.enter((tokens.to(self.scale.dtype) - self.centre) / self.scale)
        for block in self.blocks:
            hidden = block(hidden, level)
        change: Tensor = self.scale * self.leave(hidden)
        return change.reshape(features.shape)

    def check(self, sigma: float) -> None:
        """Refuse a noise level outside the range trained for; ``InvalidInput``."""
        low, high = self.sigmas
        if not low * (1 - _NEAR) <= sigma <= high * (1 + _NEAR):
            found = f"sigma {sigma:g} with the mapper {self.source!r}"
            why = f"sigma mismatch between booster and run: it was trained for {low:g} to {high:g}"
            instead = (
                f"Choose a sigma in that range, or train one: smoothcert train booster --sigmas {sigma:g}"
            )
            raise InvalidInput(found, why, instead)

    def describe(self) -> dict[str, Any]:
        """Plain data for a run's specification."""
        plain = asdict(self.config)
        return {"kind": ARCHITECTURE, **plain, "sigmas": list(self.sigmas)}

    def _check_features(self, features: Tensor) -> None:
        fits = features.ndim in (2, 3) and features.shape[-1] == self.config.dimension
        if not fits or not features.is_floating_point():
            found = f"features of shape {tuple(features.shape)} and type {features.dtype}"
            why = f"this mapper takes floating-point (B, {self.config.dimension}) or (B, T, same)"
            raise InvalidInput(found, why, "Use the encoder it was trained behind, or train one for this")


class _Block(nn.Module):
    """Attention over the tokens of one image, then an MLP, each scaled and shifted by the noise level."""

    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm = nn.LayerNorm(width, elementwise_affine=False)
        self.modulate = nn.Linear(_LEVEL, 4 * width)
        self.mix = nn.Linear(width, 3 * width) if heads else None
        self.join = nn.Linear(width, width) if heads else None
        self.mlp = nn.Sequential(nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width))
        nn.init.zeros_(self.modulate.weight)
        nn.init.zeros_(self.modulate.bias)

    def forward(self, hidden: Tensor, level: Tensor) -> Tensor:
        grow, move, stretch, shift = self.modulate(level)[:, None].chunk(4, dim=-1)
        if self.mix is not None and self.join is not None:
            parts = self.mix(torch.addcmul(move, self.norm(hidden), 1 + grow)).chunk(3, dim=-1)
            query, key, value = (part.unflatten(-1, (self.heads, -1)).transpose(1, 2) for part in parts)
            seen = functional.scaled_dot_product_attention(query, key, value)
            hidden = hidden + self.join(seen.transpose(1, 2).flatten(2))
        changed: Tensor = hidden + self.mlp(torch.addcmul(shift, hidden, 1 + stretch))
        return changed


def save(mapper: Mapper, directory: str | Path) -> None:
    """Write ``config.json`` and ``model.safetensors``; the directory is made where needed."""
    from safetensors.torch import save_file

    root = Path(directory)
    root.mkdir(parents=True, exist_ok=True)
    config = {"architecture": ARCHITECTURE, **asdict(mapper.config)}
    (root / "config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in mapper.state_dict().items()}
    save_file(tensors, root / "model.safetensors")


def load(directory: str | Path) -> Mapper:
    """Read a saved mapper, in eval mode and frozen; where it has a card, its files must match the card.

    Args:
        directory: what ``smoothcert train booster`` wrote, or ``digits`` for the mapper that ships with the
            package, for the features of the digits classifier behind the digits denoiser.

    Raises:
        UnknownName: neither.
        CheckpointError: missing or corrupt files, another architecture, numbers that are not finite, or a
            mismatch with the card.
    """
    root = embedded(_EMBEDDED[str(directory)]) if str(directory) in _EMBEDDED else Path(directory)
    if not root.is_dir():
        raise UnknownName.among("mapper", str(directory), NAMES)
    if (root / CARD).exists():
        read_card(root)
    mapper = Mapper(_config(root), source=str(directory))
    tensors = load_safetensors(root / "model.safetensors")
    try:
        mapper.load_state_dict(tensors)
    except RuntimeError as error:
        raise _mismatch(root, " ".join(str(error).split())[:300]) from error
    broken = [name for name, tensor in tensors.items() if not torch.isfinite(tensor).all()]
    if broken or not bool((mapper.scale > 0).all()):
        raise _mismatch(root, f"{', '.join(broken) or 'scale'} holds numbers that cannot be used")
    return mapper.eval().requires_grad_(False)


def _config(root: Path) -> MapperConfig:
    stored = read_config(root / "config.json")
    if stored.pop("architecture", None) != ARCHITECTURE:
        raise _mismatch(root, f"its config.json does not say {ARCHITECTURE!r}")
    try:
        return MapperConfig(**{**stored, "sigmas": tuple(stored["sigmas"])})
    except (KeyError, TypeError, ValueError) as error:
        raise _mismatch(root, f"its config.json does not describe a mapper ({error})") from error


def _mismatch(root: Path, why: str) -> CheckpointError:
    return CheckpointError(f"mapper {str(root)!r}", why, "Save it again with smoothcert train booster")


def _waves(share: Tensor) -> Tensor:
    """``(B, 16)`` cosines and sines of sigma / largest sigma, from 1/16 to 2 turns on the way from 0 to 1."""
    turns = 2 * math.pi * torch.logspace(-4, 1, _WAVES // 2, base=2.0, device=share.device)
    angles = share.float()[:, None] * turns
    return torch.cat([angles.cos(), angles.sin()], 1)
