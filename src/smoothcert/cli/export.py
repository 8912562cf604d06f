"""``smoothcert export``: certificates in the formats of other tools."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Annotated

import typer

from smoothcert.cli import options
from smoothcert.cli.reading import read_runs
from smoothcert.cli.terminal import say
from smoothcert.errors import UnknownName


def export(
    runs: options.RunDirectories,
    output: Annotated[str, typer.Option("--format", help="tsv (the field's log) or json.")] = "tsv",
    out: Annotated[Path, typer.Option("--out", help="Directory to write into, one file a run.")] = Path(
        "export"
    ),
    alpha: options.ReadAlpha = None,
) -> None:
    """Write a line an image: idx, label, predict (-1: abstained), radius (rounded down), correct, time.

    [bold]Example[/]: smoothcert export runs/digits --out logs
    """
    from smoothcert.runlog.tsv import write_cohen_tsv

    if output not in ("tsv", "json"):
        raise UnknownName.among("format", output, ("tsv", "json"))
    out.mkdir(parents=True, exist_ok=True)
    for run in read_runs(runs, alpha=alpha):
        source = Path(run.name).resolve()
        path = out / f"{source.parent.name}-{source.name}.{output}"
        if output == "tsv":
            write_cohen_tsv(run, path)
        else:
            lines = [
                {
                    "index": o.index,
                    "label": o.label,
                    "predicted": o.predicted,
                    "radius": o.radius,
                    "correct": o.correct,
                }
                for o in run.outcomes
            ]
            facts = {
                "sigma": run.sigma,
                "alpha": run.alpha,
                "alpha_post_hoc": run.alpha_post_hoc,
                "n0": run.n0,
                "n": run.n,
            } | ({"shard": run.shard} if run.shard else {})
            path.write_text(json.dumps(facts | {"images": lines}, indent=1), encoding="utf-8")
        say(f"wrote {path}")
