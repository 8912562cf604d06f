"""Weights into a network: all of them and no others."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from smoothcert.errors import CheckpointError


def fill(network: nn.Module, state: Mapping[str, Tensor], name: str) -> nn.Module:
    """Put weights into a network, all of them and no others, and return it ready to use.

    Counts of batches that old files leave out (``num_batches_tracked``) change no answer and may be missing.

    Raises:
        CheckpointError: weights of another architecture, or numbers that are not finite.
    """
    broken = [key for key, tensor in state.items() if not torch.isfinite(tensor).all()]
    if broken:
        why = f"{_some(broken)} holds numbers that are not finite"
        raise CheckpointError(f"model {name!r}", why, "Fetch or save the weights again")
    try:
        missing, unexpected = network.load_state_dict(dict(state), strict=False)
    except RuntimeError as error:
        shapes = str(error).splitlines()[1:2] or [str(error)]
        raise _misfit(name, shapes[0].strip()) from error
    missing = [key for key in missing if not key.endswith("num_batches_tracked")]
    if missing or unexpected:
        raise _misfit(name, f"missing: {_some(missing)}; not of this network: {_some(unexpected)}")
    return network.eval().requires_grad_(False)


def _some(names: list[str]) -> str:
    shown = ", ".join(names[:4]) or "nothing"
    return shown if len(names) <= 4 else f"{shown} and {len(names) - 4} more"


def _misfit(name: str, why: str) -> CheckpointError:
    found = f"the weights are not of this architecture ({why})"
    return CheckpointError(f"model {name!r}", found, "Name the architecture they were saved from")
