"""MemNet (Tai et al. 2017) as trained by Salman et al. 2020: densely joined memories of residual blocks."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from smoothcert.errors import CheckpointError


class MemNet(nn.Module):
    """``(B, C, H, W)`` noisy images in [0, 1] -> the images plus what the network adds to them.

    Args:
        image_channels: of the images.
        channels: inside.
        memories: memory blocks; each sees what all before it remember.
        blocks: residual blocks in each.
    """

    def __init__(self, image_channels: int, channels: int, memories: int, blocks: int) -> None:
        super().__init__()
        self.image_channels = image_channels
        self.feature_extractor = _layer(image_channels, channels)
        self.reconstructor = _layer(channels, image_channels)
        self.dense_memory = nn.ModuleList(_Memory(channels, blocks, place + 1) for place in range(memories))

    @classmethod
    def of(cls, state: Mapping[str, Tensor]) -> MemNet:
        """The network of a state dict, its shape read off the tensors.

        Raises:
            CheckpointError: tensors that make no MemNet.
        """
        try:
            channels, image_channels = state["feature_extractor.conv.weight"].shape[:2]
            memories = _count(state, "dense_memory.", 1)
            network = cls(
                image_channels, channels, memories, _count(state, "dense_memory.0.recursive_unit.", 3)
            )
            network.load_state_dict({name: tensor.float() for name, tensor in state.items()}, strict=True)
        except (KeyError, RuntimeError) as error:
            why = f"its tensors make no MemNet ({' '.join(str(error).split())[:160]})"
            raise CheckpointError("these weights", why, "Check the kind: dncnn: or memnet:") from error
        return network.eval()

    def forward(self, images: Tensor, sigma: float) -> Tensor:
        """The noise level is not asked for: each network is for the one it was trained with."""
        remembered = [self.feature_extractor(images)]
        for memory in self.dense_memory:
            remembered.append(memory(remembered))
        answer: Tensor = images + self.reconstructor(remembered[-1])
        return answer


class _Memory(nn.Module):
    """Residual blocks one after another; a gate joins their answers and everything remembered before."""

    def __init__(self, channels: int, blocks: int, before: int) -> None:
        super().__init__()
        self.recursive_unit = nn.ModuleList(_Residual(channels) for _ in range(blocks))
        self.gate_unit = _layer((blocks + before) * channels, channels, kernel=1)

    def forward(self, remembered: list[Tensor]) -> Tensor:
        inner = [remembered[-1]]
        for block in self.recursive_unit:
            inner.append(block(inner[-1]))
        gated: Tensor = self.gate_unit(torch.cat([*inner[1:], *remembered], dim=1))
        return gated


class _Residual(nn.Module):
    def __init__(self, channels: int) -> None:
        super().__init__()
        self.relu_conv1 = _layer(channels, channels)
        self.relu_conv2 = _layer(channels, channels)

    def forward(self, images: Tensor) -> Tensor:
        changed: Tensor = images + self.relu_conv2(self.relu_conv1(images))
        return changed


def _layer(inside: int, outside: int, kernel: int = 3) -> nn.Sequential:
    layer = nn.Sequential()
    layer.add_module("bn", nn.BatchNorm2d(inside))
    layer.add_module("relu", nn.ReLU())
    layer.add_module("conv", nn.Conv2d(inside, outside, kernel, padding=kernel // 2, bias=False))
    return layer


def _count(state: Mapping[str, Tensor], prefix: str, place: int) -> int:
    return len({name.split(".")[place] for name in state if name.startswith(prefix)})
