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
        state = (
            "complete" if run["draws"] == run["planned_draws"] else "running" if run["running"] else "stopped"
        )
        left = (
            ""
            if state == "complete" or not run["seconds_left"]
            else f", {run['seconds_left']:.0f} s of work for one worker left"
        )
        print(
            f"{run['run']}: {state}; {run['images']} of {run['planned_images']} images, {run['draws']:,} of "
            f"{run['planned_draws']:,} draws, {run['draws_per_second']:,.0f} draws/s a worker{left}; "
            f"correct and certified so far {_share(run)}; tallies {run['tallies'][:16]}"
        )


def _share(run: dict[str, Any]) -> str:
    return f"{run['accuracy']:.1%}" if run["images"] else "-"


def _state(directory: Any) -> dict[str, Any]:
    from smoothcert.runlog import open_run, results, tally_digest
    from smoothcert.runlog.lock import is_locked

    run = open_run(directory)
    rows = [row for row, _ in run.tallies()]
    draws, seconds = sum(row.draws for row in rows), sum(row.seconds for row in rows)
    planned = run.specification.data.examples
    total = planned * sum(count for _, count in run.specification.rule.stages)
    found = results(run)
    speed = draws / seconds if seconds else 0.0
    return {
        "run": str(directory),
        "images": len(found.outcomes),
        "planned_images": planned,
        "draws": draws,
        "planned_draws": total,
        "draws_per_second": speed,
        "seconds_left": (total - draws) / speed if speed else None,
        "accuracy": sum(o.correct for o in found.outcomes) / max(1, len(found.outcomes)),
        "running": is_locked(directory),
        "tallies": tally_digest(run),
    }
