"""Stacks of convolutions: DnCNN, FDnCNN and FFDNet (Zhang et al.), and the DnCNN of Salman et al.

All take images in [0, 1]; what differs is what goes in (the noise level as a map or not), what comes out (the
image or the noise), and the names of the tensors. The shape of each network is read off its state dict.
"""

from __future__ import annotations

from collections.abc import Mapping
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional

from smoothcert.errors import CheckpointError

_EPSILON = 1e-4  # of batch normalisation in DnCNN, both code bases
_KAIR, _SALMAN, _NUMBERED = "model.", "dncnn.", "conv"


class Stack(nn.Module):
    """Convolutions with ReLU, and batch normalisation where the weights have it, between the first and last.

    Attributes:
        noise_map: whether sigma goes in as one more channel.
        residual: whether the answer is the noise, to be taken off the input.
        shuffled: whether the work is done at half size on four times the channels (FFDNet).
    """

    def __init__(self, layers: nn.Sequential, *, noise_map: bool, residual: bool, shuffled: bool) -> None:
        super().__init__()
        self.layers = layers
        self.noise_map, self.residual, self.shuffled = noise_map, residual, shuffled

    def forward(self, images: Tensor, sigma: float) -> Tensor:
        """``(B, C, H, W)`` noisy images and their noise, in [0, 1] units -> denoised images."""
        height, width = images.shape[2:]
        shown = self._shrunk(images) if self.shuffled else images
        if self.noise_map:
            level = shown.new_full((len(shown), 1, *shown.shape[2:]), sigma)
            shown = torch.cat([shown, level], dim=1)
        answer: Tensor = self.layers(shown)
        if self.shuffled:
            answer = functional.pixel_shuffle(answer, 2)[..., :height, :width]
        return images - answer if self.residual else answer

    @staticmethod
    def _shrunk(images: Tensor) -> Tensor:
        """The four pixels of every square as channels; odd sides are first repeated at their end."""
        height, width = images.shape[2:]
        even = functional.pad(images, (0, width % 2, 0, height % 2), mode="replicate")
        return functional.pixel_unshuffle(even, 2)


def stack(state: Mapping[str, Tensor], *, noise_map: bool, residual: bool, shuffled: bool) -> Stack:
    """The network of a state dict of KAIR, of denoised-smoothing, or with layers ``conv0``, ``conv1``, ...

    Raises:
        CheckpointError: tensors that make no such stack.
    """
    layers = nn.Sequential()
    groups = _groups(state)
    for place, (number, tensors) in enumerate(groups):
        weight, bias = tensors["weight"], tensors.get("bias")
        if weight.ndim == 4:
            if place and not isinstance(layers[-1], nn.ReLU):
                layers.append(nn.ReLU())
            made: nn.Module = nn.Conv2d(weight.shape[1], len(weight), 3, padding=1, bias=bias is not None)
        else:
            made = nn.BatchNorm2d(len(weight), eps=_EPSILON)
        _fill(made, tensors, number)
        layers.append(made)
    network = Stack(layers, noise_map=noise_map, residual=residual, shuffled=shuffled)
    _check_ends(network)
    return network.eval()


def image_channels(network: Stack) -> int:
    """Channels of the images that a stack takes."""
    first = network.layers[0]
    assert isinstance(first, nn.Conv2d)
    inner = first.in_channels - network.noise_map
    return inner // 4 if network.shuffled else inner


def _groups(state: Mapping[str, Tensor]) -> list[tuple[str, dict[str, Tensor]]]:
    """The tensors of each layer, by the number in their names, in order."""
    found: dict[str, dict[str, Tensor]] = {}
    for name, tensor in state.items():
        layer, _, tensor_name = name.rpartition(".")
        found.setdefault(layer, {})[tensor_name] = tensor
    try:
        return sorted(found.items(), key=lambda item: _number(item[0]))
    except ValueError as error:
        raise _foreign(f"the name {error} is none of a stack of convolutions") from error


def _number(layer: str) -> int:
    for prefix in (_KAIR, _SALMAN, _NUMBERED):
        digits = layer.removeprefix(prefix)
        if digits.isdigit() and digits != layer:
            return int(digits)
    raise ValueError(repr(layer))


def _fill(layer: nn.Module, tensors: Mapping[str, Tensor], name: str) -> None:
    try:
        layer.load_state_dict({key: value.float() for key, value in tensors.items()}, strict=True)
    except (RuntimeError, KeyError) as error:
        raise _foreign(f"layer {name!r} does not fit ({' '.join(str(error).split())[:120]})") from error


def _check_ends(network: Stack) -> None:
    convolutions = [layer for layer in network.layers if isinstance(layer, nn.Conv2d)]
    chained = all(first.out_channels == then.in_channels for first, then in pairwise(convolutions))
    if len(convolutions) < 2 or not chained:
        raise _foreign("its layers do not follow one another")
    wanted = convolutions[0].in_channels - network.noise_map
    if convolutions[-1].out_channels != wanted or (network.shuffled and wanted % 4):
        ends = f"{convolutions[0].in_channels} channels go in and {convolutions[-1].out_channels} come out"
        raise _foreign(f"{ends}, which is no network of this kind")


def _foreign(why: str) -> CheckpointError:
    return CheckpointError("these weights", why, "Check the kind: ffdnet:, fdncnn:, dncnn: or memnet:")
