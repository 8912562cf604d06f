"""Certified accuracy against the radius, one line per run: figure 2 of the DDS paper in kind."""

from __future__ import annotations

import textwrap
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from smoothcert import analysis
from smoothcert.analysis import settings
from smoothcert.analysis.proportion import CONFIDENCE
from smoothcert.errors import InvalidInput
from smoothcert.report.canvas import FAINT, INK, PALETTE, Paths, look, save, targets
from smoothcert.runlog.results import Results

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_WIDTH, _PLOT_HEIGHT = 6.4, 3.9  # inches
_LINE, _TOP, _BOTTOM, _LEFT, _RIGHT = 0.165, 0.42, 0.55, 0.72, 0.18  # a caption line, and the margins
_MARKERS = "os^DvPX"
_MARKS, _LABEL = 9, 46  # marks along a line; letters in a line of the legend
_FEW = 3  # lines whose legend fits into the plot
_KEY_LINE = 0.165  # inches a line of the legend below the plot


def curve(
    results: Iterable[Results],
    paths: Paths,
    *,
    title: str = "Certified accuracy",
    confidence: float = CONFIDENCE,
    max_radius: float | None = None,
) -> tuple[Path, ...]:
    """Draw certified accuracy as the exact step function of the radius, with its confidence band.

    A run that decided a grid of radii one by one is drawn as points with intervals at these radii.
    Colours are told apart by colour-blind readers, and each line has its own marks for grey print. A line
    ends where nothing is certified any more. Below the plot stands what was measured: data, images, n0, n,
    alpha, and whether alpha is post hoc or a run incomplete.

    Args:
        results: runs or imported logs, one line each.
        paths: one file or several, ending in .png or .svg; the same content gives the same bytes.
        title: above the plot, printed as it is.
        confidence: of the pointwise Clopper-Pearson band.
        max_radius: right end of the plot, L2 on pixels in [0, 1]; by default a little beyond the last jump.

    Returns:
        The files written.

    Raises:
        InvalidInput: no runs, a run without radii, or a path of another kind.
    """
    files = targets(paths)
    runs = sorted(results, key=lambda run: (run.sigma is None, run.sigma))
    if not runs:
        raise InvalidInput("no runs", "there is nothing to draw", "Pass what open_run or read_tsv returned")
    curves = [analysis.curve(run, confidence=confidence) for run in runs]
    with look():
        save(_figure(curves, title, confidence, max_radius), files, title=title)
    return files


def _figure(
    curves: Sequence[analysis.Curve], title: str, confidence: float, max_radius: float | None
) -> Figure:
    from matplotlib.figure import Figure

    caption = textwrap.wrap(_caption([c.run for c in curves], confidence), 104)
    text = _LINE * len(caption) + 0.1
    key = _KEY_LINE * len(curves) + 0.1 if len(curves) > _FEW else 0.0
    below = _BOTTOM + text + key
    height = _PLOT_HEIGHT + below
    figure = Figure(figsize=(_WIDTH, height))
    inside = (_WIDTH - _LEFT - _RIGHT) / _WIDTH, (_PLOT_HEIGHT - _TOP) / height
    axes = figure.add_axes((_LEFT / _WIDTH, below / height, *inside))
    last = max((r for c in curves for r in (*c.radii[-1:], *_decided(c))), default=0.0)
    _lines(axes, curves, (max_radius or 1.04 * last) or 1.0)
    _legend(figure, axes, (text + 0.05) / height if key else None)
    axes.set_title(title, fontsize=12, loc="left", pad=8)
    figure.text(0.12 / _WIDTH, 0.1 / height, "\n".join(caption), fontsize=7.5, va="bottom", linespacing=1.35)
    return figure


def _lines(axes: Axes, curves: Sequence[analysis.Curve], right: float) -> None:
    facts = settings.differing([c.run for c in curves])
    for i, c in enumerate(curves):
        said = [read(c.run) if n == settings.MODEL else f"{n} {read(c.run)}" for n, read in facts]
        label = "; ".join([f"\N{GREEK SMALL LETTER SIGMA} = {settings.sigma(c.run)}", *said])
        label = textwrap.fill(label, _LABEL) if len(curves) <= _FEW else textwrap.shorten(label, 110)
        style = {"color": PALETTE[i % len(PALETTE)], "marker": _MARKERS[i % len(_MARKERS)]}
        if c.run.radii:
            _points(axes, c, style, label, (i - (len(curves) - 1) / 2) * 0.008 * right)
        else:
            _line(axes, c, style, label, (right / _MARKS, (i + 0.5) / len(curves)))
    _frame(axes, right)


def _line(
    axes: Axes, c: analysis.Curve, style: dict[str, Any], label: str, marks: tuple[float, float]
) -> None:
    """One step line with its band and, every so often, its mark."""
    shares = [*c.shares[:1], *c.shares, c.beyond] if c.shares else [c.beyond]
    xs = [0.0, *c.radii, *c.radii[-1:]]
    low, high = [100 * s.lower for s in shares], [100 * s.upper for s in shares]
    # "pre": each value holds on the stretch that ends at its radius
    band = slice(None, -1) if c.shares else slice(None)
    axes.fill_between(
        xs[band], low[band], high[band], step="pre", color=style["color"], alpha=0.16, linewidth=0
    )
    values = [100 * s.value for s in shares]
    axes.plot(xs, values, drawstyle="steps-pre", color=style["color"], linewidth=1.7)
    step, phase = marks
    places = [r for k in range(_MARKS) if (r := step * (k + phase)) <= max(c.radii, default=0.0)]
    axes.plot(places, [100 * c.at(r).value for r in places], linestyle="none", markersize=5, **style)
    axes.plot([], [], linewidth=1.7, markersize=5, label=label, **style)  # the legend shows line and mark


def _decided(c: analysis.Curve) -> list[float]:
    """The radii that the run could decide one by one."""
    return [radius for radius in c.run.radii if radius not in c.run.out_of_reach]


def _points(axes: Axes, c: analysis.Curve, style: dict[str, Any], label: str, aside: float) -> None:
    """The radii that were decided, with their intervals; between them only the next smaller one is known."""
    radii = _decided(c)
    shares = [c.at(radius) for radius in radii]
    values = [100 * share.value for share in shares]
    errors = [
        [100 * (share.value - share.lower) for share in shares],
        [100 * (share.upper - share.value) for share in shares],
    ]
    places = [max(0.0, radius + aside) for radius in radii]
    steps = {"drawstyle": "steps-pre", "linewidth": 0.9, "linestyle": ":", "color": style["color"]}
    axes.plot(radii, values, **steps)
    drawn = axes.errorbar(
        places, values, yerr=errors, linestyle="none", markersize=6, capsize=3, label=label, **style
    )
    for part in (drawn.lines[0], *drawn.lines[1]):
        part.set_clip_on(False)  # radius 0 and 100 % lie on the frame


def _frame(axes: Axes, right: float) -> None:
    axes.set(xlim=(0.0, right), ylim=(0.0, 100.0))
    axes.set_xlabel("L2 radius, pixels in [0, 1]", fontsize=10)
    axes.set_ylabel("certified accuracy (%)", fontsize=10)
    axes.tick_params(labelsize=9)
    axes.grid(color=FAINT, linewidth=0.7)
    axes.set_axisbelow(True)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)


def _legend(figure: Figure, axes: Axes, bottom: float | None) -> None:
    """Inside the plot for a few lines; below it, where it covers nothing, for many."""
    how: dict[str, Any] = {"labelcolor": INK, "handlelength": 2.6, "edgecolor": FAINT}
    if bottom is None:
        axes.legend(fontsize=9, frameon=True, framealpha=0.9, **how)
    else:
        left = (_LEFT - 0.1) / _WIDTH
        figure.legend(fontsize=8, frameon=False, loc="lower left", bbox_to_anchor=(left, bottom), **how)


def _caption(runs: Sequence[Results], confidence: float) -> str:
    band = f"Certified accuracy with pointwise {confidence * 100:g} % Clopper-Pearson bands"
    return " ".join([f"{band}: {settings.shared(runs)}", *settings.warnings(runs)])
