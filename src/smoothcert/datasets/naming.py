"""How data sets are written: ``NAME[:SPLIT]``, ``folder:PATH``, ``hf:ORG/NAME[:SPLIT]``, options, a slice.

Options follow a question mark, ``folder:PATH?resize=256&crop=224``; a slice in brackets ends every form.
Nothing here is evaluated.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field

from smoothcert.errors import InvalidInput, UnknownName

_SLICED = re.compile(r"(?P<data>.*?)(\[(?P<slice>[^\[\]]*)\])?", re.DOTALL)
_PUBLISHED = re.compile(r"(?P<place>[^:?\[\]]+)(:(?P<split>[^:?\[\]]+))?")
_HUB = re.compile(r"(?P<place>[^?]+?)(:(?P<split>[^:/?]+))?")
_INTEGER = re.compile(r"\s*[+-]?[0-9]{1,18}\s*")
PICTURE_OPTIONS = ("resize", "crop", "mode")
HUB_OPTIONS = (*PICTURE_OPTIONS, "config", "revision", "image", "label")


@dataclass(frozen=True)
class Name:
    """A data set's name in its parts.

    Attributes:
        text: the name without its slice.
        kind: ``folder``, ``hf``, or empty for a published data set.
        place: the published name, the path, or the repository.
        split: as written, if at all.
        options: what follows the question mark.
        slice: the text in brackets, ``None`` where there is none.
    """

    text: str
    kind: str
    place: str
    split: str | None = None
    options: Mapping[str, str] = field(default_factory=dict)
    slice: str | None = None


def parsed(name: str) -> Name:
    """The parts of a name.

    Raises:
        InvalidInput: it is not written as a data set is. UnknownName: an option that does not exist.
    """
    sliced = _SLICED.fullmatch(name.strip())
    assert sliced is not None  # the pattern matches any text
    text, cut = sliced["data"], sliced["slice"]
    kind, _, rest = text.partition(":")
    if kind == "folder" and rest:
        place, options = _options(rest, PICTURE_OPTIONS)
        return Name(text, kind, place, None, options, cut)
    if kind == "hf" and rest:
        place, options = _options(rest, HUB_OPTIONS)
        parts = _matched(_HUB, place, "hf:ORG/NAME:test[:500]")
        return Name(text, kind, parts["place"], parts["split"], options, cut)
    parts = _matched(_PUBLISHED, text, "cifar10:test[::20]")
    return Name(text, "", parts["place"], parts["split"], {}, cut)


def parsed_slice(text: str) -> slice:
    """Read ``start:stop:step`` with any part missing; nothing is evaluated.

    Raises:
        InvalidInput: it is not of that form, or has a step of 0.
    """
    parts = text.split(":")
    readable = all(not part.strip() or _INTEGER.fullmatch(part) for part in parts)
    if len(parts) not in (2, 3) or not readable:
        raise InvalidInput(f"slice [{text}]", "it is not start:stop:step", "Write [:100] or [::5]")
    numbers = [int(part) if part.strip() else None for part in parts]
    if len(numbers) == 3 and numbers[2] == 0:
        raise InvalidInput(f"slice [{text}]", "a step of 0 selects nothing", "Use a step of 1 or more")
    return slice(*numbers)


def _matched(pattern: re.Pattern[str], text: str, example: str) -> re.Match[str]:
    parts = pattern.fullmatch(text)
    if parts is None:
        why = "a data set is written name, name:split or name:split[start:stop:step]"
        raise InvalidInput(f"data set {text!r}", why, f'Write for instance "{example}"')
    return parts


def _options(text: str, known: tuple[str, ...]) -> tuple[str, dict[str, str]]:
    """``PATH?key=value&key=value`` in its parts."""
    place, _, written = text.partition("?")
    found: dict[str, str] = {}
    for pair in written.split("&") if written else ():
        key, equals, value = pair.partition("=")
        if key not in known:
            raise UnknownName.among("option of a data set", key, known)
        if not equals or not value or key in found:
            why = "each is written once, as key=value"
            raise InvalidInput(f"option {pair!r}", why, "Write ?resize=256&crop=224")
        found[key] = value
    return place, found
