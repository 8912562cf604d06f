"""Data sets of the Hugging Face hub, or saved on disk by its library: ``hf:ORG/NAME[:SPLIT]``.

The column of pictures and the column of classes are found by their declared types. Pictures stay encoded
until they are asked for, and are decoded here, as picture files are. Loading scripts are never run.
"""

from __future__ import annotations

import io
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

from smoothcert.datasets.pictures import PictureDataset, Treatment
from smoothcert.datasets.places import root_folder
from smoothcert.errors import DataError, InvalidInput, MissingExtra, SmoothcertError, UnknownName


@dataclass(frozen=True)
class Rows:
    """Encoded pictures in a column.

    Attributes:
        table: the data set, with its pictures left encoded.
        column: the column they are in.
        title: how they are named, before their number.
    """

    table: Any
    column: str
    title: str

    def __len__(self) -> int:
        return len(self.table)

    def name(self, position: int) -> str:
        """``NAME-17``."""
        return f"{self.title}-{position}"

    def open(self, position: int) -> Path | BinaryIO:
        """The encoded picture, from the row or from the file that it names."""
        cell = self.table[position][self.column]
        if isinstance(cell, Mapping) and cell.get("bytes"):
            return io.BytesIO(cell["bytes"])
        if isinstance(cell, Mapping) and cell.get("path"):
            return Path(cell["path"])
        raise DataError(f"row {self.name(position)}", "it has no picture", "Leave it out with a slice")


def huggingface(
    place: str,
    split: str | None = None,
    *,
    options: Mapping[str, str] | None = None,
    root: str | Path | None = None,
    name: str | None = None,
) -> PictureDataset:
    """Pictures and classes of a Hugging Face data set, each picture decoded when it is asked for.

    Args:
        place: a repository, ``ORG/NAME``, or a folder: saved with ``save_to_disk``, or with pictures, Parquet
            or Arrow files that the library recognises; a relative one is below ``root``, or the current one.
        split: which split; by default ``test``, or the only one.
        options: ``config``, ``revision``, the columns ``image`` and ``label`` where there are several, and
            ``resize``, ``crop``, ``mode``.
        root: see ``place``.
        name: how logs name the data set.

    Raises:
        MissingExtra: the library ``datasets`` is not installed.
        UnknownName: no such split or column. InvalidInput: columns that have to be chosen.
        DataError: not found, not loadable without running its code, or rows that cannot be certified.
    """
    chosen = dict(options or {})
    given = root_folder(root).given
    local = (given or Path()) / Path(place).expanduser()
    table = _table(place, local if local.is_dir() else None, split, chosen)
    picture, label = _columns(table, chosen, place)
    labels, classes = _labels(table, label, place)
    title = f"hf:{place}:{table.split}" if table.split else f"hf:{place}"
    return PictureDataset(
        Rows(_encoded(table, picture), picture, title),
        labels,
        name=name or title,
        classes=classes,
        treatment=Treatment.of(chosen),
        source=str(table.info.license or ""),
        data_dir=given if local.is_dir() else None,
    )


def _library() -> Any:
    try:
        import datasets
    except ImportError as error:
        raise MissingExtra.install("datasets", "hf", "a Hugging Face data set") from error
    return datasets


def _table(place: str, local: Path | None, split: str | None, options: Mapping[str, str]) -> Any:
    """One split, as the library's table."""
    library = _library()
    saved = local and any((local / file).is_file() for file in ("state.json", "dataset_dict.json"))
    try:
        if saved:
            return _saved(library.load_from_disk(str(local)), place, split)
        return _built(library, place, str(local or place), split, options)
    except SmoothcertError:
        raise
    except Exception as error:  # the library and the hub raise almost anything
        why = f"it cannot be loaded ({type(error).__name__}: {str(error).strip()[:400]})"
        instead = "Check the name and the connection, or give a folder saved with save_to_disk"
        raise DataError(f"Hugging Face data set {place!r}", why, instead) from error


def _saved(found: Any, place: str, split: str | None) -> Any:
    """A split of what ``save_to_disk`` wrote: a table, or several by split."""
    if isinstance(found, Mapping):
        return found[_chosen(list(found), place, split)]
    return found if split is None else {str(found.split): found}[_chosen([str(found.split)], place, split)]


def _built(library: Any, place: str, path: str, split: str | None, options: Mapping[str, str]) -> Any:
    """Never with its own code: newer versions of the library cannot, older ones are told not to."""
    which: dict[str, Any] = {"revision": options["revision"]} if "revision" in options else {}
    if int(library.__version__.partition(".")[0]) < 4:
        which["trust_remote_code"] = False
    names = library.get_dataset_split_names(path, options.get("config"), **which)
    chosen = _chosen([str(name) for name in names], place, split)
    return library.load_dataset(path, options.get("config"), split=chosen, **which)


def _chosen(splits: list[str], place: str, split: str | None) -> str:
    """The split asked for, else ``test``, else the only one; with several others a person has to say."""
    if split is not None:
        if split not in splits:
            raise UnknownName.among(f"split of {place}", split, splits)
        return split
    if "test" not in splits and len(splits) != 1:
        why = f"it has the splits {', '.join(splits)}"
        raise InvalidInput(f"data set 'hf:{place}'", why, f"Write for instance hf:{place}:{splits[-1]}")
    return "test" if "test" in splits else splits[0]


def _columns(table: Any, options: Mapping[str, str], place: str) -> tuple[str, str]:
    """The columns of pictures and of classes."""
    kinds = {name: type(feature).__name__ for name, feature in table.features.items()}
    numbers = [name for name, feature in table.features.items() if _whole(feature)]
    pictures = [name for name, kind in kinds.items() if kind == "Image"]
    labels = [name for name, kind in kinds.items() if kind == "ClassLabel"]
    labels = [*labels, *numbers] if "label" in options else labels
    return (
        _column("image", pictures, options.get("image"), place, "pictures"),
        _column("label", labels, options.get("label"), place, "named classes"),
    )


def _whole(feature: Any) -> bool:
    return str(getattr(feature, "dtype", "")).startswith(("int", "uint"))


def _column(option: str, suitable: list[str], named: str | None, place: str, holds: str) -> str:
    if named is not None:
        if named not in suitable:
            raise UnknownName.among(f"column of {holds} in {place}", named, suitable)
        return named
    if len(suitable) != 1:
        why = f"its columns of {holds} are: {', '.join(suitable) or 'none'}"
        raise InvalidInput(f"data set 'hf:{place}'", why, f"Name one: hf:{place}?{option}=COLUMN")
    return suitable[0]


def _labels(table: Any, column: str, place: str) -> tuple[list[int], tuple[str, ...]]:
    """Every label, and the classes: those declared, or the numbers up to the largest label."""
    found = [-1 if value is None else int(value) for value in table.select_columns([column])[:][column]]
    if not found:
        raise DataError(f"data set 'hf:{place}'", "it has no rows", "Choose another split")
    declared = getattr(table.features[column], "names", None)
    names = tuple(map(str, declared or range(max(found) + 1)))
    wrong = next((k for k, label in enumerate(found) if not 0 <= label < len(names)), None)
    if wrong is not None:
        why = f"row {wrong} has the label {found[wrong]}, which is none of the {len(names)} classes"
        raise DataError(f"data set 'hf:{place}'", why, "Choose a split that has its labels")
    return found, names


def _encoded(table: Any, column: str) -> Any:
    """The table with its pictures left as they are stored."""
    return table.select_columns([column]).cast_column(column, _library().Image(decode=False))
