"""The DDPM++ and NCSN++ networks (Song et al. 2021) in the form released by Karras et al. 2022.

Written from the papers; the names of the tensors are those of the released state dicts, so that these load as
they are. Images ``(B, C, H, W)`` scaled by c_in and noise levels ln(sigma)/4 go in, F comes out.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from smoothcert.denoisers.song_layers import Block, Convolution, Fourier, Waves, norm


@dataclass(frozen=True)
class SongUNetConfig:
    """The shape of a network.

    Attributes:
        resolution: sides of the images it was trained on; it names the layers.
        image_channels: in and out.
        channels: at each scale; every scale after the first halves the image.
        blocks: residual blocks at each scale.
        attention: resolutions with self-attention.
        noise_channels: width of the first embedding of the noise level.
        embedding_channels: width of the second.
        augmentations: inputs of the layer that training with augmentation left behind; it is not asked.
        fourier: the noise level enters by random frequencies (NCSN++), else by fixed ones (DDPM++).
        residual_encoder: the shrunken image is added at every scale (NCSN++).
        resampling: the filter that halves and doubles images, [1, 1] (DDPM++) or [1, 3, 3, 1] (NCSN++).
    """

    resolution: int
    image_channels: int
    channels: tuple[int, ...]
    blocks: int
    attention: tuple[int, ...]
    noise_channels: int
    embedding_channels: int
    augmentations: int = 0
    fourier: bool = False
    residual_encoder: bool = False
    resampling: tuple[int, ...] = (1, 1)

    @classmethod
    def of(cls, state: Mapping[str, Tensor]) -> SongUNetConfig:
        """Read the shape off a state dict.

        Raises:
            KeyError: a tensor that every such network has is missing.
        """
        stages = _stages(state)
        resolutions = sorted(stages, reverse=True)
        first = resolutions[0]
        return cls(
            resolution=first,
            image_channels=state[f"enc.{first}x{first}_conv.weight"].shape[1],
            channels=tuple(len(state[f"enc.{r}x{r}_block0.norm1.weight"]) for r in resolutions),
            blocks=stages[first],
            attention=tuple(r for r in resolutions if f"enc.{r}x{r}_block0.qkv.weight" in state),
            noise_channels=state["map_layer0.weight"].shape[1],
            embedding_channels=len(state["map_layer0.weight"]),
            augmentations=state["map_augment.weight"].shape[1] if "map_augment.weight" in state else 0,
            fourier="map_noise.freqs" in state,
            residual_encoder=any("aux_residual" in name for name in state),
            resampling=_filter(state),
        )


class SongUNet(nn.Module):
    """F(images, level): ``(B, C, H, W)`` and ``(B,)`` -> ``(B, C, H, W)``.

    Args:
        config: its shape.
    """

    def __init__(self, config: SongUNetConfig) -> None:
        super().__init__()
        self.config = config
        self.map_noise = (Fourier if config.fourier else Waves)(config.noise_channels)
        if config.augmentations:
            self.map_augment = nn.Linear(config.augmentations, config.noise_channels, bias=False)
        self.map_layer0 = nn.Linear(config.noise_channels, config.embedding_channels)
        self.map_layer1 = nn.Linear(config.embedding_channels, config.embedding_channels)
        self.enc, skips = self._encoder()
        self.dec = self._decoder(skips)

    def forward(self, images: Tensor, level: Tensor) -> Tensor:
        """The network's answer; what it means is the preconditioning's business."""
        emb = functional.silu(self.map_layer0(self.map_noise(level).to(images.dtype)))
        emb = functional.silu(self.map_layer1(emb))
        skips: list[Tensor] = []
        inner = pyramid = images
        for name, layer in self.enc.items():
            if name.endswith("aux_residual"):
                inner = skips[-1] = pyramid = (inner + layer(pyramid)) / math.sqrt(2)
            else:
                inner = layer(inner, emb) if isinstance(layer, Block) else layer(inner)
                skips.append(inner)
        return self._decoded(inner, emb, skips)

    def _decoded(self, inner: Tensor, emb: Tensor, skips: list[Tensor]) -> Tensor:
        for name, layer in self.dec.items():
            if isinstance(layer, Block):
                if inner.shape[1] != layer.inside:
                    inner = torch.cat([inner, skips.pop()], dim=1)
                inner = layer(inner, emb)
            else:
                inner = layer(functional.silu(inner) if name.endswith("aux_conv") else inner)
        return inner

    def _encoder(self) -> tuple[nn.ModuleDict, list[int]]:
        config, layers, skips = self.config, nn.ModuleDict(), []
        width = pyramid = config.image_channels
        for scale, channels in enumerate(config.channels):
            side = config.resolution >> scale
            if scale == 0:
                # The first convolution is as wide as the base, which the embedding is a multiple of.
                width = self._base()
                layers[f"{side}x{side}_conv"] = Convolution(pyramid, width, 3)
            else:
                layers[f"{side}x{side}_down"] = self._block(width, width, down=True)
                if config.residual_encoder:
                    made = Convolution(pyramid, width, 3, down=True, resampling=config.resampling, fused=True)
                    layers[f"{side}x{side}_aux_residual"], pyramid = made, width
            skips.append(width)
            for place in range(config.blocks):
                block = self._block(width, channels, attention=side in config.attention)
                layers[f"{side}x{side}_block{place}"], width = block, channels
                skips.append(width)
        return layers, skips

    def _decoder(self, skips: list[int]) -> nn.ModuleDict:
        config, layers, width = self.config, nn.ModuleDict(), self.config.channels[-1]
        for scale, channels in reversed(list(enumerate(config.channels))):
            side = config.resolution >> scale
            if scale == len(config.channels) - 1:
                layers[f"{side}x{side}_in0"] = self._block(width, width, attention=True)
                layers[f"{side}x{side}_in1"] = self._block(width, width)
            else:
                layers[f"{side}x{side}_up"] = self._block(width, width, up=True)
            for place in range(config.blocks + 1):
                last = place == config.blocks and side in config.attention
                block = self._block(width + skips.pop(), channels, attention=last)
                layers[f"{side}x{side}_block{place}"], width = block, channels
        side = config.resolution
        layers[f"{side}x{side}_aux_norm"] = norm(width)
        layers[f"{side}x{side}_aux_conv"] = Convolution(width, config.image_channels, 3)
        return layers

    def _base(self) -> int:
        return self.config.embedding_channels // 4

    def _block(self, inside: int, outside: int, **more: Any) -> Block:
        return Block(inside, outside, self.config.embedding_channels, self.config.resampling, **more)


def _stages(state: Mapping[str, Tensor]) -> dict[int, int]:
    """Residual blocks of the encoder at each resolution."""
    found: dict[int, set[str]] = {}
    for name in state:
        part, _, rest = name.partition(".")
        layer = rest.partition(".")[0]
        side, _, what = layer.partition("_")
        if part == "enc" and what.startswith("block"):
            found.setdefault(int(side.partition("x")[0]), set()).add(what)
    if not found:
        raise KeyError("enc.*_block0")
    return {side: len(blocks) for side, blocks in found.items()}


def _filter(state: Mapping[str, Tensor]) -> tuple[int, ...]:
    """The resampling filter: its outer product lies beside every layer that resamples."""
    for name, tensor in state.items():
        if name.endswith("resample_filter"):
            line = tensor[0, 0, 0] / tensor[0, 0, 0, 0]
            return tuple(round(float(value)) for value in line)
    return (1, 1)
