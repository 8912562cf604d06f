"""A whole part as one function of a batch, ready to be traced: schedule and scalings fold in.

Beside its answer the function returns a witness, one number an image, that is not finite where a network's
raw output was not: other backends clamp NaN to an end of the range, and a broken answer would count as one.
"""

from __future__ import annotations

import copy
import dataclasses
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor, nn

from smoothcert.backends.identity import modules_of
from smoothcert.classifiers.pretrained import PretrainedClassifier
from smoothcert.networks.preprocessing import Preprocessing


class Graph(nn.Module):
    """``images (B, C, H, W) -> answer, witness (B,)`` of a part; ``sigma`` makes it a denoiser's."""

    def __init__(self, part: Any, sigma: float | None) -> None:
        super().__init__()
        self.part, self.sigma = part, sigma
        self.networks = nn.ModuleList(modules_of(self.part))
        self.eval()

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor]:
        raw: list[Tensor] = []
        hooks = [network.register_forward_hook(_keep_in(raw)) for network in self.networks]
        try:
            answer = self.part(images) if self.sigma is None else self.part(images, self.sigma)
        finally:
            for hook in hooks:
                hook.remove()
        # A sum, because a maximum can lose a NaN.
        witness = torch.stack([output.float().flatten(1).mean(dim=1) for output in raw or [answer]]).sum(
            dim=0
        )
        return answer, witness


def with_witness(answer: Tensor, witness: Tensor) -> Tensor:
    """The answer, NaN in rows whose witness is not finite."""
    finite = torch.isfinite(witness).view(-1, *[1] * (answer.ndim - 1))
    return torch.where(finite, answer, torch.nan)


def example(batch: int, shape: tuple[int, ...], offset: int = 0) -> npt.NDArray[np.float32]:
    """Fixed images in [0, 1] to trace and to check with: neither noise nor a constant that could fold."""
    count = batch * int(np.prod(shape))
    steps = (np.arange(count, dtype=np.float64) + offset) * ((5**0.5 - 1) / 2)  # fills [0, 1) evenly
    return (steps % 1.0).astype(np.float32).reshape(batch, *shape)


def split(part: Any, shape: tuple[int, int, int]) -> tuple[Preprocessing | None, Any, tuple[int, int, int]]:
    """Resizing, which stays with torch in float32, and the rest of a part with the shape that it then sees.

    Not every backend has every filter, and rounding pixels before they are enlarged costs accuracy, not time.
    """
    if not isinstance(part, PretrainedClassifier) or part.preprocessing.size is None:
        return None, part, shape
    whole = part.preprocessing
    rest: Any = copy.copy(part)
    rest.preprocessing = Preprocessing(mean=whole.mean, std=whole.std, channels=whole.channels)
    return dataclasses.replace(whole, mean=(), std=()), rest, whole.result(shape)


def _keep_in(raw: list[Tensor]) -> Any:
    def hook(_module: nn.Module, _inputs: Any, output: Any) -> None:
        for name in ("sample", "logits"):
            output = getattr(output, name, output)
        if isinstance(output, Tensor):
            raw.append(output)

    return hook
