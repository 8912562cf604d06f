"""``smoothcert certify``: the main job."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Callable
from typing import Annotated, Any

import typer

from smoothcert.bounds.sequential.looks import MOST_DRAWS
from smoothcert.cli import options, shards
from smoothcert.cli.settings import ENCODING, OF_ONE_COMMAND, VOTING, Settings, settle
from smoothcert.cli.terminal import say, show

RADII = (0.0, 0.25, 0.5, 0.75, 1.0)


def certify(
    task: options.Task = None,
    data: options.Data = None,
    data_dir: options.DataDirectory = None,
    download: options.Download = None,
    classifier: options.ClassifierName = None,
    encoder: options.EncoderName = None,
    mapper: options.MapperName = None,
    head: options.HeadName = None,
    decision: options.Decision = None,
    served: options.Served = None,
    denoiser: options.DenoiserName = None,
    sampler: options.SamplerName = None,
    sigma: options.Sigmas = None,
    stop: options.Stop = None,
    n0: Annotated[
        int | None,
        typer.Option(
            "--n0",
            help="Selection draws an image.",
            show_default="none; fixed, anytime, encode: 100; curve: 1,000",
        ),
    ] = None,
    n: Annotated[
        int | None,
        typer.Option(
            "--n",
            help="Most draws an image may take; with --stop fixed their number.",
            show_default="120,000; fixed: 100,000; encode: 10,000; fewer when --data is left out",
        ),
    ] = None,
    alpha: options.Alpha = None,
    bound: Annotated[
        str | None,
        typer.Option("--bound", help="one (p_A alone) or pair (p_A and runner-up).", show_default="one"),
    ] = None,
    label_aware: options.LabelAware = None,
    futility: options.Futility = None,
    noise: options.NoiseKind = None,
    seed: options.Seed = None,
    batch: options.Batch = None,
    threads: options.Threads = None,
    workers: options.Workers = None,
    executor: options.Executor = None,
    address: options.Address = None,
    gpus_per_worker: options.GpusPerWorker = None,
    shard: options.Shard = None,
    precision: options.Precision = None,
    denoiser_backend: options.DenoiserBackend = None,
    classifier_backend: options.ClassifierBackend = None,
    device: options.Device = None,
    out: options.Out = None,
    config: options.Config = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Check the models, print what the run will cost, and stop.")
    ] = False,
    quiet: options.Quiet = False,
    as_json: options.Json = False,
) -> None:
    """Certify a classifier: images in, radii out, proved with probability 1 - alpha for each image.

    Without arguments it certifies handwritten digits behind the embedded diffusion model, in about a minute.
    Everything observed is stored as it is drawn: stop at any time, and the same command continues.

    [bold]Examples[/]

      smoothcert certify

      smoothcert certify --sigma 0.5 --stop fixed --n 10000 --out runs/half

      smoothcert certify --denoiser none --out runs/undenoised

      smoothcert certify --task encode

      smoothcert certify --config runs/digits/run.toml --out runs/again
    """
    flags = {k: v for k, v in locals().items() if k not in ("config", "dry_run", "quiet", "as_json")}
    settings = settle("certify", config, flags)
    if settings.task == "encode":
        from smoothcert.cli.encode import run

        run(settings, dry_run=dry_run, quiet=quiet, as_json=as_json)
        return
    _run(settings, dry_run=dry_run, quiet=quiet, as_json=as_json)


def _run(settings: Settings, *, dry_run: bool, quiet: bool, as_json: bool) -> None:
    """All noise levels of one command, then the table and the pictures."""
    from smoothcert.cli.models import prepared_jobs
    from smoothcert.runlog.specification import RuleSpec

    rule = RuleSpec.settle(
        "certify",
        stop=settings.stop,
        alpha=settings.alpha,
        n0=settings.n0,
        n=settings.n,
        bound=settings.bound,
        label_aware=settings.label_aware,
        futility=settings.futility,
    )
    data, jobs = prepared_jobs(settings, rule, quiet=quiet or as_json)
    carry_out(settings, data, jobs, _report, dry_run=dry_run, quiet=quiet, as_json=as_json)


def carry_out(
    settings: Settings,
    data: Any,
    jobs: list[Any],
    report: Callable[..., None],
    *,
    dry_run: bool,
    quiet: bool,
    as_json: bool,
) -> None:
    """Say what it costs, run every noise level, and report."""
    from smoothcert.runlog.configuration import FILE, to_toml

    say(heading(data, jobs[0].specification), quiet=quiet)
    if not settings.shard.whole:
        report = shards.report
        shards.check_beside(settings, jobs)
        say(f"shard {settings.shard}: {len(jobs[0].held())} of these images", quiet=quiet)
    if dry_run:
        show_costs(jobs, as_json=as_json)
        return
    say(f"cost: {cost(jobs)}", quiet=quiet)
    found = [job.run(quiet=quiet or as_json) for job in jobs]
    (settings.out / FILE).write_text(header() + to_toml(repeatable(settings, jobs)), encoding="utf-8")
    report(settings, found, quiet=quiet, as_json=as_json)
    warn_of_nonfinite(jobs)


def heading(data: Any, spec: Any) -> str:
    rule, shape = spec.rule, "x".join(str(k) for k in data.shape)
    selection = f"n0 = {rule.n0:,}, " if rule.n0 else ""
    draws = f"{selection}n = {rule.n:,}" if rule.fixed else f"stop = {rule.stop}, {selection}n <= {rule.n:,}"
    draws += ", label-aware" if rule.label_aware else ""
    return (
        f"{data.name}: {len(data)} images {shape}, {len(data.classes)} classes; alpha = {rule.alpha:g}, "
        f"{draws}; {spec.noise.kind} noise (allowance {spec.noise_error():.0e})"
    )


def cost(jobs: list[Any]) -> Any:
    """What is left to draw over all noise levels, timed on the first."""
    return dataclasses.replace(jobs[0].estimate(), draws=sum(job.draws_left() for job in jobs))


def show_costs(jobs: list[Any], *, as_json: bool) -> None:
    found = cost(jobs)
    print(json.dumps(dataclasses.asdict(found) | {"seconds": found.seconds}) if as_json else found)


def _report(settings: Settings, found: list[Any], *, quiet: bool, as_json: bool) -> None:
    """The table first, on the screen and on disk; pictures after it."""
    from smoothcert import analysis

    table = analysis.certified_accuracy(found, radii=RADII)
    (settings.out / "table.md").write_text(table.to_markdown() + "\n", encoding="utf-8")
    if as_json:
        print(table.to_json())
    else:
        show(table.table())
        show(analysis.effort_table(found))
    pictures = _pictures(settings, found)
    if not as_json:
        say(f"\nwrote {', '.join(str(path) for path in pictures)}", quiet=quiet)
    if not (as_json or quiet):
        _next_steps(settings)


def _pictures(settings: Settings, found: list[Any]) -> list[Any]:
    from smoothcert import report

    pictures = [settings.out / "curve.png", settings.out / "curve.svg"]
    report.curve(found, pictures)
    if settings.denoiser != "none":
        from smoothcert.cli.grid import draw

        pictures += draw(
            settings,
            sigma=settings.sigma[len(settings.sigma) // 2],
            images=5,
            paths=(settings.out / "grid.png", settings.out / "grid.svg"),
        )
    return pictures


def warn_of_nonfinite(jobs: list[Any]) -> None:
    """A model that returns NaN loses votes; its owner should know."""
    from smoothcert.runlog import open_run

    for job in jobs:
        broken = open_run(job.directory).nonfinite()
        if broken:
            say(f"{job.directory}: {broken:,} draws had a non-finite answer and count against it")


def _next_steps(settings: Settings) -> None:
    """Commands that work as they are printed, whatever this run was."""
    repeat, undenoised = f"smoothcert certify --config {settings.out}/run.toml", f"{settings.out}-undenoised"
    steps = [(f"smoothcert verify {settings.out}", "recompute every claim from the stored votes")]
    if settings.denoiser != "none":
        steps += [
            (f"{repeat} --denoiser none --out {undenoised}", "the same without the denoiser"),
            (f"smoothcert table {settings.out} {undenoised}", "put both into one table"),
        ]
    steps += [
        (f"smoothcert table {settings.out} --best --against carlini2023:cifar10", "in the paper's layout"),
        (
            f"smoothcert table {settings.out} --draws",
            "what was decided at each radius, and with how many draws",
        ),
    ]
    if 10 * settings.n <= MOST_DRAWS:
        steps += [(f"{repeat} --n {10 * settings.n} --out {settings.out}-more", "more draws, larger radii")]
    say("\nWhat next:")
    for command, meaning in steps:
        say(f"  # {meaning}\n  {command}")


def header() -> str:
    return "# Repeats these runs: smoothcert certify --config run.toml --out DIRECTORY\n"


def repeatable(settings: Settings, jobs: list[Any]) -> dict[str, Any]:
    """Every option as it was settled, batch and threads included."""
    execution = jobs[0].specification.execution
    values = vars(settings) | {
        "sigma": list(settings.sigma),
        "batch": execution.batch,
        "threads": execution.threads,
    }
    unused = ENCODING if settings.task != "encode" else VOTING
    return {
        key: value
        for key, value in values.items()
        if value is not None and key not in OF_ONE_COMMAND and key not in unused
    }
