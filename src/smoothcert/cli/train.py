"""``smoothcert train``: the embedded models from scratch, and the baselines they are compared with."""

from __future__ import annotations

import re
import shlex
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from smoothcert.cli import options
from smoothcert.cli.options import numbers
from smoothcert.cli.terminal import say
from smoothcert.errors import InvalidInput, UnknownName

if TYPE_CHECKING:
    from smoothcert.protocols import Dataset

app = typer.Typer(
    help="Train small models from scratch (extra: pip install 'smoothcert\\[train]').",
    no_args_is_help=True,
    rich_markup_mode="rich",
)

Directory = Annotated[
    Path, typer.Option("--out", help="Directory to write the model and its card to.", show_default=False)
]


@app.command()
def denoiser(
    out: Directory,
    data: Annotated[str, typer.Option("--data", help="Data set to learn: its train split.")] = "digits",
    data_dir: options.DataDirectory = None,
    download: options.Download = None,
    architecture: Annotated[
        str,
        typer.Option(
            "--architecture",
            help="diffusion (all noise levels, saved as a diffusers pipeline) or residual (EDM, faster).",
        ),
    ] = "diffusion",
    steps: Annotated[
        int | None,
        typer.Option("--steps", help="Optimizer steps.", show_default="6000; residual 12000"),
    ] = None,
    sigmas: Annotated[
        str | None,
        typer.Option(
            "--sigmas", help="Train on this range of noise only: 0.1,1.", show_default="the whole schedule"
        ),
    ] = None,
    channels: Annotated[
        str | None,
        typer.Option(
            "--channels",
            help="Channels of the U-Net at each scale.",
            show_default="16,32; residual 32,64,128,256",
        ),
    ] = None,
    layers: Annotated[
        int | None,
        typer.Option("--layers", help="Residual blocks a scale.", show_default="1; residual 2"),
    ] = None,
    seed: Annotated[int, typer.Option("--seed", help="Of weights, order, augmentation and noise.")] = 0,
    threads: options.Threads = None,
    quiet: options.Quiet = False,
) -> None:
    """Train a denoiser and save it with a card.

    With its defaults this makes the embedded digits denoiser again, in minutes on two cores. A residual
    training that was interrupted continues when the command is given again.

    [bold]Example[/]: smoothcert train denoiser --data digits --out models/denoiser
    """
    from smoothcert import datasets, training

    if architecture not in ("diffusion", "residual"):
        raise UnknownName.among("architecture", architecture, ("diffusion", "residual"))
    train, held_out = _splits(data)
    load = partial(datasets.load, root=data_dir, download=bool(download))
    chosen: dict[str, Any] = {
        "steps": steps,
        "channels": tuple(int(c) for c in numbers("channels", channels)) if channels else None,
        "layers" if architecture == "diffusion" else "blocks": layers,
    }
    if architecture == "diffusion":
        chosen |= _for_diffusion(sigmas, load(held_out) if held_out == "digits:test" else None)
    elif sigmas:
        why = "a residual network is trained on noise spread around one level"
        raise InvalidInput(f"--sigmas {sigmas} with --architecture residual", why, "Leave --sigmas out")
    with _bar("denoiser", 0, quiet=quiet) as progress:
        done = (training.train_denoiser if architecture == "diffusion" else training.train_edm_denoiser)(
            load(train),
            out,
            seed=seed,
            threads=threads,
            command=_command(),
            progress=progress,
            **{name: value for name, value in chosen.items() if value is not None},
        )
    _show(done)


def _for_diffusion(sigmas: str | None, digits: Dataset | None) -> dict[str, Any]:
    """What only the diffusion training takes: a range of noise, and for digits what to measure with."""
    from smoothcert import classifiers

    low_high = numbers("sigmas", sigmas) if sigmas else None
    return {
        "sigmas": (low_high[0], low_high[-1]) if low_high else None,
        "held_out": digits,
        "classifier": classifiers.load("digits") if digits else None,
    }


@app.command()
def finetune(
    out: Directory,
    classifier: Annotated[
        str, typer.Option("--classifier", help="A network to train further, such as resnet20:PATH.")
    ],
    data: Annotated[str, typer.Option("--data", help="Data set to learn: its train split.")],
    sigma: Annotated[float, typer.Option("--sigma", help="Noise on pixels in \\[0, 1].")],
    denoiser: Annotated[
        str, typer.Option("--denoiser", help="What removes the noise first; none learns noisy images.")
    ],
    data_dir: options.DataDirectory = None,
    download: options.Download = None,
    epochs: Annotated[float, typer.Option("--epochs", help="Rounds over the data.")] = 2.0,
    learning_rate: Annotated[float, typer.Option("--learning-rate", help="The highest on the way.")] = 1e-3,
    precision: Annotated[str, typer.Option("--precision", help="no (float32) or bf16 (mixed).")] = "no",
    seed: Annotated[int, typer.Option("--seed", help="Of order, augmentation and noise.")] = 0,
    threads: options.Threads = None,
    quiet: options.Quiet = False,
) -> None:
    """Train an existing classifier further on denoised images (Carlini et al. 2023), or on noisy ones.

    An interrupted training continues when the command is given again.

    [bold]Example[/]: smoothcert train finetune --classifier 'resnet20:resnet20.th?mean=...&std=...'
    --data cifar10 --denoiser cifar10 --sigma 0.5 --out models/finetuned-0.5
    """
    from smoothcert import classifiers, datasets, denoisers, training

    train, held_out = _splits(data)
    load = partial(datasets.load, root=data_dir, download=bool(download))
    with _bar("finetune", 0, quiet=quiet) as progress:
        done = training.finetune(
            classifiers.load(classifier),
            load(train),
            out,
            sigma=sigma,
            denoiser=None if denoiser == "none" else denoisers.load(denoiser),
            epochs=epochs,
            learning_rate=learning_rate,
            precision=precision,
            seed=seed,
            held_out=load(f"{held_out}[::20]") if held_out else None,
            threads=threads,
            command=_command(),
            progress=progress,
        )
    _show(done)


@app.command()
def classifier(
    out: Directory,
    data: Annotated[str, typer.Option("--data", help="Data set to learn: its train split.")] = "digits",
    data_dir: options.DataDirectory = None,
    download: options.Download = None,
    noise_sigma: Annotated[
        float,
        typer.Option(
            "--noise-sigma", help="Train on Gaussian noise (Cohen et al. 2019); 0 for clean images."
        ),
    ] = 0.0,
    epochs: Annotated[int, typer.Option("--epochs", help="Rounds over the data.")] = 180,
    width: Annotated[int, typer.Option("--width", help="Channels of the first layers.")] = 32,
    seed: Annotated[int, typer.Option("--seed", help="Of weights, order, augmentation and noise.")] = 0,
    threads: options.Threads = None,
    quiet: options.Quiet = False,
) -> None:
    """Train a small classifier, on clean or on noisy images, and save it with a card.

    [bold]Example[/]: smoothcert train classifier --data digits --noise-sigma 0.5 --out models/noise-0.5
    """
    from smoothcert import datasets, training

    train, held_out = _splits(data)
    load = partial(datasets.load, root=data_dir, download=bool(download))
    with _bar("classifier", 0, quiet=quiet) as progress:
        done = training.train_classifier(
            load(train),
            out,
            noise_sigma=noise_sigma,
            epochs=epochs,
            width=width,
            seed=seed,
            threads=threads,
            held_out=load(held_out) if held_out else None,
            command=_command(),
            progress=progress,
        )
    _show(done)


def _command() -> str:
    """The command line that is running, for cards; what a shell would take apart is quoted."""
    return f"smoothcert {shlex.join(sys.argv[1:])}"


def _splits(data: str) -> tuple[str, str | None]:
    """Names of the split to learn and of the one to measure on, where the data set has one."""
    base = re.split(r"[:\[]", data, maxsplit=1)[0]
    rest = data[len(base) :]
    if base not in ("digits", "cifar10", "cifar100", "mnist"):
        return data, None
    return f"{base}{rest if rest.startswith(':') else ':train' + rest}", f"{base}:test"


@contextmanager
def _bar(title: str, steps: int, *, quiet: bool) -> Iterator[Callable[[int, int, float], None] | None]:
    if quiet or not sys.stderr.isatty():
        yield None
        return
    from rich.console import Console
    from rich.progress import Progress

    with Progress(console=Console(stderr=True)) as bar:
        task = bar.add_task(title, total=steps or None)
        yield lambda step, total, loss: bar.update(
            task, completed=step, total=total, description=f"{title}, loss {loss:.3f}"
        )


def _show(done: Any) -> None:
    say(f"wrote {done.directory}: {done.steps:,} steps in {done.seconds:.0f} s, last loss {done.loss:.4f}")
    for name, value in done.figures.items():
        print(f"{name}: {value}")
