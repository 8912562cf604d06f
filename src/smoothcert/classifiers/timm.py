"""Image classifiers of the timm library: ``timm:NAME``, or ``timm:NAME@PATH`` with weights of your own."""

from __future__ import annotations

from typing import Any

from smoothcert.classifiers import labels
from smoothcert.classifiers.pretrained import PretrainedClassifier
from smoothcert.networks import options as opt
from smoothcert.networks import timm as reading
from smoothcert.networks.timm import PREFIX as PREFIX


def load(name: str) -> PretrainedClassifier:
    """Read ``timm:NAME``, ``timm:NAME@PATH`` or ``timm:NAME?checkpoint=PATH``, with any common options.

    Raises:
        MissingExtra: timm or torchvision is not installed, or they do not work together.
        UnknownName: timm has no such model.
        CheckpointError: weights that cannot be fetched or do not fit, or preprocessing that smoothcert does
            not know.
    """
    bare, options = opt.split(name, (*opt.COMMON, "checkpoint"))
    model, _, path = bare.removeprefix(PREFIX).partition("@")
    path = options.get("checkpoint", path)
    timm = reading.library("a timm classifier")
    network = reading.network(timm, model, path, bare)
    own = reading.preprocessing(timm, network, bare)
    return PretrainedClassifier(
        network.float().eval().requires_grad_(False),
        opt.preprocessing(options, own),
        kind="timm",
        class_count=int(network.num_classes),
        classes=opt.classes(options, None if path else _names(timm, network)),
        settings={"architecture": model},
    )


def _names(timm: Any, network: Any) -> tuple[str, ...] | None:
    """Class names: the model's own, else those of the ImageNet subset that it was trained on."""
    own = network.pretrained_cfg.get("label_names")
    if own:
        return labels.meaningful(tuple(own))
    subset = timm.data.infer_imagenet_subset(network)
    if not subset:
        return None
    info = timm.data.ImageNetInfo(subset)
    return tuple(info.index_to_description(k) for k in range(info.num_classes()))
