"""What a user adds to a model's name: ``NAME?mean=0.5,0.5,0.5&std=0.2,0.2,0.2&classes=cat,dog``.

Values are separated by commas; what a value must contain of ``,``, ``&``, ``%`` is written ``%2C``, ``%26``,
``%25``, as in web addresses.
"""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any
from urllib.parse import unquote

from smoothcert.errors import InvalidInput, UnknownName
from smoothcert.networks.preprocessing import Preprocessing

PREPROCESSING = ("mean", "std", "size", "crop", "interpolation", "order", "grey")
COMMON = (*PREPROCESSING, "classes")
_SIZE = re.compile(r"([1-9][0-9]{0,5})(?:x([1-9][0-9]{0,5}))?")


def split(name: str, allowed: Iterable[str] = COMMON) -> tuple[str, dict[str, str]]:
    """A name and its options, as texts: ``"a?size=8"`` -> ``("a", {"size": "8"})``.

    Raises:
        UnknownName: an option that this kind of model does not have.
        InvalidInput: not of the form ``option=value``, or given twice.
    """
    bare, _, query = name.partition("?")
    return bare, parse(query, allowed, f"model {name!r}")


def parse(query: str, allowed: Iterable[str], given: str) -> dict[str, str]:
    """``"size=8&grey=repeat"`` -> ``{"size": "8", "grey": "repeat"}``; errors as for ``split``."""
    found: dict[str, str] = {}
    for part in query.split("&") if query else []:
        key, equals, value = part.partition("=")
        if not equals or not value or key in found:
            why = f"the part {part!r} after the question mark is no option, or says it twice"
            raise InvalidInput(given, why, "Write NAME?option=value&option=value")
        if key not in set(allowed):
            raise UnknownName.among("option", key, allowed)
        found[key] = value
    return found


def preprocessing(options: Mapping[str, str], base: Preprocessing) -> Preprocessing:
    """``base`` with what the options say of it.

    ``size=224`` alone resizes to 224x224; with ``crop=`` it is the length of the shorter side.

    Raises:
        InvalidInput: a value that cannot be read.
    """
    changed: dict[str, Any] = {}
    for key in ("mean", "std"):
        if key in options:
            changed[key] = _numbers(key, options[key])
    if len(changed) == 1:
        found = f"{next(iter(changed))}= alone"
        raise InvalidInput(found, "a mean without a std is half a normalisation", "Write mean= and std=")
    if "size" in options or "crop" in options:
        changed["crop"] = _size("crop", options["crop"]) if "crop" in options else None
    if "size" in options:
        height, width = _size("size", options["size"])
        short = "crop" in options and "x" not in options["size"]
        changed["size"] = height if short else (height, width)
    changed |= {key: options[key] for key in ("interpolation", "order", "grey") if key in options}
    return dataclasses.replace(base, **changed)


def classes(options: Mapping[str, str], own: Sequence[str] | None = None) -> tuple[str, ...] | None:
    """The class names of ``classes=a,b,c``, else ``own``; ``None`` where there are none.

    ``classes=unnamed`` drops the model's own names: then only their number is compared with the data's.
    """
    if "classes" not in options:
        return tuple(own) if own else None
    if options["classes"] == "unnamed":
        return None
    names = tuple(unquote(name).strip() for name in options["classes"].split(","))
    if len(names) < 2 or not all(names):
        found = f"classes={options['classes']}"
        raise InvalidInput(found, "a classifier has two named classes or more", "Write classes=cat,dog")
    return names


def _numbers(key: str, text: str) -> tuple[float, ...]:
    try:
        return tuple(float(part) for part in text.split(","))
    except ValueError as error:
        example = f"Write for instance {key}=0.5,0.5,0.5"
        raise InvalidInput(f"{key}={text}", "is not a list of numbers", example) from error


def _size(key: str, text: str) -> tuple[int, int]:
    found = _SIZE.fullmatch(text)
    if not found:
        raise InvalidInput(
            f"{key}={text}", "is no size", f"Write {key}=224 or {key}=224x256 (height x width)"
        )
    return int(found[1]), int(found[2] or found[1])
