"""``smoothcert curve``: certified accuracy against the radius, as a picture."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from smoothcert.cli import options
from smoothcert.cli.reading import read_runs
from smoothcert.cli.terminal import say


def curve(
    runs: options.Runs,
    out: Annotated[
        Path, typer.Option("--out", help="Picture to write; PNG and SVG are both written.")
    ] = Path("curve.png"),
    title: Annotated[str, typer.Option("--title", help="Text above the plot.")] = "Certified accuracy",
    alpha: Annotated[
        float | None,
        typer.Option("--alpha", help="Read at another alpha; marked post hoc.", show_default="the run's"),
    ] = None,
    sigma: Annotated[
        float | None,
        typer.Option("--sigma", help="Sigma of TSV logs that do not say it.", show_default=False),
    ] = None,
) -> None:
    """Draw certified accuracy as the exact step function of the radius, one line a run. Needs no torch.

    [bold]Example[/]: smoothcert curve runs/digits runs/undenoised --out both.png
    """
    from smoothcert import report
    from smoothcert.errors import InvalidInput

    if out.suffix.lower() not in (".png", ".svg", ""):
        raise InvalidInput(f"--out {out}", "pictures are PNG and SVG", "Write --out curve.png")
    written = report.curve(
        read_runs(runs, alpha=alpha, sigma=sigma),
        [out.with_suffix(".png"), out.with_suffix(".svg")],
        title=title,
    )
    say(f"wrote {', '.join(str(path) for path in written)}")
