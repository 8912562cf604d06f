"""The plain loop that everything is compared with: certification as the published code of diffusion denoised
smoothing does it, written anew.

One image at a time: repeat it to a batch, add ``torch.randn`` noise, denoise in one step of the diffusion
model with its tables looked up for every batch, classify, fetch the labels and count them in Python.
"""

from __future__ import annotations

import math

import numpy as np
import torch
from pipelines import Pipeline
from torch import Tensor


class ReferenceLoop:
    """``counts(x, n)`` of the published ``Smooth`` class, with the denoiser inside its base classifier."""

    def __init__(self, pipeline: Pipeline, device: str) -> None:
        self.network, self.logits, self.device = pipeline.denoiser.network, pipeline.logits, device
        schedule = pipeline.denoiser.schedule
        self.alpha_bar = schedule.alpha_bar(np.arange(schedule.timesteps, dtype=np.float64))
        self.t = schedule.first_index_at_least(2 * pipeline.sigma)
        self.classes = len(pipeline.data.classes)

    @torch.no_grad()
    def counts(self, image: Tensor, draws: int, batch_size: int) -> np.ndarray:
        counts = np.zeros(self.classes, dtype=int)
        image, left = image.to(self.device), draws
        for _ in range(math.ceil(draws / batch_size)):
            this_batch = min(batch_size, left)
            left -= this_batch
            batch = image.repeat((this_batch, 1, 1, 1))
            predictions = self.logits(self.denoised(batch)).argmax(1)
            for label in predictions.cpu().numpy():
                counts[label] += 1
        return counts

    def denoised(self, images: Tensor) -> Tensor:
        start = 2 * images - 1
        t = torch.tensor([self.t] * len(start)).to(self.device)
        noise = torch.randn_like(start)
        signal = self.looked_up(np.sqrt(self.alpha_bar), t, start)
        x_t = signal * start + self.looked_up(np.sqrt(1 - self.alpha_bar), t, start) * noise
        epsilon = self.network(x_t, t).sample[:, : start.shape[1]]
        clean = self.looked_up(np.sqrt(1 / self.alpha_bar), t, start) * x_t
        clean = clean - self.looked_up(np.sqrt(1 / self.alpha_bar - 1), t, start) * epsilon
        return (clean.clamp(-1, 1) + 1) / 2

    def looked_up(self, table: np.ndarray, t: Tensor, like: Tensor) -> Tensor:
        values = torch.from_numpy(table).to(device=t.device)[t].float()
        return values[:, None, None, None].expand(like.shape)
