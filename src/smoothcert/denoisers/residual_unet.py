"""A plain residual U-Net for denoising: convolutions and ReLU, no normalisation, no attention.

After DRUNet (Zhang et al. 2021), with the noise level as an input of every block instead of an extra map.
Without normalisation and attention it is two to three times as fast on a CPU as a diffusion U-Net of equal
size, and answers of one image cannot depend on another. It is the network F of an EDM-style denoiser; what it
is given and what its output means is the preconditioning's business (Karras et al. 2022).
"""

from __future__ import annotations

import dataclasses
import json
import math
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from smoothcert.checkpoints import load_safetensors, read_config
from smoothcert.errors import CheckpointError, InvalidInput

CLASS = "ResidualUNet"
_EMBEDDING = 128


@dataclasses.dataclass(frozen=True)
class ResidualUNetConfig:
    """The shape of a ``ResidualUNet``.

    Attributes:
        image_channels: of the images, in and out.
        channels: at each scale; every scale after the first halves height and width.
        blocks: residual blocks at each scale, on the way down and again on the way up.

    Raises:
        InvalidInput: no scales, or numbers that are not positive.
    """

    image_channels: int = 3
    channels: tuple[int, ...] = (32, 64, 128, 256)
    blocks: int = 2

    def __post_init__(self) -> None:
        if not (self.channels and min(self.channels) >= 1 and self.blocks >= 1 and self.image_channels >= 1):
            why = "a network needs a scale, and one channel and block at least"
            raise InvalidInput(f"{self}", why, "Write for instance channels=(32, 64, 128), blocks=2")


class ResidualUNet(nn.Module):
    """F(images, level): ``(B, C, H, W)`` and ``(B,)`` noise levels -> ``(B, C, H, W)``.

    ``level`` is what the preconditioning says of the noise, ln(sigma) / 4 in EDM's.

    Args:
        config: its shape.
    """

    def __init__(self, config: ResidualUNetConfig) -> None:
        super().__init__()
        self.config = config
        steps = list(zip(config.channels[:-1], config.channels[1:], strict=True))
        self.embed = nn.Sequential(
            nn.Linear(_EMBEDDING, _EMBEDDING), nn.SiLU(), nn.Linear(_EMBEDDING, _EMBEDDING), nn.SiLU()
        )
        self.head = nn.Conv2d(config.image_channels, config.channels[0], 3, padding=1)
        self.down = nn.ModuleList(_stage(fine, config.blocks) for fine, _ in steps)
        self.shrink = nn.ModuleList(nn.Conv2d(fine, coarse, 2, stride=2) for fine, coarse in steps)
        self.middle = _stage(config.channels[-1], config.blocks)
        self.grow = nn.ModuleList(nn.ConvTranspose2d(coarse, fine, 2, stride=2) for fine, coarse in steps)
        self.up = nn.ModuleList(_stage(fine, config.blocks) for fine, _ in steps)
        self.tail = nn.Conv2d(config.channels[0], config.image_channels, 3, padding=1)
        nn.init.zeros_(self.tail.weight)

    def forward(self, images: Tensor, level: Tensor) -> Tensor:
        """``(B, C, H, W)``, height and width multiples of 2 to the number of scales less one.

        Raises:
            InvalidInput: images of another depth or size.
        """
        self._check(images)
        level = self.embed(_waves(level).to(images.dtype))
        images = self.head(images)
        skips: list[Tensor] = []
        for stage, shrink in zip(self.down, self.shrink, strict=True):
            skips.append(_through(stage, images, level))
            images = shrink(skips[-1])
        images = _through(self.middle, images, level)
        for k in reversed(range(len(skips))):
            images = _through(self.up[k], self.grow[k](images) + skips[k], level)
        answer: Tensor = self.tail(images)
        return answer

    def _check(self, images: Tensor) -> None:
        factor = 2 ** (len(self.config.channels) - 1)
        fits = images.ndim == 4 and images.shape[1] == self.config.image_channels
        if not fits or any(side % factor for side in images.shape[2:]):
            wanted = f"(B, {self.config.image_channels}, H, W) with H and W multiples of {factor}"
            found = f"images of shape {tuple(images.shape)}"
            raise InvalidInput(found, f"this network takes {wanted}", "Choose a denoiser for such images")


class _Block(nn.Module):
    """images + convolution(ReLU(scale * convolution(images) + shift)), both from the noise level."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.first = nn.Conv2d(channels, channels, 3, padding=1)
        self.modulate = nn.Linear(_EMBEDDING, 2 * channels)
        self.second = nn.Conv2d(channels, channels, 3, padding=1)
        for last in (self.modulate, self.second):  # a new block changes nothing
            nn.init.zeros_(last.weight)
            if last.bias is not None:
                nn.init.zeros_(last.bias)

    def forward(self, images: Tensor, level: Tensor) -> Tensor:
        scale, shift = self.modulate(level)[:, :, None, None].chunk(2, dim=1)
        inner = torch.relu(torch.addcmul(shift, self.first(images), 1 + scale))
        changed: Tensor = images + self.second(inner)
        return changed


def save(network: ResidualUNet, directory: str | Path, *, half: bool = False, **more: Any) -> Path:
    """Write ``config.json`` (with what else is given, such as the preconditioning) and safetensors.

    ``half`` keeps the weights in float16: half the size, and each of them rounded to 11 bits.
    """
    from safetensors.torch import save_file

    root = Path(directory)
    root.mkdir(parents=True, exist_ok=True)
    config = {"_class_name": CLASS, **dataclasses.asdict(network.config), **more}
    (root / "config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    kept = torch.float16 if half else torch.float32
    tensors = {name: tensor.to(kept).contiguous() for name, tensor in network.state_dict().items()}
    save_file(tensors, root / "model.safetensors")
    return root


def load(directory: str | Path) -> ResidualUNet:
    """Read what ``save`` wrote; weights kept in half precision are widened to float32.

    Raises:
        CheckpointError: files that are missing, corrupt, or of another architecture.
    """
    root = Path(directory)
    config = read_config(root / "config.json")
    if config.get("_class_name") != CLASS:
        why = f"it is a {config.get('_class_name')}, not a {CLASS}"
        raise CheckpointError(f"model {str(root)!r}", why, "Give another directory")
    state = load_safetensors(root / "model.safetensors")
    try:
        settings = ResidualUNetConfig(
            config["image_channels"], tuple(config["channels"]), blocks=config["blocks"]
        )
        network = ResidualUNet(settings)
        network.load_state_dict({name: tensor.float() for name, tensor in state.items()})
    except (KeyError, TypeError, RuntimeError) as error:
        why = f"configuration and weights do not belong together ({str(error).splitlines()[0]})"
        raise CheckpointError(f"model {str(root)!r}", why, "Fetch the directory again") from error
    moved: Any = network.eval()  # its `to` has no type for this
    loaded: ResidualUNet = moved.to(memory_format=torch.channels_last)  # faster, on a CPU by a fifth
    return loaded


def _stage(channels: int, blocks: int) -> nn.ModuleList:
    return nn.ModuleList(_Block(channels) for _ in range(blocks))


def _through(stage: nn.Module, images: Tensor, level: Tensor) -> Tensor:
    assert isinstance(stage, nn.ModuleList)
    for block in stage:
        images = block(images, level)
    return images


def _waves(level: Tensor) -> Tensor:
    """``(B, 128)`` sines and cosines of the level at fixed frequencies from 1/8 to 8 turns."""
    frequencies = 2 * math.pi * torch.logspace(-3, 3, _EMBEDDING // 2, base=2.0, device=level.device)
    angles = level.float()[:, None] * frequencies
    return torch.cat([angles.cos(), angles.sin()], 1)
