"""Where a batch is computed: here and now on a CPU, on one of two streams ("lanes") on a CUDA device.

Threads draw noise, copy it and ask the networks at the same time; on an accelerator at most ``LANES`` of them
are on the device at once. So one batch is transferred and launched while another computes, however many
threads draw noise, and the memory needed is that of ``LANES`` batches: a freed tensor's memory is reused on
the stream it was made on, and there are no more streams than lanes.
"""

from __future__ import annotations

import queue
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor

from smoothcert.errors import OutOfMemory

LANES = 2


def is_accelerator(device: str) -> bool:
    """Whether a device computes beside the processor that draws the noise."""
    return not device.startswith("cpu")


class Lanes:
    """The way onto a device and back.

    Args:
        device: as torch names it.
        make: device -> stream; enter: stream -> context in which work goes to it. Others only in tests.
    """

    def __init__(
        self,
        device: str,
        *,
        make: Callable[[str], Any] | None = None,
        enter: Callable[[Any], AbstractContextManager[Any]] | None = None,
    ) -> None:
        self.device = device
        self._streams = device.startswith("cuda") or make is not None
        self._make: Callable[[str], Any] = make or torch.cuda.Stream
        self._enter: Callable[[Any], AbstractContextManager[Any]] = enter or torch.cuda.stream
        self._free: queue.SimpleQueue[Any] = queue.SimpleQueue()
        for _ in range(LANES if self._streams else 0):
            self._free.put(None)  # a stream is made when a batch first needs it

    def __reduce__(self) -> tuple[type[Lanes], tuple[str]]:
        """Streams stay where they are; a model sent to another process gets its own there."""
        return type(self), (self.device,)

    @contextmanager
    def lane(self) -> Iterator[None]:
        """Wait for a free stream and work on it until all that was asked there is done; on a CPU, go on."""
        if not self._streams:
            yield
            return
        stream = self._free.get()
        try:
            stream = stream if stream is not None else self._make(self.device)
            with self._enter(stream):
                yield
                stream.synchronize()  # what leaves a lane may be read on any other
        finally:
            self._free.put(stream)

    def sendable(self, noisy: npt.NDArray[np.float32]) -> Tensor:
        """The batch where a copy to the device can run by itself: in page-locked memory, for CUDA."""
        host = torch.from_numpy(noisy)
        return host.pin_memory() if self.device.startswith("cuda") else host

    def sent(self, host: Tensor) -> Tensor:
        """The batch on the device; the copy is queued on the lane, and page-locked memory outlives it."""
        return host.to(self.device, non_blocking=True)

    def settle(self) -> None:
        """Wait until the weights that were just moved are there: lanes do not wait for other streams."""
        if self.device.startswith("cuda"):
            torch.cuda.synchronize(self.device)


def out_of_memory(error: BaseException) -> bool:
    """Whether torch or numpy failed for lack of memory, on a device or on the host."""
    if isinstance(error, torch.cuda.OutOfMemoryError | MemoryError):
        return True
    return isinstance(error, RuntimeError) and "can't allocate memory" in str(error)


@contextmanager
def memory_errors(device: str, batch: int) -> Iterator[None]:
    """Say in words what to do when a batch does not fit.

    Raises:
        OutOfMemory: instead of what torch or numpy raised.
    """
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not out_of_memory(error):
            raise
        raise OutOfMemory(
            f"batches of {batch} draws on {device}",
            "there is not enough free memory for one; all finished batches of a run are stored",
            "Free memory and run the same command to continue, or start a new run with "
            f"--batch {max(2, batch // 2)} (batch={max(2, batch // 2)})",
        ) from error
