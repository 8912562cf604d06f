"""The losses of a booster, each a mean over the batch that no scale of images or features changes.

z are clean features f(x), u what comes out behind the noise, ``(B, k)`` or ``(B, T, d)``; an image's feature
is one row, as in the certificate. Names as in arXiv 2601.16200: l_rb, l_stats and l_id for the mapper, l_diff
and l_mse for the purifier.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional


def robustness(noisy: Tensor, clean: Tensor) -> Tensor:
    """l_rb = 1 - cos(u, z), the mean over images.

    Its minimum is the direction of the mean clean unit feature given what is seen, and 2 - l_rb = 2 S with S
    the Gaussian robustness score: it pulls towards z and, as 1 - l_rb <= m, towards a large m.
    """
    return (1 - functional.cosine_similarity(noisy.flatten(1), clean.flatten(1), dim=1)).mean()


def statistics(noisy: Tensor, clean: Tensor, scale: Tensor) -> Tensor:
    """l_stats: mean and standard deviation of each dimension over the batch, those of u against those of z.

    Squared differences in units of ``scale`` ``(d,)``, averaged over dimensions. It is what keeps a mapper
    from sending everything to one direction, which has m = 1 and tells nothing apart.
    """
    spread, mean = torch.std_mean(noisy.flatten(0, -2) / scale, dim=0, correction=0)
    wanted_spread, wanted_mean = torch.std_mean(clean.flatten(0, -2) / scale, dim=0, correction=0)
    return ((mean - wanted_mean).square() + (spread - wanted_spread).square()).mean()


def identity(residual: Tensor, clean: Tensor) -> Tensor:
    """l_id = ||R(z, 0)||^2 / ||z||^2, sums over the batch: without noise nothing is to be changed."""
    return residual.square().sum() / clean.square().sum().clamp_min(torch.finfo(clean.dtype).tiny)


def diffusion(estimate: Tensor, images: Tensor, sigma: float) -> Tensor:
    """l_diff = ||x - D||^2 / sigma^2 a pixel, D not clamped: the error of the predicted noise.

    As x + sigma n = noisy, the noise that D predicts is (noisy - D) / sigma, in any parametrisation.
    Source: Ho et al. 2020, the simple loss.
    """
    return functional.mse_loss(estimate, images) / sigma**2


def pixels(estimate: Tensor, images: Tensor) -> Tensor:
    """l_mse = ||x - P||^2 a pixel, of the estimate as the encoder sees it."""
    return functional.mse_loss(estimate, images)
