"""``smoothcert curve``: certified accuracy against the radius, as a picture."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from smoothcert.cli import options
from smoothcert.cli.reading import read_runs
from smoothcert.cli.settings import both_pictures
from smoothcert.cli.terminal import say


def curve(
    runs: options.Runs,
    out: Annotated[
        Path, typer.Option("--out", help="Picture to write; PNG and SVG are both written.")
    ] = Path("curve.png"),
    title: Annotated[str, typer.Option("--title", help="Text above the plot.")] = "Certified accuracy",
    alpha: options.ReadAlpha = None,
    sigma: options.LogSigma = None,
) -> None:
    """Draw certified accuracy as the exact step function of the radius, one line a run. Needs no torch.

    [bold]Example[/]: smoothcert curve runs/digits runs/undenoised --out both.png
    """
    from smoothcert import report

    paths = both_pictures(out)
    written = report.curve(read_runs(runs, alpha=alpha, sigma=sigma), paths, title=title)
    say(f"wrote {', '.join(str(path) for path in written)}")
