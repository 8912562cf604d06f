"""Certificates for heads argmax_c <F(x), t_c>: prototypes, zero-shot classes, a linear layer (THEORY 3.9).

Notation: A the class claimed; for a rival B, w = (t_A - t_B) / ||t_A - t_B||. The head's answer is A
wherever <w, F(x + delta)> > 0 for every rival. Neither rule needs a share of alpha for each rival: the radius
certified is the smallest over the rivals, so it exceeds the true one only if the bound of the rival with the
smallest true radius fails, and which rival that is does not depend on the draws.

The vote of single noisy labels (``gaussian.certify`` on their counts) certifies another classifier: the most
frequent answer, not the answer of the mean feature. It often reaches farther.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from smoothcert.certificates.pilot import Family, choose
from smoothcert.certificates.testfunction import TestFunction
from smoothcert.errors import InvalidInput

__all__ = ["Decision", "Family", "TestFunction", "baseline_ratio", "choose", "directions", "dual_ratio"]

Array = npt.NDArray[np.float64]


@dataclass(frozen=True)
class Decision:
    """With probability at least 1 - alpha, the head answers ``label`` within ``radius`` of the image.

    Attributes:
        rule: ``"votes"`` speaks of the most frequent answer of single draws, ``"margin"`` and ``"dual"`` of
            the answer for the mean feature F.
        label: ``None`` for an abstention. radius: L2 on pixels in [0, 1], rounded down; 0 for an abstention.
        facts: plain numbers behind it.
    """

    rule: Literal["votes", "margin", "dual"]
    label: int | None
    radius: float
    facts: dict[str, Any] = field(default_factory=dict)


def directions(prototypes: npt.ArrayLike, label: int) -> Array:
    """Unit vectors (t_A - t_B) / ||t_A - t_B||, ``(C - 1, k)``, for prototypes ``(C, k)``, rivals in order.

    Raises:
        InvalidInput: fewer than two prototypes, a label that is none of them, or a rival with the same one.
    """
    rows = np.asarray(prototypes, dtype=np.float64)
    if rows.ndim != 2 or not 0 <= label < len(rows) or len(rows) < 2 or not np.isfinite(rows).all():
        raise InvalidInput(
            f"label {label!r} with prototypes of shape {rows.shape}",
            "a head needs a finite row for each of two or more classes, and answers with one of them",
            "Pass prototypes (C, k) and a label from 0 to C - 1",
        )
    gaps = rows[label] - np.delete(rows, label, axis=0)
    lengths = np.sqrt((gaps * gaps).sum(axis=1, keepdims=True))
    if not (lengths > 1e-12 * (1.0 + np.abs(rows).max())).all():
        raise InvalidInput(
            f"class {label} and a rival with the same prototype",
            "no feature is nearer to one than to the other",
            "Give every class its own prototype",
        )
    return np.asarray(gaps / lengths)


def baseline_ratio(s_lowers: Sequence[float] | Array, *, noise_error: float = 0.0) -> float:
    """If <w, F(x)> >= s for every rival, the head's answer is constant up to the returned ratio.

    min_B Phi^-1((1 + s_B) / 2), rounded down; 0 where a bound is not positive. ``noise_error``: total
    variation distance of the drawn noise, for which s was bounded and the claim holds too.
    Source: THEORY 3.9 (the scalar <w, f> in [-1, 1] under a Gaussian shift).
    """
    from scipy.special import ndtri

    lowers = _lowers(s_lowers) - 2.0 * noise_error
    z = ndtri(np.clip(0.5 * (1.0 + lowers), 0.0, 1.0 - 1e-16))
    ratio = float(z.min()) - float(ndtri(0.5 + noise_error)) - 1e-12
    return max(0.0, ratio) if float(lowers.min()) > 0.0 else 0.0


def dual_ratio(
    functions: Sequence[TestFunction], lowers: Sequence[float] | Array, *, noise_error: float = 0.0
) -> float:
    """If E q(f) >= lower at x for every rival's test function, the answer is constant up to the result.

    The smallest over the rivals of the largest ratio that ``TestFunction.certifies``. With
    ``noise_error`` e the bounds may be for the drawn noise (E q moves by at most its range times e) and the
    claim holds for it too (a margin of 2 e is kept, at multiples of q by 1/4 and more). Source: THEORY 3.9.
    """
    bounds = _lowers(lowers)
    if len(functions) != len(bounds):
        raise InvalidInput(
            f"{len(functions)} test functions and {len(bounds)} bounds",
            "every rival has one of each",
            "Pass them in the same order",
        )
    paid = [
        float(low) - noise_error * (8.0 + q.highest - q.lowest)
        for q, low in zip(functions, bounds, strict=True)
    ]
    found: float | None = None
    for q, low in sorted(zip(functions, paid, strict=True), key=lambda pair: pair[1]):
        if found is None or not (found > 0.0 and q.certifies(low, found)):
            ratio = q.ratio(low)
            found = ratio if found is None else min(found, ratio)
    return found or 0.0


def _lowers(values: Sequence[float] | Array) -> Array:
    lowers = np.asarray(values, dtype=np.float64).reshape(-1)
    if not lowers.size or not np.isfinite(lowers).all():
        raise InvalidInput(
            f"{lowers.size} bounds",
            "a head has at least one rival, and a finite bound for each",
            "Pass them all",
        )
    return lowers
