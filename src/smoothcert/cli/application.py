"""The typer application and its verbs."""

from __future__ import annotations

import typer

from smoothcert import __version__
from smoothcert.cli import (
    attack,
    certify,
    curve,
    export,
    grid,
    inspect,
    merge,
    predict,
    status,
    table,
    train,
    tune,
    verify,
)

app = typer.Typer(
    name="smoothcert",
    help="Provable L2 robustness for image classifiers you already have, by randomized smoothing behind a "
    "diffusion denoiser. Without arguments 'smoothcert certify' certifies handwritten digits, in a minute.",
    epilog="Exit codes: 0 done, 2 bad input, 3 unsound model, 4 unusable run file or checkpoint, 5 failed "
    "verification, 6 a certificate broken by an attack, 7 no usable worker in a cluster, "
    "130/143 interrupted (run the same command to continue).",
    no_args_is_help=True,
    add_completion=False,
    rich_markup_mode="rich",
    pretty_exceptions_enable=False,
)


@app.callback(invoke_without_command=True)
def _version(version: bool = typer.Option(False, "--version", help="Print the version and stop.")) -> None:
    if version:
        typer.echo(f"smoothcert {__version__}")
        raise typer.Exit


app.command("certify")(certify.certify)
app.command("predict")(predict.predict)
app.command("merge")(merge.merge)
app.command("tune")(tune.tune)
app.command("table")(table.table)
app.command("curve")(curve.curve)
app.command("grid")(grid.grid)
app.command("verify")(verify.verify)
app.command("attack")(attack.attack)
app.command("status")(status.status)
app.command("export")(export.export)
app.add_typer(train.app, name="train")
app.add_typer(inspect.app, name="models")
