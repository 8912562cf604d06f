"""Typical inputs for a quantised network: images of a data set with noise of a stream of its own.

A network's 8-bit scales are part of the base classifier and fixed before the first draw of any certificate;
no certificate's noise goes into them, and no label.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
import torch

from smoothcert.backends import Calibration
from smoothcert.backends.identity import source_of, weights_of
from smoothcert.protocols import Dataset, Example
from smoothcert.smoothing.network import Network, intra_op_threads
from smoothcert.smoothing.noise import NamedDraws, make_noise
from smoothcert.smoothing.streams import Segment

IMAGES = 64
SEED = 0  # not the run's: other draws of a run are other noise for the same base classifier


def calibration(
    data: Dataset,
    sigma: float,
    *,
    noise: str = "grid",
    denoiser: Any | None = None,
    images: int = IMAGES,
    batch: int = 16,
    threads: int = 1,
) -> Calibration:
    """What a network sees of a data set under noise; made when a conversion needs it.

    Args:
        data: evenly spaced images of the full data set are taken, so its slices have one base classifier.
        sigma, noise: of the smoothing.
        denoiser: for a classifier behind a denoiser, which is shown denoised images.
        images: how many; where the data set has fewer, they get several draws each.
        batch, threads: of a call of the denoiser.
    """
    whole: Any = data
    while hasattr(whole, "dataset"):
        whole = whole.dataset
    distinct = min(images, len(whole))
    chosen = [whole[k * len(whole) // distinct] for k in range(distinct)]
    drawn = make_noise(noise, sigma, data.levels)
    segments = [Segment(chosen[k % distinct].index, "calibration", k // distinct, 1) for k in range(images)]

    def made() -> npt.NDArray[np.float32]:
        by_index = {one.index: drawn.prepare(one.image) for one in chosen}
        noisy = np.concatenate([drawn.noisy(by_index[name.example], SEED, name) for name in segments])
        return noisy if denoiser is None else _denoised(noisy, segments, denoiser, sigma, batch, threads)

    facts = {
        "data": whole.name,
        "pixels_sha256": _pixels(chosen),
        "images": images,
        "stream": "calibration",
        "seed": SEED,
        "noise": drawn.kind,
        "sigma": sigma,
        **(
            {"denoiser": _named(denoiser), "batch": batch, "threads": threads} if denoiser is not None else {}
        ),
    }
    return Calibration(made, facts)


def _denoised(
    noisy: npt.NDArray[np.float32],
    segments: Sequence[Segment],
    denoiser: Any,
    sigma: float,
    batch: int,
    threads: int,
) -> npt.NDArray[np.float32]:
    """What the denoiser makes of them, in batches of one size."""
    network, found = Network(None, denoiser, sigma, "cpu"), []
    with intra_op_threads(threads), torch.inference_mode():
        for first in range(0, len(noisy), batch):
            places = np.arange(first, first + batch) % len(noisy)
            names = [segments[int(place)] for place in places]
            draws = NamedDraws(SEED, names, noisy.shape[1:], batch) if network.stochastic else None
            found.append(network.denoised(torch.from_numpy(noisy[places]), draws).numpy())
    return np.concatenate(found)[: len(noisy)]


def _named(denoiser: Any) -> dict[str, Any]:
    own = denoiser.describe() if hasattr(denoiser, "describe") else {}
    return {"source": source_of(denoiser), "sha256": weights_of(denoiser), "settings": own}


def _pixels(examples: Sequence[Example]) -> str:
    whole = hashlib.sha256()
    for one in examples:
        whole.update(f"{one.index} {one.image.dtype} {one.image.shape}\n".encode())
        whole.update(np.ascontiguousarray(one.image).tobytes())
    return whole.hexdigest()
