"""Objectives of an attacker on a smoothed model: a function of the mean of what it makes of noisy images.

Value and gradient are those of aim(mean of rows(x + noise_j) over some draws j), exactly, however few noisy
images fit into memory at once: where not all do, a first pass finds the mean, and a second one pulls the
gradient of the aim there back through one batch after another.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor

from smoothcert.attacks.search import Objective, Search
from smoothcert.errors import InvalidInput
from smoothcert.protocols import Draws
from smoothcert.smoothing.noise import NamedDraws, Noise
from smoothcert.smoothing.streams import Segment

Rows = Callable[[Tensor, Draws | None], Tensor]
"""Noisy images ``(R, C, H, W)`` -> one row of numbers for each ``(R, k)``, with gradients."""
Aim = Callable[[Tensor], Tensor]
"""Means ``(B, k)`` -> what the attacker wants to be large ``(B,)``."""
STAGE = "attack"


class Expectation:
    """Expectation over noise (Athalye et al. 2018) with named draws, as an ``Objective``.

    Args:
        rows: the model, differentiable.
        noise: the noise of the certificate; drawn around an image of zeros and added to the attacked one, so
            that it is the certificate's own and the image keeps its gradient.
        aim: of the means.
        examples: names of the images' streams.
        search: how many draws, fresh ones or not, the seed, and how many rows at once.
        stochastic: whether the denoiser takes draws of its own.
        device: where the model is.
    """

    def __init__(
        self,
        rows: Rows,
        noise: Noise,
        aim: Aim,
        examples: Sequence[int],
        search: Search,
        *,
        stochastic: bool = False,
        device: str = "cpu",
    ) -> None:
        self.rows, self.noise, self.aim, self.search = rows, noise, aim, search
        self.examples, self.stochastic, self.device = tuple(examples), stochastic, device
        self._kept: tuple[int, Tensor] | None = None

    def __call__(self, images: Tensor, step: int, /) -> tuple[Tensor, Tensor]:
        first = step * self.search.eot if self.search.resampled else 0
        noise, names = self._noise(images, first), self._names(first)
        parts = [slice(k, k + self.search.batch) for k in range(0, len(names), self.search.batch)]
        if len(parts) == 1:
            with torch.enable_grad():
                given = images.detach().requires_grad_()
                value = self.aim(self._mean(self._asked(given, noise, names, parts[0])))
                return value.detach(), gradient_of(value.sum(), given)
        with torch.no_grad():
            rows = torch.cat([self._asked(images, noise, names, part) for part in parts])
        mean = self._mean(rows).requires_grad_()
        with torch.enable_grad():
            value = self.aim(mean)
            (pull,) = torch.autograd.grad(value.sum(), mean)
        pull = pull.repeat_interleave(self.search.eot, dim=0) / self.search.eot
        total = torch.zeros_like(images)
        for part in parts:
            with torch.enable_grad():
                given = images.detach().requires_grad_()
                pulled = (self._asked(given, noise, names, part) * pull[part]).sum()
                total += gradient_of(pulled, given)
        return value.detach(), total

    def means(self, images: Tensor, first: int, draws: int) -> Tensor:
        """Means ``(B, k)`` over the named draws of the attack, without gradients."""
        found = []
        for start in range(first, first + draws, self.search.eot):
            noise, names = self._noise(images, start), self._names(start)
            with torch.no_grad():
                parts = [slice(k, k + self.search.batch) for k in range(0, len(names), self.search.batch)]
                rows = torch.cat([self._asked(images, noise, names, part) for part in parts])
            found.append(self._mean(rows))
        return torch.stack(found).mean(dim=0)

    def _asked(self, images: Tensor, noise: Tensor, names: list[Segment], part: slice) -> Tensor:
        owner = torch.arange(len(images), device=images.device).repeat_interleave(self.search.eot)[part]
        noisy = images[owner] + noise[part]
        some = names[part]
        draws = (
            NamedDraws(self.search.seed, some, tuple(noisy.shape[1:]), len(some)) if self.stochastic else None
        )
        rows: Tensor = self.rows(noisy, draws)
        return torch.nan_to_num(rows, nan=0.0)

    def _mean(self, rows: Tensor) -> Tensor:
        found: Tensor = rows.reshape(len(self.examples), self.search.eot, -1).mean(dim=1)
        return found

    def _names(self, first: int) -> list[Segment]:
        return [
            Segment(example, STAGE, first + draw, 1)
            for example in self.examples
            for draw in range(self.search.eot)
        ]

    def _noise(self, images: Tensor, first: int) -> Tensor:
        """The draws of every image, one image after the other; the same ones are made once."""
        if self._kept is None or self._kept[0] != first:
            blank = self.noise.prepare(np.zeros(tuple(images.shape[1:]), dtype=np.float32))
            segments = [Segment(example, STAGE, first, self.search.eot) for example in self.examples]
            drawn = [self.noise.noisy(blank, self.search.seed, segment) for segment in segments]
            self._kept = first, torch.from_numpy(np.concatenate(drawn)).to(self.device)
        return self._kept[1]


def from_loss(loss: Callable[[Tensor], Tensor]) -> Objective:
    """An objective from any differentiable ``loss(images (B, C, H, W)) -> (B,)``, which the attacker raises.

    One row must not depend on other images: the gradients are taken of the sum.
    """

    def objective(images: Tensor, step: int, /) -> tuple[Tensor, Tensor]:
        with torch.enable_grad():
            given = images.detach().requires_grad_()
            value = loss(given)
            if not isinstance(value, Tensor) or value.shape != (len(images),):
                shape = tuple(value.shape) if isinstance(value, Tensor) else type(value).__name__
                raise InvalidInput(
                    f"a loss that returned {shape} for {len(images)} images",
                    "an attack needs one number for each image",
                    "Return a tensor (B,)",
                )
            return value.detach().to(images.dtype), gradient_of(value.sum(), given)

    return objective


def gradient_of(value: Tensor, images: Tensor) -> Tensor:
    """The gradient with respect to the images.

    Raises:
        InvalidInput: none comes back, because some part of the model is a black box to torch.
    """
    found: tuple[Tensor | None, ...] = (None,)
    reason = "no gradient comes back through it: it runs outside torch, or cuts gradients off"
    if value.requires_grad:
        try:
            found = torch.autograd.grad(value, images, allow_unused=True)
        except RuntimeError as error:
            reason = f"its gradient fails ({str(error).splitlines()[0].rstrip('.')})"
    if found[0] is None:
        raise InvalidInput(
            "a white-box attack on this model",
            reason,
            "Load its parts with the backend 'torch' (an ONNX file, an address on the network, OpenVINO and "
            "integer models have no gradient), or pass surrogate=, the same model in torch",
        )
    return found[0].detach()
