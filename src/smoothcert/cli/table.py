"""``smoothcert table``: certified accuracy of runs, and of published rows beside them."""

from __future__ import annotations

from typing import Annotated

import typer

from smoothcert.cli import options
from smoothcert.cli.options import numbers
from smoothcert.cli.reading import read_runs
from smoothcert.cli.terminal import show
from smoothcert.errors import UnknownName
from smoothcert.runlog import Results

FORMATS = ("auto", "markdown", "latex", "csv", "json")


def table(
    runs: options.Runs,
    radii: Annotated[
        str, typer.Option("--radii", help="L2 radii on pixels in \\[0, 1].")
    ] = "0,0.25,0.5,0.75,1",
    best: Annotated[
        bool, typer.Option("--best", help="Best sigma at each radius, clean accuracy in parentheses.")
    ] = False,
    against: Annotated[
        str | None,
        typer.Option(
            "--against",
            help="Published table: carlini2023:cifar10, ... (a wrong name lists all).",
            show_default=False,
        ),
    ] = None,
    alpha: options.ReadAlpha = None,
    sigma: options.LogSigma = None,
    output: Annotated[str, typer.Option("--format", help=f"One of {', '.join(FORMATS)}.")] = "auto",
    single_draw: Annotated[
        bool,
        typer.Option(
            "--single-draw", help="Accuracy of one noisy draw instead (the paper's tables 4 and 5)."
        ),
    ] = False,
    intervals: Annotated[
        bool, typer.Option("--intervals/--no-intervals", help="Clopper-Pearson 95 % intervals.")
    ] = True,
) -> None:
    """Print certified accuracy at chosen radii, derived from the stored votes. Needs no model and no torch.

    [bold]Examples[/]

      smoothcert table runs/digits

      smoothcert table runs/digits --best --against carlini2023:cifar10 --format latex
    """
    from smoothcert import analysis

    if output not in FORMATS:
        raise UnknownName.among("format", output, FORMATS)
    if single_draw:
        _show_draws(read_runs(runs), output)
        return
    measured = analysis.certified_accuracy(
        read_runs(runs, alpha=alpha, sigma=sigma), radii=numbers("radii", radii)
    )
    if against:
        compared = measured.against(against)
        if output == "auto":
            show(compared.text)
        else:
            print(getattr(compared, f"to_{output}")())
        return
    chosen = measured.best() if best else measured
    if output == "auto":
        show(chosen.table(intervals=intervals))
    elif output in ("csv", "json"):
        print(getattr(chosen, f"to_{output}")())
    else:
        print(getattr(chosen, f"to_{output}")(intervals=intervals))


def _show_draws(runs: list[Results], output: str) -> None:
    from smoothcert import analysis

    found = analysis.draw_table(runs)
    if output == "auto":
        show(found)
    elif output == "json":
        raise UnknownName.among("format of --single-draw", output, ("auto", "csv", "latex", "markdown"))
    else:
        print(getattr(found, f"to_{output}")())
