"""Half precision is another base classifier: it is recorded, it stays finite, and it is sound."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor, nn

import smoothcert as sc
from smoothcert.certificates import gaussian
from smoothcert.errors import SpecificationMismatch, UnknownName
from smoothcert.runlog.reading import describe
from smoothcert.runlog.store import open_run


def smoothed(precision: str, sigma: float = 0.5) -> sc.SmoothedClassifier:
    return sc.SmoothedClassifier(
        sc.classifiers.load("digits"), sigma, denoiser=sc.denoisers.load("digits"), precision=precision
    )


def test_an_unknown_precision_is_refused() -> None:
    with pytest.raises(UnknownName, match="float32"):
        smoothed("fp8")


def test_products_are_made_in_bfloat16_and_nothing_else_is() -> None:
    seen: list[tuple[torch.dtype, torch.dtype]] = []

    class Watching(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = nn.Linear(64, 3)

        def forward(self, images: Tensor) -> Tensor:
            scores: Tensor = self.linear(images.flatten(1))
            seen.append((images.dtype, scores.dtype))
            return scores

    for precision in ("float32", "bf16-mixed"):
        network = sc.SmoothedClassifier(Watching(), 0.5, precision=precision).network
        network.labels(np.zeros((4, 1, 8, 8), dtype=np.float32))
    assert seen == [(torch.float32, torch.float32), (torch.float32, torch.bfloat16)]


def test_precision_belongs_to_the_run(tmp_path: Path) -> None:
    data = sc.datasets.load("digits:test[:6]")
    sc.certify(smoothed("bf16-mixed"), data, tmp_path / "half", n0=20, n=60)
    sc.certify(smoothed("float32"), data, tmp_path / "full", n0=20, n=60)
    half, full = (open_run(tmp_path / name).specification for name in ("half", "full"))
    assert (half.execution.dtype, full.execution.dtype) == ("bf16-mixed", "float32")
    assert half.identity() != full.identity()
    assert describe(half).endswith("bf16-mixed")
    assert "float32" not in describe(full)
    with pytest.raises(SpecificationMismatch, match="dtype"):
        sc.certify(smoothed("float32"), data, tmp_path / "half", n0=20, n=60)


def test_the_votes_of_both_precisions_nearly_agree_and_are_finite() -> None:
    image = sc.datasets.load("digits:test[:1]")[0].image
    votes = [
        sc.SmoothedClassifier(
            sc.classifiers.load("digits"), 0.5, denoiser=sc.denoisers.load("digits"), levels=16, precision=p
        )
        .certify(image, n0=50, n=1000, example=3)
        .votes
        for p in ("float32", "bf16-mixed")
    ]
    assert [v.nonfinite for v in votes] == [0, 0]
    moved = sum(abs(votes[0].count(label) - votes[1].count(label)) for label in range(10)) / 2
    assert moved <= 20, "more than 2 % of the single answers changed"


def test_a_linear_classifier_in_half_precision_is_never_certified_beyond_its_own_boundary() -> None:
    """Its weights and inputs are rounded; what is certified is that rounded classifier's radius."""

    class HalfPlane(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.linear = nn.Linear(64, 2)
            direction = torch.zeros(64)
            direction[0] = 1.0
            self.linear.weight = nn.Parameter(torch.stack([direction, -direction]))
            self.linear.bias = nn.Parameter(torch.tensor([-0.5, 0.5]))

        def forward(self, images: Tensor) -> Tensor:
            scores: Tensor = self.linear(images.flatten(1))
            return scores

    image = np.full((1, 8, 8), 128, dtype=np.uint8)
    image[0, 0, 0] = 204  # 0.8: 0.3 from the boundary
    g = sc.SmoothedClassifier(HalfPlane(), 0.25, precision="bf16-mixed")
    radii = [g.certify(image, n0=20, n=1000, alpha=0.01, example=k).radius for k in range(40)]
    slack = 2**-8  # bfloat16 keeps 8 bits of 0.8 and 0.5
    assert max(radii) <= 0.3 + slack
    assert np.mean(radii) > 0.2
    assert gaussian.certify.__doc__
