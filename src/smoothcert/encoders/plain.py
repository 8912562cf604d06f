"""Penultimate features of classifying networks: what their last layer makes scores of.

``resnet56:PATH?mean=...&std=...`` (64 numbers), a directory of ``smoothcert train``, and the network that
ships with the package. Source: the networks themselves, ``networks.resnet`` and ``networks.convnet``.
"""

from __future__ import annotations

from pathlib import Path

from smoothcert.checkpoints import read_config
from smoothcert.encoders.pretrained import Penultimate, PretrainedEncoder
from smoothcert.networks import convnet, plain
from smoothcert.networks.preprocessing import Preprocessing


def load(name: str) -> PretrainedEncoder:
    """Read ``ARCHITECTURE:PATH?options``.

    Raises:
        InvalidInput: nothing says how images were normalised.
        CheckpointError: weights that cannot be read, or are of another architecture.
    """
    return _encoder(plain.load(name))


def load_directory(directory: str | Path) -> PretrainedEncoder:
    """Read a directory written by ``smoothcert train classifier`` or ``smoothcert train finetune``.

    Raises:
        CheckpointError: missing or corrupt files, or files that differ from their card.
    """
    root = Path(directory)
    if read_config(root / "config.json").get("architecture") in plain.ARCHITECTURES:
        return _encoder(plain.load_directory(root))
    return of_convnet(convnet.load(root))


def of_convnet(network: convnet.ConvNet) -> PretrainedEncoder:
    """The features of a small network of this package, which takes images of one shape as they are."""
    channels, *sides = network.config.shape
    return PretrainedEncoder(
        Penultimate(network),
        Preprocessing(channels=channels, expects=(sides[0], sides[1])),
        kind=f"{convnet.ARCHITECTURE}-features",
        shape=(network.head.in_features,),
    )


def _encoder(found: plain.Plain) -> PretrainedEncoder:
    last = [weight for weight in found.network.parameters() if weight.ndim > 1][-1]
    return PretrainedEncoder(
        Penultimate(found.network),
        found.preprocessing,
        kind=f"{found.architecture}-features",
        shape=(last.shape[1],),
    )
