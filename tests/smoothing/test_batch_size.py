"""The batch size on an accelerator: found by trying, halved where memory ends."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import smoothcert as sc
from smoothcert.errors import OutOfMemory, UnknownName
from smoothcert.smoothing.batch_size import GROWTH, LEAST, batch_for, largest_batch
from smoothcert.smoothing.network import default_batch
from smoothcert.smoothing.noise import make_noise


class Device:
    """Evaluates up to ``room`` draws at once."""

    def __init__(self, room: int, error: type[Exception] = torch.cuda.OutOfMemoryError) -> None:
        self.room, self.error, self.tried = room, error, list[int]()

    def __call__(self, size: int) -> None:
        self.tried.append(size)
        if size > self.room:
            raise self.error("CUDA out of memory")


@pytest.mark.parametrize("room", range(2, 3000, 7))
def test_the_largest_size_of_the_ladder_that_fits_is_found(room: int) -> None:
    device = Device(room)
    found = largest_batch(device, 256, 1024)
    ladder = [2, 4, 8, 16, 32, 64, 128, 256, 512, 1024]
    assert found == max(size for size in ladder if size <= room)
    assert max(device.tried) <= 1024


def test_a_size_that_failed_is_not_tried_again() -> None:
    device = Device(100)
    assert largest_batch(device, 256, 1024) == 64
    assert device.tried == [256, 128, 64]


@pytest.mark.parametrize("error", [torch.cuda.OutOfMemoryError, MemoryError])
def test_a_device_without_room_is_named(error: type[Exception]) -> None:
    with pytest.raises(OutOfMemory, match="not even the smallest"):
        largest_batch(Device(1, error), 256, 1024)


def test_sizes_between_powers_of_two_never_fall_below_two() -> None:
    assert largest_batch(Device(2), 3, 12) == LEAST
    assert largest_batch(Device(3), 3, 12) == 3


def test_what_the_network_itself_says_of_memory_counts_too() -> None:
    def try_batch(size: int) -> None:
        if size > 32:
            raise OutOfMemory("batches", "too large", "less")

    assert largest_batch(try_batch, 128, 512) == 32


def test_other_errors_end_the_search() -> None:
    def try_batch(size: int) -> None:
        raise UnknownName("a", "b", "c")

    with pytest.raises(UnknownName):
        largest_batch(try_batch, 128, 512)
    with pytest.raises(RuntimeError, match="shapes"):
        largest_batch(lambda size: torch.ones(2, 3) @ torch.ones(2, 3), 128, 512)


def test_on_a_processor_nothing_is_tried() -> None:
    noise = make_noise("grid", 0.5, 255)
    image = noise.prepare(np.zeros((3, 32, 32), dtype=np.uint8))
    smoothed = sc.SmoothedClassifier(lambda images: pytest.fail("asked"), 0.5)
    assert batch_for(smoothed, image, noise, seed=0) == default_batch((3, 32, 32)) == 32


def test_an_accelerator_is_tried_with_real_draws(monkeypatch: pytest.MonkeyPatch) -> None:
    """The device is a stand-in that has room for 300 draws; draws, network and answers are real."""
    sizes: list[int] = []

    def classifier(images: torch.Tensor) -> torch.Tensor:
        sizes.append(len(images))
        if len(images) > 300:
            raise torch.cuda.OutOfMemoryError("CUDA out of memory")
        return images.flatten(1)[:, :3]

    smoothed = sc.SmoothedClassifier(classifier, 0.5)
    monkeypatch.setattr("smoothcert.smoothing.batch_size.is_accelerator", lambda device: True)
    monkeypatch.setattr("smoothcert.smoothing.batch_size.default_batch", lambda shape, device: 128)
    noise = make_noise("grid", 0.5, 255)
    image = noise.prepare(np.full((1, 6, 6), 9, dtype=np.uint8))
    assert batch_for(smoothed, image, noise, seed=0) == 256
    assert max(sizes) == 512
    assert GROWTH == 4


@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_on_cuda_a_device_that_is_nearly_full_gets_smaller_batches() -> None:
    noise = make_noise("grid", 0.5, 255)
    image = noise.prepare(np.zeros((3, 32, 32), dtype=np.uint8))
    layers = torch.nn.Sequential(torch.nn.Conv2d(3, 512, 3), torch.nn.Flatten(), torch.nn.LazyLinear(4))
    layers(torch.zeros(2, 3, 32, 32))
    smoothed = sc.SmoothedClassifier(layers, 0.5, device="cuda")
    roomy = batch_for(smoothed, image, noise, seed=0)
    free, _ = torch.cuda.mem_get_info()
    taken = torch.empty(free - 2**29, dtype=torch.uint8, device="cuda")
    assert batch_for(smoothed, image, noise, seed=0) < roomy
    del taken
