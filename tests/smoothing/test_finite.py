"""The check for finite numbers: as strict as asking every number, for every type, place and layout."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from torch import Tensor

import smoothcert as sc
from smoothcert.smoothing.finite import finite_rows

SHAPES = ((5, 3), (4, 1, 8, 8), (3, 3, 7, 5), (2, 3, 33, 31))
TYPES = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
BROKEN = (math.nan, math.inf, -math.inf)


def asked_of_every_number(values: Tensor) -> Tensor:
    """The definition."""
    return torch.isfinite(values).flatten(1).all(dim=1)


@pytest.mark.parametrize("dtype", TYPES, ids=str)
@pytest.mark.parametrize("broken", BROKEN)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_one_broken_number_is_found_at_every_place(
    shape: tuple[int, ...], broken: float, dtype: torch.dtype
) -> None:
    numbers = math.prod(shape[1:])
    generator = torch.Generator().manual_seed(0)
    sound = torch.randn(shape[1:], generator=generator).to(dtype)
    # One image for every place: the number there is broken, and nothing else.
    planted = sound.flatten().repeat(numbers, 1)
    planted.fill_diagonal_(broken)
    rows = torch.cat([planted.view(numbers, *shape[1:]), sound[None]])
    for layout in (rows, rows.to(memory_format=torch.channels_last) if len(shape) == 4 else rows):
        found = finite_rows(layout)
        assert not found[:-1].any()
        assert found[-1]


@pytest.mark.parametrize("dtype", TYPES, ids=str)
def test_infinities_of_both_signs_do_not_cancel(dtype: torch.dtype) -> None:
    rows = torch.zeros(3, 40, dtype=dtype)
    rows[0, [3, 30]] = torch.tensor([math.inf, -math.inf], dtype=dtype)
    rows[1, [3, 17, 30]] = torch.tensor([-math.inf, math.nan, math.inf], dtype=dtype)
    assert finite_rows(rows).tolist() == [False, False, True]


@pytest.mark.parametrize("dtype", TYPES, ids=str)
def test_finite_numbers_whose_sum_overflows_are_no_false_alarm(dtype: torch.dtype) -> None:
    most = torch.finfo(dtype).max
    rows = torch.full((3, 3, 8, 8), most, dtype=dtype)
    rows[1] = -most
    rows[2, 0] = -most  # largest minus smallest overflows too
    assert finite_rows(rows).all()


def test_it_agrees_with_the_definition_on_random_bit_patterns() -> None:
    """Every 32-bit pattern is a number, subnormal ones and NaNs of all kinds among them."""
    bits = np.random.default_rng(1).integers(0, 2**32, size=(20_000, 12), dtype=np.uint32)
    rows = torch.from_numpy(bits.view(np.float32))
    assert torch.equal(finite_rows(rows), asked_of_every_number(rows))
    assert 0 < finite_rows(rows).sum() < len(rows)


@pytest.mark.parametrize("dtype", [torch.int64, torch.uint8, torch.bool, torch.complex64], ids=str)
def test_other_types_are_asked_number_by_number(dtype: torch.dtype) -> None:
    rows = torch.ones(3, 2, 4, 4).to(dtype)
    if dtype == torch.complex64:
        rows[1, 0, 0, 0] = complex(0.0, math.nan)
    assert torch.equal(finite_rows(rows), asked_of_every_number(rows))


@pytest.mark.parametrize("broken", BROKEN)
def test_a_broken_score_or_pixel_is_no_vote(broken: float) -> None:
    """Through the whole network, for scores and for labels: exactly the rows that hold a broken number."""
    noisy = np.random.default_rng(2).random((8, 1, 4, 4)).astype(np.float32)
    pixels, scores = torch.zeros(8, 1, 4, 4), torch.zeros(8, 3)
    pixels[2, 0, 3, 1], scores[5, 2] = broken, broken

    def denoiser(images: Tensor, sigma: float) -> Tensor:
        return images + pixels

    def scored(images: Tensor) -> Tensor:
        return torch.stack([images.flatten(1).nan_to_num(0, 0, 0).sum(1)] * 3, dim=1) + scores

    def labelled(images: Tensor) -> Tensor:
        return torch.arange(8)

    found = sc.SmoothedClassifier(scored, 0.5, denoiser=denoiser).network.labels(noisy)
    assert found.tolist() == [0, 0, -1, 0, 0, -1, 0, 0]
    found = sc.SmoothedClassifier(labelled, 0.5, denoiser=denoiser).network.labels(noisy)
    assert found.tolist() == [0, 1, -1, 3, 4, 5, 6, 7]
