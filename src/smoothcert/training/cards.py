"""Cards: what a checkpoint is, how to make it again, and the hashes its files must have."""

from __future__ import annotations

import importlib.metadata
import json
import platform
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import smoothcert
from smoothcert.checkpoints import CARD, hashes, read_card
from smoothcert.errors import InvalidInput
from smoothcert.protocols import Dataset
from smoothcert.training.loop import Outcome
from smoothcert.training.savepoint import SAVEPOINT

_MODEL_FILES = ("config.json", "model.safetensors", "model_index.json")
_LIBRARIES = ("torch", "numpy", "diffusers", "accelerate", "safetensors")


def write_card(
    directory: str | Path,
    kind: str,
    dataset: Dataset,
    settings: Mapping[str, Any],
    outcome: Outcome,
    figures: Mapping[str, Any],
    command: str,
) -> None:
    """Write ``card.toml`` beside a checkpoint that was just trained."""
    content = {
        "kind": kind,
        "title": f"{kind} of {dataset.name} {dataset.shape}",
        "command": command or f"smoothcert.training.train_{kind}, with the settings below",
        "data": {"name": dataset.name, "images": len(dataset), "source": getattr(dataset, "source", "")},
        "training": {**settings, "final_loss": round(outcome.loss, 5), "seconds": round(outcome.seconds, 1)},
        "versions": _versions(outcome.threads),
        "figures": dict(figures),
        "sha256": hashes(directory),
    }
    _write(Path(directory), content)


def check_place(directory: str | Path, kind: str, dataset: Dataset, settings: Mapping[str, Any]) -> None:
    """Refuse a directory whose model a training would write over, unless it is what this training made.

    Raises:
        InvalidInput: it holds a model of another training, or of another kind.
        CheckpointError: its files are not those of its card.
    """
    root = Path(directory)
    found = sorted(name for name in _MODEL_FILES if (root / name).exists())
    if not (root / CARD).exists():
        if found and not (root / SAVEPOINT).exists():
            why = f"it holds {' and '.join(found)}, which this training did not write and would replace"
            raise InvalidInput(f"out = {str(directory)!r}", why, "Name another directory")
        return
    content = read_card(root).content
    asked = {"kind": kind, "data": dataset.name, **json.loads(json.dumps(dict(settings)))}
    stored = {
        "kind": content.get("kind"),
        "data": content.get("data", {}).get("name"),
        **content.get("training", {}),
    }
    others = [name for name, value in asked.items() if stored.get(name) != value]
    if others:
        words = ", ".join(f"{name} {stored.get(name)!r}, not {asked[name]!r}" for name in others[:3])
        why = f"it holds a model that was trained otherwise ({words}), and this training would replace it"
        raise InvalidInput(f"out = {str(directory)!r}", why, "Name another directory, or delete this one")


def add_figures(directory: str | Path, figures: Mapping[str, Any]) -> None:
    """Add measurements to the card of a checkpoint, whose files must still match it.

    Raises:
        CheckpointError: no card, or files that differ from it.
    """
    content = dict(read_card(directory).content)
    _write(Path(directory), {**content, "figures": {**content.get("figures", {}), **figures}})


def _versions(threads: int) -> dict[str, Any]:
    """What the weights depend on besides the seed; threads too, as they order floating-point sums."""
    libraries = {name: importlib.metadata.version(name) for name in _LIBRARIES}
    return {
        "smoothcert": smoothcert.__version__, "python": platform.python_version(), **libraries,
        "machine": platform.machine(), "threads": threads,
    }  # fmt: skip


def _write(directory: Path, content: Mapping[str, Any]) -> None:
    plain = {name: value for name, value in content.items() if not isinstance(value, dict)}
    tables = {name: value for name, value in content.items() if isinstance(value, dict)}
    blocks = [_lines(plain)] + [f"[{name}]\n{_lines(table)}" for name, table in tables.items()]
    (directory / CARD).write_text("\n".join(blocks), encoding="utf-8")


def _lines(table: Mapping[str, Any]) -> str:
    """JSON strings, numbers, booleans and flat lists are TOML as well."""
    return "".join(f"{json.dumps(name)} = {json.dumps(value)}\n" for name, value in table.items())
