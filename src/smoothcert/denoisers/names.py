"""How a denoiser in a file is written: ``KIND:PATH``, or ``KIND:PATH?key=value&key=value``."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from fractions import Fraction
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl

from smoothcert.errors import CheckpointError, InvalidInput, UnknownName


@dataclass(frozen=True)
class Name:
    """A name taken apart.

    Attributes:
        kind: what stands before the colon.
        path: the file.
        options: what stands behind the question mark, as written.
    """

    kind: str
    path: Path
    options: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def parse(cls, text: str, *, known: Iterable[str]) -> Name:
        """Take a name apart; ``known`` are the options that its kind has.

        Raises:
            UnknownName: another option; the message lists those that exist.
            InvalidInput: no path, or options that are not ``key=value``.
        """
        kind, _, rest = text.partition(":")
        path, _, query = rest.partition("?")
        try:
            options = dict(parse_qsl(query, strict_parsing=True)) if query else {}
        except ValueError as error:
            why = "what follows the question mark is not key=value"
            raise InvalidInput(f"denoiser {text!r}", why, f"Write {kind}:FILE?key=value&key=value") from error
        if not path:
            raise InvalidInput(f"denoiser {text!r}", "it names no file", f"Write {kind}:FILE")
        for option in options:
            if option not in known:
                raise UnknownName.among(f"option of {kind}:", option, known)
        return cls(kind, Path(path), options)

    def existing(self, source: str | None = None) -> Path:
        """The path, if there is a file; ``source`` is where such a file is published.

        Raises:
            CheckpointError: there is none.
        """
        if not self.path.is_file():
            hint = f"Fetch it from {source}, and give its path" if source else "Give the path of its weights"
            raise CheckpointError(f"denoiser '{self.kind}:{self.path}'", "there is no such file", hint)
        return self.path


def number(name: str, value: Any) -> float:
    """A number from an option, a fraction such as ``80/255`` included.

    Raises:
        InvalidInput: anything else.
    """
    try:
        return float(Fraction(value)) if isinstance(value, str) else float(value)
    except (TypeError, ValueError, ZeroDivisionError) as error:
        raise InvalidInput(f"{name}={value!r}", "it is no number", "Write 0.25, or 80/255") from error


def truth(name: str, value: Any) -> bool:
    """True or false, from an option or a configuration file.

    Raises:
        InvalidInput: anything else.
    """
    words = {"true": True, "false": False, "1": True, "0": False}
    found = value if isinstance(value, bool) else words.get(str(value).lower())
    if found is None:
        raise InvalidInput(f"{name}={value!r}", "it is neither true nor false", f"Write {name}=true")
    return found
