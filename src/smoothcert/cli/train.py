"""``smoothcert train``: the embedded models from scratch, and the baselines they are compared with."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated, Any

import typer

from smoothcert.cli import options
from smoothcert.cli.options import numbers
from smoothcert.cli.terminal import say

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
    steps: Annotated[int, typer.Option("--steps", help="Optimizer steps.")] = 6000,
    sigmas: Annotated[
        str | None,
        typer.Option(
            "--sigmas", help="Train on this range of noise only: 0.1,1.", show_default="the whole schedule"
        ),
    ] = None,
    channels: Annotated[
        str, typer.Option("--channels", help="Channels of the U-Net at each scale.")
    ] = "16,32",
    layers: Annotated[int, typer.Option("--layers", help="Residual blocks a scale.")] = 1,
    seed: Annotated[int, typer.Option("--seed", help="Of weights, order, augmentation and noise.")] = 0,
    threads: options.Threads = None,
    quiet: options.Quiet = False,
) -> None:
    """Train a diffusion denoiser and save it as a diffusers pipeline with a card.

    With its defaults this makes the embedded digits denoiser again, in minutes on two cores.

    [bold]Example[/]: smoothcert train denoiser --data digits --out models/denoiser
    """
    from smoothcert import classifiers, datasets, training

    train, held_out = _splits(data)
    low_high = numbers("sigmas", sigmas) if sigmas else None
    with _bar("denoiser", steps, quiet=quiet) as progress:
        done = training.train_denoiser(
            datasets.load(train),
            out,
            steps=steps,
            sigmas=(low_high[0], low_high[-1]) if low_high else None,
            channels=tuple(int(c) for c in numbers("channels", channels))
            if "," in channels
            else (int(channels),),
            layers=layers,
            seed=seed,
            threads=threads,
            held_out=datasets.load(held_out),
            classifier=classifiers.load("digits") if data.startswith("digits") else None,
            command=f"smoothcert {' '.join(sys.argv[1:])}",
            progress=progress,
        )
    _show(done)


@app.command()
def classifier(
    out: Directory,
    data: Annotated[str, typer.Option("--data", help="Data set to learn: its train split.")] = "digits",
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
    with _bar("classifier", 0, quiet=quiet) as progress:
        done = training.train_classifier(
            datasets.load(train),
            out,
            noise_sigma=noise_sigma,
            epochs=epochs,
            width=width,
            seed=seed,
            threads=threads,
            held_out=datasets.load(held_out),
            command=f"smoothcert {' '.join(sys.argv[1:])}",
            progress=progress,
        )
    _show(done)


def _splits(data: str) -> tuple[str, str]:
    """Names of the split to learn and of the one to measure on."""
    base = data.partition(":")[0]
    return (data if ":" in data else f"{base}:train"), f"{base}:test"


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
