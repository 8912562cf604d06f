"""Plain state dicts as classifiers: ``resnet56:PATH?mean=...&std=...``, read by ``networks.plain``."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path

from safetensors.torch import save_file

from smoothcert.classifiers.pretrained import PretrainedClassifier
from smoothcert.errors import InvalidInput
from smoothcert.networks import plain
from smoothcert.networks.plain import ARCHITECTURES as ARCHITECTURES
from smoothcert.networks.plain import WEIGHTS, Plain
from smoothcert.networks.preprocessing import Preprocessing


def build(
    architecture: str, *, classes: Sequence[str], mean: Sequence[float], std: Sequence[float]
) -> PretrainedClassifier:
    """A classifier with fresh weights, for training: images in [0, 1] in, scores out.

    Args:
        architecture: a name in ``ARCHITECTURES``.
        classes: their names, in the order of the scores.
        mean, std: of each channel on [0, 1]; their number is the number of channels.

    Raises:
        UnknownName: no such architecture. InvalidInput: numbers that fit no network.
    """
    kind = plain.architecture(architecture)
    network = kind.new(classes=len(classes), channels=len(mean))
    preprocessing = Preprocessing(tuple(mean), tuple(std), channels=len(mean), expects=kind.image_size)
    return PretrainedClassifier(
        network, preprocessing, kind=architecture, class_count=len(classes), classes=tuple(classes)
    )


def load(name: str) -> PretrainedClassifier:
    """Read ``ARCHITECTURE:PATH?options``.

    Raises:
        InvalidInput: nothing says how images were normalised.
        CheckpointError: weights that cannot be read, or are of another architecture.
    """
    return _classifier(plain.load(name))


def load_directory(directory: str | Path) -> PretrainedClassifier:
    """Read what ``save`` wrote; where it has a card, its files must match the card.

    Raises:
        CheckpointError: missing or corrupt files, or files that differ from the card.
    """
    found = plain.load_directory(directory)
    try:
        return _classifier(found, str(directory))
    except InvalidInput as error:
        raise plain.misdescribed(Path(directory), error) from error


def save(classifier: PretrainedClassifier, directory: str | Path) -> None:
    """Write ``config.json`` and ``model.safetensors``; ``classifiers.load(directory)`` reads them again.

    Raises:
        InvalidInput: a network that is none of ``ARCHITECTURES``.
    """
    if classifier.kind not in ARCHITECTURES:
        found = f"a classifier of kind {classifier.kind!r}"
        raise InvalidInput(found, "only plain architectures are written here", "Save it with its own library")
    root = Path(directory)
    root.mkdir(parents=True, exist_ok=True)
    config = {
        "architecture": classifier.kind,
        "classes": list(classifier.classes) if classifier.classes else None,
        "preprocessing": classifier.preprocessing.describe(),
    }
    (root / "config.json").write_text(json.dumps(config, indent=2) + "\n", encoding="utf-8")
    state = classifier.network.state_dict()
    save_file({key: tensor.detach().cpu().contiguous() for key, tensor in state.items()}, root / WEIGHTS)


def _classifier(found: Plain, source: str | None = None) -> PretrainedClassifier:
    return PretrainedClassifier(
        found.network,
        found.preprocessing,
        kind=found.architecture,
        class_count=found.class_count,
        classes=found.classes,
        source=source,
    )
