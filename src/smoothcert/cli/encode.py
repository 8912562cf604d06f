"""``smoothcert certify --task encode``: features of an encoder, and the answers of a head on them."""

from __future__ import annotations

import json
from typing import Any

from smoothcert.cli.certify import carry_out
from smoothcert.cli.settings import Settings
from smoothcert.cli.terminal import say, show


def run(settings: Settings, *, dry_run: bool, quiet: bool, as_json: bool) -> None:
    """All noise levels of one command, then the tables and the pictures."""
    from smoothcert.cli.models import prepared_encodings

    data, jobs = prepared_encodings(settings, quiet=quiet or as_json)
    carry_out(settings, data, jobs, _report, dry_run=dry_run, quiet=quiet, as_json=as_json)


def _report(settings: Settings, found: list[Any], *, quiet: bool, as_json: bool) -> None:
    from smoothcert import analysis, report

    cosines = analysis.cosine_table(found)
    (settings.out / "cosines.md").write_text(cosines.to_markdown() + "\n", encoding="utf-8")
    table = analysis.certified_accuracy(found) if settings.head != "none" else None
    if table is not None:
        (settings.out / "table.md").write_text(table.to_markdown() + "\n", encoding="utf-8")
    if as_json:
        head = {"head": json.loads(table.to_json())} if table is not None else {}
        print(json.dumps(json.loads(cosines.to_json()) | head, indent=2))
    else:
        for shown in (cosines, table):
            if shown is not None:
                show(shown.table())
    pictures = report.cosine_curve(found, [settings.out / "cosine.png", settings.out / "cosine.svg"])
    pictures += report.length_histogram(found, settings.out / "length.png")
    if table is not None:
        pictures += report.curve(found, [settings.out / "curve.png", settings.out / "curve.svg"])
    if not (as_json or quiet):
        say(f"\nwrote {', '.join(str(path) for path in pictures)}")
        _next_steps(settings)


def _next_steps(settings: Settings) -> None:
    """Commands that work as they are printed, whatever this run was."""
    repeat = f"smoothcert certify --config {settings.out}/run.toml"
    steps = [(f"smoothcert verify {settings.out}", "recompute every claim from the stored scores")]
    if settings.head != "none" and settings.decision == "auto":
        votes = f"smoothcert table {settings.out} --decision votes"
        steps.append((votes, "the head's answer by votes alone"))
    steps += [
        (f"smoothcert attack {settings.out} --radius 0.25", "try to break the certificates"),
        (f"{repeat} --n {10 * settings.n} --out {settings.out}-more", "more draws, sharper bounds"),
    ]
    say("\nWhat next:")
    for command, meaning in steps:
        say(f"  # {meaning}\n  {command}")
