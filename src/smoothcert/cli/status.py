"""``smoothcert status``: how far runs are, also while they go on."""

from __future__ import annotations

import json
from typing import Any

from smoothcert.cli import options


def status(
    runs: options.RunDirectories,
    as_json: options.Json = False,
) -> None:
    """Show images and draws done, speed, time left and accuracy so far of each run. Needs no torch.

    [bold]Example[/]: smoothcert status runs/digits
    """
    from smoothcert.runlog.reading import run_directories

    found = [_state(directory) for name in runs for directory in run_directories(name)]
    if as_json:
        print(json.dumps(found))
        return
    for run in found:
        state = "complete" if run["complete"] else "running" if run["running"] else "stopped"
        left = (
            ""
            if state == "complete" or not run["seconds_left"]
            else f", {run['seconds_left']:.0f} s of work for one worker left"
        )
        print(
            f"{run['run']}: {_shard(run)}{state}; "
            f"{run['images']} of {run['planned_images']} images, {run['draws']:,} of "
            f"{'at most ' if run['at_most'] else ''}{run['planned_draws']:,} draws, "
            f"{run['draws_per_second']:,.0f} draws/s a worker{left}; "
            f"{_share(run)}tallies {run['tallies'][:16]}"
        )


def _shard(run: dict[str, Any]) -> str:
    return f"shard {run['shard']}, " if run["shard"] else ""


def _share(run: dict[str, Any]) -> str:
    """Nothing of features that no head answers for."""
    if run["accuracy"] is None:
        return ""
    return f"correct and certified so far {run['accuracy']:.1%}; " if run["images"] else ""


def _state(directory: Any) -> dict[str, Any]:
    from smoothcert.runlog import open_run, results, tally_digest
    from smoothcert.runlog.lock import is_locked

    run = open_run(directory)
    draws, seconds = run.sums()
    rule, found = run.specification.rule, results(run)
    answers = rule.task != "encode" or run.specification.head is not None
    planned = found.planned or 0
    total = planned * sum(count for _, count in rule.stages)
    speed, images = draws / seconds if seconds else 0.0, len(found.outcomes)
    counted = rule.fixed or rule.rule.kind == "anytime"  # the draws that will be made are known
    done = draws == total if counted else images == planned
    each = sum(o.draws or 0 for o in found.outcomes) / max(1, images)
    left = total - draws if counted else each * (planned - images)
    return {
        "run": str(directory),
        "shard": found.shard,
        "images": images,
        "planned_images": planned,
        "draws": draws,
        "planned_draws": total,
        "at_most": not counted,
        "complete": done,
        "draws_per_second": speed,
        "seconds_left": left / speed if speed and images else None,
        "accuracy": sum(o.correct for o in found.outcomes) / max(1, images) if answers else None,
        "running": is_locked(directory),
        "tallies": tally_digest(run),
    }
