"""Preprocessing: as Pillow on clean 8-bit images, the same function continued on noisy ones, after the noise."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn

from smoothcert.classifiers import PretrainedClassifier
from smoothcert.errors import CheckpointError, InvalidInput
from smoothcert.networks.preprocessing import TOLERANCE, Preprocessing, confirm
from smoothcert.smoothing import SmoothedClassifier

FILTERS = {
    "nearest": Image.Resampling.NEAREST,
    "bilinear": Image.Resampling.BILINEAR,
    "bicubic": Image.Resampling.BICUBIC,
    "lanczos": Image.Resampling.LANCZOS,
}


def pixels(height: int, width: int, seed: int = 0) -> Any:
    generator = np.random.Generator(np.random.Philox(key=seed))
    return generator.integers(90, 170, (height, width, 3), dtype=np.uint8)  # no filter overshoots 0 or 255


def as_batch(array: Any) -> Tensor:
    return torch.from_numpy(np.array(array)).permute(2, 0, 1)[None].float() / 255


@pytest.mark.parametrize("interpolation", sorted(FILTERS))
@pytest.mark.parametrize("sizes", [((32, 32), (224, 224)), ((100, 75), (33, 40)), ((31, 57), (57, 31))])
def test_resizing_is_pillows(interpolation: str, sizes: tuple[tuple[int, int], tuple[int, int]]) -> None:
    before, after = sizes
    array = pixels(*before)
    theirs = as_batch(Image.fromarray(array).resize(after[::-1], FILTERS[interpolation]))
    ours = Preprocessing(size=after, interpolation=interpolation)(as_batch(array))
    assert float((ours - theirs).abs().max()) < TOLERANCE


def test_without_antialiasing_shrinking_is_another_function() -> None:
    array = pixels(100, 100)
    with_it, without = (
        Preprocessing(size=(30, 30), antialias=antialias)(as_batch(array)) for antialias in (True, False)
    )
    assert float((with_it - without).abs().max()) > 10 * TOLERANCE


@pytest.mark.parametrize(
    ("shape", "expected"), [((40, 60), (20, 30)), ((60, 41), (29, 20)), ((20, 99), (20, 99))]
)
def test_the_shorter_side_keeps_the_ratio(shape: tuple[int, int], expected: tuple[int, int]) -> None:
    found = Preprocessing(size=20)
    assert found(torch.zeros(1, 3, *shape)).shape[2:] == expected
    assert found.result((3, *shape)) == (3, *expected)


@pytest.mark.parametrize(("centre", "first"), [("floor", 1), ("round", 2)])
def test_the_centre_is_cut_out(centre: str, first: int) -> None:
    images = torch.arange(7.0).view(1, 1, 1, 7).expand(1, 3, 7, 7)
    found = Preprocessing(crop=(4, 4), centre=centre)(images)
    assert found[0, 0, 0].tolist() == [first, first + 1, first + 2, first + 3]
    padded = Preprocessing(crop=(9, 9), centre=centre)(images)
    assert padded[0, 0, 4].tolist() == [0, *range(7), 0]


def test_channels_are_normalised_each_by_its_own_numbers_and_in_its_order() -> None:
    images = torch.tensor([0.2, 0.4, 0.6]).view(1, 3, 1, 1)
    rgb = Preprocessing((0.1, 0.2, 0.3), (0.1, 0.2, 0.5))(images)
    assert torch.allclose(rgb.flatten(), torch.tensor([1.0, 1.0, 0.6]))
    bgr = Preprocessing((0.1, 0.2, 0.3), (0.1, 0.2, 0.5), order="bgr")(images)
    assert torch.allclose(bgr.flatten(), torch.tensor([5.0, 1.0, -0.2]))


def test_nothing_is_clipped_or_rounded() -> None:
    images = torch.tensor([[-3.0, 0.1234567], [0.5, 7.0]]).expand(1, 3, 2, 2)
    assert torch.equal(Preprocessing((0.0,), (1.0,))(images), images)
    larger = Preprocessing(size=(4, 4), interpolation="bicubic")(images)
    assert float(larger.max()) > 6
    assert float(larger.min()) < -2


def test_half_precision_is_prepared_in_single() -> None:
    images = torch.rand(2, 3, 8, 8, generator=torch.Generator().manual_seed(0)).bfloat16()
    found = Preprocessing((0.5,), (0.25,), size=(16, 16))
    assert torch.equal(found(images), found(images.float()))
    assert found(images.double()).dtype == torch.float64


def test_gradients_pass_for_attacks() -> None:
    images = torch.rand(1, 3, 8, 8, generator=torch.Generator().manual_seed(0)).requires_grad_()
    Preprocessing((0.5,), (0.25,), size=12, crop=(8, 8))(images).sum().backward()
    assert images.grad is not None
    assert bool((images.grad != 0).any())


def test_its_description_makes_it_again() -> None:
    found = Preprocessing(
        (0.5,), (0.25,), size=(3, 4), crop=(2, 2), order="bgr", grey="repeat", expects=(8, 8)
    )
    assert Preprocessing.from_plain(found.describe()) == found


@pytest.mark.parametrize(
    "change",
    [
        {"mean": (0.5, 0.5), "std": (1.0, 1.0)},
        {"mean": (0.5,)},
        {"mean": (0.5,), "std": (-1.0,)},
        {"mean": (float("inf"),), "std": (1.0,)},
        {"size": 0},
        {"crop": (0, 4)},
        {"interpolation": "magic"},
        {"order": "gbr"},
        {"grey": "maybe"},
    ],
)
def test_what_cannot_be_is_refused(change: dict[str, Any]) -> None:
    with pytest.raises(InvalidInput):
        Preprocessing(**change)


TRUE = Preprocessing(
    (0.485, 0.456, 0.406), (0.229, 0.224, 0.225), size=40, crop=(32, 32), interpolation="bicubic"
)


def theirs(image: Any) -> Tensor:
    """What a library does with Pillow for ``TRUE``."""
    scale = 40 / min(image.size)
    image = image.resize(tuple(int(side * scale) for side in image.size), Image.Resampling.BICUBIC)
    left, top = ((side - 32) // 2 for side in image.size)
    array = as_batch(image.crop((left, top, left + 32, top + 32)))[0]
    return (array - torch.tensor(TRUE.mean).view(3, 1, 1)) / torch.tensor(TRUE.std).view(3, 1, 1)


def test_the_true_preprocessing_is_confirmed() -> None:
    confirm(TRUE, theirs, "model")


@pytest.mark.parametrize(
    "change",
    [
        {"mean": TRUE.std, "std": TRUE.mean},
        {"mean": TRUE.mean[::-1]},
        {"std": TRUE.std[::-1]},
        {"mean": (0.5,) * 3},
        {"mean": (), "std": ()},
        {"interpolation": "bilinear"},
        {"interpolation": "nearest"},
        {"antialias": False},
        {"size": (40, 40)},
        {"size": 44},
        {"crop": (31, 31)},
        {"crop": None},
        {"order": "bgr"},
    ],
)
def test_any_other_is_found_out(change: dict[str, Any]) -> None:
    import dataclasses

    with pytest.raises(CheckpointError, match="its own processor differs"):
        confirm(dataclasses.replace(TRUE, **change), theirs, "model")


def test_the_noise_comes_before_the_resizing() -> None:
    """Noise on 8x8 pixels, then enlarged: neighbours of the enlarged image share it."""
    seen: list[Tensor] = []

    class Network(nn.Module):
        def forward(self, images: Tensor) -> Tensor:
            seen.append(images)
            return images.flatten(2).mean(dim=2)

    enlarged = Preprocessing(size=(16, 16), interpolation="nearest")
    classifier = PretrainedClassifier(Network(), enlarged, kind="test", class_count=3)
    shown: list[tuple[int, ...]] = []

    def denoiser(noisy: Tensor, sigma: float) -> Tensor:
        shown.append(tuple(noisy.shape[1:]))
        return noisy

    smoothed = SmoothedClassifier(classifier, 0.25, denoiser=denoiser)
    smoothed.certify(np.full((3, 8, 8), 100, np.uint8), n0=10, n=50)
    assert set(shown) == {(3, 8, 8)}
    for images in seen:
        assert images.shape[2:] == (16, 16)
        assert torch.equal(images[:, :, ::2, ::2], images[:, :, 1::2, 1::2])
    assert 0.2 < float(seen[0].std()) < 0.3
