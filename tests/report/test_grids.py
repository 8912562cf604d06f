"""Image grids: pixels as given, borders and signs as judged."""

from __future__ import annotations

import base64
import io
import re
import xml.etree.ElementTree as ET
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from smoothcert.errors import InvalidInput
from smoothcert.report import GridColumn, grid

GREEN, RED = (0, 130, 95), (196, 69, 0)
DIGIT = np.linspace(0.0, 1.0, 64).reshape(1, 1, 8, 8)


def pixels(path: Path) -> set[tuple[int, ...]]:
    with Image.open(path) as image:
        colours = image.convert("RGB").getcolors(1 << 24)
    assert colours is not None
    return {colour for count, colour in colours if count > 200 and isinstance(colour, tuple)}


def words(path: Path) -> list[str]:
    return [element.text or "" for element in ET.parse(path).iter() if element.tag.endswith("}text")]


def test_pixels_are_enlarged_without_smoothing(tmp_path: Path) -> None:
    two = np.zeros((1, 1, 8, 8))
    two[0, 0, :, 4:] = 1.0
    grid([GridColumn("", two)], tmp_path / "g.svg")
    embedded = re.findall(r"base64,([^\"]+)", (tmp_path / "g.svg").read_text())
    with Image.open(io.BytesIO(base64.b64decode(embedded[0]))) as image:
        values = np.asarray(image.convert("L"))
    assert set(np.unique(values)) == {0, 255}
    assert values[:, : values.shape[1] // 2 - 2].max() == 0
    assert values[:, values.shape[1] // 2 + 2 :].min() == 255


def test_rgb_keeps_its_channels(tmp_path: Path) -> None:
    image = np.zeros((1, 3, 8, 8))
    image[0, 0], image[0, 2] = 1.0, 0.2
    grid([GridColumn("", image)], tmp_path / "g.png")
    assert (255, 0, 51) in pixels(tmp_path / "g.png")


def test_noise_outside_the_scale_is_clipped_not_rescaled(tmp_path: Path) -> None:
    image = np.full((1, 1, 8, 8), 0.6)
    image[0, 0, 0, :4], image[0, 0, 0, 4:] = -3.0, 5.0
    grid([GridColumn("", image)], tmp_path / "g.png")
    assert {(153, 153, 153), (0, 0, 0), (255, 255, 255)} <= pixels(tmp_path / "g.png")


@pytest.mark.parametrize(("correct", "colour", "sign"), [(True, GREEN, "✓ seven"), (False, RED, "✗ seven")])
def test_border_and_sign_show_the_verdict(
    tmp_path: Path, correct: bool, colour: tuple[int, ...], sign: str
) -> None:
    grid([GridColumn("clean", DIGIT, ["seven"], [correct])], [tmp_path / "g.png", tmp_path / "g.svg"])
    assert ({GREEN, RED} & pixels(tmp_path / "g.png")) == {colour}
    assert sign in words(tmp_path / "g.svg")


def test_without_verdict_there_is_no_coloured_border(tmp_path: Path) -> None:
    grid([GridColumn("clean", DIGIT, ["seven"])], [tmp_path / "g.png", tmp_path / "g.svg"])
    assert not {GREEN, RED} & pixels(tmp_path / "g.png")
    assert words(tmp_path / "g.svg") == ["clean", "seven"]


def test_every_row_and_column_is_drawn_with_its_own_label(tmp_path: Path) -> None:
    images = np.repeat(DIGIT, 3, axis=0)
    columns = [
        GridColumn(name, images, [f"{name}{i}" for i in range(3)], [True, False, None]) for name in "abcd"
    ]
    grid(columns, tmp_path / "g.svg", title="$t_1$ & <b>", caption="what it shows")
    said = words(tmp_path / "g.svg")
    assert {"a", "b", "c", "d", "$t_1$ & <b>", "what it shows"} <= set(said)
    assert {f"✓ {n}0" for n in "abcd"} | {f"✗ {n}1" for n in "abcd"} | {f"{n}2" for n in "abcd"} <= set(said)
    assert (tmp_path / "g.svg").read_text().count("<image") == 12


def test_same_content_gives_the_same_bytes(tmp_path: Path) -> None:
    for name in ("a", "b"):
        grid([GridColumn("x", DIGIT, ["1"], [True])], [tmp_path / f"{name}.png", tmp_path / f"{name}.svg"])
    for kind in ("png", "svg"):
        assert (tmp_path / f"a.{kind}").read_bytes() == (tmp_path / f"b.{kind}").read_bytes()


@pytest.mark.parametrize(
    ("columns", "why"),
    [
        ([], "nothing to draw"),
        ([GridColumn("a", np.zeros((0, 1, 8, 8)))], "nothing to draw"),
        ([GridColumn("a", np.zeros((1, 8, 8)))], r"shape \(1, 8, 8\)"),
        ([GridColumn("a", np.zeros((1, 8, 8, 3)))], "1 or 3"),
        ([GridColumn("a", DIGIT), GridColumn("b", np.zeros((2, 1, 8, 8)))], "column 'b'"),
        ([GridColumn("a", np.zeros((1, 1, 8, 8), dtype=np.uint8))], "divide 8-bit values by 255"),  # type: ignore[arg-type]
        ([GridColumn("a", np.full((1, 1, 8, 8), np.nan))], "not finite"),
        ([GridColumn("a", DIGIT, ["x", "y"])], "2 labels for 1 images"),
        ([GridColumn("a", DIGIT, ["x"], [])], "0 correct for 1 images"),
    ],
)
def test_what_does_not_fit_is_refused(tmp_path: Path, columns: list[GridColumn], why: str) -> None:
    with pytest.raises(InvalidInput, match=why):
        grid(columns, tmp_path / "g.png")
    assert not list(tmp_path.iterdir())
