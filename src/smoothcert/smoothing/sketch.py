"""A random subspace for an image's covariance sketch: named like its noise, and independent of it."""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import numpy.typing as npt

from smoothcert.smoothing.streams import Segment, normals


@lru_cache(maxsize=128)  # more than the images under way of a usual run; a basis of 768 x 64 takes 0.4 MB
def basis(seed: int, example: int, dimension: int, size: int) -> npt.NDArray[np.float64] | None:
    """Orthonormal columns ``(dimension, size)`` of a uniformly random subspace; ``None`` for all of it."""
    if dimension <= size:
        return None
    drawn = normals(seed, Segment(example, "sketch", 0, 1), (dimension, size), purpose="smoothing")[0]
    found: npt.NDArray[np.float64] = np.linalg.qr(drawn)[0]
    return found
