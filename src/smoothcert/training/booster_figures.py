"""What a booster does to the features of held-out images: point estimates for its card, not certificates."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from smoothcert.certificates import cosine
from smoothcert.encoders.mapper import Mapper
from smoothcert.protocols import Dataset
from smoothcert.smoothing.features import unit_rows
from smoothcert.training.booster_batches import Frozen
from smoothcert.training.images import gather, named_generator

RADII = (0.25, 0.5)
"""L2 on pixels in [0, 1], at which the certified cosine is given."""

Rows = npt.NDArray[np.float64]
_IMAGES, _DRAWS, _BATCH, _LABELLED = 100, 32, 32, 2048


@dataclass(frozen=True)
class _Clean:
    """Unit features of the bare encoder on clean images: the references, and one prototype a class."""

    images: Tensor
    features: Rows
    labels: npt.NDArray[np.int64]
    prototypes: Rows | None


@torch.inference_mode()
def booster_figures(
    frozen: Frozen, mapper: Mapper, held_out: Dataset, dataset: Dataset, sigmas: tuple[float, float]
) -> dict[str, Any]:
    """m, score, certified cosine and utility with nothing, purifier, mapper and both, at three noise levels.

    Utility is what a collapsed mapper loses while its m rises: ``retrieval``, the share (%) of held-out
    images whose mean noisy feature is nearest to their own clean one among those of all held-out images;
    ``prototypes``, the accuracy (%) of the class whose mean clean training feature is nearest, where the data
    has labels; ``alike``, the mean cosine between the mean features of different images. The clean features
    of the bare encoder are the reference throughout.

    Args:
        frozen: the encoder and the denoiser, or none.
        mapper: as it was just trained.
        held_out: at most 100 of its images are used, 32 draws each.
        dataset: what the prototypes are made of, at most 2,048 images.
        sigmas: the ends of the range; the geometric mean is measured too.
    """
    clean = _reference(frozen, held_out, dataset)
    low, high = sigmas
    levels = list(dict.fromkeys((low, round(math.sqrt(low * high), 3), high)))
    found: dict[str, Any] = {"images": len(clean.images), "draws": _DRAWS, "sigma": levels}
    found |= {f"{name}_clean": value for name, value in _utility(clean.features, clean).items()}
    for sigma in levels:
        for variant, rows in _variants(frozen, mapper, clean.images, sigma).items():
            for name, value in _measured(rows, clean, sigma).items():
                found.setdefault(f"{name}_{variant}", []).append(value)
    return found


def _reference(frozen: Frozen, held_out: Dataset, dataset: Dataset) -> _Clean:
    data = gather(held_out, _IMAGES)
    features = _rows(frozen.encoded, data.images)
    known = gather(dataset, _LABELLED)
    classes = len(dataset.classes)
    counts = torch.bincount(known.labels.clamp_min(0), minlength=classes)
    prototypes = None
    if classes >= 2 and len(counts) == classes and int(counts.min()) > 0:
        rows = _rows(frozen.encoded, known.images)
        one_hot = np.eye(classes)[known.labels.numpy()]
        prototypes = unit_rows((one_hot.T @ rows).astype(np.float32))
    return _Clean(data.images, features, data.labels.numpy(), prototypes)


def _variants(frozen: Frozen, mapper: Mapper, images: Tensor, sigma: float) -> dict[str, Rows]:
    """Unit features ``(images, draws, k)`` of noisy images, by what they went through; the same noise."""
    draw = named_generator(0, "figures", round(1e6 * sigma))
    found: dict[str, list[Rows]] = {}
    for image in images:
        noisy = image + sigma * torch.randn((_DRAWS, *image.shape), generator=draw)
        plain = frozen.encoded(noisy)
        through = {"nothing": plain, "mapper": mapper(plain, sigma)}
        if frozen.denoiser is not None:
            purified = frozen.seen(noisy, sigma)
            through |= {"purifier": purified, "both": mapper(purified, sigma)}
        for variant, features in through.items():
            found.setdefault(variant, []).append(unit_rows(features.numpy()))
    return {variant: np.stack(rows) for variant, rows in found.items()}


def _measured(rows: Rows, clean: _Clean, sigma: float) -> dict[str, float]:
    means = rows.mean(axis=1)
    squares = (means**2).sum(axis=1)
    m = np.sqrt(np.clip((_DRAWS * squares - 1) / (_DRAWS - 1), 0, 1))  # E||mean||^2 = m^2 + (1 - m^2)/draws
    scores = np.clip((1 + (means * clean.features).sum(axis=1)) / 2, 0, 1)
    found = {"m": round(float(m.mean()), 4), "score": round(float(scores.mean()), 4)}
    for radius in RADII:
        ratio = radius / sigma
        found[f"cosine_{radius}"] = round(float(np.mean(cosine.exact(m, ratio))), 4)
        found[f"paper_cosine_{radius}"] = round(float(np.mean(cosine.gaussian_score_bound(scores, ratio))), 4)
    return found | _utility(means, clean)


def _utility(means: Rows, clean: _Clean) -> dict[str, float]:
    directions = unit_rows(means.astype(np.float32))
    nearest = (directions @ clean.features.T).argmax(axis=1)
    count = len(means)
    between = directions @ directions.T
    alike = (between.sum() - np.trace(between)) / max(1, count * (count - 1))
    found = {"retrieval": _percent(nearest == np.arange(count)), "alike": round(float(alike), 4)}
    if clean.prototypes is not None:
        found["prototypes"] = _percent((directions @ clean.prototypes.T).argmax(axis=1) == clean.labels)
    return found


def _rows(encode: Callable[[Tensor], Tensor], images: Tensor) -> Rows:
    return np.concatenate([unit_rows(encode(part).numpy()) for part in torch.split(images, _BATCH)])


def _percent(right: npt.NDArray[np.bool_]) -> float:
    return round(100 * float(right.mean()), 2)
