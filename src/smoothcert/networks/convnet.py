"""A small convolutional network for small images: the classifier that ships with the package.

Three convolutions without normalization layers, so that an answer cannot depend on batch mates, not even by a
forgotten training mode. On disk: ``config.json``, ``model.safetensors``, ``card.toml``.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass, fields
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor, nn

from smoothcert.checkpoints import CARD, load_safetensors, read_card, read_config
from smoothcert.errors import CheckpointError, InvalidInput

ARCHITECTURE = "smoothcert-convnet"


@dataclass(frozen=True)
class ConvNetConfig:
    """What fixes the shape of the network.

    Attributes:
        shape: ``(C, H, W)`` of the images; height and width at least 4.
        classes: class names, in the order of the scores.
        width: channels of the first two convolutions; the third has twice as many.
        dropout: share of features dropped before the last layer, in training only.
    """

    shape: tuple[int, int, int]
    classes: tuple[str, ...]
    width: int = 32
    dropout: float = 0.3

    def __post_init__(self) -> None:
        if len(self.shape) != 3 or min(self.shape) < 1 or min(self.shape[1:]) < 4 or not self.classes:
            found = f"images {self.shape} with {len(self.classes)} classes"
            why = "two poolings by 2 need at least 4 pixels a side, and there must be a class"
            raise InvalidInput(found, why, "Choose another classifier for such images")
        if self.width < 1 or not 0 <= self.dropout < 1:
            found = f"width={self.width}, dropout={self.dropout}"
            raise InvalidInput(found, "no such network", "Choose width >= 1 and dropout in [0, 1)")


class ConvNet(nn.Module):
    """Images ``(B, C, H, W)`` in [0, 1] -> scores ``(B, classes)`` (logits).

    Attributes:
        config: the shape of the network.
        source: the name by which a run's specification calls it.
    """

    def __init__(self, config: ConvNetConfig, *, source: str = ARCHITECTURE) -> None:
        super().__init__()
        self.config, self.source = config, source
        channels, height, width = config.shape
        wide = 2 * config.width
        self.features = nn.Sequential(
            nn.Conv2d(channels, config.width, 3, padding=1),
            nn.ReLU(),
            nn.Conv2d(config.width, config.width, 3, padding=1),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Conv2d(config.width, wide, 3, padding=1),
            nn.ReLU(),
            nn.MaxPool2d(2),
        )
        self.dropout = nn.Dropout(config.dropout)
        self.head = nn.Linear(wide * (height // 4) * (width // 4), len(config.classes))

    @property
    def classes(self) -> tuple[str, ...]:
        """Class names, in the order of the scores."""
        return self.config.classes

    def forward(self, images: Tensor) -> Tensor:
        """Scores for a batch; the images are centred here, so callers keep to the scale [0, 1]."""
        scores: Tensor = self.head(self.dropout(self.embed(images)))
        return scores

    def embed(self, images: Tensor) -> Tensor:
        """Features ``(B, k)`` of images in [0, 1]: what the last layer makes scores of."""
        self.check(tuple(images.shape[1:]))
        found: Tensor = self.features(images - 0.5).flatten(1)
        return found

    def check(self, shape: tuple[int, ...]) -> None:
        """Refuse images of another shape than the network's; ``InvalidInput``."""
        if shape != self.config.shape:
            given, wanted = ("x".join(map(str, sides)) for sides in (shape, self.config.shape))
            why = f"this classifier takes {wanted} only"
            raise InvalidInput(f"images of {given}", why, "Choose a classifier for such images")

    def describe(self) -> dict[str, Any]:
        """Plain data for a run's specification."""
        config = self.config
        return {"kind": ARCHITECTURE, "shape": list(config.shape), "width": config.width}


def save(model: ConvNet, directory: str | Path) -> None:
    """Write ``config.json`` and ``model.safetensors``; the directory is made where needed."""
    root = Path(directory)
    root.mkdir(parents=True, exist_ok=True)
    config = {"architecture": ARCHITECTURE, **asdict(model.config)}
    (root / "config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    tensors = {name: tensor.detach().cpu().contiguous() for name, tensor in model.state_dict().items()}
    save_file(tensors, root / "model.safetensors")


def load(directory: str | Path) -> ConvNet:
    """Read a saved network, in eval mode; where it has a card, its files must match the card.

    Raises:
        CheckpointError: missing or corrupt files, another architecture, or a mismatch with the card.
    """
    root = Path(directory)
    if (root / CARD).exists():
        read_card(root)
    model = ConvNet(_config(root), source=str(directory))
    tensors = load_safetensors(root / "model.safetensors")
    try:
        model.load_state_dict(tensors)
    except RuntimeError as error:
        raise _mismatch(root, str(error)) from error
    _check_finite(root, tensors)
    return model.eval().requires_grad_(False)


def _config(root: Path) -> ConvNetConfig:
    stored = read_config(root / "config.json")
    if stored.pop("architecture", None) != ARCHITECTURE:
        raise _mismatch(root, f"its config.json does not say {ARCHITECTURE!r}")
    try:
        return ConvNetConfig(**_with_tuples(stored))
    except (TypeError, ValueError) as error:
        raise _mismatch(root, f"its config.json does not describe a network ({error})") from error


def _with_tuples(stored: dict[str, Any]) -> dict[str, Any]:
    known = {field.name for field in fields(ConvNetConfig)}
    if not stored.keys() <= known:
        raise TypeError(f"unknown entries {sorted(stored.keys() - known)}")
    return {name: tuple(value) if isinstance(value, list) else value for name, value in stored.items()}


def _check_finite(root: Path, tensors: dict[str, Tensor]) -> None:
    broken = [name for name, tensor in tensors.items() if not torch.isfinite(tensor).all()]
    if broken:
        raise _mismatch(root, f"{', '.join(broken)} holds numbers that are not finite")


def _mismatch(root: Path, why: str) -> CheckpointError:
    return CheckpointError(f"classifier {str(root)!r}", why, "Save it again with smoothcert train classifier")
