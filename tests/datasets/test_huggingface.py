"""Hugging Face data sets without the network: saved folders, Parquet, picture folders; nothing of theirs is run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from smoothcert.datasets import load
from smoothcert.errors import DataError, InvalidInput, UnknownName
from smoothcert.protocols import Dataset

library = pytest.importorskip("datasets")

PIXELS = np.random.default_rng(5).integers(0, 256, (6, 5, 7, 3), dtype=np.uint8)


@pytest.fixture(autouse=True)
def offline(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """No hub, and a cache that ends with the test."""
    monkeypatch.setattr(library.config, "HF_DATASETS_CACHE", tmp_path / "hf-cache")
    monkeypatch.setattr(library.config, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)


def table(labels: Any = (0, 1, 2, 0, 1, 2), **columns: Any) -> Any:
    features = {"picture": library.Image(), "kind": library.ClassLabel(names=["cat", "dog", "eel"])}
    for name, values in columns.items():
        features[name] = library.Image() if name.startswith("im") else library.Value("int64")
        columns[name] = values
    content = {"picture": [Image.fromarray(pixels) for pixels in PIXELS], "kind": list(labels)}
    return library.Dataset.from_dict(content | columns, features=library.Features(features))


def check(found: Dataset, positions: list[int]) -> None:
    assert (found.levels, found.shape, found.classes) == (255, (3, 5, 7), ("cat", "dog", "eel"))
    assert len(found) == len(positions)
    for k, origin in enumerate(positions):
        example = found[k]
        assert (example.index, example.label) == (k, origin % 3)
        assert example.image.dtype == np.uint8
        np.testing.assert_array_equal(example.image, PIXELS[origin].transpose(2, 0, 1))


def test_a_saved_table_and_saved_splits(tmp_path: Path) -> None:
    table().save_to_disk(tmp_path / "one")
    check(load(f"hf:{tmp_path}/one"), list(range(6)))
    splits = {"train": table(), "test": table().select([4, 0, 5])}
    library.DatasetDict(splits).save_to_disk(tmp_path / "two")
    check(load(f"hf:{tmp_path}/two"), [4, 0, 5])
    check(load(f"hf:{tmp_path}/two:train"), list(range(6)))
    found = load("hf:two:test[::2]", root=tmp_path)
    assert (found.name, [found[k].index for k in range(2)]) == ("hf:two:test[::2]", [0, 2])
    assert getattr(found, "data_dir", None) == tmp_path
    with pytest.raises(UnknownName, match=r"'val'.*Known: test, train"):
        load(f"hf:{tmp_path}/two:val")
    library.DatasetDict({"a": table(), "b": table()}).save_to_disk(tmp_path / "three")
    with pytest.raises(InvalidInput, match=r"has the splits a, b.*:b"):
        load(f"hf:{tmp_path}/three")


def test_parquet_files(tmp_path: Path) -> None:
    (tmp_path / "pq").mkdir()
    table().to_parquet(tmp_path / "pq" / "test-00000-of-00001.parquet")
    check(load(f"hf:{tmp_path}/pq:test"), list(range(6)))
    with pytest.raises(UnknownName, match="Known: test"):
        load(f"hf:{tmp_path}/pq:train")


def test_a_folder_of_pictures(tmp_path: Path) -> None:
    for k, name in enumerate(["cat", "dog", "eel"]):
        path = tmp_path / "im" / "test" / name / "0.png"
        path.parent.mkdir(parents=True)
        Image.fromarray(PIXELS[k]).save(path)
    check(load(f"hf:{tmp_path}/im"), [0, 1, 2])


def test_pictures_of_several_sizes_need_options(tmp_path: Path) -> None:
    rows = {"picture": [Image.new("RGB", (8, 9)), Image.new("RGB", (9, 8))], "kind": [0, 0]}
    features = library.Features({"picture": library.Image(), "kind": library.ClassLabel(names=["cat"])})
    library.Dataset.from_dict(rows, features=features).save_to_disk(tmp_path / "sizes")
    with pytest.raises(DataError, match=r"1 of RGB 8x9.*resize=256&crop=224"):
        load(f"hf:{tmp_path}/sizes")
    assert load(f"hf:{tmp_path}/sizes?resize=6&crop=4")[1].image.shape == (3, 4, 4)


def test_columns_are_named_where_there_are_several(tmp_path: Path) -> None:
    table(image2=[Image.fromarray(255 - pixels) for pixels in PIXELS], number=[3] * 6).save_to_disk(
        tmp_path / "many"
    )
    with pytest.raises(InvalidInput, match=r"picture, image2.*\?image=COLUMN"):
        load(f"hf:{tmp_path}/many")
    found = load(f"hf:{tmp_path}/many?image=image2&label=number")
    assert (found[0].label, found.classes) == (3, ("0", "1", "2", "3"))
    np.testing.assert_array_equal(found[0].image, 255 - PIXELS[0].transpose(2, 0, 1))
    with pytest.raises(UnknownName, match="Known: image2, picture"):
        load(f"hf:{tmp_path}/many?image=kind")


@pytest.mark.parametrize("labels", [[0, 1, 2, -1, 0, 1], [0, 1, 2, None, 0, 1]])
def test_rows_without_a_label_are_refused(labels: list[Any], tmp_path: Path) -> None:
    table(labels).save_to_disk(tmp_path / "unlabelled")
    with pytest.raises(DataError, match="row 3 has the label -1"):
        load(f"hf:{tmp_path}/unlabelled")


def test_damaged_pictures_and_folders_are_refused(tmp_path: Path) -> None:
    content = {"picture": [{"bytes": b"no picture", "path": None}], "kind": [0]}
    features = library.Features({"picture": library.Image(), "kind": library.ClassLabel(names=["cat"])})
    library.Dataset.from_dict(content, features=features).save_to_disk(tmp_path / "bad")
    with pytest.raises(DataError, match=r"bad.*-0.*no readable picture"):
        load(f"hf:{tmp_path}/bad")
    table().save_to_disk(tmp_path / "cut")
    for path in (tmp_path / "cut").glob("*.arrow"):
        path.write_bytes(path.read_bytes()[:-600])
    with pytest.raises(DataError):
        load(f"hf:{tmp_path}/cut")[5]


def test_a_loading_script_is_never_run(tmp_path: Path) -> None:
    witness, folder = tmp_path / "witness", tmp_path / "script"
    folder.mkdir()
    (folder / "script.py").write_text(f"open({str(witness)!r}, 'w')\n")
    for name in (f"hf:{folder}", f"hf:{folder}:test"):
        with pytest.raises(DataError, match="cannot be loaded"):
            load(name)
    assert not witness.exists()


def test_what_the_hub_does_not_give_is_told(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"nobody/nothing.*cannot be loaded"):
        load("hf:nobody/nothing:test")


def test_without_the_library_the_install_line_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "datasets", None)
    with pytest.raises(ImportError, match=r'pip install "smoothcert\[hf\]"'):
        load("hf:a/b")
