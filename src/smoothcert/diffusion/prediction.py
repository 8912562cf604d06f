"""What a diffusion network's output means: an estimate of the noise, of the clean image, or of a mix of both.

x_t = sqrt(abar) x0 + sqrt(1 - abar) eps and sigma = sqrt((1 - abar) / abar), everything on the model's own
scale, clean images in [-1, 1]. All three predictions say the same thing in other words; here each becomes
x0.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from smoothcert.errors import ModelOutputError, UnknownName

ALIASES = {"epsilon": "epsilon", "x0": "x0", "sample": "x0", "v": "v", "v_prediction": "v"}
"""Accepted names; ``sample`` and ``v_prediction`` are those of diffusers."""

DIFFUSERS_NAMES = {"epsilon": "epsilon", "x0": "sample", "v": "v_prediction"}


def canonical(prediction: str) -> str:
    """``epsilon``, ``x0`` or ``v``, from any accepted name.

    Raises:
        UnknownName: another name; the message lists those that exist.
    """
    if prediction not in ALIASES:
        raise UnknownName.among("prediction type", prediction, ALIASES)
    return ALIASES[prediction]


def clean_estimate(
    output: object, x_t: Tensor, sigma: float, *, prediction: str = "epsilon", clamp: bool = True
) -> Tensor:
    """The estimate of the clean image that a network's output stands for.

    Args:
        output: ``(B, C, H, W)``, or ``(B, 2C, H, W)`` whose second half is a learned variance and is dropped;
            bare or in the ``sample`` field of a diffusers output.
        x_t: ``(B, C, H, W)`` what the network saw.
        sigma: the noise of x_t / sqrt(abar), on the model's scale.
        prediction: ``epsilon``, ``x0`` or ``v``, or diffusers' name for it.
        clamp: confine the estimate to [-1, 1], as images are.

    Returns:
        ``(B, C, H, W)``; NaN wherever the network was not finite, so that clamping hides nothing.

    Raises:
        ModelOutputError: an output of any other shape, or no tensor at all.
        UnknownName: an unknown prediction.
    """
    raw = mean_channels(output, x_t)
    kind = canonical(prediction)
    scale = math.sqrt(1 + sigma**2)
    if kind == "epsilon":
        clean = x_t * scale - sigma * raw
    elif kind == "v":  # v = sqrt(abar) eps - sqrt(1 - abar) x0 (Salimans & Ho 2022)
        clean = (x_t - sigma * raw) / scale
    else:
        clean = raw
    return confined(clean) if clamp else clean


def confined(clean: Tensor) -> Tensor:
    """Images in [-1, 1]; NaN wherever they were not finite."""
    return clean.clamp(-1, 1) + 0 * clean


def mean_channels(output: object, x_t: Tensor) -> Tensor:
    """A network's answer without its learned variance, in the type of what it was shown.

    Raises:
        ModelOutputError: an output of any other shape than ``clean_estimate`` takes, or no tensor at all.
    """
    raw = getattr(output, "sample", output)
    if not isinstance(raw, Tensor):
        raise ModelOutputError(
            f"a network output of type {type(output).__name__}",
            "a denoiser needs one tensor",
            "Return a tensor, or an object with the tensor in its field `sample`",
        )
    batch, channels, *size = x_t.shape
    if raw.shape == (batch, 2 * channels, *size):
        raw = raw[:, :channels]
    if raw.shape != x_t.shape or not torch.is_floating_point(raw):
        raise ModelOutputError(
            f"a network output {tuple(raw.shape)} of {raw.dtype} for an input {tuple(x_t.shape)}",
            "it is neither one value a pixel nor a value and a variance a pixel",
            "Return floating-point (B, C, H, W), or (B, 2C, H, W) with a learned variance",
        )
    return raw.to(x_t.dtype)
