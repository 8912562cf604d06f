"""What is known about published weights, by the name of their file: ``cards.toml``.

State dicts do not say by which schedule or for which noise they were trained. A card does, and where its
``sha256`` is given, a file that differs is refused. A ``cards.toml`` beside a weight file, in the same
format, comes before the one of this package.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from smoothcert.checkpoints import read_toml, sha256
from smoothcert.errors import CheckpointError

FILE = "cards.toml"
_OURS = Path(__file__).with_name(FILE)


@dataclass(frozen=True)
class WeightCard:
    """One published file.

    Attributes:
        file: its name, or the id of a model on the hub.
        kind: which loader it is for: ``openai``, ``edm``, ``ffdnet``, ``fdncnn``, ``dncnn``, ``memnet``, or
            ``hub``.
        source: where it is published.
        licence: under which terms.
        settings: what the file itself does not say.
        sha256: the hash it must have, where it is known.
    """

    file: str
    kind: str
    source: str
    licence: str
    settings: Mapping[str, Any] = field(default_factory=dict)
    sha256: str | None = None


def find(path: str | Path) -> WeightCard | None:
    """The card of a file, by its name; a converted file (same name, another ending) has the card too.

    Raises:
        CheckpointError: the file is not what its card says, or a ``cards.toml`` cannot be read.
    """
    place = Path(path)
    card = _named(place.name, place.parent / FILE) or _named(place.name, _OURS)
    if card and card.sha256 and card.file == place.name and place.is_file():
        _compare(place, card.sha256)
    return card


def published() -> dict[str, WeightCard]:
    """Every card of this package, by the name of its file."""
    return _read(_OURS)


def _named(name: str, cards: Path) -> WeightCard | None:
    found = _read(cards) if cards.is_file() else {}
    stems = {Path(file).stem: card for file, card in found.items()}
    return found.get(name) or stems.get(Path(name).stem)


def _read(path: Path) -> dict[str, WeightCard]:
    try:
        return {file: _card(file, content) for file, content in read_toml(path).items()}
    except (AttributeError, KeyError, TypeError) as error:
        why = f"an entry lacks kind, source, licence or settings ({error})"
        raise CheckpointError(
            f"cards {str(path)!r}", why, "Compare with the cards.toml of smoothcert"
        ) from error


def _card(file: str, content: Mapping[str, Any]) -> WeightCard:
    settings = dict(content.get("settings", {}))
    texts = {key: str(content[key]) for key in ("kind", "source", "licence")}
    return WeightCard(file, **texts, settings=settings, sha256=content.get("sha256"))


def _compare(path: Path, promised: str) -> None:
    found = sha256(path)
    if found != promised.lower():
        why = f"its SHA-256 is {found[:12]}..., its card says {promised[:12]}..."
        raise CheckpointError(f"weights {str(path)!r}", why, "Fetch the file again")
