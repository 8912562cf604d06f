"""``smoothcert attack``: try to break the certificates of a run."""

from __future__ import annotations

import itertools
import json
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from smoothcert.cli import options
from smoothcert.cli.settings import numbers
from smoothcert.cli.terminal import say, show
from smoothcert.errors import CertificateBroken, InvalidInput

if TYPE_CHECKING:
    from smoothcert.attacks.record import Record

FILE = "attack.json"  # and attack-2.json, ... for the next ones


def attack(
    runs: options.RunDirectories,
    radius: Annotated[
        list[str] | None,
        typer.Option(
            "--radius",
            help="L2 distances the attacker may go: 0.25,0.5, or the option several times.",
            show_default="each certified radius; 0.25 and 0.5 for features",
        ),
    ] = None,
    images: Annotated[int, typer.Option("--images", help="Images attacked, spread over the run.")] = 20,
    steps: Annotated[int, typer.Option("--steps", help="Gradient steps.")] = 20,
    eot: Annotated[int, typer.Option("--eot", help="Noise draws that estimate each gradient.")] = 16,
    restarts: Annotated[int, typer.Option("--restarts", help="Starts; the best is kept.")] = 2,
    method: Annotated[
        str, typer.Option("--attack", help="pgd, or apgd: momentum, and steps that adapt.")
    ] = "pgd",
    target: Annotated[
        str,
        typer.Option(
            "--target",
            help="away: from the feature or label; label: from the head's answer; or the name of a class.",
        ),
    ] = "away",
    draws: Annotated[
        int, typer.Option("--draws", help="Fresh draws that judge each attacked image.")
    ] = 1_000,
    most: Annotated[
        int, typer.Option("--most", help="As many as this where a certificate looks broken.")
    ] = 16_000,
    seed: Annotated[int, typer.Option("--seed", help="Names the attacker's noise streams.")] = 0,
    data_dir: options.DataDirectory = None,
    device: options.Device = None,
    quiet: options.Quiet = False,
    as_json: options.Json = False,
) -> None:
    """Attack certified images with gradients through the noise, and compare with what the run certifies.

    Whether an attack succeeded is told by fresh noise that it never saw. An attack that fails proves nothing;
    the certificate does. One that succeeds inside the certified radius, with evidence that is false with
    probability 1e-6, breaks the certificate: then the exit status is 6. Writes attack.json into the run,
    or attack-2.json, ... where there is one.

    [bold]Example[/]: smoothcert attack runs/digits/sigma-0.5 --radius 0.5 --images 10
    """
    from smoothcert.attacks.search import Search
    from smoothcert.cli.attack_table import summary, table
    from smoothcert.cli.attacked import Attacked, records
    from smoothcert.runlog.reading import run_directories

    radii = tuple(number for text in radius or () for number in numbers("--radius", text))
    for number in radii:
        if not 0.0 < number < float("inf"):
            raise InvalidInput(
                f"--radius {number:g}", "an attacker needs a positive, finite distance", "Write --radius 0.25"
            )
    for name, value in (("images", images), ("draws", draws), ("most", most)):
        if value < 1:
            raise InvalidInput(f"--{name} {value}", "nothing could be said", f"Write --{name} 20 or more")
    search = Search(method=_method(method), steps=steps, eot=eot, restarts=restarts, seed=seed)
    said, broken = [], []
    for directory in [found for name in runs for found in run_directories(name)]:
        attacked = Attacked.open(directory, data_dir=data_dir, device=device)
        say(f"{directory}: {attacked.description}", quiet=quiet or as_json)
        found = _watched(
            records(
                attacked,
                radii,
                images,
                search,
                target=target,
                draws=draws,
                most=max(most, draws),
            ),
            quiet=quiet or as_json,
        )
        told = summary(attacked, found, search)
        written = _unused(directory)
        written.write_text(json.dumps(told, indent=1) + "\n", encoding="utf-8")
        say(f"wrote {written}", quiet=quiet or as_json)
        said.append(told)
        if not as_json:
            show(table(attacked, found))
        broken += [(str(directory), record) for record in found if record.broken]
    if as_json:
        print(json.dumps(said))
    if broken:
        raise _broken(broken)


def _unused(directory: Path) -> Path:
    """Where the attack is written: what an earlier one found stays."""
    path = directory / FILE
    return next(
        found
        for number in itertools.count(1)
        if not (found := path if number == 1 else path.with_stem(f"{path.stem}-{number}")).exists()
    )


def _method(name: str) -> Any:
    from smoothcert.attacks.search import METHODS
    from smoothcert.errors import UnknownName

    if name not in METHODS:
        raise UnknownName.among("attack", name, METHODS)
    return name


def _watched(work: Any, *, quiet: bool) -> list[Record]:
    """All records; one line on stderr for each as it comes."""
    found = []
    for record in work:
        found.append(record)
        if record.broken:
            claims = ", ".join(record.broken)
            say(f"BROKEN: image {record.example} at distance {record.distance:.4f}: {claims}")
        elif not quiet and len(found) % 10 == 0:
            say(f"{len(found)} attacks judged")
    return found


def _broken(broken: list[tuple[str, Record]]) -> CertificateBroken:
    shown = "; ".join(
        f"image {record.example} of {Path(run).name} at distance {record.distance:.4f} "
        f"({', '.join(record.broken)})"
        for run, record in broken[:5]
    )
    more = f" and {len(broken) - 5} more" if len(broken) > 5 else ""
    return CertificateBroken(
        f"{len(broken)} BROKEN CERTIFICATES: {shown}{more}",
        "fresh draws show that what was certified there is false; each finding is wrong with probability "
        "1e-6, while each certificate may be with its own alpha",
        f"Look at {FILE}: if chance does not explain the number, do not rely on this run, and report it",
    )
