"""``smoothcert grid``: clean, noisy and denoised images side by side, with predictions."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from smoothcert.cli import options
from smoothcert.cli.settings import Settings, both_pictures, settle
from smoothcert.cli.terminal import say

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from smoothcert.protocols import Example


def grid(
    data: options.Data = None,
    data_dir: options.DataDirectory = None,
    download: options.Download = None,
    classifier: options.ClassifierName = None,
    denoiser: options.DenoiserName = None,
    samplers: Annotated[
        str | None,
        typer.Option(
            "--samplers",
            help="Columns of a diffusion model, separated by commas.",
            show_default="one-shot,ddim:20",
        ),
    ] = None,
    sigma: Annotated[float, typer.Option("--sigma", help="Noise level on pixels in \\[0, 1].")] = 0.5,
    images: Annotated[int, typer.Option("--images", help="How many images, from the start of the data.")] = 6,
    seed: options.Seed = None,
    device: options.Device = None,
    out: Annotated[
        Path, typer.Option("--out", help="Picture to write; PNG and SVG are both written.")
    ] = Path("grid.png"),
) -> None:
    """Draw images clean, noisy and denoised, with the classifier's answer: green when right, red when wrong.

    One noise draw an image, the same for every column, as in figures 3 to 5 of Carlini et al. 2023.

    [bold]Example[/]: smoothcert grid --sigma 1 --samplers one-shot,edm:18,ancestral
    """
    flags: dict[str, Any] = {
        "data": data,
        "data_dir": data_dir,
        "download": download,
        "classifier": classifier,
    }
    flags |= {"denoiser": denoiser, "seed": seed, "device": device}
    settings = settle("grid", None, flags)
    names = tuple(name.strip() for name in samplers.split(",")) if samplers else None
    paths = both_pictures(out)
    written = draw(settings, sigma=sigma, images=images, samplers=names, paths=paths)
    say(f"wrote {', '.join(str(path) for path in written)}")


def draw(
    settings: Settings,
    *,
    sigma: float,
    images: int,
    samplers: Sequence[str] | None = None,
    paths: Sequence[Path],
) -> tuple[Path, ...]:
    """Compute the columns with torch, and hand arrays to the report.

    Without ``samplers`` a diffusion model is shown one-shot and in 20 steps, another denoiser as it is.
    """
    import numpy as np

    from smoothcert import report
    from smoothcert.cli.models import load_data, smooth
    from smoothcert.smoothing.network import intra_op_threads
    from smoothcert.smoothing.pictures import columns

    data = load_data(settings)
    examples = [data[k] for k in range(min(images, len(data)))]
    if len(examples) < 1:
        from smoothcert.errors import InvalidInput

        raise InvalidInput(f"images = {images}", "a grid shows at least one image", "Write --images 6")
    models = _denoised_columns(settings, samplers)
    smoothed = {name: smooth(settings, pair, sigma, data.levels) for name, pair in models.items()}
    with intra_op_threads(settings.threads or 1):
        shown = columns(smoothed, examples, seed=settings.seed)
    drawn = [
        report.GridColumn(title, np.clip(pixels, 0.0, 1.0), *_verdicts(labels, examples, data.classes))
        for title, pixels, labels in shown
    ]
    caption = (
        f"{data.name}, sigma = {sigma:g}; one noise draw an image, the same in every column; "
        f"answers of the classifier {settings.classifier}."
    )
    return report.grid(drawn, list(paths), caption=caption)


def _denoised_columns(settings: Settings, samplers: Sequence[str] | None) -> dict[str, tuple[Any, Any]]:
    """Classifier and denoiser of each denoised column, by its title."""
    from smoothcert.cli.models import load_models
    from smoothcert.denoisers import DiffusionDenoiser

    if samplers is None:
        classifier, denoiser = load_models(settings)
        if not isinstance(denoiser, DiffusionDenoiser):
            return {"denoised": (classifier, denoiser)}
        samplers = ("one-shot", "ddim:20")
    return {name: load_models(settings, sampler=name) for name in samplers}


def _verdicts(
    labels: npt.NDArray[np.int64], examples: list[Example], classes: tuple[str, ...]
) -> tuple[Any, Any]:
    names = [classes[k] if 0 <= k < len(classes) else str(k) for k in labels.tolist()]
    return names, [int(k) == example.label for k, example in zip(labels, examples, strict=True)]
