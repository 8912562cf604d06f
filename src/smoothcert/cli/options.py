"""Options that several verbs share; ``settings`` joins them with a configuration and the defaults."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from smoothcert.cli.settings import DEMO_DATA

Config = Annotated[
    Path | None,
    typer.Option("--config", help="Flat TOML file with any of these options.", show_default=False),
]
Out = Annotated[
    Path | None,
    typer.Option(
        "--out", help="Directory of the run files, one below it for each sigma.", show_default="runs/digits"
    ),
]
Data = Annotated[
    str | None,
    typer.Option(
        "--data",
        help="digits, cifar10, cifar100, mnist, imagenet, folder:PATH, hf:ORG/NAME or python:module:name, "
        "with split and slice: cifar10:test\\[::20].",
        show_default=DEMO_DATA,
    ),
]
DataDirectory = Annotated[
    Path | None,
    typer.Option(
        "--data-dir",
        help="Folder that holds the data set's files.",
        show_default="SMOOTHCERT_DATA, or ~/.cache/smoothcert/data",
    ),
]
Download = Annotated[
    bool | None,
    typer.Option(
        "--download", help="Fetch the published files if they are missing.", show_default="never fetched"
    ),
]
ClassifierName = Annotated[
    str | None,
    typer.Option(
        "--classifier",
        help="digits, a directory, transformers:ID, timm:NAME, torchvision:NAME, resnet56:FILE, onnx:FILE, "
        "https://..., python:module:function; see 'smoothcert models list'.",
        show_default="digits",
    ),
]
Task = Annotated[
    str | None,
    typer.Option(
        "--task",
        help="certify the answers of a classifier, or encode: the features of an encoder.",
        show_default="certify",
    ),
]
EncoderName = Annotated[
    str | None,
    typer.Option(
        "--encoder",
        help="For --task encode: digits, a directory, transformers:ID (CLIP, SigLIP, DINOv2), timm:NAME, "
        "resnet56:FILE or python:module:function.",
        show_default="digits",
    ),
]
MapperName = Annotated[
    str | None,
    typer.Option(
        "--mapper",
        help="For --task encode: a directory that 'smoothcert train booster' wrote, or none.",
        show_default="none",
    ),
]
HeadName = Annotated[
    str | None,
    typer.Option(
        "--head",
        help="For --task encode: what answers with features: examples:DATA (prototypes of labelled images, "
        "such as examples:cifar10:train), prompts:FILE (one a line, in the order of the classes, or "
        "templates with {}), a saved head's directory, or none.",
        show_default="examples:digits:train; none with --data",
    ),
]
Decision = Annotated[
    str | None,
    typer.Option(
        "--decision",
        help="How the head's answer is certified: votes, margin, dual, or auto (chosen on pilot draws).",
        show_default="auto",
    ),
]
Served = Annotated[
    int | None,
    typer.Option(
        "--served",
        help="Draws of the feature that is used, whose own bound is then printed too.",
        show_default="none",
    ),
]
DenoiserName = Annotated[
    str | None,
    typer.Option(
        "--denoiser",
        help="digits, a model directory, a model of the hub (google/ddpm-cifar10-32), openai:FILE, edm:FILE, "
        "ffdnet:FILE, fdncnn:FILE, dncnn:FILE, memnet:FILE, python:module:function, or none.",
        show_default="digits",
    ),
]
SamplerName = Annotated[
    str | None,
    typer.Option("--sampler", help="one-shot, ancestral, ddim:STEPS or edm:STEPS.", show_default="one-shot"),
]
Sigmas = Annotated[
    str | None,
    typer.Option(
        "--sigma", help="Noise levels on pixels in \\[0, 1], separated by commas.", show_default="0.25,0.5,1"
    ),
]
NoiseKind = Annotated[
    str | None,
    typer.Option("--noise", help="grid (exact) or float (as published code, can leak).", show_default="grid"),
]
Alpha = Annotated[
    float | None, typer.Option("--alpha", help="Error probability of each certificate.", show_default="0.001")
]
Stop = Annotated[
    str | None,
    typer.Option(
        "--stop",
        help="When an image has enough draws: table:RADII (each radius decided), radius:R, curve:LOSS, "
        "anytime, or fixed (Cohen's n0 and n).",
        show_default="table:0,0.25,0.5,0.75,1",
    ),
]
LabelAware = Annotated[
    bool | None,
    typer.Option(
        "--label-aware",
        help="Test the true class alone; for certified accuracy only, and marked in every table.",
        show_default="not",
    ),
]
Futility = Annotated[
    float | None,
    typer.Option(
        "--futility",
        help="Give up on a radius whose chance of being proved falls below this; changes no guarantee.",
        show_default="0.01",
    ),
]
Seed = Annotated[int | None, typer.Option("--seed", help="Names the noise streams.", show_default="0")]
Batch = Annotated[
    int | None, typer.Option("--batch", help="Draws evaluated at once.", show_default="by image size")
]
Threads = Annotated[
    int | None, typer.Option("--threads", help="CPU threads of one network call.", show_default="1")
]
Workers = Annotated[
    str | None,
    typer.Option(
        "--workers",
        help="Batches at a time on a CPU, or with --executor ray processes; changes no result.",
        show_default="auto: all cores, or GPUs",
    ),
]
Executor = Annotated[
    str | None,
    typer.Option(
        "--executor",
        help="local, or ray: all GPUs or cores of this machine or of a cluster; changes no result.",
        show_default="local",
    ),
]
Address = Annotated[
    str | None,
    typer.Option(
        "--address",
        help="With --executor ray: host:port of a Ray cluster, or auto for the one this machine is in.",
        show_default="RAY_ADDRESS, or one is started here",
    ),
]
GpusPerWorker = Annotated[
    float | None,
    typer.Option(
        "--gpus-per-worker", help="With --executor ray: 0.5 puts two workers on a GPU.", show_default="1"
    ),
]
Shard = Annotated[
    str | None,
    typer.Option(
        "--shard",
        help="Do a part of the images, such as 3/16, below --out; 'smoothcert merge' joins all parts.",
        show_default="all images",
    ),
]
Device = Annotated[
    str | None, typer.Option("--device", help="auto, cpu, cuda or cuda:N.", show_default="auto")
]
Precision = Annotated[
    str | None,
    typer.Option(
        "--precision",
        help="float32; bf16-mixed: faster, another base classifier; fp16-mixed on a GPU.",
        show_default="float32",
    ),
]
_BACKEND = (
    "torch, torch:bf16, openvino:bf16, openvino:int8, onnxruntime:int8, ...; 'smoothcert tune' chooses."
)
DenoiserBackend = Annotated[
    str | None,
    typer.Option("--denoiser-backend", help=f"What runs the denoiser: {_BACKEND}", show_default="torch"),
]
ClassifierBackend = Annotated[
    str | None,
    typer.Option("--classifier-backend", help=f"What runs the classifier: {_BACKEND}", show_default="torch"),
]
Quiet = Annotated[bool, typer.Option("--quiet", help="No progress, no hints; results only.")]
Json = Annotated[bool, typer.Option("--json", help="Print JSON for scripts.")]
Runs = Annotated[
    list[str],
    typer.Argument(
        help="Run directories, directories holding runs, glob patterns, or TSV logs.", show_default=False
    ),
]

RunDirectories = Annotated[
    list[str], typer.Argument(help="Run directories, or directories holding runs.", show_default=False)
]
ReadAlpha = Annotated[
    float | None,
    typer.Option("--alpha", help="Read at another alpha; marked post hoc.", show_default="the run's"),
]
LogSigma = Annotated[
    float | None, typer.Option("--sigma", help="Sigma of TSV logs that do not say it.", show_default=False)
]
