"""Exact Gaussian noise on the integer grid of images with levels {0, ..., L} / L (8-bit: L = 255).

Since round(x + e) = x + round(e) for x on the grid, adding a rounded Gaussian integer is exactly Gaussian
smoothing of the model composed with rounding, and every theorem about Gaussian smoothing holds unchanged.
No float addition ever sees the image, so its low-order bits cannot leak it. Source: THEORY 4; Voracek and
Hein 2023; Jin et al. 2022.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np
import numpy.typing as npt

from smoothcert.bounds.discretisation import BITS, half_width


@lru_cache(maxsize=64)
def thresholds(sigma: float, levels: int) -> npt.NDArray[np.int64]:
    """T_k = floor(2^62 Phi((k + 1/2) / (L sigma))) for |k| <= K = ceil(9.5 L sigma), as 2K + 1 integers.

    The rounded noise is <= k exactly when a uniform 62-bit integer is < T_k. Evaluated to 40 digits; the
    upper half is the exact complement of the lower one.
    """
    import mpmath

    reach = half_width(sigma, levels)
    with mpmath.workdps(40):
        scale = levels * mpmath.mpf(sigma)
        scaled = [mpmath.ldexp(mpmath.ncdf(-(k + mpmath.mpf(0.5)) / scale), BITS) for k in range(reach + 1)]
        below = [int(mpmath.floor(value)) for value in scaled]  # T_{-k-1}
        above = [2**BITS - int(mpmath.ceil(value)) for value in scaled]  # T_k
    table = np.array([*reversed(below[:reach]), *above], dtype=np.int64)
    table.flags.writeable = False
    return table


def rounded_gaussian(drawn: npt.NDArray[np.uint64], sigma: float, levels: int) -> npt.NDArray[np.int32]:
    """Turn uniform 64-bit words into rounded Gaussian integers, in grey levels, of the same shape.

    A table over the leading bits answers all words whose cell holds no threshold; the others are searched.
    """
    table, cells = thresholds(sigma, levels), _cells(sigma, levels)
    words = drawn.reshape(-1)
    leading = words >> np.uint64(64 - _cell_bits(len(table)))
    noise: npt.NDArray[np.int32] = cells.take(leading.view(np.int64)).astype(np.int32)
    unsure = np.flatnonzero(noise == _UNSURE)
    exact = (words[unsure] >> np.uint64(64 - BITS)).astype(np.int64)
    noise[unsure] = np.searchsorted(table, exact, side="right") - len(table) // 2
    return noise.reshape(drawn.shape)


_UNSURE = np.iinfo(np.int32).min


def _cell_bits(count: int) -> int:
    """Leading bits looked at: enough that few cells hold a threshold, few enough to stay in the cache."""
    return min(max(count.bit_length() + 5, 12), 17)


@lru_cache(maxsize=64)
def _cells(sigma: float, levels: int) -> npt.NDArray[np.int32]:
    """Noise by leading bits of the word; ``_UNSURE`` where a threshold lies inside the cell."""
    table = thresholds(sigma, levels)
    bits = _cell_bits(len(table))
    width = 2 ** (BITS - bits)
    first = np.arange(2**bits, dtype=np.int64) * width
    low = np.searchsorted(table, first, side="right")
    high = np.searchsorted(table, first + (width - 1), side="right")
    cells = np.where(low == high, low - len(table) // 2, _UNSURE).astype(np.int32)
    cells.flags.writeable = False
    return cells
