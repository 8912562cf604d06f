"""Diffusion models in the directory layout of the diffusers library: read, and written back.

``model_index.json``, ``unet/`` (``UNet2DModel``, safetensors only) and ``scheduler/scheduler_config.json``;
what is written here also loads with ``DDPMPipeline.from_pretrained``. diffusers is imported where it is
used: it takes seconds.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from torch import nn

from smoothcert.checkpoints import CARD, read_card, read_config
from smoothcert.denoisers.diffusion import DiffusionDenoiser
from smoothcert.diffusion.prediction import DIFFUSERS_NAMES
from smoothcert.diffusion.samplers import OneShot, Sampler
from smoothcert.diffusion.schedule import Schedule
from smoothcert.errors import CheckpointError, InvalidInput

WEIGHTS = "diffusion_pytorch_model.safetensors"


def load(
    directory: str | Path,
    *,
    sampler: Sampler | None = None,
    schedule: Schedule | None = None,
    prediction: str | None = None,
) -> DiffusionDenoiser:
    """Read a pipeline directory, or a bare ``UNet2DModel`` directory together with ``schedule``.

    Args:
        directory: holds ``unet/`` and ``scheduler/``, or ``config.json`` and the weights themselves.
        sampler: one-shot if not given.
        schedule: replaces the schedule of the directory.
        prediction: replaces the prediction type of the directory (``epsilon`` where none is written).

    Raises:
        CheckpointError: files that are missing or unreadable, pickled weights, or another architecture,
            or files that differ from the directory's ``card.toml``.
        InvalidInput: no schedule anywhere.
    """
    root = Path(directory)
    if (root / CARD).exists():
        read_card(root)
    unet = root / "unet" if (root / "unet").is_dir() else root
    written = _scheduler_config(root)
    if schedule is None and written is None:
        raise InvalidInput(
            f"model directory {str(root)!r}",
            "it has no scheduler/scheduler_config.json, and a network does not know its own noise levels",
            "Pass schedule=, the one it was trained with",
        )
    return DiffusionDenoiser(
        _load_unet(unet),
        schedule or Schedule.from_diffusers(written or {}),
        prediction=prediction or (written or {}).get("prediction_type", "epsilon"),
        sampler=sampler or OneShot(),
        source=f"diffusers:{root}",
    )


def save(denoiser: DiffusionDenoiser, directory: str | Path) -> Path:
    """Write a pipeline directory (network, schedule, prediction type; the sampler is chosen on loading).

    Raises:
        InvalidInput: a network that is no diffusers model, or a schedule that diffusers cannot express.
    """
    from diffusers import DDPMScheduler, UNet2DModel, __version__

    network = denoiser.network
    if not isinstance(network, UNet2DModel):
        raise InvalidInput(
            f"a network of type {type(network).__name__}",
            "only UNet2DModel has this layout",
            "Save its state yourself",
        )
    root = Path(directory)
    settings = {**denoiser.schedule.to_diffusers(), "prediction_type": DIFFUSERS_NAMES[denoiser.prediction]}
    network.save_pretrained(root / "unet", safe_serialization=True)
    DDPMScheduler(**settings).save_pretrained(root / "scheduler")
    index = {
        "_class_name": "DDPMPipeline",
        "_diffusers_version": __version__,
        "scheduler": ["diffusers", "DDPMScheduler"],
        "unet": ["diffusers", "UNet2DModel"],
    }
    (root / "model_index.json").write_text(json.dumps(index, indent=2) + "\n")
    return root


def _scheduler_config(root: Path) -> dict[str, Any] | None:
    path = root / "scheduler" / "scheduler_config.json"
    return read_config(path) if path.exists() else None


def _load_unet(directory: Path) -> nn.Module:
    _refuse_foreign(directory)
    import diffusers

    model: Any = diffusers.UNet2DModel  # its from_pretrained has no types
    try:
        network: nn.Module = model.from_pretrained(
            directory, use_safetensors=True, local_files_only=True, low_cpu_mem_usage=False
        )
    except (OSError, ValueError, RuntimeError, KeyError, TypeError) as error:
        raise CheckpointError(
            f"weights in {str(directory)!r}", f"do not load ({error})", "Fetch the directory again"
        ) from error
    return network.eval()


def _refuse_foreign(directory: Path) -> None:
    if not (directory / "config.json").exists():
        raise CheckpointError(
            f"directory {str(directory)!r}",
            "it has no config.json",
            "Give a diffusers pipeline or UNet2DModel directory",
        )
    architecture = read_config(directory / "config.json").get("_class_name")
    if architecture != "UNet2DModel":
        raise CheckpointError(
            f"a model of class {architecture}",
            "only unconditional UNet2DModel is read here",
            "Wrap it in a callable",
        )
    if not (directory / WEIGHTS).exists():
        pickled = any(directory.glob("*.bin"))
        raise CheckpointError(
            f"directory {str(directory)!r}",
            "its weights are pickled (.bin), and a pickle runs code when read"
            if pickled
            else f"it has no {WEIGHTS}",
            "Convert them with save_pretrained(..., safe_serialization=True) where you trust them",
        )
