"""Somebody else's MNIST models, off the shelf: how to certify networks whose code you only have as a file.

A LeNet-like classifier and a small diffusion model (noise prediction, 1,000 steps, linear schedule), both
trained by other people and read from plain arrays in the folder that EXAMPLE_WEIGHTS names (default:
``weights``). What a smoothed classifier needs from them is below: a module from images in [0, 1] to scores,
and a network with its schedule. Run from the repository's root:

    smoothcert certify --data 'mnist:test[::100]' --classifier python:examples.mnist:classifier \
        --denoiser python:examples.mnist:denoiser --n 1000 --out runs/mnist
"""

from __future__ import annotations

import os
from itertools import pairwise
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn import functional

from smoothcert.checkpoints import load_state
from smoothcert.denoisers import DiffusionDenoiser
from smoothcert.diffusion.schedule import beta_schedule


class LeNet(nn.Module):
    """Two convolutions and two linear layers; images in [0, 1] go in as they are."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1, self.conv2 = nn.Conv2d(1, 32, 3, padding=1), nn.Conv2d(32, 64, 3, padding=1)
        self.linear1, self.linear2 = nn.Linear(3136, 200), nn.Linear(200, 10)

    def forward(self, images: Tensor) -> Tensor:
        for convolution in (self.conv1, self.conv2):
            images = functional.max_pool2d(convolution(images).relu(), 2)
        return self.linear2(self.linear1(images.flatten(1)).relu())


class Block(nn.Module):
    """Layer norm over the whole image, then two convolutions with SiLU."""

    def __init__(self, depth: int, wide: int, side: int) -> None:
        super().__init__()
        self.ln, self.norm = nn.LayerNorm((depth, side, side)), True
        self.conv1, self.conv2 = nn.Conv2d(depth, wide, 3, padding=1), nn.Conv2d(wide, wide, 3, padding=1)

    def forward(self, images: Tensor) -> Tensor:
        images = self.ln(images) if self.norm else images
        return functional.silu(self.conv2(functional.silu(self.conv1(images))))


class NoisePredictor(nn.Module):
    """The U-Net of the diffusion model: noise in x_t at time t."""

    def __init__(self) -> None:
        super().__init__()
        self.b1, self.te1 = _blocks(28, 1, 10, 10, 10), _time(1)
        self.b2, self.te2 = _blocks(14, 10, 20, 20, 20), _time(10)
        self.b3, self.te3 = _blocks(7, 20, 40, 40, 40), _time(20)
        self.b_mid, self.te_mid = _blocks(3, 40, 20, 20, 40), _time(40)
        self.b4, self.te4 = _blocks(7, 80, 40, 20, 20), _time(80)
        self.b5, self.te5 = _blocks(14, 40, 20, 10, 10), _time(40)
        self.b_out, self.te_out = _blocks(28, 20, 10, 10, 10), _time(20)
        self.b_out[-1].norm = False  # its last block has weights for a norm and does not use them
        self.down1, self.down2 = nn.Conv2d(10, 10, 4, 2, 1), nn.Conv2d(20, 20, 4, 2, 1)
        self.down3 = nn.Sequential(nn.Conv2d(40, 40, 2, 1), nn.SiLU(), nn.Conv2d(40, 40, 4, 2, 1))
        up = nn.ConvTranspose2d
        self.up1 = nn.Sequential(up(40, 40, 4, 2, 1), nn.SiLU(), up(40, 40, 2, 1))
        self.up2, self.up3 = up(20, 20, 4, 2, 1), up(10, 10, 4, 2, 1)
        self.conv_out = nn.Conv2d(10, 1, 3, padding=1)

    def forward(self, x_t: Tensor, times: Tensor) -> Tensor:
        waves = time_waves(times).to(x_t.dtype)
        fine = self.b1(x_t + _level(self.te1, waves))
        middle = self.b2(self.down1(fine) + _level(self.te2, waves))
        coarse = self.b3(self.down2(middle) + _level(self.te3, waves))
        deep = self.up1(self.b_mid(self.down3(coarse) + _level(self.te_mid, waves)))
        coarse = self.up2(self.b4(torch.cat([coarse, deep], 1) + _level(self.te4, waves)))
        middle = self.up3(self.b5(torch.cat([middle, coarse], 1) + _level(self.te5, waves)))
        return self.conv_out(self.b_out(torch.cat([fine, middle], 1) + _level(self.te_out, waves)))


def time_waves(times: Tensor) -> Tensor:
    """``(B, 100)`` sines and cosines; at whole times the rows of the table stored with the weights."""
    angles = times[:, None] * torch.pow(10_000.0, -torch.arange(50) * 4 / 100)
    return torch.stack([angles.sin(), angles.cos()], 2).flatten(1)


def load_classifier() -> LeNet:
    """The LeNet, 98.9 % on clean test images."""
    model = LeNet()
    model.load_state_dict(load_state(_weights() / "mnist_lenet5_clntrained.npz"))
    return model.eval()


def load_denoiser() -> DiffusionDenoiser:
    """The diffusion model as a one-shot denoiser."""
    network, state = NoisePredictor(), load_state(_weights() / "mnist_ddpm.npz")
    del state["time_embed.weight"]  # time_waves, for times between the rows as well
    network.load_state_dict(state)
    return DiffusionDenoiser(network.eval(), beta_schedule("linear", 1000), prediction="epsilon")


def _blocks(side: int, *depths: int) -> nn.Sequential:
    return nn.Sequential(*(Block(depth, wide, side) for depth, wide in pairwise(depths)))


def _time(wide: int) -> nn.Sequential:
    return nn.Sequential(nn.Linear(100, wide), nn.SiLU(), nn.Linear(wide, wide))


def _level(embed: nn.Module, waves: Tensor) -> Tensor:
    return embed(waves)[:, :, None, None]


def _weights() -> Path:
    return Path(os.environ.get("EXAMPLE_WEIGHTS", "weights"))


classifier, denoiser = load_classifier(), load_denoiser()
