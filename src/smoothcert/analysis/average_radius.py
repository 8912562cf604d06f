"""Average certified radius."""

from __future__ import annotations

import math

from smoothcert.errors import InvalidInput
from smoothcert.runlog.results import Results


def acr(results: Results) -> float:
    """Mean over the images of the certified radius, an image that is answered wrongly or not at all being 0.

    L2 on pixels in [0, 1]. Incomplete runs are averaged over the images that are finished.

    Raises:
        InvalidInput: no images, or predictions without radii.

    Source: Zhai et al. 2020 (MACER).
    """
    radii = [outcome.radius if outcome.correct else 0.0 for outcome in results.outcomes]
    known = [radius for radius in radii if radius is not None]
    if not radii or len(known) < len(radii) or any(outcome.radius is None for outcome in results.outcomes):
        raise InvalidInput(
            f"results of {results.name}",
            "have no certified radii to average",
            "Pass a certification run with at least one finished image",
        )
    return math.fsum(known) / len(known)
