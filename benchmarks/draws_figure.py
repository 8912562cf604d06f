"""The figure of docs/how-many-samples.md: draws that each rule takes, by how safe an image is.

Run: python benchmarks/draws_figure.py LOGS OUT.png OUT.svg
Above, the mean number of draws of simulated images whose true radius is given; below, where the 10,000 images
of a published CIFAR-10 log (sigma 0.25) lie. Above, the strongest rival takes 0.7 of the votes that miss.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.figure import Figure
from matplotlib.ticker import FuncFormatter
from published import Floats, Images, N, images_of_log, votes
from replay import draws_read, replay
from scipy.special import ndtr, ndtri

from smoothcert.report.canvas import INK, PALETTE, look, save
from smoothcert.runlog.specification import RuleSpec

SIGMA, RIVAL, EACH = 0.25, 0.7, 1_000
RADII = (0.0, 0.25, 0.5, 0.75)
SPAN = (-0.14, 1.0)
GREY = "#777777"
LINES = (  # rule, name, colour, style, where the name stands with the mean over the images below
    ("curve:0.02", "curve", PALETTE[2], "-.", (0.225, 33_000)),
    ("table:0,0.25,0.5,0.75,1", "table", PALETTE[0], "-", (SPAN[1], 4_300)),
    ("radius:0.5", "radius:0.5", PALETTE[1], "--", (SPAN[1], 310)),
)


def draws(rule: str, images: Images) -> Floats:
    """Draws that each image takes."""
    rng = np.random.default_rng(0)
    design = RuleSpec.settle("certify", stop=rule).design(alpha=0.001, sigma=SIGMA, noise_error=0.0)
    pilot = votes(images, (1_000,), rng)
    return replay(design, images.label, pilot, votes(images, draws_read(design, pilot), rng)).draws.astype(
        float
    )


def images_at(radius: Floats) -> Images:
    """``EACH`` images of every true radius."""
    top = np.repeat(ndtr(radius / SIGMA), EACH)
    b = np.minimum(RIVAL * (1.0 - top), 0.999 * top)
    c = np.minimum(0.6 * (1.0 - top - b), b)
    p = np.stack([top, b, c, 1.0 - top - b - c], axis=1)
    return Images("made up", SIGMA, p, np.zeros(len(top), dtype=np.int64))


def draw(logs: Path, targets: list[Path]) -> None:
    real = images_of_log(next(logs.glob("consistency/*0.25.tsv")), np.random.default_rng(0))
    near = [r + np.linspace(-0.02, 0.04, 25) for r in RADII]
    radius = np.unique(np.concatenate([np.linspace(*SPAN, 115), *near]))
    made_up = images_at(radius)
    with look():
        figure = Figure(figsize=(7.6, 6.0), layout="constrained")
        above, below = figure.subplots(2, 1, sharex=True, height_ratios=(3.0, 1.0))
        for rule, name, colour, style, (x, y) in LINES:
            mean = draws(rule, made_up).reshape(len(radius), EACH).mean(axis=1)
            above.plot(radius, mean, style, color=colour, lw=2.2)
            average = f"{float(f'{draws(rule, real).mean():.2g}'):,.0f}"
            above.text(x, y, f"{name}: {average}", color=colour, ha="right", va="center", fontsize=11)
        above.axhline(N, color=INK, lw=2.2)
        _dress(above)
        _histogram(below, SIGMA * ndtri(real.p[:, 0]))
        for axes, top in ((above, 0.92), (below, 0.82)):
            axes.spines[["top", "right"]].set_visible(False)
            axes.tick_params(labelsize=11)
            for r in RADII:
                axes.axvline(r, 0.0, top, color=GREY, lw=0.8, ls=":", zorder=0)
        save(figure, targets, title="Draws an image under each stopping rule")


def _dress(axes: Any) -> None:
    axes.set_yscale("log")
    axes.set_ylim(22, 230_000)
    axes.yaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:,.0f}"))
    axes.set_ylabel("draws an image, mean", fontsize=12)
    axes.text(SPAN[1], N * 1.15, "fixed: 100,000", color=INK, ha="right", fontsize=11)


def _histogram(axes: Any, radius: Floats) -> None:
    further = int((radius > SPAN[1]).sum())
    axes.hist(radius[radius <= SPAN[1]], bins=np.arange(-0.14, 0.98, 0.02), color=GREY)
    axes.set_ylim(0, 240)
    axes.set_ylabel("images", fontsize=12)
    axes.text(
        SPAN[1],
        232,
        f"{further:,} of the 10,000 lie further right \N{RIGHTWARDS ARROW}",
        ha="right",
        va="top",
        fontsize=11,
    )
    axes.set_xlim(*SPAN)
    axes.set_xticks([*RADII, 1.0], [*(f"{r:g}" for r in RADII), "1"])
    axes.set_xlabel("the image's true radius, sigma z(p_A), at sigma = 0.25", fontsize=12)


if __name__ == "__main__":
    if len(sys.argv) < 3:
        sys.exit("usage: python benchmarks/draws_figure.py LOGS OUT...")
    draw(Path(sys.argv[1]), [Path(name) for name in sys.argv[2:]])
