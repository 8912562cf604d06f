"""Is every number of a row finite? Asked of every batch, so it must be as strict as it is cheap.

A row's largest and smallest number are found in one vectorised pass each, without the temporary tensors that
asking every number needs. Nothing is missed and nothing is reported wrongly:

- NaN: ``amax`` and ``amin`` return NaN where a row has one;
- +inf is the largest number of its row, -inf the smallest;
- both finite: every number lies between them. Nothing is added up, so large numbers cannot overflow into a
  false alarm, and infinities of both signs cannot cancel out.
"""

from __future__ import annotations

import torch
from torch import Tensor


def finite_rows(values: Tensor) -> Tensor:
    """``(B, ...)`` -> ``(B,)`` whether all of a row is finite; the device is not waited for."""
    if not values.is_floating_point():  # whole numbers always are; complex ones have no largest
        return torch.isfinite(values).flatten(1).all(dim=1)
    # Over the dimensions as they are: flattening would first copy a channels-last tensor.
    inner = tuple(range(1, values.ndim))
    return torch.isfinite(values.amax(inner)) & torch.isfinite(values.amin(inner))
