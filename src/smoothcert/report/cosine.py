"""Pictures of runs that encode: certified cosine against the radius, and how long the features are."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from smoothcert import analysis
from smoothcert.analysis import settings
from smoothcert.analysis.cosine import OURS, PAPER, CertifiedCosines
from smoothcert.errors import InvalidInput
from smoothcert.report.canvas import FAINT, INK, PALETTE, Paths, look, save, targets
from smoothcert.runlog.results import Results

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_POINTS = 101
_WIDTH, _HEIGHT, _LINE = 6.4, 3.6, 0.165  # inches
_MARKERS = "os^DvPX"
_FEW = 1  # runs whose legend fits into the plot
_EXTRA = 2  # lines of a legend beside those of the runs
_DASHED = (0, (4, 2))

Attacked = Mapping[str, Sequence[tuple[float, float]]]
"""For a run's name, pairs (radius, mean attacked cosine)."""


def cosine_curve(
    results: Iterable[Results],
    paths: Paths,
    *,
    title: str = "Certified cosine of the features",
    max_radius: float | None = None,
    attacked: Attacked | None = None,
) -> tuple[Any, ...]:
    """Draw the mean certified cosine against the radius.

    Ours solid with its middle 80 % of images, the paper's bound dashed, and, where given, the cosines that
    the best attack found as crosses above them.

    Args:
        results: runs that encode, one colour each.
        paths: one file or several, ending in .png or .svg.
        title: above the plot. max_radius: right end; by default where the last bound reaches 0.
        attacked: attacked cosines by the name of the run.

    Raises:
        InvalidInput: no runs, a run that certifies something else, or a path of another kind.
    """
    files = targets(paths)
    runs = sorted(results, key=lambda run: (run.sigma is None, run.sigma))
    if not runs:
        raise InvalidInput("no runs", "there is nothing to draw", "Pass what open_runs returned")
    right = max_radius or max(_reach(run) for run in runs)
    rows = [analysis.certified_cosines(run, np.linspace(0.0, right, _POINTS)) for run in runs]
    with look():
        save(_curve_figure(rows, title, attacked or {}), files, title=title)
    return files


def length_histogram(
    results: Iterable[Results], paths: Paths, *, title: str = "Length of the smoothed features"
) -> tuple[Any, ...]:
    """Draw how the certified lengths m of the features are distributed over the images, one outline a run.

    Arguments and errors as for ``cosine_curve``.
    """
    files = targets(paths)
    runs = sorted(results, key=lambda run: (run.sigma is None, run.sigma))
    if not runs:
        raise InvalidInput("no runs", "there is nothing to draw", "Pass what open_runs returned")
    rows = [analysis.certified_cosines(run, (0.0,)) for run in runs]
    with look():
        save(_length_figure(rows, title), files, title=title)
    return files


def _reach(run: Results) -> float:
    """Where the bound of 90 % of the images is 0."""
    features = [outcome.feature for outcome in run.outcomes if outcome.feature is not None]
    found = [float(feature.radius(1e-3)) for feature in features]
    return 1.05 * float(np.quantile(found, 0.9)) if found and max(found) > 0.0 else (run.sigma or 1.0)


def _curve_figure(rows: Sequence[CertifiedCosines], title: str, attacked: Attacked) -> Figure:
    figure, axes = _canvas(rows, title)
    labels = _labels(rows)
    for number, row in enumerate(rows):
        colour, values = PALETTE[number % len(PALETTE)], row.bounds[OURS]
        low, high = np.quantile(values, (0.1, 0.9), axis=0)
        axes.fill_between(row.radii, low, high, color=colour, alpha=0.14, linewidth=0)
        style: dict[str, Any] = {"color": colour, "marker": _MARKERS[number % len(_MARKERS)], "markersize": 5}
        every = (5 + 3 * number, 20)
        mean, field = values.mean(axis=0), row.bounds[PAPER].mean(axis=0)
        axes.plot(row.radii, mean, linewidth=1.7, markevery=every, label=labels[number], **style)
        axes.plot(row.radii, field, linewidth=1.1, linestyle=_DASHED, color=colour)
        pairs = attacked.get(row.run.name, ())
        if pairs:
            axes.plot(*zip(*pairs, strict=True), linestyle="none", marker="x", markersize=7, color=colour)
    axes.plot([], [], linewidth=1.1, linestyle=_DASHED, color=INK, label="the paper's bound (FCSB)")
    if any(attacked.get(row.run.name) for row in rows):
        axes.plot([], [], linestyle="none", marker="x", color=INK, label="best attack found")
    axes.set_xlim(0.0, row.radii[-1])
    axes.set_ylim(0.0, 1.02)
    axes.set_xlabel("radius (L2, pixels in [0, 1])")
    axes.set_ylabel("certified cosine")
    _legend(figure, axes, len(rows))
    return figure


def _length_figure(rows: Sequence[CertifiedCosines], title: str) -> Figure:
    figure, axes = _canvas(rows, title)
    labels = _labels(rows)
    low = min(float(row.m.min()) for row in rows)
    bins = np.linspace(max(0.0, low - 0.02), 1.0, 31).tolist()
    for number, row in enumerate(rows):
        colour = PALETTE[number % len(PALETTE)]
        weights = np.full(len(row.m), 100.0 / len(row.m))
        outline: dict[str, Any] = {"weights": weights, "color": colour}
        axes.hist(row.m, bins, histtype="stepfilled", alpha=0.14, **outline)
        axes.hist(row.m, bins, histtype="step", linewidth=1.7, label=labels[number], **outline)
    axes.set_xlabel("m, lower bound on the length of the smoothed feature")
    axes.set_ylabel("share of the images (%)")
    axes.set_xlim(float(bins[0]), 1.0)
    _legend(figure, axes, len(rows))
    return figure


def _labels(rows: Sequence[CertifiedCosines]) -> list[str]:
    facts = settings.differing([row.run for row in rows])
    found = []
    for row in rows:
        said = [read(row.run) for _, read in facts]
        whole = "; ".join([f"\N{GREEK SMALL LETTER SIGMA} = {settings.sigma(row.run)}", *said])
        few = len(rows) <= _FEW
        found.append(textwrap.fill(textwrap.shorten(whole, 130), 46) if few else textwrap.shorten(whole, 100))
    return found


def _canvas(rows: Sequence[CertifiedCosines], title: str) -> tuple[Figure, Axes]:
    """An empty frame, its title, and below it the legend of many runs and what was measured."""
    from matplotlib.figure import Figure

    runs = [row.run for row in rows]
    caption = textwrap.wrap(" ".join([settings.shared(runs), *settings.warnings(runs)]), 104)
    key = _LINE * (len(rows) + _EXTRA) + 0.1 if len(rows) > _FEW else 0.0
    below = 0.62 + _LINE * len(caption) + key
    height = _HEIGHT + below
    figure = Figure(figsize=(_WIDTH, height))
    axes = figure.add_axes((0.72 / _WIDTH, below / height, (_WIDTH - 0.9) / _WIDTH, (_HEIGHT - 0.4) / height))
    axes.set_title(title, fontsize=12, loc="left", pad=8)
    axes.grid(color=FAINT, linewidth=0.6)
    axes.set_axisbelow(True)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    figure.text(0.12 / _WIDTH, 0.1 / height, "\n".join(caption), fontsize=7.5, va="bottom", linespacing=1.35)
    return figure, axes


def _legend(figure: Figure, axes: Axes, runs: int) -> None:
    """Inside the plot for few runs; below it, where it covers nothing, for many."""
    if runs <= _FEW:
        axes.legend(fontsize=7.5, framealpha=0.85, edgecolor=FAINT, loc="best")
        return
    height = figure.get_figheight()
    top = axes.get_position().y0 - 0.44 / height
    figure.legend(fontsize=7.5, frameon=False, loc="upper left", bbox_to_anchor=(0.6 / _WIDTH, top))
