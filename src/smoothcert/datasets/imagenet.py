"""The validation images of ImageNet (ILSVRC 2012), resized and cropped as the field does: 256, then 224.

Two layouts: one folder a class (``val/n01440764/ILSVRC2012_val_00000293.JPEG``), or all files in one folder
with a list of labels. Labels are positions among the 1,000 sorted WordNet ids, which every published
classifier uses, also where only some of the classes are there. In both layouts the order is that of
torchvision's ImageFolder, which published logs count in: by class, then by file name.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from functools import cache
from pathlib import Path

from smoothcert.datasets.folder import Files, class_folders, pictures_in
from smoothcert.datasets.pictures import PictureDataset, Treatment
from smoothcert.datasets.places import damaged, missing, root_folder
from smoothcert.errors import DataError, UnknownName

SPLITS = ("val",)
SOURCE = (
    "O. Russakovsky et al., ImageNet Large Scale Visual Recognition Challenge, 2015, https://image-net.org; "
    "non-commercial research"
)
TREATMENT = Treatment(resize=256, crop=224, mode="RGB")
_FOLDERS = ("imagenet/val", "ILSVRC2012/val", "ILSVRC/Data/CLS-LOC/val", "val", "")
_WNID = re.compile(r"n[0-9]{8}")
_IMAGE = re.compile(r"ILSVRC2012_val_[0-9]{8}")
_LISTS = ("LOC_val_solution.csv", "imagenet_2012_validation_synset_labels.txt", "val.txt")
_DEVKIT = "ILSVRC2012_validation_ground_truth.txt"
_KNOWN = {1: 65, 2: 970, 3: 230, 4: 809, 5: 516}
"""Labels of the first images: a list that contradicts them counts classes in another order."""


@cache
def classes() -> tuple[str, ...]:
    """The WordNet ids of the 1,000 classes, sorted."""
    return tuple(Path(__file__).with_name("imagenet_classes.txt").read_text(encoding="ascii").split())


def imagenet(split: str = "val", *, root: str | Path | None = None, download: bool = False) -> PictureDataset:
    """The validation images of ImageNet, ``(3, 224, 224)`` uint8 RGB, decoded when asked for.

    Args:
        split: ``"val"``.
        root: the folder that holds ``imagenet/val``, ``ILSVRC2012/val``, ``ILSVRC/Data/CLS-LOC/val``,
            ``val``, or the images or class folders themselves.
        download: has no effect: the images may not be passed on.

    Raises:
        UnknownName: another split. DataError: not found, no labels, or classes that are not ImageNet's.
    """
    if split not in SPLITS:
        raise UnknownName.among("split of imagenet", split, SPLITS)
    place = root_folder(root)
    looked = [place.path / below for below in _FOLDERS]
    images = next((folder for folder in looked if _holds_images(folder)), None)
    if images is None:
        raise missing(f"imagenet:{split}", map(str, looked), downloadable=False)
    labelled = _flat(images, place.path) if _is_flat(images) else _by_class(images)
    labels, paths, names = zip(*sorted(labelled, key=lambda found: (found[0], found[2])), strict=True)
    return PictureDataset(
        Files(images, paths, names),
        labels,
        name=f"imagenet:{split}",
        classes=classes(),
        treatment=TREATMENT,
        source=SOURCE,
        data_dir=place.given,
    )


_Labelled = tuple[int, str, str]
"""Label, path below the folder, name."""


def _holds_images(folder: Path) -> bool:
    return folder.is_dir() and any(
        _WNID.fullmatch(entry.name) or _IMAGE.fullmatch(entry.stem) for entry in folder.iterdir()
    )


def _is_flat(folder: Path) -> bool:
    return not any(_WNID.fullmatch(entry.name) for entry in folder.iterdir())


def _by_class(folder: Path) -> list[_Labelled]:
    position = {wnid: label for label, wnid in enumerate(classes())}
    found: list[_Labelled] = []
    for name in class_folders(folder):
        if name not in position:
            why = f"its folder {name!r} is none of the 1,000 classes"
            instead = "Remove it, or write folder:PATH?resize=256&crop=224&mode=rgb for classes of its own"
            raise DataError(f"ImageNet in {str(folder)!r}", why, instead)
        found += [(position[name], path, path) for path in pictures_in(folder, name)]
    return found


def _flat(folder: Path, root: Path) -> list[_Labelled]:
    listed = _labels(folder, root)
    files = sorted(entry.name for entry in folder.iterdir() if _IMAGE.fullmatch(entry.stem))
    unlabelled = [file for file in files if _number(file) not in listed]
    if unlabelled:
        why = f"{len(unlabelled)} of its images have no label, the first is {unlabelled[0]}"
        raise DataError(f"ImageNet in {str(folder)!r}", why, "Complete the list of labels")
    return [
        (label, file, f"{classes()[label]}/{file}") for file in files for label in [listed[_number(file)]]
    ]


def _labels(folder: Path, root: Path) -> dict[int, int]:
    """Label by image number, from the first list that is there."""
    places = dict.fromkeys((folder, folder.parent, root, root / "imagenet", root / "ILSVRC2012"))
    for name in _LISTS:
        for place in places:
            if (place / name).is_file():
                return _listed(place / name)
    why = f"its files lie in one folder without a list of labels ({', '.join(_LISTS)})"
    if any((place / _DEVKIT).is_file() for place in places):
        why += f"; {_DEVKIT} counts the classes in an order of its own"
    instead = "Put one of them beside the images, or the images into folders named for their WordNet ids"
    raise DataError(f"ImageNet in {str(folder)!r}", why, instead)


def _listed(path: Path) -> dict[int, int]:
    """Label by image number, from any of the three lists; each line is checked."""
    try:
        lines = path.read_text(encoding="ascii").split("\n")
    except (OSError, UnicodeDecodeError) as error:
        raise damaged(path, f"it cannot be read ({error})") from error
    found = dict(_read_lines(path, lines))
    contradicted = [k for k, label in _KNOWN.items() if k in found and found[k] != label]
    if contradicted:
        k = contradicted[0]
        why = f"it gives image {k} the label {found[k]}, but among the sorted classes it has {_KNOWN[k]}"
        raise damaged(path, why)
    return found


def _read_lines(path: Path, lines: list[str]) -> Iterable[tuple[int, int]]:
    position = {wnid: label for label, wnid in enumerate(classes())}
    for k, line in enumerate(lines, start=1):
        if not line.strip() or line.startswith("ImageId,"):
            continue
        if path.name == _LISTS[1]:
            image, label = str(k), position.get(line.strip())
        elif path.name == _LISTS[0]:
            image, _, boxes = line.partition(",")
            label = position.get(boxes.split(" ")[0])
        else:
            image, _, number = line.strip().rpartition(" ")
            label = int(number) if number.isdigit() and int(number) < len(position) else None
        if label is None or not (image.isdigit() or _IMAGE.fullmatch(Path(image).stem)):
            raise damaged(path, f"line {k} is not an image with one of the 1,000 classes: {line[:60]!r}")
        yield int(image) if image.isdigit() else _number(Path(image).name), label


def _number(file: str) -> int:
    return int(Path(file).stem.rpartition("_")[2])
