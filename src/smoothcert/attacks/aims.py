"""What an attacker on a smoothed model can want of the mean F(x + delta): functions ``(B, k) -> (B,)``."""

from __future__ import annotations

import torch
from torch import Tensor

from smoothcert.attacks.expectation import Aim

_TINY = 1e-30


def cosines(one: Tensor, other: Tensor) -> Tensor:
    """Row by row; 0 where a row has no direction."""
    lengths = torch.linalg.vector_norm(one, dim=1) * torch.linalg.vector_norm(other, dim=1)
    found: Tensor = (one * other).sum(dim=1) / lengths.clamp_min(_TINY)
    return found


def away(reference: Tensor) -> Aim:
    """Turn the feature away from these ones ``(B, k)``: untargeted."""
    return lambda mean: -cosines(mean, reference)


def towards(target: Tensor) -> Aim:
    """Turn the feature to these ones ``(B, k)``: another image's feature, a prototype."""
    return lambda mean: cosines(mean, target)


def across(prototypes: Tensor, labels: Tensor, targets: Tensor | None = None) -> Aim:
    """Carry <F, t_c> for some c != label (or the target) above <F, t_label>: against a prototype head.

    ``prototypes`` is ``(C, k)``, ``labels`` and ``targets`` ``(B,)``. Measured along unit directions
    (t_c - t_A) / ||t_c - t_A||, as the certificates of such a head do.
    """

    def aim(mean: Tensor) -> Tensor:
        apart = prototypes[None] - prototypes[labels][:, None]
        distances = torch.linalg.vector_norm(apart, dim=2)
        margins: Tensor = torch.einsum("bck,bk->bc", apart, mean) / distances.clamp_min(_TINY)
        if targets is not None:
            return margins.gather(1, targets[:, None])[:, 0]
        strongest: Tensor = _without(margins, labels).amax(dim=1)
        return strongest

    return aim


def unlikely(labels: Tensor, targets: Tensor | None = None) -> Aim:
    """Of mean class probabilities ``(B, C)``: make the label improbable, or the target probable.

    log of the mean, as Salman et al. 2019 attack smoothed classifiers, with the strongest rival (or the
    target) against the label: the votes decide by which of two classes is ahead.
    """

    def aim(mean: Tensor) -> Tensor:
        logs = mean.clamp_min(_TINY).log()
        mine = logs.gather(1, labels[:, None])[:, 0]
        if targets is not None:
            return logs.gather(1, targets[:, None])[:, 0] - mine
        gap: Tensor = _without(logs, labels).amax(dim=1) - mine
        return gap

    return aim


def _without(values: Tensor, labels: Tensor) -> Tensor:
    own = torch.zeros_like(values, dtype=torch.bool).scatter(1, labels[:, None], True)
    rivals: Tensor = values.masked_fill(own, -torch.inf)
    return rivals
