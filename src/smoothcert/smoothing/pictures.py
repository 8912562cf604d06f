"""One noise draw of some images, seen clean, noisy and through several denoisers."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt
import torch

from smoothcert.protocols import Example
from smoothcert.smoothing.classifier import SmoothedClassifier
from smoothcert.smoothing.network import Network, pad, to_labels
from smoothcert.smoothing.noise import NamedDraws
from smoothcert.smoothing.streams import Segment

Column = tuple[str, npt.NDArray[np.float32], npt.NDArray[np.int64]]


def columns(
    smoothed: Mapping[str, SmoothedClassifier], examples: Sequence[Example], *, seed: int = 0
) -> list[Column]:
    """Columns (title, pixels ``(N, C, H, W)``, predicted labels): clean, noisy, then one a denoiser.

    All share one draw an image from a stream that no certificate uses.
    """
    first = next(iter(smoothed.values()))
    noise = first.noise
    prepared = [noise.prepare(example.image) for example in examples]
    names = [Segment(example.index, "picture", 0, 1) for example in examples]
    noisy = np.concatenate(
        [noise.noisy(image, seed, name) for image, name in zip(prepared, names, strict=True)]
    )
    clean = np.stack([noise.clean(image) for image in prepared])
    bare = Network(first.classifier, None, first.sigma, first.network.device)
    found = [("clean", clean, _answer(bare, clean)), ("noisy", noisy, _answer(bare, noisy))]
    for name, one in smoothed.items():
        draws = (
            NamedDraws(seed, names, noisy.shape[1:], max(2, len(noisy))) if one.network.stochastic else None
        )
        batch = torch.from_numpy(pad([noisy], max(2, len(noisy)))).to(one.network.device)
        with torch.inference_mode():
            seen = one.network.denoised(batch, draws)[: len(noisy)].cpu().numpy()
        found.append((name, seen, _answer(bare, seen)))
    return found


def _answer(network: Network, pixels: npt.NDArray[np.float32]) -> npt.NDArray[np.int64]:
    return to_labels(network.outputs(pad([pixels], max(2, len(pixels)))))[: len(pixels)]
