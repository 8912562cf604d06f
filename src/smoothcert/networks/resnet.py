"""The residual networks of He et al. 2016 for CIFAR (section 4.2), in the widely published state-dict layout.

Depth 6k + 2 with k blocks in each of three stages of 16, 32 and 64 channels. Shortcuts are of type A: no
weights, every second pixel, and zero channels added on both sides. Keys: ``conv1``, ``bn1``,
``layer{1,2,3}.{i}.{conv1,bn1,conv2,bn2}``, ``linear``.
"""

from __future__ import annotations

from collections.abc import Mapping

from torch import Tensor, nn
from torch.nn import functional

from smoothcert.errors import InvalidInput

DEPTHS = (20, 32, 44, 56, 110)


class ResNet(nn.Module):
    """Normalised images ``(B, C, H, W)`` -> scores ``(B, classes)``: the network alone.

    ``classifiers.plain.build("resnet20", ...)`` puts the preprocessing in front and makes a classifier of it.

    Args:
        depth: weighted layers, 6k + 2: 20, 32, 44, 56, 110, ...
        classes: number of scores.
        channels: of the images.
    """

    def __init__(self, depth: int, *, classes: int = 10, channels: int = 3) -> None:
        super().__init__()
        if depth < 8 or depth % 6 != 2 or classes < 2 or channels < 1:
            found = f"depth {depth}, {classes} classes, {channels} channels"
            why = "a network of this kind has 6k + 2 layers, two classes or more, and a channel"
            raise InvalidInput(found, why, f"Choose a depth among {', '.join(map(str, DEPTHS))}")
        self.conv1 = nn.Conv2d(channels, 16, 3, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(16)
        blocks = (depth - 2) // 6
        self.layer1 = _stage(16, 16, blocks, stride=1)
        self.layer2 = _stage(16, 32, blocks, stride=2)
        self.layer3 = _stage(32, 64, blocks, stride=2)
        self.linear = nn.Linear(64, classes)
        for part in self.modules():
            if isinstance(part, nn.Conv2d | nn.Linear):
                nn.init.kaiming_normal_(part.weight)

    def forward(self, images: Tensor) -> Tensor:
        """Scores for a batch of normalised images."""
        scores: Tensor = self.linear(self.embed(images))
        return scores

    def embed(self, images: Tensor) -> Tensor:
        """Features ``(B, 64)``: what the last layer makes scores of."""
        features = functional.relu(self.bn1(self.conv1(images)))
        means: Tensor = self.layer3(self.layer2(self.layer1(features))).mean(dim=(2, 3))
        return means


class Block(nn.Module):
    """Two convolutions and a shortcut without weights."""

    def __init__(self, before: int, after: int, stride: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(before, after, 3, stride=stride, padding=1, bias=False)
        self.bn1 = nn.BatchNorm2d(after)
        self.conv2 = nn.Conv2d(after, after, 3, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(after)
        self.stride, self.added = stride, after - before

    def forward(self, features: Tensor) -> Tensor:
        """Features ``(B, C, H, W)`` -> ``(B, C', H / stride, W / stride)``."""
        change = self.bn2(self.conv2(functional.relu(self.bn1(self.conv1(features)))))
        kept = features[:, :, :: self.stride, :: self.stride]
        half = self.added // 2
        return functional.relu(change + functional.pad(kept, (0, 0, 0, 0, half, self.added - half)))


def for_state(depth: int, state: Mapping[str, Tensor]) -> ResNet:
    """The network that such a state dict is for, its classes and channels read from the weights.

    Raises:
        KeyError: the state has no ``conv1.weight`` and ``linear.weight``.
    """
    return ResNet(depth, classes=len(state["linear.weight"]), channels=state["conv1.weight"].shape[1])


def _stage(before: int, after: int, blocks: int, *, stride: int) -> nn.Sequential:
    rest = (Block(after, after, 1) for _ in range(blocks - 1))
    return nn.Sequential(Block(before, after, stride), *rest)
