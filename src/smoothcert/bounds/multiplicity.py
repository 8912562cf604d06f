"""Alpha budgets: how one error probability is shared by several statements that must hold together."""

from __future__ import annotations

import math

from smoothcert.errors import InvalidInput


def check_alpha(alpha: float) -> float:
    """Return ``alpha`` if it is a usable error probability; ``InvalidInput`` outside (0, 1) or for NaN."""
    if not (isinstance(alpha, int | float) and 0.0 < alpha < 1.0):
        raise InvalidInput(
            f"alpha = {alpha!r}",
            "an error probability must lie strictly between 0 and 1",
            "Write for example alpha=0.001 for 99.9 % confidence",
        )
    return float(alpha)


def split_alpha(alpha: float, parts: int) -> float:
    """With bounds at the returned level each, all ``parts`` hold together with probability >= 1 - alpha.

    Union bound; the quotient is rounded down so that ``parts`` times it never exceeds ``alpha``.
    """
    if parts < 1:
        raise InvalidInput(
            f"parts = {parts!r}", "alpha is shared by at least one statement", "Write parts >= 1"
        )
    share = check_alpha(alpha) / parts
    return math.nextafter(share, 0.0) if parts > 1 else share
