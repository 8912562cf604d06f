"""Classifiers: images ``(B, C, H, W)`` in [0, 1] to scores ``(B, classes)`` or labels ``(B,)``.

One file per kind. May import networks, protocols, checkpoints and errors; draws no noise and knows no sigma.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from smoothcert import checkpoints
from smoothcert.classifiers import http, onnx, plain, timm, torchvision, transformers
from smoothcert.classifiers.blackbox import BlackBoxClassifier
from smoothcert.classifiers.callable import CallableClassifier
from smoothcert.classifiers.http import HttpClassifier
from smoothcert.classifiers.onnx import OnnxClassifier
from smoothcert.classifiers.pretrained import PretrainedClassifier
from smoothcert.errors import InvalidInput, UnknownName
from smoothcert.networks import convnet
from smoothcert.networks import options as options_of
from smoothcert.networks.convnet import ConvNet, ConvNetConfig
from smoothcert.protocols import Classifier, named

__all__ = [
    "NAMES",
    "BlackBoxClassifier",
    "CallableClassifier",
    "ConvNet",
    "ConvNetConfig",
    "HttpClassifier",
    "OnnxClassifier",
    "PretrainedClassifier",
    "convnet",
    "load",
    "plain",
]

_EMBEDDED = {"digits": "digits-classifier"}
_IMPORT, _BLACK_BOX = "python:", "blackbox:"


def load(source: str | Path | Callable[[Tensor], Any]) -> Classifier:
    """Find a classifier, ready to use (eval mode, preprocessing inside, answers checked).

    Args:
        source: a callable, a directory, or a name:

            ``digits``: ships with the package.
            ``DIRECTORY``: written by ``smoothcert train``, or by ``save_pretrained`` of transformers.
            ``transformers:HUB_ID_OR_DIRECTORY``, ``timm:NAME``, ``torchvision:NAME``: as these libraries name
            it; ``timm:NAME@PATH`` and ``torchvision:NAME@PATH`` with weights of your own.
            ``resnet20:PATH`` (32, 44, 56, 110): a plain state dict; it needs ``?mean=...&std=...``.
            ``onnx:PATH``: an exported graph; it needs them too, unless its metadata has them.
            ``https://HOST/PATH``: an endpoint that answers pictures with labels (``http.HttpClassifier``).
            ``blackbox:module:function``: 8-bit pictures ``(B, H, W, C)`` to labels.
            ``python:module:attribute``: any callable; importing runs the module's code.

            Options follow a question mark: ``?size=224&grey=repeat&classes=cat,dog`` (``options.COMMON``).

    Raises:
        UnknownName: a name that is none of these, or an unknown option.
        InvalidInput: a source of another type, or options that cannot be.
        MissingExtra: a library that is not installed.
        CheckpointError: files that are missing, corrupt, or not what their card says.
    """
    if isinstance(source, str):
        found = _named(source)
        return found if isinstance(found, HttpClassifier) else named(found, source)
    if isinstance(source, Path):
        return named(_directory(source), str(source))
    return _wrapped(source)


_LOADERS: Mapping[str, Callable[[str], Classifier]] = {
    transformers.PREFIX: transformers.load,
    timm.PREFIX: timm.load,
    torchvision.PREFIX: torchvision.load,
    onnx.PREFIX: onnx.load,
    **dict.fromkeys(http.PREFIXES, http.load),
    **{f"{name}:": plain.load for name in plain.ARCHITECTURES},
}
NAMES = (
    *_EMBEDDED,
    "a directory with config.json and model.safetensors",
    "transformers:HUB_ID_OR_DIRECTORY",
    "timm:NAME",
    "torchvision:NAME",
    *(f"{name}:PATH" for name in plain.ARCHITECTURES),
    "onnx:PATH",
    "https://HOST/PATH",
    "blackbox:module:function",
    "python:module:attribute",
)


def _named(name: str) -> Classifier:
    if name in _EMBEDDED:
        return convnet.load(checkpoints.embedded(_EMBEDDED[name]))
    if name.startswith(_IMPORT):
        return _wrapped(checkpoints.from_import(name.removeprefix(_IMPORT)), name)
    if name.startswith(_BLACK_BOX):
        return _black_box(name)
    for prefix, loader in _LOADERS.items():
        if name.startswith(prefix):
            return loader(name)
    if name and Path(name).is_dir():
        return _directory(Path(name))
    raise UnknownName.among("classifier", name, NAMES)


def _black_box(name: str) -> BlackBoxClassifier:
    path, options = options_of.split(name, ("classes",))
    function = checkpoints.from_import(path.removeprefix(_BLACK_BOX))
    return BlackBoxClassifier(function, classes=options_of.classes(options), name=path)


def _directory(directory: Path) -> Classifier:
    config = checkpoints.read_config(directory / "config.json")
    if config.get("architecture") in plain.ARCHITECTURES:
        return plain.load_directory(directory)
    if "model_type" in config:
        return transformers.load(f"{transformers.PREFIX}{directory}")
    return convnet.load(directory)


def _wrapped(source: Any, name: str | None = None) -> Classifier:
    if isinstance(source, ConvNet | PretrainedClassifier):
        return source.eval()
    if isinstance(source, CallableClassifier | BlackBoxClassifier | HttpClassifier | OnnxClassifier):
        return source
    if isinstance(source, type):
        why = "it is a class, and calling it would build a model, not classify images"
        raise InvalidInput(f"classifier {source.__name__}", why, "Give an instance of it")
    return CallableClassifier(source, name=name)
