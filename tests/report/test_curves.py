"""The curve as a file: the right steps, the right words, the same bytes every time."""

from __future__ import annotations

import re
import subprocess
import sys
import xml.etree.ElementTree as ET
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image

from smoothcert import report
from smoothcert.errors import InvalidInput
from smoothcert.runlog.results import Outcome, Results

SIGMA = "\N{GREEK SMALL LETTER SIGMA}"
RUN = Results(
    "runs/0.5",
    (Outcome(0, 1, 1, 0.5), Outcome(1, 1, 1, 1.0), Outcome(2, 1, 2, 2.0), Outcome(3, 1, None, 0.0)),
    0.5,
    0.001,
    100,
    1000,
    description="digits: net",
)


def words(path: Path) -> str:
    return " ".join(element.text or "" for element in ET.parse(path).iter() if element.tag.endswith("}text"))


def test_writes_png_and_svg_and_nothing_else(tmp_path: Path) -> None:
    wanted = (tmp_path / "curve.png", tmp_path / "curve.svg")
    assert report.curve([RUN], wanted) == wanted
    assert sorted(tmp_path.iterdir()) == sorted(wanted)
    with Image.open(wanted[0]) as image:
        assert image.format == "PNG"
        assert min(image.size) > 900


def test_says_what_was_measured(tmp_path: Path) -> None:
    report.curve([RUN, replace(RUN, sigma=1.0)], tmp_path / "c.svg")
    said = words(tmp_path / "c.svg")
    for fact in (
        f"{SIGMA} = 0.5",
        f"{SIGMA} = 1",
        "L2 radius",
        "digits: net",
        "4 images",
        "n = 1,000",
        "alpha = 0.001",
        "95 %",
    ):
        assert fact in said


def test_marks_post_hoc_incomplete_and_differing_runs(tmp_path: Path) -> None:
    odd = replace(RUN, sigma=1.0, alpha=0.05, alpha_post_hoc=True, planned=100)
    report.curve([RUN, odd], tmp_path / "c.svg")
    said = words(tmp_path / "c.svg")
    for fact in ("0.05 (post hoc)", "4 of 100", "Incomplete", "differ in more than sigma"):
        assert fact in said


def test_line_steps_down_just_after_each_radius(tmp_path: Path) -> None:
    """2 of 4 images up to .5, 1 of 4 up to 1, then nothing: five corners, from 50 % to 25 % to 0."""
    report.curve([RUN], tmp_path / "c.svg", max_radius=2.0)
    drawn = re.findall(
        r'd="(M [^"]*)" clip-path="[^"]*" style="fill: none; stroke: #0072b2',
        (tmp_path / "c.svg").read_text(),
    )
    numbers = [float(number) for number in re.findall(r"-?\d+\.?\d*", drawn[0])]
    xs, ys = numbers[0::2], numbers[1::2]
    left, right, bottom, top = xs[0], xs[-1] + (xs[-1] - xs[0]), ys[-1], ys[-1] - 2 * (ys[-1] - ys[0])
    corners = [
        (round((x - left) / (right - left) * 2, 3), round((bottom - y) / (bottom - top) * 100, 1))
        for x, y in zip(xs, ys, strict=True)
    ]
    assert list(dict.fromkeys(corners)) == [(0.0, 50.0), (0.5, 50.0), (0.5, 25.0), (1.0, 25.0), (1.0, 0.0)]


def test_same_content_gives_the_same_bytes(tmp_path: Path) -> None:
    for name in ("a", "b"):
        report.curve([RUN], [tmp_path / f"{name}.png", tmp_path / f"{name}.svg"])
    for kind in ("png", "svg"):
        assert (tmp_path / f"a.{kind}").read_bytes() == (tmp_path / f"b.{kind}").read_bytes()
    assert "date" not in (tmp_path / "a.svg").read_text().lower()


@pytest.mark.parametrize("name", ["$x_1^$", "<script>alert(1)</script> & co", "\\frac{a}{b} $", "100 % {}"])
def test_what_users_wrote_is_printed_as_it_is(tmp_path: Path, name: str) -> None:
    report.curve([replace(RUN, description=name)], [tmp_path / "c.svg", tmp_path / "c.png"], title=name)
    assert words(tmp_path / "c.svg").count(name) == 2


def test_a_run_that_certifies_nothing_is_drawn(tmp_path: Path) -> None:
    report.curve([Results("run", (Outcome(0, 1, None, 0.0),), 0.5)], tmp_path / "c.png")
    assert (tmp_path / "c.png").is_file()


@pytest.mark.parametrize("path", ["c.pdf", "c", "c.svgz"])
def test_other_endings_are_refused_before_anything_is_written(tmp_path: Path, path: str) -> None:
    with pytest.raises(InvalidInput, match="PNG or SVG"):
        report.curve([RUN], [tmp_path / "c.png", tmp_path / path])
    assert not list(tmp_path.iterdir())


def test_nothing_to_draw_is_refused(tmp_path: Path) -> None:
    with pytest.raises(InvalidInput, match="nothing to draw"):
        report.curve([], tmp_path / "c.png")
    with pytest.raises(InvalidInput, match="no certified radii"):
        report.curve([Results("p", (Outcome(0, 1, 1, None),))], tmp_path / "c.png")
    with pytest.raises(InvalidInput, match=r"\(none\)"):
        report.curve([RUN], [])


def test_drawing_leaves_no_global_state(tmp_path: Path) -> None:
    code = (
        "import sys, matplotlib\n"
        "matplotlib.rcParams['axes.facecolor'] = 'red'\n"
        "def state():  # asking for the backend would itself load pyplot\n"
        "    return {k: matplotlib.rcParams[k] for k in matplotlib.rcParams if not k.startswith('backend')}\n"
        "before = state()\n"
        "from smoothcert import report\n"
        "from smoothcert.runlog.results import Outcome, Results\n"
        f"report.curve([Results('r', (Outcome(0, 1, 1, 1.0),), .5)], {str(tmp_path / 'c.svg')!r})\n"
        "assert state() == before and 'matplotlib.pyplot' not in sys.modules\n"
        "assert '#ff0000' not in open(sys.argv[1]).read()\n"
    )
    subprocess.run([sys.executable, "-c", code, str(tmp_path / "c.svg")], check=True)


def test_radii_decided_one_by_one_are_points_with_intervals(tmp_path: Path) -> None:
    """A grid has no radii between its points, so neither a band nor marks may suggest them."""
    outcomes = tuple(Outcome(k, 0, 0 if k < 8 else None, 0.25 if k < 5 else 0.0, draws=64) for k in range(10))
    run = Results(
        "r", outcomes, sigma=0.25, alpha=0.001, n0=0, n=500, stop="table:0,0.25,9", radii=(0.0, 0.25, 9.0)
    )
    report.curve([run], tmp_path / "grid.svg")
    report.curve([replace(run, radii=())], tmp_path / "whole.svg")
    grid, whole = ((tmp_path / f"{name}.svg").read_text() for name in ("grid", "whole"))
    assert "LineCollection" in grid, "the intervals"
    assert "FillBetween" not in grid
    assert "FillBetween" in whole
    assert "LineCollection" not in whole
