"""``smoothcert table``: certified accuracy of runs, and of published rows beside them."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from smoothcert.cli import options
from smoothcert.cli.reading import read_runs
from smoothcert.cli.settings import numbers
from smoothcert.cli.terminal import show
from smoothcert.errors import InvalidInput, UnknownName

if TYPE_CHECKING:
    from smoothcert.analysis.text import TextTable
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
    effort: Annotated[
        bool, typer.Option("--draws", help="Draws an image instead, and what they decided at each radius.")
    ] = False,
    proved: Annotated[
        bool,
        typer.Option(
            "--proved",
            help="What is proved of all images together and of their population instead, false certificates "
            "allowed for.",
        ),
    ] = False,
    cosine: Annotated[
        bool, typer.Option("--cosine", help="Certified cosines instead, of runs made with --task encode.")
    ] = False,
    decision: Annotated[
        str | None,
        typer.Option(
            "--decision",
            help="Certificate of a head's answer to read: votes, margin or dual.",
            show_default="the run's",
        ),
    ] = None,
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
    instead = {"--single-draw": single_draw, "--cosine": cosine, "--draws": effort, "--proved": proved}
    _check_together(
        [flag for flag, chosen in instead.items() if chosen],
        {"--best": best, "--against": against, "--decision": decision if not proved else None},
    )
    if single_draw:
        _show_text([analysis.draw_table(read_runs(runs))], output, "--single-draw")
        return
    if cosine:
        _show_cosines(read_runs(runs, alpha=alpha), numbers("radii", radii), output)
        return
    if effort:
        found = read_runs(runs, alpha=alpha)
        tables = [analysis.effort_table(found)]
        tables += [analysis.decision_table(found)] if any(run.radii for run in found) else []
        _show_text(tables, output, "--draws")
        return
    found = read_runs(runs, alpha=alpha, sigma=sigma, decision=decision)
    if proved:
        _show_text([analysis.whole_table(found, numbers("radii", radii))], output, "--proved")
        return
    measured = analysis.certified_accuracy(found, radii=numbers("radii", radii))
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


def _check_together(instead: list[str], shaping: dict[str, object]) -> None:
    """Refuse a second table, and what shapes the usual one beside another."""
    others = instead[1:] + [flag for flag, value in shaping.items() if value]
    if instead and others:
        raise InvalidInput(
            f"{instead[0]} together with {' and '.join(others)}",
            f"{instead[0]} prints a table of its own",
            f"Leave out {'one of them' if len(others) == 1 else 'the others'}",
        )


def _show_cosines(runs: list[Results], radii: tuple[float, ...], output: str) -> None:
    """Certified cosines at radii above 0, where they are 1 by definition."""
    from smoothcert import analysis

    found = analysis.cosine_table(runs, [radius for radius in radii if radius > 0.0] or radii)
    if output == "auto":
        show(found.table())
    else:
        print(getattr(found, f"to_{output}")())


def _show_text(tables: list[TextTable], output: str, option: str) -> None:
    """Tables that exist as text only."""
    if output == "json":
        raise UnknownName.among(f"format of {option}", output, ("auto", "csv", "latex", "markdown"))
    for found in tables:
        if output == "auto":
            show(found)
        else:
            print(getattr(found, f"to_{output}")())
