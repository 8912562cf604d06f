"""What a command says that certifies one shard of a run."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from smoothcert.cli.settings import Settings
from smoothcert.cli.terminal import say
from smoothcert.errors import SpecificationMismatch
from smoothcert.runlog.store import DATABASE, stored_specification


def check_beside(settings: Settings, jobs: list[Any]) -> None:
    """Refuse a shard that could never be merged with those begun beside it, before it costs anything.

    Raises:
        SpecificationMismatch: another machine, library or option made its specification another one.
    """
    for job in jobs:
        other = _beside(settings, job.directory)
        stored = stored_specification(other) if other else None
        if stored is not None and stored.identity() != job.specification.identity():
            lines = stored.difference(job.specification)
            raise SpecificationMismatch(
                f"shard {settings.shard} beside the shard in {other}",
                "would have another specification, and the two could never be merged:\n  "
                + "\n  ".join(lines),
                "\nRepeat the command of that shard on a machine of the same kind, or choose another --out",
            )


def report(settings: Settings, found: list[Any], *, quiet: bool, as_json: bool) -> None:
    """How much is done, and how the parts are joined: tables and pictures are for the whole run."""
    shard = settings.shard
    lines = [
        {
            "run": run.name,
            "shard": str(shard),
            "sigma": run.sigma,
            "images": len(run.outcomes),
            "planned_images": run.planned,
            "complete": run.complete,
        }
        for run in found
    ]
    if as_json:
        print(json.dumps(lines))
        return
    for line in lines:
        counts = f"{line['images']} of {line['planned_images']} images"
        say(f"shard {shard}, sigma {line['sigma']:g}: {counts} finished, in {line['run']}", quiet=quiet)
    merging = f"smoothcert merge {settings.shared}/{shard.pattern}"
    say(f"\nWhat next, when all {shard.count} shards are finished:", quiet=quiet)
    say(f"  # the whole run, its table and pictures\n  {merging} --out {settings.shared}-whole", quiet=quiet)


def _beside(settings: Settings, directory: Path) -> Path | None:
    """The run of another shard of the same cut at the same noise level, if one has begun."""
    for shard in sorted(settings.shared.glob(settings.shard.pattern)):
        other = shard / directory.name
        if shard != settings.out and (other / DATABASE).is_file():
            return other
    return None
