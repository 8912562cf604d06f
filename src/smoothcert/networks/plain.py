"""Plain state dicts: weights without a word about themselves, for an architecture that the user names.

``resnet56:PATH?mean=0.485,0.456,0.406&std=0.229,0.224,0.225`` names the architecture, the file and the
normalisation of its training; a ``config.json`` or ``card.toml`` beside the file may say the last instead. A
directory written by ``classifiers.plain.save`` holds everything. To add an architecture, add a line to
``ARCHITECTURES``.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from torch import Tensor, nn

from smoothcert.checkpoints import (
    CARD,
    load_safetensors,
    load_state,
    read_card,
    read_config,
    read_toml,
    sha256,
)
from smoothcert.errors import CheckpointError, InvalidInput, UnknownName
from smoothcert.networks import options as opt
from smoothcert.networks import resnet
from smoothcert.networks.preprocessing import Preprocessing
from smoothcert.networks.weights import fill

WEIGHTS = "model.safetensors"


@dataclass(frozen=True)
class Architecture:
    """How to make a network from nothing but a name.

    Attributes:
        new: (classes=, channels=) -> the network with fresh weights; its ``embed`` gives the features that
            its last layer makes scores of.
        for_state: a state dict -> the network that it fits; ``KeyError`` where it fits none.
        image_size: ``(H, W)`` that it is made for.
    """

    new: Callable[..., nn.Module]
    for_state: Callable[[Mapping[str, Tensor]], nn.Module]
    image_size: tuple[int, int]


ARCHITECTURES: Mapping[str, Architecture] = {
    f"resnet{depth}": Architecture(
        partial(resnet.ResNet, depth), partial(resnet.for_state, depth), image_size=(32, 32)
    )
    for depth in resnet.DEPTHS
}


@dataclass(frozen=True)
class Plain:
    """A network with its weights, and what was said of it.

    Attributes:
        architecture: its name in ``ARCHITECTURES``.
        class_count: the number of its scores. classes: their names, where they have names.
    """

    architecture: str
    network: nn.Module
    preprocessing: Preprocessing
    class_count: int
    classes: tuple[str, ...] | None


def load(name: str) -> Plain:
    """Read ``ARCHITECTURE:PATH?options``.

    Raises:
        InvalidInput: nothing says how images were normalised.
        CheckpointError: weights that cannot be read, or are of another architecture.
    """
    bare, options = opt.split(name)
    kind, _, path = bare.partition(":")
    found, state = architecture(kind), load_state(path)
    try:
        network = fill(found.for_state(state), state, bare)
    except KeyError as error:
        why = f"the weights are not of this architecture (no {error})"
        raise CheckpointError(f"model {bare!r}", why, "Name the one they were saved from") from error
    beside = _beside(Path(path))
    if "mean" not in options and "mean" not in beside:
        raise _untold(bare)
    count, channels = _shape(network)
    told: dict[str, Any] = {}
    if "mean" not in options:
        told = {key: _numbers(beside.get(key), path) for key in ("mean", "std")}
    base = Preprocessing(**told, channels=channels, expects=found.image_size)
    names = opt.classes(options, beside.get("classes"))
    return Plain(kind, network, opt.preprocessing(options, base), count, names)


def load_directory(directory: str | Path) -> Plain:
    """Read what ``classifiers.plain.save`` wrote; where it has a card, its files must match the card.

    Raises:
        CheckpointError: missing or corrupt files, or files that differ from the card.
    """
    root = Path(directory)
    if (root / CARD).exists():
        read_card(root)
    config, state = read_config(root / "config.json"), load_safetensors(root / WEIGHTS)
    try:
        kind = str(config["architecture"])
        network = fill(ARCHITECTURES[kind].for_state(state), state, str(root))
        preprocessing = Preprocessing.from_plain(config["preprocessing"])
        names = config.get("classes")
        return Plain(kind, network, preprocessing, _shape(network)[0], tuple(names) if names else None)
    except (KeyError, TypeError, AttributeError, InvalidInput) as error:
        raise misdescribed(root, error) from error


def architecture(name: str) -> Architecture:
    """The architecture of that name; ``UnknownName`` lists those that exist."""
    if name not in ARCHITECTURES:
        raise UnknownName.among("architecture", name, ARCHITECTURES)
    return ARCHITECTURES[name]


def misdescribed(root: Path, error: Exception) -> CheckpointError:
    """The error of a directory whose configuration and weights do not belong together."""
    why = f"its config.json does not describe a network ({error})"
    return CheckpointError(f"model {str(root)!r}", why, "Save it again")


def _shape(network: nn.Module) -> tuple[int, int]:
    """Number of scores and of channels, from the last and the first weights."""
    weights = [part for part in network.parameters() if part.ndim > 1]
    return len(weights[-1]), weights[0].shape[1]


def _beside(path: Path) -> dict[str, Any]:
    """What ``config.json`` or ``card.toml`` beside a file say of it, at the top or below preprocessing."""
    found: dict[str, Any] = {}
    card = path.with_name(CARD)
    if card.is_file():
        found |= _card(card, path)
    if path.with_name("config.json").is_file():
        found |= read_config(path.with_name("config.json"))
    inner = found.get("preprocessing")
    return found | (inner if isinstance(inner, dict) else {})


def _card(card: Path, weights: Path) -> dict[str, Any]:
    content = read_toml(card)
    promised = content.get("sha256")
    expected = promised.get(weights.name) if isinstance(promised, dict) else None
    if expected is not None and expected != sha256(weights):
        why = "it is not the file whose SHA-256 the card beside it promises"
        raise CheckpointError(f"weights {str(weights)!r}", why, "Fetch them again, or correct the card")
    return content


def _numbers(value: Any, path: str) -> tuple[float, ...]:
    values = value if isinstance(value, list) else [value]
    if not all(isinstance(one, int | float) and not isinstance(one, bool) for one in values):
        found = f"mean and std beside {path!r}"
        raise CheckpointError(found, f"{value!r} is no list of numbers", "Write for instance [0.5, 0.5, 0.5]")
    return tuple(float(one) for one in values)


def _untold(name: str) -> InvalidInput:
    why = "weights alone do not say how images were normalised, and a guess would certify another model"
    instead = (
        f"Write '{name}?mean=0.485,0.456,0.406&std=0.229,0.224,0.225' with the numbers of its training "
        "(mean=0&std=1 for none), or say mean and std in a config.json beside the file"
    )
    return InvalidInput(f"model {name!r}", why, instead)
