"""ImageNet's validation images: the right label in every layout, the field's order, size and crop."""

from __future__ import annotations

import hashlib
import io
import tarfile
from pathlib import Path

import numpy as np
import pytest
from PIL import Image
from tests.realdata import DATA, needs, write_imagenet

from smoothcert.datasets import imagenet as read_imagenet
from smoothcert.datasets import load
from smoothcert.datasets.imagenet import classes
from smoothcert.errors import DataError, UnknownName

FIRST = {1: 65, 2: 970, 3: 230, 4: 809, 5: 516}  # labels of the first validation images, known to the field


def photograph(path: Path, seed: int, mode: str = "RGB") -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(seed).integers(0, 256, (30, 40, 3), dtype=np.uint8)
    Image.fromarray(pixels).resize((400, 300)).convert(mode).save(path, format="JPEG")


def file(number: int) -> str:
    return f"ILSVRC2012_val_{number:08d}.JPEG"


@pytest.fixture
def by_class(tmp_path: Path) -> Path:
    for number, label in FIRST.items():
        photograph(tmp_path / "imagenet/val" / classes()[label] / file(number), number)
    return tmp_path


@pytest.fixture
def flat(tmp_path: Path) -> Path:
    for number in FIRST:
        photograph(tmp_path / "flat/val" / file(number), number)
    return tmp_path / "flat"


def lists() -> dict[str, str]:
    boxes = " 156 48 272 332 "
    return {
        "LOC_val_solution.csv": "ImageId,PredictionString\n"
        + "".join(f"{file(k)[:-5]},{classes()[FIRST[k]]}{boxes}\n" for k in (3, 1, 5, 2, 4)),
        "imagenet_2012_validation_synset_labels.txt": "".join(f"{classes()[k]}\n" for k in FIRST.values()),
        "val.txt": "".join(f"{file(k)} {label}\n" for k, label in FIRST.items()),
    }


def test_the_classes_are_the_1000_sorted() -> None:
    assert len(set(classes())) == 1000
    assert list(classes()) == sorted(classes())
    digest = hashlib.sha256("\n".join(classes()).encode() + b"\n").hexdigest()
    assert digest == "70002b0ff5de60a3a17a82dbfcff291931f96225ddf941ad2e182fc39e183d15"


def test_folders_of_some_classes_have_imagenets_labels(by_class: Path) -> None:
    found = load("imagenet:val", root=by_class)
    assert (found.name, found.levels, found.shape, found.classes) == (
        "imagenet:val",
        255,
        (3, 224, 224),
        classes(),
    )
    assert [found[k].label for k in range(5)] == [65, 230, 516, 809, 970]
    assert [found[k].name.split("/")[1] for k in range(5)] == [file(k) for k in (1, 3, 5, 4, 2)]
    assert read_imagenet(root=by_class / "imagenet/val")[0].image.tobytes() == found[0].image.tobytes()
    assert load("imagenet:val[1::2]", root=by_class)[1].index == 3


@pytest.mark.parametrize("name", sorted(lists()))
@pytest.mark.parametrize("where", [".", "val"])
def test_one_folder_with_a_list_is_the_same_data_set(
    name: str, where: str, by_class: Path, flat: Path
) -> None:
    (flat / where / name).write_text(lists()[name])
    one, other = load("imagenet", root=by_class), load("imagenet", root=flat)
    for k in range(5):
        assert (one[k].name, one[k].label, one[k].index) == (other[k].name, other[k].label, other[k].index)
        assert one[k].image.tobytes() == other[k].image.tobytes()


def test_pixels_are_those_of_resize_256_and_centre_crop_224(by_class: Path) -> None:
    example = load("imagenet", root=by_class)[0]
    with Image.open(by_class / "imagenet/val" / example.name) as image:
        resized = image.resize((341, 256), Image.Resampling.BILINEAR)
    expected = np.asarray(resized)[16:240, 58:282].transpose(2, 0, 1)  # (341 - 224) / 2 = 58.5, to even
    np.testing.assert_array_equal(example.image, expected)


@pytest.mark.parametrize("mode", ["L", "CMYK"])
def test_the_few_grey_and_cmyk_files_become_rgb(mode: str, by_class: Path) -> None:
    photograph(by_class / "imagenet/val" / classes()[0] / file(9), 9, mode)
    example = load("imagenet", root=by_class)[0]
    assert (example.label, example.image.shape) == (0, (3, 224, 224))


@pytest.mark.parametrize(
    ("name", "text", "message"),
    [
        ("val.txt", "".join(f"{file(k)} {490 + k}\n" for k in FIRST), "image 1 the label 491.*it has 65"),
        ("val.txt", f"{file(1)} 1000\n", "line 1 is not an image"),
        ("val.txt", f"{file(1)} -1\n", "line 1 is not an image"),
        ("val.txt", f"{file(1)}\n", "line 1 is not an image"),
        ("val.txt", f"{file(1)} 65\n", "4 of its images have no label, the first is .*00000002"),
        ("val.txt", "", "5 of its images have no label"),
        ("val.txt", "é", "cannot be read"),
        ("LOC_val_solution.csv", "ImageId,PredictionString\nILSVRC2012_val_00000001,n0 1 2 3 4\n", "line 2"),
        ("imagenet_2012_validation_synset_labels.txt", "n01751748\nn00000000\n", "line 2"),
        ("ILSVRC2012_validation_ground_truth.txt", "490\n361\n", "order of its own"),
        ("other.txt", "", "without a list of labels"),
    ],
)
def test_lists_that_do_not_give_labels_are_refused(name: str, text: str, message: str, flat: Path) -> None:
    (flat / "val" / name).write_text(text)
    with pytest.raises(DataError, match=message):
        load("imagenet", root=flat)


def test_other_classes_and_empty_folders_are_refused(by_class: Path) -> None:
    (by_class / "imagenet/val/n00000001").mkdir()
    with pytest.raises(DataError, match=r"'n00000001' is none of the 1,000.*folder:PATH"):
        load("imagenet", root=by_class)
    (by_class / "imagenet/val/n00000001").rmdir()
    (by_class / "imagenet/val" / classes()[7]).mkdir()
    with pytest.raises(DataError, match=f"{classes()[7]}.*holds no picture"):
        load("imagenet", root=by_class)


def test_missing_images_are_not_offered_for_download(tmp_path: Path) -> None:
    with pytest.raises(DataError, match="ILSVRC2012/val") as error:
        load("imagenet", root=tmp_path, download=True)
    assert "--download" not in str(error.value)
    with pytest.raises(UnknownName, match="Known: val"):
        load("imagenet:train", root=tmp_path)


@needs("imagenet_sample")
def test_the_real_photographs_one_a_class(tmp_path: Path) -> None:
    write_imagenet(tmp_path)
    found = load("imagenet:val", root=tmp_path)
    assert len(found) == 1000
    with tarfile.open(DATA / "imagenet_sample/imagenet_sample_256.tar") as packed:
        members = {member.name[:4]: member for member in packed if member.isfile()}
        for k in (0, 1, 134, 517, 999):
            stream = packed.extractfile(members[f"{k:04d}"])
            assert stream is not None
            with Image.open(io.BytesIO(stream.read())) as image:
                expected = np.asarray(image.convert("RGB"))[16:240, 16:240].transpose(2, 0, 1)
            assert found[k].label == k
            assert found[k].name.startswith(Path(members[f"{k:04d}"].name).stem[5:])
            np.testing.assert_array_equal(found[k].image, expected)
