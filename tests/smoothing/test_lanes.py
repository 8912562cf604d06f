"""What happens on the way to a device and back. Streams are torch's where there is CUDA, else stand-ins."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import smoothcert as sc
from smoothcert.errors import InvalidInput, ModelOutputError, OutOfMemory
from smoothcert.smoothing.lanes import LANES, Lanes, memory_errors

NOISY = np.random.default_rng(0).random((6, 1, 4, 4)).astype(np.float32)
cuda = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")


class Stream:
    """A stand-in that knows how many threads are on it and whether it was waited for."""

    def __init__(self) -> None:
        self.users, self.waited = 0, 0

    def synchronize(self) -> None:
        self.waited += 1


@contextmanager
def entered(stream: Stream) -> Iterator[None]:
    stream.users += 1
    assert stream.users == 1, "two threads on one stream"
    yield
    stream.users -= 1


def test_threads_share_two_streams_and_no_more_are_made() -> None:
    made: list[Stream] = []
    inside: list[int] = []
    now, lock = 0, threading.Lock()

    def make(device: str) -> Stream:
        made.append(Stream())
        return made[-1]

    lanes = Lanes("cuda:0", make=make, enter=entered)

    def work(_: int) -> None:
        nonlocal now
        with lanes.lane():
            with lock:
                now += 1
                inside.append(now)
            time.sleep(0.002)
            with lock:
                now -= 1

    with ThreadPoolExecutor(6) as pool:
        list(pool.map(work, range(60)))
    assert max(inside) == LANES, "both are used, and at most so many threads are on the device"
    assert len(made) == LANES
    assert sum(stream.waited for stream in made) == 60


def test_a_lane_is_given_back_when_its_batch_fails() -> None:
    lanes = Lanes("cuda:0", make=lambda device: Stream(), enter=lambda stream: _nothing())
    for _ in range(3 * LANES):  # more often than there are lanes: a lost one would end in a wait for ever
        with pytest.raises(ZeroDivisionError), lanes.lane():
            raise ZeroDivisionError


@contextmanager
def _nothing() -> Iterator[None]:
    yield


def test_a_processor_has_no_streams_and_no_page_locked_memory() -> None:
    lanes = Lanes("cpu", enter=lambda stream: pytest.fail("a stream on a CPU"))
    with lanes.lane(), lanes.lane(), lanes.lane():
        host = lanes.sendable(NOISY)
        assert not host.is_pinned()
        assert lanes.sent(host).data_ptr() == host.data_ptr(), "nothing is copied"
    lanes.settle()


@pytest.mark.parametrize(
    "error",
    [
        torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB"),
        RuntimeError("[enforce fail at alloc_cpu.cpp:127] . DefaultCPUAllocator: can't allocate memory"),
        MemoryError(),
    ],
)
def test_out_of_memory_says_that_nothing_is_lost_and_what_to_write(error: Exception) -> None:
    def classifier(images: Tensor) -> Tensor:
        raise error

    network = sc.SmoothedClassifier(classifier, 0.5).network
    with pytest.raises(OutOfMemory, match=r"6 draws on cpu.*stored.*--batch 3"):
        network.labels(NOISY)


def test_other_errors_of_a_model_are_left_alone() -> None:
    with pytest.raises(RuntimeError, match="shapes"), memory_errors("cpu", 4):
        raise RuntimeError("mat1 and mat2 shapes cannot be multiplied")


def test_a_real_allocation_beyond_all_memory_is_named() -> None:
    def classifier(images: Tensor) -> Tensor:
        return torch.empty(2**60, dtype=torch.uint8)[None]

    with pytest.raises(OutOfMemory):
        sc.SmoothedClassifier(classifier, 0.5).network.labels(NOISY)


@pytest.mark.parametrize("label", [-1, -7])
def test_a_negative_label_is_refused_and_not_taken_for_a_broken_answer(label: int) -> None:
    def classifier(images: Tensor) -> Tensor:
        return torch.tensor([0, 1, label, 3, 4, 5])

    network = sc.SmoothedClassifier(classifier, 0.5).network
    with pytest.raises(ModelOutputError, match=f"label {label}"):
        network.labels(NOISY)


def test_half_precision_is_refused_on_a_processor() -> None:
    with pytest.raises(InvalidInput, match="bf16-mixed"):
        sc.SmoothedClassifier(sc.classifiers.load("digits"), 0.5, precision="fp16-mixed")


class Small(nn.Module):
    """A convolution and a linear layer behind a normalisation, with fixed weights."""

    def __init__(self) -> None:
        super().__init__()
        with torch.random.fork_rng():
            torch.manual_seed(0)
            self.layers = nn.Sequential(nn.Conv2d(1, 8, 3), nn.ReLU(), nn.Flatten(), nn.Linear(32, 4))

    def forward(self, images: Tensor) -> Tensor:
        scores: Tensor = self.layers(images)
        return scores


@cuda
@pytest.mark.parametrize("precision", ["float32", "bf16-mixed", "fp16-mixed"])
def test_on_cuda_many_threads_get_the_answers_of_one(precision: str) -> None:
    network = sc.SmoothedClassifier(Small(), 0.5, device="cuda", precision=precision).network
    batches = [np.random.default_rng(k).random((64, 1, 4, 4)).astype(np.float32) for k in range(40)]
    alone = [network.labels(batch) for batch in batches]
    with ThreadPoolExecutor(6) as pool:
        together = list(pool.map(network.labels, batches))
    assert all(np.array_equal(a, b) for a, b in zip(alone, together, strict=True))


@cuda
def test_on_cuda_nothing_waits_inside_a_batch() -> None:
    """Denoiser, preprocessing, classifier and the check for finite numbers only queue work."""
    from smoothcert.classifiers.labels import Reordered
    from smoothcert.classifiers.pretrained import PretrainedClassifier
    from smoothcert.networks.preprocessing import Preprocessing

    head = nn.Sequential(nn.Conv2d(1, 8, 3), nn.Flatten(), nn.Linear(8 * 14 * 14, 10))
    prepared = Preprocessing((0.5,), (0.25,), size=(16, 16), channels=1)
    names = tuple("0123456789")
    inner = PretrainedClassifier(head, prepared, kind="test", class_count=10, classes=names)
    smoothed = sc.SmoothedClassifier(inner, 0.5, denoiser=sc.denoisers.load("digits"), device="cuda")
    network = smoothed.network
    images = torch.rand(32, 1, 8, 8, device="cuda")
    answers = Reordered(inner, range(9, -1, -1))
    with torch.inference_mode():
        answers(network.denoised(images, None))  # constants are copied to the device once
        torch.cuda.set_sync_debug_mode("error")
        try:
            clean = network.denoised(images, None)
            answers(clean)
            sc.smoothing.finite.finite_rows(clean)
        finally:
            torch.cuda.set_sync_debug_mode("default")
