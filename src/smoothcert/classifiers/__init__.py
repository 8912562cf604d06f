"""Classifiers: images ``(B, C, H, W)`` in [0, 1] to scores ``(B, classes)`` or labels ``(B,)``.

One file per kind. May import protocols, checkpoints and errors; draws no noise and knows no sigma.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from torch import Tensor

from smoothcert import checkpoints
from smoothcert.classifiers import convnet, plain, transformers
from smoothcert.classifiers.callable import CallableClassifier
from smoothcert.classifiers.convnet import ConvNet, ConvNetConfig
from smoothcert.classifiers.pretrained import PretrainedClassifier
from smoothcert.errors import InvalidInput, UnknownName
from smoothcert.protocols import Classifier, named

__all__ = ["CallableClassifier", "ConvNet", "ConvNetConfig", "PretrainedClassifier", "load"]

_EMBEDDED = {"digits": "digits-classifier"}
_IMPORT = "python:"


def load(source: str | Path | Callable[[Tensor], Any]) -> Classifier:
    """Find a classifier, ready to use (eval mode, answers checked).

    Args:
        source: ``"digits"`` (ships with the package); a directory written by ``smoothcert train classifier``;
            ``"python:module:attribute"`` (imports the module, which runs its code); or any callable.

    Raises:
        UnknownName: a name that is none of these.
        InvalidInput: a source of another type.
        CheckpointError: a directory whose files are missing, corrupt, or not what their card says.
    """
    if isinstance(source, str):
        return named(_named(source), source)
    if isinstance(source, Path):
        return named(_directory(source), str(source))
    return _wrapped(source)


def _named(name: str) -> Classifier:
    if name in _EMBEDDED:
        return convnet.load(checkpoints.embedded(_EMBEDDED[name]))
    if name.startswith(_IMPORT):
        return _wrapped(checkpoints.from_import(name.removeprefix(_IMPORT)), name)
    if name.partition(":")[0] in plain.ARCHITECTURES:
        return plain.load(name)
    if name.startswith(transformers.PREFIX):
        return transformers.load(name)
    if name and Path(name).is_dir():
        return _directory(Path(name))
    known = [*_EMBEDDED, f"{_IMPORT}module:attribute", "a directory with config.json and model.safetensors"]
    raise UnknownName.among("classifier", name, known)


def _directory(directory: Path) -> Classifier:
    config = checkpoints.read_config(directory / "config.json")
    if config.get("architecture") in plain.ARCHITECTURES:
        return plain.load_directory(directory)
    return convnet.load(directory)


def _wrapped(source: Any, name: str | None = None) -> Classifier:
    if isinstance(source, CallableClassifier | ConvNet | PretrainedClassifier):
        return source if isinstance(source, CallableClassifier) else source.eval()
    if isinstance(source, type):
        why = "it is a class, and calling it would build a model, not classify images"
        raise InvalidInput(f"classifier {source.__name__}", why, "Give an instance of it")
    return CallableClassifier(source, name=name)
