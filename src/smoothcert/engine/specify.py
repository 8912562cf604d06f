"""From a smoothed classifier and a data set to the specification of a run."""

from __future__ import annotations

import datetime
import hashlib
import importlib.metadata
import platform
from typing import Any

import numpy as np
import torch

from smoothcert.backends.identity import code_hash, source_of, weights_of
from smoothcert.classifiers.labels import Reordered, match
from smoothcert.engine.progress import counting
from smoothcert.errors import InvalidInput
from smoothcert.protocols import Dataset, Example
from smoothcert.runlog import specification as spec
from smoothcert.runlog.database import edited
from smoothcert.runlog.roster import Roster
from smoothcert.runlog.rows import ExampleRow
from smoothcert.runlog.store import RunReader
from smoothcert.smoothing.classifier import SmoothedClassifier
from smoothcert.smoothing.encoder import SmoothedEncoder
from smoothcert.smoothing.network import default_batch, modules_of

SPOTS = 128  # images that are compared before a run is continued


def specify(
    smoothed: SmoothedClassifier | SmoothedEncoder,
    data: Dataset,
    rows: Roster,
    rule: spec.RuleSpec,
    *,
    head: spec.HeadSpec | None = None,
    seed: int,
    batch: int | None,
    threads: int | None,
    stored: spec.Specification | None,
) -> spec.Specification:
    """Everything that changes the result, settled before the first draw.

    What the caller left open (``batch``, ``threads``) is taken from the run that is being continued, where
    there is one, and chosen afresh otherwise.
    """
    noise = smoothed.noise_for(data.levels)
    before = stored.execution if stored else None
    usual = before.batch if before else default_batch(data.shape, smoothed.network.device)
    chosen = usual if batch is None else batch
    return spec.Specification(
        data=spec.DataSpec(
            name=data.name,
            examples=len(rows),
            levels=data.levels,
            shape=data.shape,
            classes=tuple(data.classes),
            sha256=rows.sha256,
        ),
        **_parts(smoothed),
        head=head,
        noise=spec.NoiseSpec(kind=noise.kind, sigma=smoothed.sigma, seed=seed),
        rule=rule,
        execution=spec.ExecutionSpec(
            batch=chosen,
            threads=threads if threads is not None else (before.threads if before else 1),
            device=_device(smoothed.network.device),
            dtype=smoothed.network.precision,
            libraries=_libraries(),
        ),
    )


def _parts(smoothed: SmoothedClassifier | SmoothedEncoder) -> dict[str, Any]:
    """The denoiser, and what answers for denoised images: a classifier, or an encoder and its mapper."""
    denoiser = component(smoothed.denoiser) if smoothed.denoiser is not None else None
    if isinstance(smoothed, SmoothedClassifier):
        return {"denoiser": denoiser, "classifier": component(smoothed.classifier)}
    mapper = component(smoothed.mapper) if smoothed.mapper is not None else None
    return {"denoiser": denoiser, "encoder": component(smoothed.encoder), "mapper": mapper}


def found_here(
    smoothed: SmoothedClassifier | SmoothedEncoder, specification: spec.Specification
) -> spec.Specification:
    """The specification as it would read with these models, in this process, on its device."""
    execution = specification.execution.model_copy(
        update={
            "device": _device(smoothed.network.device),
            "dtype": smoothed.network.precision,
            "libraries": _libraries(),
        }
    )
    return specification.model_copy(update=_parts(smoothed) | {"execution": execution})


def with_classes_of(smoothed: SmoothedClassifier, data: Dataset) -> SmoothedClassifier:
    """The same, its answers numbered as the classes of the data.

    Raises:
        InvalidInput: its classes are others than those of the data.
    """
    order = match(smoothed.classifier, data.classes, data.name)
    if order is None:
        return smoothed
    return SmoothedClassifier(
        Reordered(smoothed.classifier, order),
        smoothed.sigma,
        denoiser=smoothed.denoiser,
        noise=smoothed.noise.kind,
        levels=smoothed.levels,
        device=smoothed.network.device,
        precision=smoothed.network.precision,
    )


def roster_of(data: Dataset, *, quiet: bool = True) -> Roster:
    """Every image with the hash of its pixels; a wrong shape or an index used twice is refused."""
    places = counting(f"reading {data.name}", len(data), quiet=quiet)
    rows = Roster(example_row(data[position], data.shape) for position in places)
    if not rows:
        raise InvalidInput(f"the data set {data.name}", "has no images", "Choose a larger slice")
    if not rows.unique:
        raise InvalidInput(
            f"the data set {data.name}",
            "has two images with one index, so they would share their noise",
            "Give every image an index of its own",
        )
    return rows


def example_row(example: Example, shape: tuple[int, int, int]) -> ExampleRow:
    """An image as a run file lists it; ``InvalidInput`` for one of another shape than ``shape``."""
    if tuple(example.image.shape) != tuple(shape):
        raise InvalidInput(
            f"image {example.index} of shape {example.image.shape}",
            f"the data set declares {shape}",
            "Resize it first",
        )
    image = np.ascontiguousarray(example.image)
    pixels = hashlib.sha256(f"{image.dtype} {image.shape}\n".encode() + image.tobytes()).hexdigest()
    return ExampleRow(example.index, int(example.label), example.name, pixels)


def same_image(example: Example, shape: tuple[int, int, int], stored: ExampleRow) -> bool:
    """Whether an image of a data set is the one a run file lists, whatever it is called."""
    if tuple(example.image.shape) != tuple(shape):
        return False
    found = example_row(example, shape)
    return (found.example, found.label, found.sha256) == (stored.example, stored.label, stored.sha256)


def stored_roster(run: RunReader, data: Dataset) -> Roster | None:
    """The images as the run file lists them, if the data set seems to hold the same; else ``None``.

    A few images are compared, spread over the whole data set; the others when they are first used
    (``evaluate.Images``). So a run that is continued need not load every image again.

    Raises:
        RunFileError: the list does not match its hash.
    """
    if not run.ordered or len(data) != run.specification.data.examples:
        return None
    roster = Roster.read(run)
    if roster.sha256 != run.specification.data.sha256:
        raise edited(run.directory, "the list of images does not match its hash")
    looked = {k * (len(data) - 1) // max(1, SPOTS - 1) for k in range(SPOTS)}
    same = all(same_image(data[k], data.shape, roster[k]) for k in sorted(looked))
    return roster if same else None


def component(part: Any) -> spec.ComponentSpec:
    """Name, settings and weight hash of a classifier or denoiser.

    A part whose weights are no torch module's says their hash itself, as ``weights_sha256`` (``None`` where
    nobody here can read them).
    """
    settings = part.describe() if hasattr(part, "describe") else {}
    if not modules_of(part) and not hasattr(part, "weights_sha256"):
        settings = settings | {"code_sha256": code_hash(getattr(part, "function", part))}
    return spec.ComponentSpec(source=source_of(part), sha256=weights_of(part), settings=settings)


def environment() -> dict[str, Any]:
    """What is worth knowing about where a run was made but does not name it."""
    return {
        "host": platform.node(),
        "platform": platform.platform(),
        "python": platform.python_version(),
        "started": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
        "smoothcert": _version("smoothcert"),
    }


def _libraries() -> dict[str, str]:
    """Versions that decide how a network rounds: mixing them within a run would mix two base classifiers."""
    names = ("torch", "diffusers", "numpy")
    return {name: _version(name) for name in names} | {"cpu": torch.backends.cpu.get_cpu_capability()}


def _version(name: str) -> str:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return "absent"


def _device(device: str) -> str:
    return torch.cuda.get_device_name(device) if device.startswith("cuda") else device
