"""The whole pipelines that are timed: the models that ship, and released architectures with random weights.

What a network computes, and so how long it takes, does not depend on its weights.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

import smoothcert as sc
from smoothcert.classifiers.pretrained import PretrainedClassifier
from smoothcert.datasets import ArrayDataset
from smoothcert.denoisers import DiffusionDenoiser
from smoothcert.denoisers.openai_layout import Layout
from smoothcert.denoisers.takes import Takes
from smoothcert.diffusion.schedule import beta_schedule
from smoothcert.networks.preprocessing import Preprocessing
from smoothcert.protocols import Dataset


@dataclass(frozen=True)
class Pipeline:
    """Denoiser and classifier with one image.

    Attributes:
        logits: clean images in [0, 1] -> scores, as the published code has it: resizing and network, bare.
        batch: draws in one network call on a CPU; round_batches: calls of one worker in one timed run.
    """

    name: str
    denoiser: DiffusionDenoiser
    classifier: Any
    logits: Callable[[Tensor], Tensor]
    data: Dataset
    sigma: float
    batch: int
    round_batches: int

    def smoothed(self, denoiser: Any, classifier: Any, device: str, precision: str) -> sc.SmoothedClassifier:
        return sc.SmoothedClassifier(
            classifier, self.sigma, denoiser=denoiser, device=device, precision=precision
        )

    def image(self) -> Tensor:
        """Its one image, in [0, 1]."""
        levels = self.data.levels or 1
        return torch.from_numpy(np.array(self.data[0].image)).float() / levels


def digits() -> Pipeline:
    """The embedded models at 1x8x8."""
    denoiser, classifier = sc.denoisers.load("digits"), sc.classifiers.load("digits")
    assert isinstance(denoiser, DiffusionDenoiser)
    data = sc.datasets.load("digits:test[:1]")
    return Pipeline("digits", denoiser, classifier, classifier, data, 0.5, 256, 120)


def unet_vit() -> Pipeline:
    """The 50 M U-Net of improved-diffusion's CIFAR-10 model and ViT-B/16 at 224 pixels."""
    from transformers import ViTConfig, ViTForImageClassification

    torch.manual_seed(1)
    vit = ViTForImageClassification(ViTConfig(num_labels=10)).eval().requires_grad_(False)
    prepared = Preprocessing((0.5,) * 3, (0.5,) * 3, size=(224, 224), interpolation="bilinear")
    classifier = PretrainedClassifier(vit, prepared, kind="transformers", class_count=10)

    def logits(images: Tensor) -> Tensor:
        large = functional.interpolate(images, (224, 224), mode="bilinear", antialias=True)
        scores: Tensor = vit((large - 0.5) / 0.5).logits
        return scores

    return Pipeline("50 M U-Net + ViT-B/16", cifar_unet(), classifier, logits, random_image(), 0.5, 16, 1)


def unet_wrn() -> Pipeline:
    """The same U-Net and Wide-ResNet-28-10 at 32 pixels."""
    torch.manual_seed(2)
    network = WideResNet().eval().requires_grad_(False)
    prepared = Preprocessing((0.5,) * 3, (0.25,) * 3)
    classifier = PretrainedClassifier(network, prepared, kind="wide-resnet-28-10", class_count=10)

    def logits(images: Tensor) -> Tensor:
        scores: Tensor = network((images - 0.5) / 0.25)
        return scores

    return Pipeline("50 M U-Net + WRN-28-10", cifar_unet(), classifier, logits, random_image(), 0.5, 16, 1)


PIPELINES: dict[str, Callable[[], Pipeline]] = {"digits": digits, "vit": unet_vit, "wrn": unet_wrn}


def cifar_unet() -> DiffusionDenoiser:
    """``cifar10_uncond_50M``: 128 x (1, 2, 2, 2), 3 residual blocks, attention at 16 and 8, learned variance."""
    from diffusers import UNet2DModel

    layout = Layout(
        channels=3,
        outputs=6,
        widths=(128, 256, 256, 256),
        blocks=3,
        attention=(False, True, True, False),
        residual_sampling=False,
        scale_shift=True,
    )
    torch.manual_seed(0)
    network = UNet2DModel(**layout.config(head_channels=64)).eval().requires_grad_(False)
    millions = sum(part.numel() for part in network.parameters()) / 1e6
    assert 50 < millions < 55, millions
    return DiffusionDenoiser(network, beta_schedule("squaredcos_cap_v2", 4000), takes=Takes(3, 8))


def random_image() -> Dataset:
    pixels = np.random.default_rng(0).integers(0, 256, size=(1, 3, 32, 32)).astype(np.uint8)
    return ArrayDataset(pixels, np.zeros(1, int), levels=255, name="random", classes=tuple("0123456789"))


class WideResNet(nn.Module):
    """Wide-ResNet-28-10 of Zagoruyko and Komodakis 2016, 36.5 M parameters."""

    def __init__(self) -> None:
        super().__init__()
        widths, blocks = (16, 160, 320, 640), 4
        stages = [
            PreActivation(widths[stage] if block == 0 else widths[stage + 1], widths[stage + 1], stride)
            for stage in range(3)
            for block, stride in enumerate([2 if stage else 1] + [1] * (blocks - 1))
        ]
        self.layers = nn.Sequential(
            nn.Conv2d(3, 16, 3, padding=1, bias=False),
            *stages,
            nn.BatchNorm2d(640),
            nn.ReLU(),
            nn.AdaptiveAvgPool2d(1),
            nn.Flatten(),
            nn.Linear(640, 10),
        )

    def forward(self, images: Tensor) -> Tensor:
        scores: Tensor = self.layers(images)
        return scores


class PreActivation(nn.Module):
    """Two convolutions, each after a normalisation, and a shortcut."""

    def __init__(self, before: int, after: int, stride: int) -> None:
        super().__init__()
        self.bn1, self.bn2 = nn.BatchNorm2d(before), nn.BatchNorm2d(after)
        self.conv1 = nn.Conv2d(before, after, 3, stride, padding=1, bias=False)
        self.conv2 = nn.Conv2d(after, after, 3, padding=1, bias=False)
        self.short = nn.Conv2d(before, after, 1, stride, bias=False) if before != after else None

    def forward(self, features: Tensor) -> Tensor:
        active = functional.relu(self.bn1(features))
        change = self.conv2(functional.relu(self.bn2(self.conv1(active))))
        return change + (features if self.short is None else self.short(active))
