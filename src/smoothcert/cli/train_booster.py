"""``smoothcert train booster``: a mapper behind an encoder, and where asked a purifier before it."""

from __future__ import annotations

from functools import partial
from typing import Annotated

import typer

from smoothcert.cli import options
from smoothcert.cli.settings import numbers
from smoothcert.cli.training import Directory, bar, command_line, show, splits
from smoothcert.errors import InvalidInput


def booster(
    out: Directory,
    encoder: Annotated[
        str, typer.Option("--encoder", help="What makes the features; it is not changed.")
    ] = "digits",
    data: Annotated[str, typer.Option("--data", help="Images to learn: the train split.")] = "digits",
    denoiser: Annotated[
        str, typer.Option("--denoiser", help="What removes noise first, the purifier; none for none.")
    ] = "none",
    sigmas: Annotated[
        str, typer.Option("--sigmas", help="Range of noise on pixels in \\[0, 1]; one number for one level.")
    ] = "0.12,0.5",
    train_purifier: Annotated[
        bool, typer.Option("--train-purifier", help="Train a copy of the denoiser further before the mapper.")
    ] = False,
    held_out: Annotated[
        str | None,
        typer.Option(
            "--held-out", help="Images to measure on for the card.", show_default="the test split, if known"
        ),
    ] = None,
    data_dir: options.DataDirectory = None,
    download: options.Download = None,
    steps: Annotated[int, typer.Option("--steps", help="Optimizer steps of the mapper.")] = 2_000,
    purifier_steps: Annotated[
        int, typer.Option("--purifier-steps", help="Optimizer steps of the purifier.")
    ] = 1_000,
    batch_size: Annotated[
        int, typer.Option("--batch-size", help="Images a step, each under 4 levels of noise.")
    ] = 16,
    rounds: Annotated[
        int,
        typer.Option("--rounds", help="How often the mapper sees the same features; later ones are cheap."),
    ] = 1,
    learning_rate: Annotated[
        float, typer.Option("--learning-rate", help="Of the mapper, the highest on the way.")
    ] = 2e-4,
    purifier_learning_rate: Annotated[
        float, typer.Option("--purifier-learning-rate", help="Of the purifier, the highest on the way.")
    ] = 2e-4,
    a: Annotated[float, typer.Option("--weight-rb", help="Purifier: weight of l_rb beside l_diff.")] = 1.0,
    b: Annotated[float, typer.Option("--weight-mse", help="Purifier: weight of l_mse beside l_diff.")] = 1.0,
    c: Annotated[float, typer.Option("--weight-stats", help="Mapper: weight of l_stats beside l_rb.")] = 0.1,
    d: Annotated[float, typer.Option("--weight-id", help="Mapper: weight of l_id beside l_rb.")] = 0.1,
    width: Annotated[int, typer.Option("--width", help="Of the mapper's layers.")] = 128,
    blocks: Annotated[int, typer.Option("--blocks", help="Layers of the mapper.")] = 2,
    precision: Annotated[str, typer.Option("--precision", help="no (float32) or bf16 (mixed).")] = "no",
    seed: Annotated[int, typer.Option("--seed", help="Of weights, order, levels and noise.")] = 0,
    threads: options.Threads = None,
    quiet: options.Quiet = False,
) -> None:
    """Train what makes an encoder steadier under noise: a mapper of its features, behind a purifier or not.

    The encoder stays as it is. Printed for held-out images, with nothing, the purifier, the mapper and both:
    m, the Gaussian robustness score, the certified cosine, and what is left of the features' use. An
    interrupted training continues when the command is given again.

    [bold]Example[/]: smoothcert train booster --encoder digits --denoiser digits --data digits
    --sigmas 0.25,1 --out models/booster

    [bold]Example[/]: smoothcert train booster --encoder 'resnet56:resnet56.npz?mean=...&std=...'
    --denoiser cifar10 --train-purifier --data cifar10 --sigmas 0.12,0.5 --out models/cifar10-booster
    """
    from smoothcert import datasets, denoisers, encoders, training

    train, known = splits(data)
    measured = held_out or known
    load = partial(datasets.load, root=data_dir, download=bool(download))
    ends = numbers("sigmas", sigmas)
    if len(ends) > 2:
        why = "a range has a smallest and a largest noise"
        raise InvalidInput(f"--sigmas {sigmas}", why, "Write for instance --sigmas 0.12,0.5")
    with bar("booster", 0, quiet=quiet) as progress:
        done = training.train_booster(
            encoders.load(encoder),
            load(train),
            out,
            sigmas=(ends[0], ends[-1]),
            denoiser=None if denoiser == "none" else denoisers.load(denoiser),
            train_purifier=train_purifier,
            steps=steps,
            purifier_steps=purifier_steps,
            batch_size=batch_size,
            rounds=rounds,
            learning_rate=learning_rate,
            purifier_learning_rate=purifier_learning_rate,
            a=a,
            b=b,
            c=c,
            d=d,
            width=width,
            blocks=blocks,
            precision=precision,
            seed=seed,
            held_out=load(measured) if measured else None,
            threads=threads,
            command=command_line(),
            progress=progress,
        )
    show(done)
