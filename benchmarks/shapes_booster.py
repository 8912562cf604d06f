"""A booster for the vision tower of a SHAPES model: a small denoiser, then a mapper of its nine tokens.

python benchmarks/shapes_booster.py MODEL OUT [--sigmas 0.1,0.5]

MODEL is what ``shapes_model.py`` wrote. Writes OUT/denoiser (``denoisers.load``) and OUT/mapper
(``encoders.mapper.load``), both made on images composed of the cells of the training images; the figures are
of validation images. With ``--plain`` the mapper is trained without a denoiser, to OUT/plain.
"""

from __future__ import annotations

import argparse
import shlex
import sys
from pathlib import Path

import numpy as np
import shapes_data as shapes
from shapes_attack import tower

from smoothcert import denoisers
from smoothcert.datasets import ArrayDataset
from smoothcert.training import Trained, train_booster, train_edm_denoiser

COMPOSED = 4096


def training_images(seed: int = 0) -> ArrayDataset:
    """The 640 training images and composed ones; no labels."""
    given = shapes.read("train").images
    composed, _ = shapes.Maker(given).images(COMPOSED, np.random.default_rng(seed))
    images = np.concatenate([given, composed])
    return ArrayDataset(images, [0] * len(images), levels=255, name="shapes:composed")


def validation_images() -> ArrayDataset:
    """Those of the published validation split."""
    images = shapes.read("val").images
    return ArrayDataset(images, [0] * len(images), levels=255, name="shapes:val")


def train_parts(model: str, out: Path, sigmas: tuple[float, float], *, plain: bool, threads: int) -> Trained:
    """The denoiser, where it is not there yet, and the mapper behind it; or a mapper behind nothing."""
    data, command = training_images(), shlex.join(["python", *sys.argv])
    if not plain and not (out / "denoiser" / "card.toml").exists():
        train_edm_denoiser(
            data, out / "denoiser", steps=1_500, channels=(16, 32, ), blocks=1, typical_sigma=0.25,
            flip=False, threads=threads, command=command,
        )  # fmt: skip
    return train_booster(
        tower(model), data, out / ("plain" if plain else "mapper"), sigmas=sigmas,
        denoiser=None if plain else denoisers.load(str(out / "denoiser")), steps=3_000, rounds=5,
        batch_size=32, learning_rate=1e-3, width=96, held_out=validation_images(), threads=threads,
        command=command,
    )  # fmt: skip


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("model")
    parser.add_argument("out", type=Path)
    parser.add_argument("--sigmas", default="0.1,0.5")
    parser.add_argument("--plain", action="store_true")
    parser.add_argument("--threads", type=int, default=1)
    given = parser.parse_args()
    low, high = (float(part) for part in given.sigmas.split(","))
    done = train_parts(given.model, given.out, (low, high), plain=given.plain, threads=given.threads)
    for name, value in done.figures.items():
        print(f"{name}: {value}")
