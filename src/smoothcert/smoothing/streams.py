"""Named noise streams: a pure function of (seed, example, stage, draw index), by a counter-based generator.

Philox 4x64 maps a 256-bit counter to 256 random bits by a bijection chosen by a 128-bit key. The counter
holds (block of the draw, step, example, stage), the key (seed, purpose): two streams with different names
never use the same counter under the same key, so they are disjoint by construction, and a draw is the same
whatever batch, chunk, worker or machine asks for it.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from smoothcert.errors import InvalidInput

STAGES = {
    "selection": 1,
    "estimation": 2,
    "prediction": 3,
    "check": 4,
    "picture": 5,
    "calibration": 6,
    "reference": 7,
    "sketch": 8,
    "attack": 9,  # the noise an attacker sees
    "attack_start": 20,
    "judge": 21,  # fresh noise around an attacked image, which no attacker has seen
    "judge_clean": 22,
}
PURPOSES = {"smoothing": 0, "sampler": 1}
_WORDS = 4  # 64-bit words in one block of Philox


class Segment(NamedTuple):
    """Draws ``first .. first + draws - 1`` of one stage of one example."""

    example: int
    stage: str
    first: int
    draws: int


def words(
    seed: int, segment: Segment, per_draw: int, *, purpose: str = "smoothing", step: int = 0
) -> npt.NDArray[np.uint64]:
    """The random 64-bit words of some draws: shape ``(count, per_draw)``.

    Args:
        seed: 0 <= seed < 2^64.
        segment: whose draws.
        per_draw: words used by each draw; must be the same for every call about one image shape.
        purpose: ``"smoothing"`` for the noise of the certificate, ``"sampler"`` for inside a denoiser.
        step: sub-stream within a draw, for samplers that draw several times.
    """
    check_seed(seed)
    blocks = -(-per_draw // _WORDS)
    counter = np.array(
        [segment.first * blocks, step, segment.example, STAGES[segment.stage]], dtype=np.uint64
    )
    key = np.array([seed, PURPOSES[purpose]], dtype=np.uint64)
    raw = np.random.Philox(key=key, counter=counter).random_raw(segment.draws * blocks * _WORDS)
    drawn: npt.NDArray[np.uint64] = raw.reshape(segment.draws, blocks * _WORDS)[:, :per_draw]
    return drawn


def is_whole(value: Any) -> bool:
    """Whether a value is a whole number; ``True`` and ``False`` are not."""
    return isinstance(value, int | np.integer) and not isinstance(value, bool)


def check_seed(seed: Any) -> None:
    """Refuse what names no stream; ``InvalidInput``."""
    if not is_whole(seed) or not 0 <= seed < 2**64:
        raise InvalidInput(
            f"seed = {seed!r}",
            "a seed is a whole number that names a stream by 64 bits",
            "Write 0 <= seed < 2**64",
        )


def normals(
    seed: int, segment: Segment, shape: tuple[int, ...], *, purpose: str, step: int = 0
) -> npt.NDArray[np.float64]:
    """Standard normal float noise ``(count, *shape)``: the quantile of a 53-bit uniform number, one a word.

    A fixed number of words a value keeps the draws independent of batching, which rejection methods do not.
    """
    from scipy.special import ndtri

    drawn = words(seed, segment, int(np.prod(shape)), purpose=purpose, step=step)
    uniform = ((drawn >> np.uint64(11)).astype(np.float64) + 0.5) * 2.0**-53
    quantiles: npt.NDArray[np.float64] = ndtri(uniform).reshape(segment.draws, *shape)
    return quantiles
