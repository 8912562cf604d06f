"""Feature extractors of the timm library: ``timm:NAME``, or ``timm:NAME@PATH`` with weights of your own.

The features are what timm gives for ``num_classes=0``: pooled, before the last layer.
"""

from __future__ import annotations

from smoothcert.encoders.pretrained import PretrainedEncoder
from smoothcert.networks import options as opt
from smoothcert.networks import timm as reading
from smoothcert.networks.timm import PREFIX as PREFIX


def load(name: str) -> PretrainedEncoder:
    """Read ``timm:NAME``, ``timm:NAME@PATH`` or ``timm:NAME?checkpoint=PATH``.

    The file may hold a classifier, whose last layer is left out, or a feature extractor without one.

    Raises:
        MissingExtra: timm or torchvision is not installed, or they do not work together.
        UnknownName: timm has no such model.
        CheckpointError: weights that cannot be fetched or do not fit, or preprocessing that smoothcert does
            not know.
    """
    bare, options = opt.split(name, (*opt.PREPROCESSING, "checkpoint"))
    model, _, path = bare.removeprefix(PREFIX).partition("@")
    path = options.get("checkpoint", path)
    timm = reading.library("a timm encoder")
    network = reading.network(timm, model, path, bare)
    network.reset_classifier(0)
    return PretrainedEncoder(
        network.float().eval().requires_grad_(False),
        opt.preprocessing(options, reading.preprocessing(timm, network, bare)),
        kind="timm-features",
        dimension=int(getattr(network, "head_hidden_size", None) or network.num_features),
        settings={"architecture": model},
    )
