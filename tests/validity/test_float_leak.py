"""Why the default noise is on the integer grid: a certificate earned by floating-point rounding alone.

The classifier below computes ((z + 2) - 2) - z, which is 0 for every real number z, and answers "safe" only
if no pixel with -1 < z < -1/2 gives 0. For exact Gaussian noise it therefore says "unsafe" everywhere, with
probability 1. In float32 a pixel that falls there was moved by more than 1, hence by a multiple of 2^-23, so
it keeps the last bit of the clean pixel: 128/255 is an odd multiple of 2^-24, and the residual is never 0.
"""

from __future__ import annotations

import numpy as np
import torch

from smoothcert.smoothing import SmoothedClassifier

UNSAFE, SAFE = 0, 1
GREY = np.full((1, 32, 32), 128, dtype=np.uint8)


def leaky(z: torch.Tensor) -> torch.Tensor:
    residual = ((z + 2.0) - 2.0) - z
    exact = ((z > -1.0) & (z < -0.5) & (residual == 0.0)).flatten(1).sum(1)
    return torch.stack([exact.float(), torch.full_like(exact, 0.5, dtype=torch.float32)], dim=1)


def neighbour() -> np.ndarray:
    """Half of the pixels moved by one grey level: L2 distance 0.089."""
    image = GREY.copy()
    image[:, :16] = 127
    return image


def test_float_noise_gives_a_certificate_that_is_not_deserved() -> None:
    smoothed = SmoothedClassifier(leaky, sigma=0.5, noise="float")
    found = smoothed.certify(GREY, n=10_000)
    assert found.label == SAFE
    assert found.radius > 1.5
    distance = float(np.linalg.norm((GREY.astype(float) - neighbour()) / 255))
    broken = smoothed.certify(neighbour(), n=10_000)
    assert distance < 0.1 < found.radius
    assert broken.label == UNSAFE, "an image inside the certified ball has the other label"


def test_grid_noise_gives_none() -> None:
    smoothed = SmoothedClassifier(leaky, sigma=0.5)
    assert smoothed.certify(GREY, n=10_000).label == UNSAFE
    assert smoothed.certify(neighbour(), n=10_000).label == UNSAFE
