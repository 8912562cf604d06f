"""``smoothcert merge``: the shards of a run joined to the whole run."""

from __future__ import annotations

import json
import shutil
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from smoothcert.cli import options
from smoothcert.cli.terminal import say

if TYPE_CHECKING:
    from smoothcert.runlog.merging import Part


def merge(
    runs: Annotated[
        list[str],
        typer.Argument(
            help="The directories of all shards, directories holding them, or glob patterns.",
            show_default=False,
        ),
    ],
    out: Annotated[
        Path,
        typer.Option(
            "--out", help="Directory of the whole runs, one below it for each sigma.", show_default=False
        ),
    ],
    quiet: options.Quiet = False,
    as_json: options.Json = False,
) -> None:
    """Join the shards of a run to the run that one process would have written. Needs no model and no torch.

    Every row is checked on the way. Shards of different runs, a shard that is missing or there twice and
    images that are not finished are refused by name; then nothing is written.

    [bold]Example[/]: smoothcert merge 'runs/cifar/shard-*-of-16' --out runs/cifar-whole
    """
    from smoothcert.runlog.merging import by_sigma, write_all
    from smoothcert.runlog.reading import run_directories

    found = by_sigma([directory for name in runs for directory in run_directories(name)], out)
    written = write_all(found)
    _keep_configuration(found, out)
    lines = [_line(place, found[place]) for place in written]
    if as_json:
        print(json.dumps(lines))
        return
    for line in lines:
        count = f"{line['shards']} shards" if line["shards"] > 1 else "a whole run already, copied"
        say(f"{line['run']}: {count}, {line['images']:,} images", quiet=quiet)
    if not quiet:
        _next_steps(out)


def _line(place: Path, parts: Sequence[Part]) -> dict[str, Any]:
    images = parts[0].specification.data.examples
    return {"run": str(place), "shards": len(parts), "images": images}


def _keep_configuration(found: dict[Path, list[Part]], out: Path) -> None:
    """The file that repeats all noise levels, where a shard has one that names these and no others."""
    from smoothcert.cli.settings import numbers
    from smoothcert.runlog.configuration import FILE, read_configuration

    levels = {parts[0].specification.noise.sigma for parts in found.values()}
    for part in next(iter(found.values())):
        written = part.directory.parent / FILE
        if written.is_file() and set(numbers("sigma", read_configuration(written).get("sigma", 0))) == levels:
            shutil.copyfile(written, out / FILE)
            return


def _next_steps(out: Path) -> None:
    """Commands that work as they are printed."""
    from smoothcert.runlog.configuration import FILE

    steps = [
        (f"smoothcert verify {out}", "recompute every claim from what is stored"),
        (f"smoothcert table {out}", "the table"),
    ]
    if (out / FILE).is_file():
        again = f"smoothcert certify --config {out / FILE} --out {out}"
        steps.append((again, "nothing is left to draw; tables and pictures"))
    say("\nWhat next:")
    for command, meaning in steps:
        say(f"  # {meaning}\n  {command}")
