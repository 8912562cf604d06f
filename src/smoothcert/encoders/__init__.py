"""Encoders: images ``(B, C, H, W)`` in [0, 1] to features ``(B, k)`` or token features ``(B, T, d)``.

One file per kind; ``heads`` makes classes of features and ``mapper`` steadies them. May import networks,
protocols, checkpoints and errors; draws no noise and knows no sigma.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from smoothcert import checkpoints
from smoothcert.encoders import plain, timm, transformers
from smoothcert.encoders.answers import AnswerClassifier, answer_classifier
from smoothcert.encoders.callable import CallableEncoder
from smoothcert.encoders.heads import ZeroShotHead
from smoothcert.encoders.llava import vision_tower
from smoothcert.encoders.pretrained import PretrainedEncoder
from smoothcert.errors import CheckpointError, InvalidInput, UnknownName
from smoothcert.networks.convnet import ARCHITECTURE as CONVNET
from smoothcert.networks.convnet import ConvNet
from smoothcert.networks.plain import ARCHITECTURES
from smoothcert.protocols import Encoder, named

__all__ = [
    "NAMES",
    "AnswerClassifier",
    "CallableEncoder",
    "PretrainedEncoder",
    "ZeroShotHead",
    "answer_classifier",
    "load",
    "vision_tower",
]

_EMBEDDED = {"digits": "digits-classifier"}
_IMPORT = "python:"


def load(source: str | Path | Callable[[Tensor], Any]) -> Encoder:
    """Find an encoder, ready to use (eval mode, preprocessing inside, features checked).

    Args:
        source: a callable, a directory, or a name:

            ``digits``: the features of the classifier that ships with the package.
            ``DIRECTORY``: of a trained classifier, for what its last layer sees; or written by
            ``save_pretrained`` of transformers.
            ``transformers:HUB_ID_OR_DIRECTORY``: CLIP, SigLIP, DINOv2, other image models, and the vision
            tower of LLaVA models (``transformers.load``).
            ``timm:NAME``, ``timm:NAME@PATH``: the features before the last layer.
            ``resnet20:PATH`` (32, 44, 56, 110): a plain state dict, for its 64 last features; it needs
            ``?mean=...&std=...``.
            ``python:module:attribute``: any callable; importing runs the module's code.

            Options follow a question mark: ``?size=224&grey=repeat`` (``networks.options.PREPROCESSING``).

    Raises:
        UnknownName: a name that is none of these, or an unknown option.
        InvalidInput: a source of another type, or options that cannot be.
        MissingExtra: a library that is not installed.
        CheckpointError: files that are missing, corrupt, or not what their card says.
    """
    if isinstance(source, str):
        return named(_named(source), source)
    if isinstance(source, Path):
        return named(_directory(source), str(source))
    return _wrapped(source)


_LOADERS: Mapping[str, Callable[[str], Encoder]] = {
    transformers.PREFIX: transformers.load,
    timm.PREFIX: timm.load,
    **{f"{name}:": plain.load for name in ARCHITECTURES},
}
NAMES = (
    *_EMBEDDED,
    "a directory with config.json and model.safetensors",
    "transformers:HUB_ID_OR_DIRECTORY",
    "timm:NAME",
    *(f"{name}:PATH" for name in ARCHITECTURES),
    "python:module:attribute",
)


def _named(name: str) -> Encoder:
    if name in _EMBEDDED:
        return plain.load_directory(checkpoints.embedded(_EMBEDDED[name]))
    if name.startswith(_IMPORT):
        return _wrapped(checkpoints.from_import(name.removeprefix(_IMPORT)), name)
    for prefix, loader in _LOADERS.items():
        if name.startswith(prefix):
            return loader(name)
    if name and Path(name).is_dir():
        return _directory(Path(name))
    raise UnknownName.among("encoder", name, NAMES)


def _directory(directory: Path) -> Encoder:
    if not directory.is_dir():
        raise UnknownName.among("encoder", str(directory), NAMES)
    why, file = "it holds no config.json", directory / "config.json"
    if file.exists():
        config = checkpoints.read_config(file)
        if "model_type" in config:
            return transformers.load(f"{transformers.PREFIX}{directory}")
        if config.get("architecture") in (CONVNET, *ARCHITECTURES):
            return plain.load_directory(directory)
        why = f"its config.json says {config.get('architecture', 'nothing')!r}, which is no encoder"
    raise CheckpointError(
        f"encoder {str(directory)!r}",
        why,
        "Name a directory that smoothcert train classifier or train finetune wrote, or one that "
        "save_pretrained of transformers wrote (CLIP, SigLIP, DINOv2, LLaVA and other image models)",
    )


def _wrapped(source: Any, name: str | None = None) -> Encoder:
    if isinstance(source, PretrainedEncoder):
        return source.eval()
    if isinstance(source, ConvNet):
        return plain.of_convnet(source.eval())
    if isinstance(source, CallableEncoder):
        return source
    if isinstance(source, type):
        why = "it is a class, and calling it would build a model, not encode images"
        raise InvalidInput(f"encoder {source.__name__}", why, "Give an instance of it")
    return CallableEncoder(source, name=name)
