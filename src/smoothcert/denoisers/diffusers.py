"""Diffusion models in the directory layout of the diffusers library: read, and written back.

``unet/`` (``UNet2DModel``) and ``scheduler/scheduler_config.json``, or both files of settings beside the
weights as in the oldest models of the hub. What is written here is read by diffusers too. diffusers is
imported where it is used: it takes seconds.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import nn

from smoothcert.checkpoints import CARD, load_state, read_card, read_config
from smoothcert.denoisers.diffusion import DiffusionDenoiser
from smoothcert.denoisers.takes import Takes
from smoothcert.diffusion.closed_form import EdmSchedule
from smoothcert.diffusion.preconditioning import EdmPreconditioning
from smoothcert.diffusion.prediction import DIFFUSERS_NAMES
from smoothcert.diffusion.samplers import OneShot, Sampler
from smoothcert.diffusion.schedule import Schedule
from smoothcert.errors import CheckpointError, InvalidInput

WEIGHTS = "diffusion_pytorch_model.safetensors"
PICKLED = "diffusion_pytorch_model.bin"
SCHEDULER = "scheduler_config.json"
_EDM_SCHEDULERS = ("EDMEulerScheduler", "EDMDPMSolverMultistepScheduler")


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
        CheckpointError: files that are missing or unreadable, weights with code in them, another
            architecture, or files that differ from the directory's ``card.toml``.
        InvalidInput: no schedule anywhere, or a network that wants a class label.
    """
    root = Path(directory)
    if (root / CARD).exists():
        read_card(root)
    unet = root / "unet" if (root / "unet").is_dir() else root
    written = _scheduler_config(root)
    if schedule is None and written is None:
        raise InvalidInput(
            f"model directory {str(root)!r}",
            f"it has no scheduler/{SCHEDULER}, and a network does not know its own noise levels",
            "Pass schedule=, the one it was trained with",
        )
    network, chosen, source = _load_unet(unet), sampler or OneShot(), f"diffusers:{root}"
    if schedule is None and (written or {}).get("_class_name") in _EDM_SCHEDULERS:
        return _edm(network, written or {}, prediction, chosen, source)
    return DiffusionDenoiser(
        network,
        schedule or Schedule.from_diffusers(written or {}),
        prediction=prediction or (written or {}).get("prediction_type", "epsilon"),
        sampler=chosen,
        source=source,
        takes=takes(network),
    )


def takes(network: Any) -> Takes:
    """The images a ``UNet2DModel`` was built for: every block but the last halves them."""
    return Takes(int(network.config.in_channels), 2 ** (len(network.config.block_out_channels) - 1))


def save(denoiser: DiffusionDenoiser, directory: str | Path) -> Path:
    """Write a pipeline directory (network, schedule, prediction type; the sampler is chosen on loading).

    A network with EDM preconditioning gets the configuration of diffusers' ``EDMEulerScheduler``.

    Raises:
        InvalidInput: a network that is no diffusers model, or a schedule that diffusers cannot express.
    """
    from diffusers import UNet2DModel, __version__

    network = denoiser.network
    if not isinstance(network, UNet2DModel):
        raise InvalidInput(
            f"a network of type {type(network).__name__}",
            "only UNet2DModel has this layout",
            "Save its state yourself",
        )
    root = Path(directory)
    pipeline, scheduler = _scheduler(denoiser)
    network.save_pretrained(root / "unet", safe_serialization=True)
    scheduler.save_pretrained(root / "scheduler")
    index = {
        "_class_name": pipeline,
        "_diffusers_version": __version__,
        "scheduler": ["diffusers", type(scheduler).__name__],
        "unet": ["diffusers", "UNet2DModel"],
    }
    (root / "model_index.json").write_text(json.dumps(index, indent=2) + "\n")
    return root


def _scheduler(denoiser: DiffusionDenoiser) -> tuple[str, Any]:
    """Which pipeline of diffusers the model is for, and its scheduler."""
    import diffusers as library

    scaling, schedule = denoiser.preconditioning, denoiser.schedule
    if isinstance(scaling, EdmPreconditioning) and isinstance(schedule, EdmSchedule):
        ends = {"sigma_min": schedule.least, "sigma_max": schedule.most, "rho": schedule.rho}
        # diffusers' words for the sign of c_out
        prediction = "epsilon" if scaling.sign == 1 else "v_prediction"
        euler: Any = library.EDMEulerScheduler
        return "DiffusionPipeline", euler(
            **ends,
            sigma_data=scaling.sigma_data,
            prediction_type=prediction,
            num_train_timesteps=schedule.timesteps,
        )
    settings = {**schedule.to_diffusers(), "prediction_type": DIFFUSERS_NAMES[denoiser.prediction]}
    ddpm: Any = library.DDPMScheduler
    return "DDPMPipeline", ddpm(**settings)


def _edm(
    network: nn.Module, config: Mapping[str, Any], prediction: str | None, sampler: Sampler, source: str
) -> DiffusionDenoiser:
    """The scaling that diffusers' EDM schedulers put around a network; their sigmas are on [-1, 1]."""
    kind = prediction or config.get("prediction_type", "epsilon")
    if kind not in ("epsilon", "v_prediction"):
        why = "diffusers' EDM schedulers know epsilon (c_out positive) and v_prediction (c_out negative)"
        raise InvalidInput(f"prediction type {kind!r} with EDM preconditioning", why, "Write one of the two")
    schedule = EdmSchedule(
        int(config.get("num_train_timesteps", 1000)),
        least=float(config.get("sigma_min", 0.002)),
        most=float(config.get("sigma_max", 80.0)),
        rho=float(config.get("rho", 7.0)),
    )
    scaling = EdmPreconditioning(float(config.get("sigma_data", 0.5)), 1 if kind == "epsilon" else -1)
    return DiffusionDenoiser(
        network, schedule, prediction=scaling, sampler=sampler, source=source, takes=takes(network)
    )


def _scheduler_config(root: Path) -> dict[str, Any] | None:
    for path in (root / "scheduler" / SCHEDULER, root / SCHEDULER):
        if path.exists():
            return read_config(path)
    return None


def _load_unet(directory: Path) -> nn.Module:
    pickled = _refuse_foreign(directory)
    import diffusers

    model: Any = diffusers.UNet2DModel  # its from_pretrained has no types
    try:
        network: nn.Module = model.from_pretrained(
            directory, use_safetensors=not pickled, local_files_only=True, low_cpu_mem_usage=False
        )
    except (OSError, ValueError, RuntimeError, KeyError, TypeError) as error:
        raise CheckpointError(
            f"weights in {str(directory)!r}", f"do not load ({error})", "Fetch the directory again"
        ) from error
    return network.eval()


def _refuse_foreign(directory: Path) -> bool:
    """Whether the weights are a torch file; the restricted reader opens such a file before diffusers does."""
    if not (directory / "config.json").exists():
        raise CheckpointError(
            f"directory {str(directory)!r}",
            "it has no config.json",
            "Give a diffusers pipeline or UNet2DModel directory",
        )
    _refuse_conditional(read_config(directory / "config.json"))
    if (directory / WEIGHTS).exists():
        return False
    if not (directory / PICKLED).exists():
        given = f"directory {str(directory)!r}"
        raise CheckpointError(given, f"it has no {WEIGHTS}", "Save the model again with save_pretrained")
    load_state(directory / PICKLED)
    return True


def _refuse_conditional(config: Mapping[str, Any]) -> None:
    architecture = config.get("_class_name")
    if architecture != "UNet2DModel":
        raise CheckpointError(
            f"a model of class {architecture}",
            "only unconditional UNet2DModel is read here",
            "Wrap it in a callable",
        )
    if config.get("class_embed_type") is not None or config.get("num_class_embeds") is not None:
        why = "it asks for a class label with every image, which is what a denoiser does not know"
        instead = "Take an unconditional model, or give a function of (noisy, sigma) that fixes a label"
        raise InvalidInput("a class-conditional UNet2DModel", why, instead)
    if config.get("center_input_sample"):
        why = "it moves its input from [0, 1] to [-1, 1] itself, which noisy images have no place in"
        instead = "Give a function of (noisy, sigma) that asks it the way it was trained"
        raise InvalidInput("a UNet2DModel with center_input_sample", why, instead)
