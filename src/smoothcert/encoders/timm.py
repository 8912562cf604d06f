"""Feature extractors of the timm library: ``timm:NAME``, or ``timm:NAME@PATH`` with weights of your own.

The features are what timm gives for ``num_classes=0``: pooled, before the last layer.
"""

from __future__ import annotations

import torch

from smoothcert.encoders.pretrained import PretrainedEncoder, shape_of
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
    network = reading.network(timm, model, path, bare, headless=True)
    network.reset_classifier(0)
    network = network.float().eval().requires_grad_(False)
    own = opt.preprocessing(options, reading.preprocessing(timm, network, bare))
    return PretrainedEncoder(
        network,
        own,
        kind="timm-features",
        shape=shape_of(network, own(torch.full((1, own.channels, 64, 64), 0.5)), bare),
        settings={"architecture": model},
    )
