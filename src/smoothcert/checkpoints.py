"""Weights as files: find them, know them by their SHA-256, load them without running anything.

A checkpoint is a directory of configuration (JSON) and weights (safetensors). Beside them a ``card.toml`` may
say what they are, how they were made and which hashes they must have; a file that differs is refused. torch
and safetensors are imported only where tensors are read.
"""

from __future__ import annotations

import hashlib
import importlib
import json
import pickle
import re
import sys
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from smoothcert.errors import CheckpointError, InvalidInput, UnknownName

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib

if TYPE_CHECKING:
    from torch import Tensor

CARD = "card.toml"
_WEIGHTS = Path(__file__).with_name("weights")
_COUNTED = frozenset({".json", ".safetensors"})


@dataclass(frozen=True)
class Card:
    """What a checkpoint says about itself.

    Attributes:
        directory: where the checkpoint lies.
        content: the whole of ``card.toml``: title, data, licence, command, versions, figures.
        sha256: the hash each file must have, by path relative to the directory.
    """

    directory: Path
    content: Mapping[str, Any]
    sha256: Mapping[str, str]


def embedded(name: str) -> Path:
    """The directory of weights that ship inside the package, such as ``digits-denoiser``.

    Raises:
        UnknownName: no such weights; the message lists those that exist.
    """
    known = [path.name for path in _WEIGHTS.iterdir() if path.is_dir()] if _WEIGHTS.is_dir() else []
    if name not in known:
        raise UnknownName.among("embedded weights", name, known)
    return _WEIGHTS / name


def sha256(path: str | Path) -> str:
    """SHA-256 of a file, as 64 hexadecimal digits.

    Raises:
        CheckpointError: the file cannot be read.
    """
    digest = hashlib.sha256()
    try:
        with open(path, "rb") as file:
            while block := file.read(1 << 20):
                digest.update(block)
    except OSError as error:
        raise _unreadable(path, error) from error
    return digest.hexdigest()


def hashes(directory: str | Path) -> dict[str, str]:
    """SHA-256 of every weight and configuration file below a directory, by relative path, sorted.

    The card is left out, as it is about the files and changes no answer of theirs.

    Raises:
        CheckpointError: the directory holds none.
    """
    root = Path(directory)
    files = sorted(path for path in root.rglob("*") if path.suffix in _COUNTED and path.is_file())
    if not files:
        why = "it holds no configuration or weights (.json, .safetensors)"
        raise CheckpointError(f"checkpoint {str(root)!r}", why, "Give the directory of a saved model")
    return {path.relative_to(root).as_posix(): sha256(path) for path in files}


def read_card(directory: str | Path) -> Card:
    """Read ``card.toml`` and check every file of the checkpoint against it.

    Raises:
        CheckpointError: no readable card, or a file that is missing, unlisted, or differs from the card.
    """
    root = Path(directory)
    content = read_toml(root / CARD)
    listed = content.get("sha256")
    if not isinstance(listed, dict) or not all(isinstance(value, str) for value in listed.values()):
        why = "its table [sha256] of file hashes is missing"
        raise CheckpointError(f"card {str(root / CARD)!r}", why, "List every file with its SHA-256")
    _compare(root, listed, hashes(root))
    return Card(root, content, listed)


def read_config(path: str | Path) -> dict[str, Any]:
    """Read a JSON configuration file.

    Raises:
        CheckpointError: missing, not JSON, or not an object.
    """
    try:
        config = json.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise _unreadable(path, error) from error
    if not isinstance(config, dict):
        raise CheckpointError(
            f"configuration {str(path)!r}", "it is not a JSON object", "Save the model again"
        )
    return config


def read_toml(path: str | Path) -> dict[str, Any]:
    """Read a TOML file.

    Raises:
        CheckpointError: missing, or not TOML.
    """
    try:
        return tomllib.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise _unreadable(path, error) from error


def load_safetensors(path: str | Path) -> dict[str, Tensor]:
    """Read the tensors of a safetensors file, on the CPU, after checking its header and length.

    Raises:
        CheckpointError: missing, truncated, corrupt, or a pickle, which could run code when opened.
    """
    from safetensors import SafetensorError
    from safetensors.torch import load_file

    try:
        tensors: dict[str, Tensor] = load_file(path)
    except (OSError, SafetensorError, ValueError) as error:
        raise _pickled(path) if _is_pickle(Path(path)) else _unreadable(path, error) from error
    return tensors


def load_state(path: str | Path) -> dict[str, Tensor]:
    """Read the tensors of any weight file people publish, on the CPU, without running anything in it.

    ``.safetensors``; ``.npz`` (plain arrays); a torch file (``.pt``, ``.pth``, ``.th``, ``.bin``, ...), read
    by torch's restricted unpickler. A state found below ``state_dict`` or ``model`` is taken out, and the
    prefix ``module.`` of data-parallel training removed.

    Raises:
        CheckpointError: missing, truncated, corrupt, no state dict, or a file with code in it, which is
            refused and not executed.
    """
    kind = Path(path).suffix.lower()
    if kind == ".safetensors":
        return load_safetensors(path)
    content = _arrays(path) if kind == ".npz" else _torch_file(path)
    for key in ("state_dict", "model"):
        inner = content.get(key) if isinstance(content, Mapping) else None
        content = inner if isinstance(inner, Mapping) else content
    if not isinstance(content, Mapping) or not content or not _all_tensors(content):
        why = "it holds no state dict (tensors by name)"
        raise CheckpointError(f"weights {str(path)!r}", why, "Save model.state_dict()")
    return {name.removeprefix("module."): tensor for name, tensor in content.items()}


def _all_tensors(content: Mapping[Any, Any]) -> bool:
    from torch import Tensor

    return all(isinstance(name, str) and isinstance(value, Tensor) for name, value in content.items())


def _arrays(path: str | Path) -> dict[str, Tensor]:
    import numpy as np
    import torch

    try:
        with np.load(path, allow_pickle=False) as stored:
            return {name: torch.from_numpy(stored[name]) for name in stored.files}
    except (OSError, ValueError, TypeError, EOFError, zipfile.BadZipFile, zlib.error) as error:
        raise _unreadable(path, error) from error


def _torch_file(path: str | Path) -> Any:
    import torch

    try:
        return torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        if not _is_pickle(Path(path)):
            raise _unreadable(path, error) from error
        raise _with_code(path, error) from error
    except (OSError, RuntimeError, EOFError, ValueError, KeyError, IndexError) as error:
        raise _unreadable(path, error) from error


def _with_code(path: str | Path, error: Exception) -> CheckpointError:
    named = re.search(r"GLOBAL ([\w.]+)", str(error))
    asks = f" (it asks for {named[1]})" if named else ""
    why = f"it is a pickle that would run code or is damaged{asks}; nothing in it was executed"
    instead = "Save the model's state_dict() alone, with torch.save or as safetensors, where you trust it"
    return CheckpointError(f"weights {str(path)!r}", why, instead)


def _is_pickle(path: Path) -> bool:
    """torch.save writes a zip of pickles, older versions and others a bare pickle (protocol 2 or later)."""
    if not path.is_file():
        return False
    with path.open("rb") as file:
        start = file.read(4)
    return start == b"PK\x03\x04" or (
        start[:1] == b"\x80" and start[1:2] in (b"\x02", b"\x03", b"\x04", b"\x05")
    )


def _pickled(path: str | Path) -> CheckpointError:
    why = "it is a pickle, which can run any code when opened"
    instead = "Convert it to safetensors (safetensors.torch.save_file) where you trust its origin"
    return CheckpointError(f"weights {str(path)!r}", why, instead)


def _compare(root: Path, listed: Mapping[str, str], found: Mapping[str, str]) -> None:
    differing = sorted(name for name in listed.keys() | found.keys() if listed.get(name) != found.get(name))
    if differing:
        why = f"{', '.join(differing)} missing, unlisted, or not the SHA-256 that the card promises"
        instead = "Fetch the checkpoint again, or write a new card if you changed it on purpose"
        raise CheckpointError(f"checkpoint {str(root)!r}", why, instead)


def _unreadable(path: str | Path, error: Exception) -> CheckpointError:
    why = f"it cannot be read ({type(error).__name__}: {error})"
    return CheckpointError(f"file {str(path)!r}", why, "Check the path, or fetch or save it again")


def from_import(path: str) -> Any:
    """What ``module:attribute`` names, imported. This runs the module's code, as any import does.

    Raises:
        InvalidInput: not of the form ``module:attribute``.
        UnknownName: no such module, or nothing of that name in it.
    """
    module_name, colon, attribute = path.partition(":")
    if not (module_name and colon and attribute):
        why = "an importable model is written python:module:attribute"
        raise InvalidInput(f"'python:{path}'", why, "Write for instance python:mymodels:net")
    module = _imported(module_name)
    if not hasattr(module, attribute):
        public = [name for name in vars(module) if not name.startswith("_")]
        raise UnknownName.among(f"name in module {module_name!r}:", attribute, public)
    return getattr(module, attribute)


def _imported(name: str) -> Any:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is None or not (name == error.name or name.startswith(error.name + ".")):
            raise  # the module exists and something that it imports does not: its own message says what
        why = "Python does not find it"
        raise UnknownName(f"module {name!r}", why, "Install it, or put its folder on PYTHONPATH") from error
