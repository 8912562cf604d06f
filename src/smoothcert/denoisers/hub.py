"""Diffusion models of the Hugging Face hub, by their id, through the cache of the libraries it serves."""

from __future__ import annotations

import re
from pathlib import Path

from smoothcert.checkpoints import sha256
from smoothcert.denoisers import cards, diffusers
from smoothcert.denoisers.diffusion import DiffusionDenoiser
from smoothcert.errors import CheckpointError

_SETTINGS = (
    "model_index.json",
    "config.json",
    "scheduler_config.json",
    "scheduler/*.json",
    "unet/config.json",
)
_FOLDERS = ("", "unet/")


def is_id(text: str) -> bool:
    """Whether a name has the form of an id, such as ``google/ddpm-cifar10-32``."""
    return re.fullmatch(r"[A-Za-z0-9][\w.-]*/[\w.-]+", text) is not None


def load(text: str) -> DiffusionDenoiser:
    """The denoiser of a pipeline on the hub; what was fetched once is found again without a network.

    Weights are taken as safetensors where there are any, else as a torch file for the restricted reader.

    Raises:
        CheckpointError: no such model, no connection, or weights that are not what their card says.
        InvalidInput: a model that is no unconditional diffusion model of pixels.
    """
    directory = _fetched(text, [*_SETTINGS, *(folder + diffusers.WEIGHTS for folder in _FOLDERS)])
    if not _weights(directory, diffusers.WEIGHTS):
        directory = _fetched(text, [*_SETTINGS, *(folder + diffusers.PICKLED for folder in _FOLDERS)])
    _compare(text, directory)
    found = diffusers.load(directory)
    found.source = text
    return found


def _fetched(text: str, files: list[str]) -> Path:
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError

    try:
        return Path(snapshot_download(text, allow_patterns=files))
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as error:
        why = f"it is no directory here, and fetching it from the hub failed ({_first_line(error)})"
        instead = "Check the name and the connection, or give the directory of a copy"
        raise CheckpointError(f"denoiser {text!r}", why, instead) from error


def _first_line(error: Exception) -> str:
    return f"{type(error).__name__}: {str(error).strip().splitlines()[0] if str(error).strip() else ''}"


def _weights(directory: Path, name: str) -> list[Path]:
    return [directory / folder / name for folder in _FOLDERS if (directory / folder / name).is_file()]


def _compare(text: str, directory: Path) -> None:
    card = cards.published().get(text)
    for path in _weights(directory, diffusers.WEIGHTS) if card and card.sha256 else []:
        if card and sha256(path) != card.sha256:
            why = "its weights are not those of its card"
            raise CheckpointError(f"denoiser {text!r}", why, "Delete it from the cache and fetch it again")
