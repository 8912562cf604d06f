"""Folders of pictures: lazily decoded, in the field's order, refused where decoding would guess."""

from __future__ import annotations

import os
import pickle
import struct
import zlib
from pathlib import Path

import numpy as np
import numpy.typing as npt
import pytest
from PIL import Image

from smoothcert.datasets import load
from smoothcert.datasets.pictures import Treatment
from smoothcert.errors import DataError, InvalidInput, SmoothcertError, UnknownName
from smoothcert.protocols import Dataset

RANDOM = np.random.default_rng(0)


def random_pixels(height: int = 5, width: int = 7, channels: int = 3) -> npt.NDArray[np.uint8]:
    shape = (height, width, 3) if channels == 3 else (height, width)
    return RANDOM.integers(0, 256, shape, dtype=np.uint8)


def saved(path: Path, pixels: npt.NDArray[np.uint8] | None = None, mode: str | None = None) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.fromarray(random_pixels() if pixels is None else pixels)
    (image.convert(mode) if mode else image).save(path)
    return path


def png(bits: int, colour: int, row: bytes, width: int = 2) -> bytes:
    """A PNG of two rows with any bit depth, which Pillow cannot write."""

    def chunk(name: bytes, content: bytes) -> bytes:
        return (
            struct.pack(">I", len(content)) + name + content + struct.pack(">I", zlib.crc32(name + content))
        )

    header = struct.pack(">IIBBBBB", width, 2, bits, colour, 0, 0, 0)
    pixels = zlib.compress((b"\0" + row) * 2)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", pixels) + chunk(b"IEND", b"")


def test_pictures_by_class_and_file_name_with_the_pixels_where_they_were(tmp_path: Path) -> None:
    pixels = {name: random_pixels() for name in ("dog/b.png", "dog/a.PNG", "cat/z.bmp", "cat/deep/y.png")}
    for name, array in pixels.items():
        saved(tmp_path / "pets" / name, array)
    (tmp_path / "pets/cat/notes.txt").write_text("no picture")
    (tmp_path / "pets/.hidden").mkdir()
    found = load(f"folder:{tmp_path}/pets")
    assert isinstance(found, Dataset)
    assert (found.levels, found.shape, found.classes) == (255, (3, 5, 7), ("cat", "dog"))
    examples = [found[k] for k in range(len(found))]
    assert [e.name for e in examples] == ["cat/z.bmp", "cat/deep/y.png", "dog/a.PNG", "dog/b.png"]
    assert [(e.index, e.label) for e in examples] == [(0, 0), (1, 0), (2, 1), (3, 1)]
    for example in examples:
        assert example.image.dtype == np.uint8
        assert example.image[2, 4, 1] == pixels[example.name][4, 1, 2]
        np.testing.assert_array_equal(example.image, pixels[example.name].transpose(2, 0, 1))
        with pytest.raises(ValueError, match="read-only"):
            example.image[0, 0, 0] = 1
    assert found[-1].index == 3
    with pytest.raises(IndexError):
        found[4]


def test_classes_are_sorted_whatever_the_disk_says(tmp_path: Path) -> None:
    names = ["n3", "n10", "n1", "b", "a", "Z", "n2", "c", "é", "x"]
    for name in names:
        saved(tmp_path / "pets" / name / "a.png")
    found = load(f"folder:{tmp_path}/pets")
    assert list(found.classes) == sorted(names)
    assert [found[k].name.split("/")[0] for k in range(len(found))] == sorted(names)


def test_slices_options_and_names_stay_together(tmp_path: Path) -> None:
    for k in range(6):
        saved(tmp_path / f"pets/c{k % 2}/{k}.png", random_pixels(9, 8 + k))
    name = f"folder:{tmp_path}/pets?resize=6&crop=4[1::2]"
    found = load(name)
    assert (found.name, found.shape, len(found)) == (name, (3, 4, 4), 3)
    assert [found[k].index for k in range(3)] == [1, 3, 5]


def test_a_relative_folder_is_below_the_root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    saved(tmp_path / "data/pets/cat/a.png")
    found = load("folder:pets", root=tmp_path / "data")
    assert (found.name, len(found), getattr(found, "data_dir", None)) == ("folder:pets", 1, tmp_path / "data")
    monkeypatch.chdir(tmp_path / "data")
    assert len(load("folder:pets")) == 1


def test_pictures_are_decoded_when_asked_for(tmp_path: Path) -> None:
    for name in ("a", "b"):
        saved(tmp_path / f"pets/cat/{name}.png")
    found = load(f"folder:{tmp_path}/pets")
    later = random_pixels()
    saved(tmp_path / "pets/cat/b.png", later)
    np.testing.assert_array_equal(found[1].image, later.transpose(2, 0, 1))
    saved(tmp_path / "pets/cat/b.png", random_pixels(5, 8))
    with pytest.raises(DataError, match=r"cat/b\.png.*shape \(3, 5, 8\)"):
        found[1]


def test_travels_to_a_worker_process(tmp_path: Path) -> None:
    saved(tmp_path / "pets/cat/a.png")
    found = load(f"folder:{tmp_path}/pets[:1]")
    again = pickle.loads(pickle.dumps(found))
    assert again[0].image.tobytes() == found[0].image.tobytes()


def test_grey_pictures_stay_grey(tmp_path: Path) -> None:
    grey = random_pixels(channels=1)
    saved(tmp_path / "g/x/a.png", grey)
    saved(tmp_path / "g/x/b.png", np.where(grey > 99, 255, 0).astype(np.uint8), "1")
    found = load(f"folder:{tmp_path}/g")
    assert found.shape == (1, 5, 7)
    np.testing.assert_array_equal(found[0].image[0], grey)
    np.testing.assert_array_equal(found[1].image[0], np.where(grey > 99, 255, 0))


def test_grey_among_colour_is_refused_and_mode_is_the_way_out(tmp_path: Path) -> None:
    grey, colour = random_pixels(channels=1), random_pixels()
    saved(tmp_path / "m/x/a.png", grey)
    saved(tmp_path / "m/x/b.png", colour)
    with pytest.raises(DataError, match=r"1 of grey 7x5 \(x/a.png\), 1 of RGB 7x5 \(x/b.png\).*mode=rgb"):
        load(f"folder:{tmp_path}/m")
    found = load(f"folder:{tmp_path}/m?mode=rgb")
    np.testing.assert_array_equal(found[0].image, np.stack([grey] * 3))
    np.testing.assert_array_equal(found[1].image, colour.transpose(2, 0, 1))
    assert load(f"folder:{tmp_path}/m?mode=grey").shape == (1, 5, 7)


def test_sizes_that_differ_are_listed_with_what_to_write(tmp_path: Path) -> None:
    for k, (height, width) in enumerate([(5, 7), (5, 7), (9, 4)]):
        saved(tmp_path / f"s/x/{k}.png", random_pixels(height, width))
    with pytest.raises(DataError) as error:
        load(f"folder:{tmp_path}/s")
    for words in ("2 of RGB 7x5 (x/0.png)", "1 of RGB 4x9 (x/2.png)", "folder:PATH?resize=256&crop=224"):
        assert words in str(error.value)


def test_a_palette_without_transparency_is_colour(tmp_path: Path) -> None:
    saved(tmp_path / "p/x/a.png", mode="P")
    with Image.open(tmp_path / "p/x/a.png") as image:
        assert image.mode == "P"
        expected = np.asarray(image.convert("RGB")).transpose(2, 0, 1)
    np.testing.assert_array_equal(load(f"folder:{tmp_path}/p")[0].image, expected)


@pytest.mark.parametrize("options", ["", "?mode=rgb", "?resize=8&crop=2&mode=rgb"])
@pytest.mark.parametrize(
    ("content", "message"),
    [
        (png(16, 0, b"\1\2\3\4"), "more than 8 bits.*Convert the pictures to 8 bits"),
        (png(16, 2, bytes(12)), "more than 8 bits"),
        (png(8, 6, bytes(8)), "transparent"),
        (png(8, 4, bytes(4)), "transparent"),
    ],
)
def test_deep_and_transparent_pictures_are_refused(
    content: bytes, message: str, options: str, tmp_path: Path
) -> None:
    saved(tmp_path / "d/x/a.png", random_pixels(2, 2))
    (tmp_path / "d/x/b.png").write_bytes(content)
    with pytest.raises(DataError, match=rf"x/b\.png.*{message}"):
        load(f"folder:{tmp_path}/d{options}")[1]


@pytest.mark.parametrize("mode", ["P", "RGB", "L"])
def test_one_transparent_colour_is_refused_too(mode: str, tmp_path: Path) -> None:
    (tmp_path / "d/x").mkdir(parents=True)
    colour = {"P": 0, "RGB": (0, 0, 0), "L": 0}[mode]
    Image.new(mode, (2, 2)).save(tmp_path / "d/x/a.png", transparency=colour)
    for options in ("", "?mode=rgb"):
        with pytest.raises(DataError, match=r"x/a\.png.*transparent"):
            load(f"folder:{tmp_path}/d{options}")


def test_floats_cmyk_and_several_frames_are_refused(tmp_path: Path) -> None:
    folder = tmp_path / "d/x"
    folder.mkdir(parents=True)
    Image.fromarray(np.full((2, 2), 0.5, np.float32)).save(folder / "a.tif")
    with pytest.raises(DataError, match=r"a\.tif.*more than 8 bits"):
        load(f"folder:{tmp_path}/d")
    (folder / "a.tif").unlink()
    Image.new("CMYK", (2, 2)).save(folder / "a.jpg")
    with pytest.raises(DataError, match=r"CMYK.*mode=rgb"):
        load(f"folder:{tmp_path}/d")
    assert load(f"folder:{tmp_path}/d?mode=rgb")[0].image.shape == (3, 2, 2)
    (folder / "a.jpg").unlink()
    frames = [Image.new("RGB", (2, 2), colour) for colour in ("red", "blue")]
    frames[0].save(folder / "a.webp", save_all=True, append_images=frames[1:])
    with pytest.raises(DataError, match="2 frames"):
        load(f"folder:{tmp_path}/d")


@pytest.mark.parametrize("options", ["", "?resize=4&crop=4&mode=rgb"])
@pytest.mark.parametrize("ending", [".jpg", ".png", ".bmp", ".webp", ".tif"])
def test_a_truncated_picture_among_good_ones_is_named(ending: str, options: str, tmp_path: Path) -> None:
    for name in "abc":
        saved(tmp_path / f"t/x/{name}{ending}", random_pixels(40, 40))
    path = tmp_path / f"t/x/b{ending}"
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 2 // 3])
    with pytest.raises(DataError, match=rf"x/b\{ending}"):
        load(f"folder:{tmp_path}/t{options}")[1]
    if options:
        assert load(f"folder:{tmp_path}/t{options}")[0].index == 0


@pytest.mark.parametrize("content", [b"", b"no picture", b"GIF89a\1\0\1\0\0\0\0;", b"%!PS-Adobe-3.0 EPSF"])
def test_what_is_no_picture_is_refused_by_name(content: bytes, tmp_path: Path) -> None:
    saved(tmp_path / "t/x/a.png")
    (tmp_path / "t/x/b.png").write_bytes(content)
    with pytest.raises(DataError, match=r"x/b\.png"):
        load(f"folder:{tmp_path}/t")


def test_folders_without_pictures_are_refused(tmp_path: Path) -> None:
    place = tmp_path / "f"
    with pytest.raises(DataError, match="cannot be read"):
        load(f"folder:{place}")
    place.mkdir()
    with pytest.raises(DataError, match="it is empty"):
        load(f"folder:{place}")
    saved(place / "a.png")
    with pytest.raises(DataError, match="nothing says their classes"):
        load(f"folder:{place}")
    saved(place / "cat/a.png")
    assert len(load(f"folder:{place}")) == 1
    (place / "dog").mkdir()
    with pytest.raises(DataError, match=r"dog.*holds no picture"):
        load(f"folder:{place}")
    with pytest.raises(DataError, match="cannot be read"):
        load(f"folder:{place}/a.png")


@pytest.mark.skipif(os.geteuid() == 0, reason="root reads everything")
def test_a_folder_that_may_not_be_read_is_told(tmp_path: Path) -> None:
    saved(tmp_path / "f/cat/a.png")
    (tmp_path / "f/cat").chmod(0)
    try:
        with pytest.raises(DataError, match="cannot be read"):
            load(f"folder:{tmp_path}/f")
    finally:
        (tmp_path / "f/cat").chmod(0o755)


@pytest.mark.parametrize(
    ("options", "error"),
    [
        ("?size=3", UnknownName),
        ("?resize", InvalidInput),
        ("?resize=", InvalidInput),
        ("?resize=0", InvalidInput),
        ("?resize=-4", InvalidInput),
        ("?resize=4.5", InvalidInput),
        ("?resize=99999", InvalidInput),
        ("?resize=4&resize=4", InvalidInput),
        ("?crop=9", InvalidInput),
        ("?mode=cmyk", InvalidInput),
        ("[9:]", InvalidInput),
        ("[::0]", InvalidInput),
    ],
)
def test_options_that_make_no_sense_are_refused(
    options: str, error: type[SmoothcertError], tmp_path: Path
) -> None:
    saved(tmp_path / "f/cat/a.png")
    with pytest.raises(error):
        load(f"folder:{tmp_path}/f{options}")


@pytest.mark.parametrize(("height", "width"), [(40, 61), (61, 40), (20, 21), (33, 33), (500, 375)])
def test_resizing_is_bilinear_with_antialiasing_and_the_crop_is_central(height: int, width: int) -> None:
    import torch
    from torch.nn import functional

    smooth = np.cumsum(RANDOM.integers(-6, 7, (height, width, 3)), axis=1) % 256
    pixels = smooth.astype(np.uint8)
    found = Treatment(resize=32, crop=28, mode="RGB").apply(Image.fromarray(pixels))
    long = int(32 * max(height, width) / min(height, width))
    size = (32, long) if height <= width else (long, 32)
    tensor = torch.from_numpy(pixels.astype(np.float64)).permute(2, 0, 1)[None]
    resized = functional.interpolate(tensor, size, mode="bilinear", antialias=True, align_corners=False)
    top, left = round((size[0] - 28) / 2), round((size[1] - 28) / 2)
    expected = resized[0, :, top : top + 28, left : left + 28].numpy()
    assert found.shape == (3, 28, 28)
    assert np.abs(found - expected).max() <= 1.01
