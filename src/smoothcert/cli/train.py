"""``smoothcert train``: the embedded models from scratch, and the baselines they are compared with."""

from __future__ import annotations

from functools import partial
from typing import Annotated

import typer

from smoothcert.cli import options, train_booster
from smoothcert.cli.settings import numbers
from smoothcert.cli.training import Directory, bar, command_line, show, splits, whole_numbers

app = typer.Typer(
    help="Train small models from scratch (extra: pip install 'smoothcert\\[train]').",
    no_args_is_help=True,
    rich_markup_mode="rich",
)


@app.command()
def denoiser(
    out: Directory,
    data: Annotated[str, typer.Option("--data", help="Data set to learn: its train split.")] = "digits",
    data_dir: options.DataDirectory = None,
    download: options.Download = None,
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

    train, held_out = splits(data)
    load = partial(datasets.load, root=data_dir, download=bool(download))
    low_high = numbers("sigmas", sigmas) if sigmas else None
    digits = load(held_out) if held_out == "digits:test" else None
    with bar("denoiser", steps, quiet=quiet) as progress:
        done = training.train_denoiser(
            load(train),
            out,
            steps=steps,
            sigmas=(low_high[0], low_high[-1]) if low_high else None,
            channels=whole_numbers(channels),
            layers=layers,
            seed=seed,
            threads=threads,
            held_out=digits,
            classifier=classifiers.load("digits") if digits else None,
            command=command_line(),
            progress=progress,
        )
    show(done)


@app.command()
def edm_denoiser(
    out: Directory,
    data: Annotated[str, typer.Option("--data", help="Data set to learn: its train split.")],
    data_dir: options.DataDirectory = None,
    download: options.Download = None,
    steps: Annotated[int, typer.Option("--steps", help="Optimizer steps of 64 images.")] = 12_000,
    typical_sigma: Annotated[
        float, typer.Option("--typical-sigma", help="Median of the noise trained on, pixels in \\[0, 1].")
    ] = 0.3,
    channels: Annotated[
        str, typer.Option("--channels", help="Channels of the network at each scale.")
    ] = "32,64,128,256",
    blocks: Annotated[int, typer.Option("--blocks", help="Residual blocks a scale, down and up.")] = 2,
    flip: Annotated[bool, typer.Option(help="Mirror half of the images.")] = True,
    precision: Annotated[str, typer.Option("--precision", help="bf16 (mixed) or no (float32).")] = "bf16",
    half: Annotated[bool, typer.Option("--half", help="Save the weights in float16.")] = False,
    seed: Annotated[int, typer.Option("--seed", help="Of weights, order, mirroring and noise.")] = 0,
    threads: options.Threads = None,
    quiet: options.Quiet = False,
) -> None:
    """Train a residual U-Net with EDM preconditioning: quick on a CPU, for one-shot denoising.

    An interrupted training continues when the command is given again.

    [bold]Example[/]: smoothcert train edm-denoiser --data cifar10 --out models/cifar10-denoiser
    """
    from smoothcert import datasets, training

    with bar("denoiser", steps, quiet=quiet) as progress:
        done = training.train_edm_denoiser(
            datasets.load(splits(data)[0], root=data_dir, download=bool(download)),
            out,
            steps=steps,
            typical_sigma=typical_sigma,
            channels=whole_numbers(channels),
            blocks=blocks,
            flip=flip,
            precision=precision,
            half=half,
            seed=seed,
            threads=threads,
            command=command_line(),
            progress=progress,
        )
    show(done)


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

    train, held_out = splits(data)
    load = partial(datasets.load, root=data_dir, download=bool(download))
    with bar("finetune", 0, quiet=quiet) as progress:
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
            command=command_line(),
            progress=progress,
        )
    show(done)


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

    train, held_out = splits(data)
    load = partial(datasets.load, root=data_dir, download=bool(download))
    with bar("classifier", 0, quiet=quiet) as progress:
        done = training.train_classifier(
            load(train),
            out,
            noise_sigma=noise_sigma,
            epochs=epochs,
            width=width,
            seed=seed,
            threads=threads,
            held_out=load(held_out) if held_out else None,
            command=command_line(),
            progress=progress,
        )
    show(done)


app.command()(train_booster.booster)
