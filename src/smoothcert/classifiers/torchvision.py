"""Image classifiers of torchvision: ``torchvision:NAME``, or ``torchvision:NAME@PATH`` with weights of yours.

Size, crop, interpolation, mean and std come from the weights' own transform, and are compared with it before
anything else is done. ``?weights=IMAGENET1K_V1`` chooses among several; the default is the library's.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from smoothcert.checkpoints import load_state
from smoothcert.classifiers.pretrained import PretrainedClassifier
from smoothcert.errors import CheckpointError, MissingExtra, UnknownName
from smoothcert.networks import options as opt
from smoothcert.networks.preprocessing import Preprocessing, confirm
from smoothcert.networks.weights import fill

PREFIX = "torchvision:"
_REMAPS = ("googlenet", "inception_v3")  # built for the pretrained weights, they renormalise their input


def load(name: str) -> PretrainedClassifier:
    """Read ``torchvision:NAME`` or ``torchvision:NAME@PATH`` with the common options and ``weights=``.

    Raises:
        MissingExtra: torchvision is not installed, or does not work with the installed torch.
        UnknownName: torchvision has no such classifier, or it has no such weights.
        CheckpointError: weights that cannot be fetched or do not fit.
    """
    bare, options = opt.split(name, (*opt.COMMON, "weights"))
    model, _, path = bare.removeprefix(PREFIX).partition("@")
    models = _library()
    weights = _weights(models, model, options.get("weights"))
    network = _with_weights(models, model, path, bare) if path else _pretrained(models, model, weights, bare)
    transform = weights.transforms()
    own = from_transform(transform)
    confirm(own, transform, bare)
    names = tuple(weights.meta["categories"])
    count = _count(network)
    return PretrainedClassifier(
        network.float().eval().requires_grad_(False),
        opt.preprocessing(options, own),
        kind="torchvision",
        class_count=count,
        classes=opt.classes(options, None if path else names),
        settings={"architecture": model, "weights": weights.name},
    )


def from_transform(transform: Any) -> Preprocessing:
    """The preprocessing that a transform of pretrained weights (``weights.transforms()``) means."""
    resize = [int(side) for side in transform.resize_size]
    crop = [int(side) for side in transform.crop_size]
    return Preprocessing(
        mean=tuple(float(value) for value in transform.mean),
        std=tuple(float(value) for value in transform.std),
        size=resize[0] if len(resize) == 1 else (resize[0], resize[1]),
        interpolation=str(transform.interpolation.value),
        crop=(crop[0], crop[-1]),
        centre="round",
    )


def _library() -> Any:
    try:
        from torchvision import models
    except (ImportError, RuntimeError) as error:  # a torchvision of another torch fails as RuntimeError
        needs = "a torchvision that works with the installed torch"
        raise MissingExtra.install(needs, "torchvision", "a torchvision classifier") from error
    return models


def _weights(models: Any, model: str, chosen: str | None) -> Any:
    """The weights that the user chose, else the library's default."""
    known = models.list_models(module=models)
    if model not in known:
        raise UnknownName.among("torchvision classifier", model, known)
    available = models.get_model_weights(model)
    if chosen is None:
        return available.DEFAULT
    if chosen not in available.__members__:
        raise UnknownName.among(f"weights of {model}:", chosen, available.__members__)
    return available[chosen]


def _pretrained(models: Any, model: str, weights: Any, name: str) -> Any:
    try:
        return models.get_model(model, weights=weights, progress=False)
    except Exception as error:  # the network, the cache and the file each raise their own
        first = (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")
        why = f"torchvision cannot fetch its weights ({type(error).__name__}: {first})"
        instead = "Check the connection, or give weights: torchvision:NAME@PATH"
        raise CheckpointError(f"classifier {name!r}", why, instead) from error


def _with_weights(models: Any, model: str, path: str, name: str) -> Any:
    """The architecture with as many classes as a local file has."""
    state = load_state(Path(path))
    extra = {"init_weights": False, "transform_input": True} if model in _REMAPS else {}
    network = models.get_model(model, weights=None, **extra)
    last = [key for key, tensor in network.state_dict().items() if tensor.ndim >= 2][-1]
    if last in state and len(state[last]) != _count(network):
        network = models.get_model(model, weights=None, num_classes=len(state[last]), **extra)
    return fill(network, state, name)


def _count(network: Any) -> int:
    """The number of scores: rows of the last weights (in SqueezeNet, a convolution's)."""
    return len([weight for weight in network.parameters() if weight.ndim >= 2][-1])
