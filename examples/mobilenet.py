"""An ImageNet classifier converted from another framework: MobileNetV2 with its batch norms folded away.

53 convolutions in order, from plain arrays in the folder that EXAMPLE_WEIGHTS names (default: ``weights``);
beside each its stride, whether it is depthwise, and whether ReLU6 follows. Images in [0, 1] of 224 by 224
pixels go in; 1,000 scores come out. Run from the repository's root:

    smoothcert certify --data 'imagenet:val[:3]' --classifier python:examples.mobilenet:classifier \
        --denoiser none --sigma 0.25 --n 100 --out runs/imagenet
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path

from torch import Tensor, nn
from torch.nn import functional

from smoothcert.checkpoints import load_state

LAST_BEFORE_POOLING = 51
BACKGROUND = 1  # TensorFlow's extra class in front


class MobileNetV2(nn.Module):
    """The convolutions in a row; a residual closes wherever a block kept its shape."""

    def __init__(self, state: Mapping[str, Tensor]) -> None:
        super().__init__()
        metas = [state[f"conv{k}.meta"].int().tolist() for k in range(53)]
        self.convolutions = nn.ModuleList(
            _SameConvolution(state[f"conv{k}.weight"], state[f"conv{k}.bias"], *metas[k]) for k in range(53)
        )

    def forward(self, images: Tensor) -> Tensor:
        features = entry = 2 * images - 1
        for k, convolution in enumerate(self.convolutions):
            if k == LAST_BEFORE_POOLING + 1:
                features = features.mean((2, 3), keepdim=True)
            features = convolution(features)
            if not convolution.activated and k < LAST_BEFORE_POOLING:  # the end of a block
                features = features + entry if features.shape == entry.shape else features
                entry = features
        return features.flatten(1)[:, BACKGROUND:]


class _SameConvolution(nn.Module):
    """A convolution with TensorFlow's SAME padding: the odd pixel goes to the right and below."""

    def __init__(self, weight: Tensor, bias: Tensor, stride: int, depthwise: int, relu6: int) -> None:
        super().__init__()
        self.weight, self.bias = nn.Parameter(weight), nn.Parameter(bias)
        self.stride, self.groups, self.activated = stride, len(weight) if depthwise else 1, bool(relu6)

    def forward(self, images: Tensor) -> Tensor:
        width, height = (self._padding(images.shape[d], self.weight.shape[d]) for d in (3, 2))
        padded = functional.pad(images, (*width, *height))
        answer = functional.conv2d(padded, self.weight, self.bias, self.stride, groups=self.groups)
        return functional.relu6(answer) if self.activated else answer

    def _padding(self, side: int, kernel: int) -> tuple[int, int]:
        total = max(0, (-(-side // self.stride) - 1) * self.stride + kernel - side)
        return total // 2, total - total // 2


def load_classifier() -> MobileNetV2:
    """The network, ready to use."""
    folder = Path(os.environ.get("EXAMPLE_WEIGHTS", "weights"))
    return MobileNetV2(load_state(folder / "imagenet_mobilenet_v2.npz")).eval()


classifier = load_classifier()
