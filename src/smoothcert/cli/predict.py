"""``smoothcert predict``: the smoothed classifier's answers, without radii."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated, Any

import typer

from smoothcert.cli import options, shards
from smoothcert.cli.settings import settle
from smoothcert.cli.terminal import say


def predict(
    data: options.Data = None,
    data_dir: options.DataDirectory = None,
    download: options.Download = None,
    classifier: options.ClassifierName = None,
    denoiser: options.DenoiserName = None,
    sampler: options.SamplerName = None,
    sigma: options.Sigmas = None,
    stop: Annotated[
        str | None,
        typer.Option(
            "--stop",
            help="predict (when the answer is known) or fixed (after n draws).",
            show_default="predict",
        ),
    ] = None,
    n: Annotated[
        int | None,
        typer.Option(
            "--n", help="Most draws an image may take.", show_default="12,000; fewer when --data is left out"
        ),
    ] = None,
    alpha: options.Alpha = None,
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
    out: Annotated[
        Path | None,
        typer.Option("--out", help="Directory of the run files.", show_default="runs/digits-predict"),
    ] = None,
    config: options.Config = None,
    quiet: options.Quiet = False,
    as_json: options.Json = False,
) -> None:
    """Answer with the smoothed classifier, or abstain; wrong with probability at most alpha for each image.

    The answers are those that a certificate speaks about. Runs are stored and continued as for certify.

    [bold]Example[/]: smoothcert predict --data 'digits:test\\[:10]' --sigma 0.5
    """
    flags = {k: v for k, v in locals().items() if k not in ("config", "quiet", "as_json")}
    settings = settle("predict", config, flags)
    from smoothcert.cli.models import prepared_jobs
    from smoothcert.runlog.specification import RuleSpec

    rule = RuleSpec.settle("predict", stop=settings.stop, alpha=settings.alpha, n=settings.n)
    loaded, jobs = prepared_jobs(settings, rule, quiet=quiet or as_json)
    if not settings.shard.whole:
        shards.check_beside(settings, jobs)
    found = [job.run(quiet=quiet or as_json) for job in jobs]
    _show(found, loaded.classes, quiet=quiet, as_json=as_json)


def _show(found: list[Any], classes: tuple[str, ...], *, quiet: bool, as_json: bool) -> None:
    """One line an image on stdout, one line a noise level on stderr."""
    lines = []
    for run in found:
        for o in run.outcomes:
            answer = (
                None
                if o.predicted is None
                else classes[o.predicted]
                if o.predicted < len(classes)
                else str(o.predicted)
            )
            lines.append(
                {
                    "sigma": run.sigma,
                    "index": o.index,
                    "label": o.label,
                    "predicted": o.predicted,
                    "name": answer,
                }
            )
    if as_json:
        print(json.dumps(lines))
        return
    print("sigma\tidx\tlabel\tpredict")
    for line in lines:
        answer = "abstain" if line["predicted"] is None else line["predicted"]
        print(f"{line['sigma']:g}\t{line['index']}\t{line['label']}\t{answer}")
    for run in found:
        right = sum(o.correct for o in run.outcomes)
        abstained = sum(o.predicted is None for o in run.outcomes)
        which = f"shard {run.shard}, sigma {run.sigma:g}" if run.shard else f"sigma {run.sigma:g}"
        say(f"{which}: {right} of {len(run.outcomes)} correct, {abstained} abstentions", quiet=quiet)
