"""Reading models of the transformers library, and what their own image processors do to an image.

Size, interpolation, crop, mean and std come from the model's own image processor, and are compared with it on
probe images before anything else is done. Weights are read as safetensors, or by torch's restricted
unpickler; code that comes with a model is never run. A directory is read without any network; a hub id goes
through the library's cache.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from smoothcert.errors import CheckpointError, InvalidInput, MissingExtra
from smoothcert.networks.preprocessing import Preprocessing, confirm

PREFIX = "transformers:"
_RESAMPLING = {0: "nearest", 1: "lanczos", 2: "bilinear", 3: "bicubic"}  # Pillow's numbers


@contextmanager
def library(purpose: str = "a model of the transformers library") -> Iterator[Any]:
    """The library, without its progress bars and notices while it reads a model.

    Raises:
        MissingExtra: it is not installed; ``purpose`` says for what it is needed.
    """
    try:
        import transformers
    except ImportError as error:
        raise MissingExtra.install("transformers", "hf", purpose) from error
    log: Any = transformers.utils.logging
    level, bars = log.get_verbosity(), log.is_progress_bar_enabled()
    log.set_verbosity_error()
    log.disable_progress_bar()
    try:
        yield transformers
    finally:
        log.set_verbosity(level)
        if bars:
            log.enable_progress_bar()


def place(where: str, options: Mapping[str, str]) -> dict[str, Any]:
    """Arguments that make the library read a directory without any network, or a hub id at a revision.

    Raises:
        CheckpointError: a path where no directory is.
    """
    found: dict[str, Any] = {"local_files_only": True} if _is_directory(where) else {}
    return found | ({"revision": options["revision"]} if "revision" in options else {})


def read(name: str, call: Callable[[], Any]) -> Any:
    """What a call of the library returns; whatever it says is wrong becomes one ``CheckpointError``."""
    try:
        return call()
    except Exception as error:  # its readers, the hub client and the file formats each raise their own
        lines = str(error).strip().splitlines() or [type(error).__name__]
        if "trust_remote_code" in str(error):
            why = "it needs code that comes with it, and code from a model is never run here"
            instead = "Load it yourself where you trust it, and name it python:module:function"
            raise CheckpointError(f"model {name!r}", why, instead) from error
        if "torchvision::" in str(error.__cause__):
            why = "the transformers library cannot start, as the installed torchvision is for another torch"
            instead = "Install torch and torchvision of one release, or uninstall torchvision"
            raise CheckpointError(f"model {name!r}", why, instead) from error
        why = f"the transformers library cannot read it ({type(error).__name__}: {lines[0].rstrip('.')})"
        instead = "Check the name, the connection to the hub (or its cache), and the files"
        raise CheckpointError(f"model {name!r}", why, instead) from error


def network(auto: Any, where: str, hub: Mapping[str, Any], *, unused: tuple[str, ...] = ()) -> Any:
    """A network with all of its weights, by one of the library's classes (inside ``read``).

    Args:
        auto: an ``Auto`` class, or a model class.
        where, hub: the directory or hub id, and what ``place`` says of it.
        unused: beginnings of the names of weights that may be missing, as nothing uses them.

    Raises:
        ValueError: its files lack weights, which would be random.
    """
    found, report = auto.from_pretrained(
        where, trust_remote_code=False, weights_only=True, output_loading_info=True, **hub
    )
    lacking = sorted(key for key in report["missing_keys"] if not key.startswith(unused))
    if lacking:
        missing = ", ".join(lacking[:4])
        raise ValueError(f"its weights lack {missing}, which would be random: fine-tune it first")
    return found


def image_processor(transformers: Any, where: str, hub: Mapping[str, Any]) -> Any:
    """The image processor beside a model (inside ``read``)."""
    return transformers.AutoImageProcessor.from_pretrained(where, trust_remote_code=False, **hub)


def preprocessing(processor: Any, name: str, *, channels: int = 3) -> Preprocessing:
    """What an image processor does, compared with it on probe images.

    Raises:
        InvalidInput: a size or a filter that smoothcert does not know.
        CheckpointError: it does something else than its configuration says to smoothcert.
    """
    own = from_processor(processor.to_dict(), channels=channels)
    confirm(own, _as_function(processor), name)
    return own


def from_processor(config: Mapping[str, Any], *, channels: int = 3) -> Preprocessing:
    """The preprocessing that an image processor's configuration (``preprocessor_config.json``) means.

    Raises:
        InvalidInput: a size or a filter that smoothcert does not know.
    """
    size, crop = _resizing(config)
    mean, std = _normalisation(config)
    resample = config.get("resample", 2)
    if size is not None and resample not in _RESAMPLING:
        found = f"image processor with resample={resample!r}"
        raise InvalidInput(found, f"only {_RESAMPLING} are known", "Add ?interpolation=... and size=...")
    return Preprocessing(
        mean=mean,
        std=std,
        size=size,
        interpolation=_RESAMPLING[int(resample)] if size is not None else "bilinear",
        crop=crop,
        channels=channels,
        order="bgr" if config.get("do_flip_channel_order") else "rgb",
    )


def _resizing(config: Mapping[str, Any]) -> tuple[int | tuple[int, int] | None, tuple[int, int] | None]:
    """Size and crop; ConvNeXT and LeViT enlarge the shorter side before they crop."""
    kind = str(config.get("image_processor_type") or config.get("feature_extractor_type") or "")
    crop = _pair(config.get("crop_size")) if config.get("do_center_crop") else None
    size = _size(config.get("size")) if config.get("do_resize", True) else None
    if isinstance(size, int) and kind.startswith("ConvNext"):
        if size >= 384:
            return (size, size), crop
        return int(size / float(config.get("crop_pct") or 224 / 256)), (size, size)
    if isinstance(size, int) and kind.startswith("Levit"):
        return int(256 / 224 * size), crop
    square_by_default = not kind.startswith(("CLIP", "Bit", "MobileNet", "Levit", "MobileViT"))
    if isinstance(config.get("size"), int) and square_by_default and isinstance(size, int):
        return (size, size), crop
    return size, crop


def _size(size: Any) -> int | tuple[int, int]:
    """``224``, ``{"height": .., "width": ..}``, ``{"shortest_edge": ..}`` -> shorter side or (H, W)."""
    if isinstance(size, Mapping):
        given = {key: value for key, value in size.items() if value is not None}
        if given.keys() == {"shortest_edge"}:
            return int(given["shortest_edge"])
        if given.keys() == {"height", "width"}:
            return int(given["height"]), int(given["width"])
    elif isinstance(size, list | tuple) and len(size) == 2:
        return int(size[0]), int(size[1])
    elif isinstance(size, int):
        return size
    found = f"image processor with size={size!r}"
    raise InvalidInput(found, "only height and width, or shortest_edge, are known", "Wrap it in a function")


def _pair(size: Any) -> tuple[int, int]:
    found = _size(size)
    return found if isinstance(found, tuple) else (found, found)


def _normalisation(config: Mapping[str, Any]) -> tuple[tuple[float, ...], tuple[float, ...]]:
    """Rescaling and normalisation as one mean and std on [0, 1]."""
    scale = 255.0 * float(config.get("rescale_factor", 1 / 255)) if config.get("do_rescale", True) else 255.0
    scale = 1.0 if math.isclose(scale, 1.0, rel_tol=1e-6) else scale
    offset = -1.0 if config.get("rescale_offset") else 0.0
    mean, std = _floats(0.0), _floats(1.0)
    if config.get("do_normalize"):
        mean, std = _floats(config["image_mean"]), _floats(config["image_std"])
    once = tuple((value - offset) / scale for value in mean), tuple(value / scale for value in std)
    if config.get("include_top"):  # EfficientNet divides by the std a second time
        return once[0], tuple(a * b for a, b in zip(once[1], _floats(config["image_std"]), strict=True))
    return once


def _floats(values: Any) -> tuple[float, ...]:
    return tuple(float(value) for value in (values if isinstance(values, list | tuple) else [values]))


def _is_directory(where: str) -> bool:
    if Path(where).is_dir():
        return True
    if where.startswith((".", "/", "~")) or not where:
        why = "there is no such directory"
        instead = (
            "Give a directory written by save_pretrained, or a hub id such as google/vit-base-patch16-224"
        )
        raise CheckpointError(f"model {PREFIX + where!r}", why, instead)
    return False


def _as_function(processor: Any) -> Callable[[Any], Tensor]:
    def processed(image: Any) -> Tensor:
        return torch.as_tensor(processor(images=image, return_tensors="pt")["pixel_values"][0])

    return processed
