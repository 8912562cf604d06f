"""The batch size of a run on an accelerator: found by trying, before the first draw, then fixed.

On a CPU it is a function of the image size alone (``network.default_batch``): there memory is not what limits
it. On a device it starts there, grows while batches fit, and shrinks where they do not.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor

import torch

from smoothcert.errors import OutOfMemory
from smoothcert.smoothing.classifier import SmoothedClassifier
from smoothcert.smoothing.encoder import SmoothedEncoder
from smoothcert.smoothing.lanes import LANES, is_accelerator, out_of_memory
from smoothcert.smoothing.network import default_batch
from smoothcert.smoothing.noise import Noise, Prepared
from smoothcert.smoothing.streams import Segment

LEAST = 2  # a batch of one rounds differently from all others
GROWTH = 4  # times the usual size: beyond it a device is busy anyway, and draws in flight are draws too many
_TRIED_FROM = 2 * 10**6  # draws of the check stream, which no certificate uses


def largest_batch(try_batch: Callable[[int], object], start: int, limit: int) -> int:
    """The largest of start, 2 start, ... up to ``limit`` that fits; of start/2, ... if start does not.

    Args:
        try_batch: evaluates batches of a size, and raises ``OutOfMemory`` or torch's own error if it cannot.

    Raises:
        OutOfMemory: not even ``LEAST`` draws fit. Whatever else ``try_batch`` raises is passed on.
    """
    size = start
    while not _fits(try_batch, size):
        if size <= LEAST:
            why = "not even the smallest batch fits into its memory"
            raise OutOfMemory("this device", why, "Free its memory, or choose a smaller model or a CPU")
        size = max(LEAST, size // 2)
    while size >= start and 2 * size <= limit and _fits(try_batch, 2 * size):
        size *= 2
    return size


def batch_for(
    smoothed: SmoothedClassifier | SmoothedEncoder, image: Prepared, noise: Noise, *, seed: int
) -> int:
    """The batch size for images like this one on the classifier's device."""
    device = smoothed.network.device
    usual = default_batch(image.shape, device)
    if not is_accelerator(device):
        return usual

    def try_batch(size: int) -> None:
        _evaluate(smoothed, image, noise, size, seed)

    return largest_batch(try_batch, usual, GROWTH * usual)


def _evaluate(
    smoothed: SmoothedClassifier | SmoothedEncoder, image: Prepared, noise: Noise, size: int, seed: int
) -> None:
    """As many batches at a time as a run will have on the device, and once more: allocators keep pieces."""

    def answers(number: int) -> None:
        segment = Segment(0, "check", _TRIED_FROM + number * size, size)
        smoothed.answers([(image, segment)], seed=seed, batch=size, noise=noise)

    with ThreadPoolExecutor(LANES) as pool:
        list(pool.map(answers, range(2 * LANES)))


def _fits(try_batch: Callable[[int], object], size: int) -> bool:
    try:
        try_batch(size)
    except (OutOfMemory, RuntimeError, MemoryError) as error:
        if not (isinstance(error, OutOfMemory) or out_of_memory(error)):
            raise
    else:
        return True
    if torch.cuda.is_available():
        torch.cuda.empty_cache()  # what the failed trial left behind would count as taken
    return False
