"""Reading models of the timm library, and their preprocessing.

Size, crop, interpolation, mean and std come from the model's pretrained configuration and are compared with
the transform that timm itself makes of it, before anything else is done.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from smoothcert.checkpoints import load_state
from smoothcert.errors import CheckpointError, InvalidInput, MissingExtra, UnknownName
from smoothcert.networks.preprocessing import INTERPOLATIONS, Preprocessing, confirm
from smoothcert.networks.weights import fill

PREFIX = "timm:"


def network(timm: Any, model: str, path: str, name: str, *, headless: bool = False) -> Any:
    """A network with its pretrained weights, or with those of a local file (and as many classes as it has).

    Args:
        timm: what ``library`` returned. model: as timm names it.
        path: of a file with its weights, or ``""``.
        name: for messages.
        headless: whether the file may lack the last layer, which the network then lacks too.

    Raises:
        UnknownName: timm has no such model.
        CheckpointError: weights that cannot be fetched or do not fit.
    """
    return _with_weights(timm, model, path, name, headless) if path else _pretrained(timm, model, name)


def preprocessing(timm: Any, network: Any, name: str) -> Preprocessing:
    """What stands before a network, compared with timm's own transform on probe images.

    Raises:
        InvalidInput: a crop mode or a filter that smoothcert does not know.
        CheckpointError: timm's transform does something else.
    """
    resolved = timm.data.resolve_model_data_config(network)
    own = from_config(resolved)
    confirm(own, timm.data.create_transform(**resolved, is_training=False), name)
    return own


def from_config(config: Mapping[str, Any]) -> Preprocessing:
    """The preprocessing that a data configuration of timm (``resolve_model_data_config``) means.

    Raises:
        InvalidInput: a crop mode or a filter that smoothcert does not know.
    """
    channels, height, width = config["input_size"]
    interpolation, mode = config.get("interpolation", "bilinear"), config.get("crop_mode") or "center"
    square = height == width  # else timm's centre crop keeps the ratio in a way of its own
    if interpolation not in INTERPOLATIONS or not (mode == "squash" or (mode == "center" and square)):
        found = f"timm preprocessing {height}x{width}, interpolation={interpolation}, crop_mode={mode}"
        raise InvalidInput(found, "smoothcert does not know it", "Wrap the model in a function")
    share = float(config.get("crop_pct") or 1.0)
    larger = math.floor(height / share), math.floor(width / share)
    return Preprocessing(
        mean=_floats(config["mean"]),
        std=_floats(config["std"]),
        size=larger if mode == "squash" else larger[0],
        interpolation=interpolation,
        crop=(height, width),
        centre="round",
        channels=channels,
    )


def _floats(values: Any) -> tuple[float, ...]:
    return tuple(float(value) for value in values)


def library(purpose: str = "a timm model") -> Any:
    """The library; ``MissingExtra`` where it or a working torchvision is not installed."""
    try:
        import timm
        import timm.data
    except (ImportError, RuntimeError) as error:  # a torchvision of another torch fails as RuntimeError
        raise MissingExtra.install("timm with a working torchvision", "timm", purpose) from error
    return timm


def _check_name(timm: Any, model: str) -> None:
    architecture = model.partition(".")[0]
    if ":" not in model and not timm.is_model(architecture):  # hf-hub:... is no architecture
        raise UnknownName.among("timm model", architecture, _near(timm, architecture))


def _near(timm: Any, architecture: str) -> list[str]:
    """The names worth listing: timm has more than a thousand."""
    import difflib

    return difflib.get_close_matches(architecture, timm.list_models(), n=8, cutoff=0.4)


def _pretrained(timm: Any, model: str, name: str) -> Any:
    _check_name(timm, model)
    try:
        return timm.create_model(model, pretrained=True)
    except Exception as error:  # the hub client, the file formats and timm each raise their own
        first = (str(error).strip().splitlines() or [type(error).__name__])[0].rstrip(".")
        why = f"timm cannot read its weights ({type(error).__name__}: {first})"
        instead = "Check the name and the connection, or give weights: timm:NAME@PATH"
        raise CheckpointError(f"model {name!r}", why, instead) from error


def _with_weights(timm: Any, model: str, path: str, name: str, headless: bool) -> Any:
    """The architecture with as many classes as a local file has."""
    _check_name(timm, model)
    state = load_state(Path(path))
    network = timm.create_model(model, pretrained=False)
    count, channels = _heads(network, state, headless), _channels(network, state)
    if (count, channels) != (network.num_classes, None):
        sizes = {"num_classes": count} | ({"in_chans": channels} if channels else {})
        network = timm.create_model(model, pretrained=False, **sizes)
    return fill(network, state, name)


def _heads(network: Any, state: Mapping[str, Tensor], headless: bool) -> int:
    """How many classes the last layer of a file has; 0 where it may lack that layer and does."""
    head = network.pretrained_cfg.get("classifier") or "classifier"
    for prefix in (head,) if isinstance(head, str) else head:
        for tensor in (state.get(f"{prefix}.bias"), state.get(f"{prefix}.weight")):
            if tensor is not None:
                return len(tensor)
    return 0 if headless else int(network.num_classes)


def _channels(network: Any, state: Mapping[str, Tensor]) -> int | None:
    """How many channels the first layer of a file takes, where that differs from the architecture's own."""
    first = network.pretrained_cfg.get("first_conv")
    key = f"{first}.weight" if isinstance(first, str) else ""
    own = network.state_dict().get(key)
    if own is None or key not in state or own.shape[1] == state[key].shape[1]:
        return None
    return int(state[key].shape[1])
